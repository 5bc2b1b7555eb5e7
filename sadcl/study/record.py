"""A study on disk: its identity, its rows, its lock, its checkpoints, and its removal."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.console import print_text
from sadcl.errors import UserError
from sadcl.results import checkpoints, provenance, published_tables, store
from sadcl.results.status import Status
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan
from sadcl.search.study_file import with_current_space
from sadcl.search.trial import Phase
from sadcl.study import study_differences

PlanT = TypeVar("PlanT", bound=Plan | AblationPlan)


class StudyRecord(Generic[PlanT]):
    """A study in a storage, together with its plan.

    Its rows are read once and kept. Trials change them while they run, so whoever has waited for
    trials calls :meth:`refresh`.

    Args:
        root: the storage root.
        plan: the plan of the study.
    """

    def __init__(self, root: str, plan: PlanT) -> None:
        self.root = root
        self.plan = plan
        self.name = plan.study
        self._rows: list[dict[str, Any]] | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The study's rows of the trials table, and each stage 1 that its trials start from.

        Another study may have run that stage 1.
        """
        if self._rows is None:
            self._rows = self._read_rows()
        return self._rows

    @property
    def study_rows(self) -> list[dict[str, Any]]:
        """The rows that belong to the study itself."""
        return [row for row in self.rows if row["study"] == self.name]

    def refresh(self) -> list[dict[str, Any]]:
        """Read the rows again, and return them."""
        self._rows = None
        return self.rows

    def _read_rows(self) -> list[dict[str, Any]]:
        if not store.is_store(self.root):
            return []
        trials = store.read(self.root, "trials")
        in_study = pc.equal(trials["study"], self.name).fill_null(False)
        rows = trials.filter(in_study).to_pylist()
        starts = {row["stage1_key"] for row in rows}
        starts |= {trial.key for trial in self.plan.planned_trials(rows)}
        is_start = pc.is_in(trials["key"], value_set=pa.array(list(starts), pa.string()))
        return rows + trials.filter(pc.and_not(is_start, in_study)).to_pylist()

    def rows_with_admitted(self) -> list[dict[str, Any]]:
        """Return the rows as a summary needs them.

        Each has ``admitted``, the bank rows per label in its last epoch, and its ``checkpoint`` is
        a URI.
        """
        columns = ["key", "stage", "epoch", "admitted"]
        epochs = store.read(self.root, "epochs", columns, keys=[row["key"] for row in self.rows])
        epochs = epochs.sort_by([("stage", "ascending"), ("epoch", "ascending")])
        last = {epoch["key"]: epoch["admitted"] for epoch in epochs.to_pylist()}
        return [
            {
                **row,
                "admitted": last.get(row["key"]),
                "checkpoint": checkpoints.checkpoint_uri(self.root, row),
            }
            for row in self.rows
        ]

    def check_same(self) -> None:
        """Check that the study on disk is this one; it is if there is none yet.

        Raises:
            UserError: for another study of the same name, with the differences.
        """
        self._identities()

    def claim(self) -> None:
        """Write the study's file, unless it holds the same already.

        Raises:
            UserError: for another study of the same name, with the differences.
        """
        storage.sweep(storage.join(self.root, "studies"), f"{self.name}.json")
        stored, identity = self._identities()
        content = {**identity, **_as_json(self.plan.description())}
        content |= _former_bounds(stored, content)
        if file := provenance.experiment_file() or stored.get("file"):
            content["file"] = file
        if content != stored:
            storage.write(
                storage.join(self.root, "studies", f"{self.name}.json"),
                json.dumps(content, indent=1).encode(),
            )

    def _identities(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the content of the study's file, and the identity to write.

        The identity includes all arms and data sets that the file has already.
        """
        identity = _as_json(self.plan.identity())
        stored = store.study_record(self.root, self.name)
        if stored:
            comparable = stored
            if isinstance(self.plan, Plan):
                space = self.plan.search.space_at(self.plan.scale)
                comparable = with_current_space(stored, space, identity["space"])
            if found := list(study_differences.differences(comparable, identity)):
                raise UserError(
                    study_differences.another_study(self.plan, self.root, self.study_rows, found)
                )
            for part in study_differences.GROWING:
                if part in identity:
                    identity[part] = {**stored.get(part, {}), **identity[part]}
        return stored, identity

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep a second driver from the study while the block runs, as :func:`locked` does."""
        return locked(self.root, self.name)

    def freeable_bytes(self) -> list[int]:
        """Return the bytes of the checkpoints that are removed with the study, by run."""
        return StoredStudy(self.root, self.name).freeable_bytes()

    def remove(self) -> None:
        """Remove the study, as :meth:`StoredStudy.remove` does."""
        StoredStudy(self.root, self.name).remove()
        self._rows = None


def _former_bounds(stored: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds by which seeds were added before, if the first or the last look moved.

    Each set of bounds has an error rate of its own, which a report has to say.
    """
    former = list(stored.get("former_until", ()))
    before, now = (part.get("until") for part in (stored, content))
    looks = [bounds and (bounds["at_least"], bounds["at_most"]) for bounds in (before, now)]
    if before and looks[0] != looks[1]:
        former.append(before)
    return {"former_until": former} if former else {}


def _as_json(value: Any) -> Any:
    """Return a value as it is after it was stored: lists for tuples, text for keys."""
    return json.loads(json.dumps(value))


class StoredStudy:
    """A study in a storage by its name alone, for commands that have no plan of it.

    Its rows are read once, when they are first needed, and kept.

    Args:
        root: the storage root.
        name: the name of the study.
    """

    def __init__(self, root: str, name: str) -> None:
        self.root = root
        self.name = name
        self._rows: list[dict[str, Any]] | None = None

    def refresh(self) -> list[dict[str, Any]]:
        """Read the trials table again, and return all of its rows."""
        self._rows = all_rows(self.root)
        return self._rows

    def split_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the study's rows in two parts.

        Returns:
            The rows that are removed with the study, and each stage 1 that other studies start
            from, which stays.
        """
        rows = self._rows if self._rows is not None else self.refresh()
        shared = {row["stage1_key"] for row in rows if row["study"] != self.name}
        study_rows = [row for row in rows if row["study"] == self.name]
        return (
            [row for row in study_rows if row["key"] not in shared],
            [row for row in study_rows if row["key"] in shared],
        )

    def freeable_bytes(self) -> list[int]:
        """Return the bytes of the checkpoints that are removed with the study, by run."""
        sizes = checkpoint_bytes(self.root)
        return [sizes[row["key"]] for row in self.split_rows()[0] if sizes[row["key"]]]

    def remove(self) -> None:
        """Remove the study's rows, checkpoints and journal.

        A stage 1 that other studies start from stays.
        """
        rows = self.split_rows()[0]
        for row in rows:
            kind = "stage1" if row["phase"] == Phase.STAGE1 else "checkpoints"
            folder = storage.join(self.root, kind, row["key"])
            if storage.exists(folder):
                # If the removal is interrupted, no row may point to a checkpoint that is gone.
                cause = "it was being removed"
                store.amend(
                    self.root, row["key"], status=Status.FAILED, cause=cause, checkpoint=None
                )
                storage.delete(folder)
        store.delete(self.root, *(row["key"] for row in rows))
        for file in (
            ("studies", f"{self.name}.json"),
            ("optuna", f"{self.name}.journal"),
            ("tensorboard", self.name),
        ):
            storage.delete(storage.join(self.root, *file))
        self._rows = None
        # The study is gone by now, even if another study's damaged file prevents publishing.
        with contextlib.suppress(OSError, UserError):
            if store.is_store(self.root):
                published_tables.publish(self.root)

    @contextlib.contextmanager
    def locked_with_runs(self) -> Iterator[None]:
        """Keep drivers from the study, and from each single run of it, while the block runs.

        The rows are read again once all locks are held.

        Raises:
            UserError: if a driver is at work on one of them.
        """
        with contextlib.ExitStack() as locks:
            locks.enter_context(locked(self.root, self.name))
            for row in all_rows(self.root):
                if (row["study"], row["phase"]) == (self.name, Phase.TRAIN):
                    locks.enter_context(locked(self.root, row["key"]))
            self.refresh()
            yield


@contextlib.contextmanager
def locked(root: str, name: str) -> Iterator[None]:
    """Keep a second driver from a study, or from a single run, while the block runs.

    On an object store this does nothing, because object stores have no locks.

    Args:
        root: the storage root.
        name: the name of the study, or the key of the run.

    Raises:
        UserError: if another driver is at work on it.
    """
    with storage.exclusive(_lock(root, name), wait=False) as alone:
        if not alone:
            raise UserError(_held_text(root, name))
        yield


def check_unlocked(root: str, name: str, *, dry_run: bool = False) -> None:
    """Look whether another driver is at work, before minutes are spent on a plan.

    Args:
        root: the storage root.
        name: the name of the study, or the key of the run.
        dry_run: only print that one is.

    Raises:
        UserError: if one is, and this is no dry run.
    """
    if not storage.is_locked(_lock(root, name)):
        return
    if not dry_run:
        raise UserError(_held_text(root, name))
    print_text(f"note: {_held_text(root, name)}")


def _lock(root: str, name: str) -> str:
    return storage.join(root, "studies", f".{name}.lock")


def _held_text(root: str, name: str) -> str:
    return (
        f"Another process is at work on the study {name!r} in {root!r}. Wait for it, or stop it "
        "first; two would train the same trials."
    )


def all_rows(root: str) -> list[dict[str, Any]]:
    """Return the trials table; no rows if there is no store yet."""
    if not store.is_store(root):
        return []
    return store.read(root, "trials").to_pylist()


def study_names(root: str) -> list[str]:
    """Return the names of the studies that have rows or a file."""
    with_rows = {row["study"] for row in all_rows(root) if row["study"] is not None}
    return sorted({*store.recorded_studies(root), *with_rows})


def checkpoint_bytes(root: str) -> Counter[str]:
    """Return the bytes of the checkpoints by the key of the run, and of all under ``"."``."""
    total: Counter[str] = Counter()
    for kind in checkpoints.FOLDERS:
        for path, size in storage.sizes(storage.join(root, kind)).items():
            total.update({str(folder): size for folder in PurePosixPath(path).parents})
    return total
