"""Whether the tables are what they should be: files, keys, duplicates, gaps, digests, figures."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import benchmarks, cache, files, schema, store
from sadcl.results.files import Files

STATUSES = ("running", *store.ENDED)
AGAIN = "Remove the run's rows (`sadcl studies delete`, or the file) and run the study again."
PHASES_ALONE = ("train", "stage1")
"""Of runs that need no study: single ones, and a stage 1 that others start from after its study was deleted."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and what to do."""

    file: str
    what: str
    do: str


@dataclass
class _Seen:
    """What was found so far, by key."""

    trials: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """The file and the row."""
    others: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Table, key, file."""
    epochs: dict[str, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """Key, stage, epochs."""


def verify(
    root: str, *, checkpoints: bool = False, progress: Callable[[str], cache.Progress] | None = None
) -> Iterator[Fault]:
    """Everything that is wrong with a store, as it is found; nothing where it is right.

    Args:
        checkpoints: read each checkpoint that lies on a local disk, and compare its digest with that of the row.
        progress: for a table, takes how many files were looked at, and of how many.

    Raises:
        UserError: for a root that is no store.
    """
    store.check_root(root)
    seen = _Seen()
    yield from _strangers(root)
    for table in schema.BY_RUN:
        found = files.look(root, table)
        sources = [(found.uri(one), ()) for one in found.single.values()] + [*found.merged.items()]
        for i, (uri, without) in enumerate(sources):
            try:
                rows = files.kept(files.read(uri, _wanted(table, uri)), without)
            except files.Vanished:
                continue  # replaced or merged meanwhile: whole then as now
            except UserError as error:
                yield Fault(
                    uri,
                    str(error).removeprefix(f"{uri!r} ").split(". Move it")[0],
                    "Move it away and run again.",
                )
                continue
            yield from _file(table, uri, found, rows, seen)
            if progress is not None:
                progress(table)(i + 1, len(sources))
    yield from _rows(root, seen)
    yield from _studies(root, seen)
    try:
        benchmarks.read_benchmarks(root)
    except UserError as error:
        yield Fault(
            files.folder(root, "benchmarks"), str(error).split(". Move it")[0], "Move it away."
        )
    if checkpoints:
        yield from _checkpoints(seen, progress)


def _wanted(table: str, uri: str) -> list[str] | None:
    """Columns to look at; of the trials all, of which some are metrics."""
    if table == "trials":
        return None
    return [*schema.KEYS[table], *(c for c in ("val_mAP", "loss") if table == "epochs")]


def _strangers(root: str) -> Iterator[Fault]:
    where = storage.join(root, files.FOLDER)
    marks = storage.sizes(where)
    for path in marks:
        table, _, file = path.partition("/")
        base = path.rsplit("/", 1)[-1]
        uri = storage.join(where, path)
        if base.endswith(".part"):
            yield Fault(
                uri,
                "was left by a writer that was killed",
                "Running the study again removes it; so may you.",
            )
        elif base == ".merging.lock" or base.startswith("."):
            continue
        elif table not in (*schema.BY_RUN, "benchmarks") or not base.endswith(".parquet"):
            yield Fault(uri, "is no file of the tables", "Move it away.")
        elif file.startswith(f"{files.MERGED}/"):
            whole = (
                file.endswith(files.INDEX) or path.removesuffix(".parquet") + files.INDEX in marks
            )
            if not whole:
                yield Fault(
                    uri,
                    "was left by a merging that was killed",
                    "`sadcl results compact` removes it.",
                )
            elif (
                file.endswith(files.INDEX)
                and path.removesuffix(files.INDEX) + ".parquet" not in marks
            ):
                yield Fault(uri, "is the index of a merged file that is not there", AGAIN)
        elif "/" in file:
            yield Fault(uri, "is no file of the tables", "Move it away.")


def _file(table: str, uri: str, found: Files, rows: pa.Table, seen: _Seen) -> Iterator[Fault]:
    keys = [name for name in schema.KEYS[table] if name not in rows.column_names]
    if keys:
        yield Fault(uri, f"has no column {', '.join(keys)}", "Move it away and run again.")
        return
    if rows["key"].null_count:
        yield Fault(uri, f"has {rows['key'].null_count} rows without a key", AGAIN)
        rows = rows.filter(pc.is_valid(rows["key"]))
    own = rows["key"].unique().to_pylist()
    if uri in found.merged:
        listed = set(files.index(uri)["key"].to_pylist()) - set(found.merged[uri])
        if listed != set(own):
            odd = sorted(listed ^ set(own))
            yield Fault(uri, f"and its index do not have the same keys, {odd[0]!r} for one", AGAIN)
    else:
        strange = [key for key in own if files.stem(key) != files.parse(uri.rsplit("/", 1)[-1])[0]]
        for key in strange:
            yield Fault(
                uri,
                f"has rows of another key, {key!r}",
                "Move it away: no run has written it there.",
            )
    parts = [pc.cast(rows[name], pa.string()) for name in schema.KEYS[table]]
    identity = (
        pc.binary_join_element_wise(*parts, pa.scalar("\0", pa.string()), null_handling="replace")
        if len(parts) > 1
        else parts[0]
    )
    if double := len(rows) - pc.count_distinct(identity, mode="all").as_py():
        yield Fault(
            uri, f"has {double} rows twice (the same {', '.join(schema.KEYS[table])})", AGAIN
        )
    if table == "trials":
        seen.trials |= {row["key"]: (uri, row) for row in rows.to_pylist()}
        return
    seen.others[table] |= dict.fromkeys(own, uri)
    if table == "epochs":
        for key, stage, epoch in zip(
            *(rows[name].to_pylist() for name in schema.KEYS[table]), strict=True
        ):
            seen.epochs[key][stage].append(epoch)
        for name in ("val_mAP", "loss"):
            if name in rows.column_names and (bad := rows.filter(_unreal(rows[name]))).num_rows:
                at = f"{bad['key'][0]} stage {bad['stage'][0]} epoch {bad['epoch'][0]}"
                yield Fault(
                    uri,
                    f"has {len(bad)} epochs whose {name} is no number, first {at}",
                    "That run's figures are in doubt.",
                )


def _unreal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(
        pc.invert(pc.is_finite(pc.cast(column, pa.float64()))), pa.scalar(False, pa.bool_())
    )


def _rows(root: str, seen: _Seen) -> Iterator[Fault]:
    for keys in seen.others.values():
        for key, uri in keys.items():
            if key not in seen.trials:
                what = f"has rows of {key!r}, which the table trials does not have: a removal was cut off"
                others = files.MERGED in uri.split("/")  # rows of other runs are in it too
                todo = (
                    f"sadcl.results.store.delete({root!r}, {key!r}) removes them."
                    if others
                    else "Remove the file."
                )
                yield Fault(uri, what, todo)
    for key, (uri, row) in seen.trials.items():
        if row.get("status") not in STATUSES:
            yield Fault(uri, f"{key!r} has the status {row.get('status')!r}", AGAIN)
        text = row.get("config")
        if text is not None and row.get("config_digest") != (now := _digest(text)):
            yield Fault(
                uri,
                f"{key!r} has config_digest {row.get('config_digest')!r}, but its config gives {now!r}",
                AGAIN,
            )
        metrics = {n: v for n, v in row.items() if n in ("val_mAP", "test_mAP") and v is not None}
        for name, value in metrics.items():
            if not math.isfinite(value) or not 0 <= value <= 100:
                yield Fault(
                    uri,
                    f"{key!r} has {name} = {value}",
                    "It counts nowhere; see the run's labels for the cause.",
                )
        if row.get("status") == "complete" and not metrics:
            yield Fault(uri, f"{key!r} is complete without val_mAP and test_mAP", AGAIN)
        start = row.get("stage1_key")
        if start is not None and start not in seen.trials:
            yield Fault(uri, f"{key!r} starts from the stage 1 {start!r}, which has no row", AGAIN)
        stages = seen.epochs.get(key, {})
        for stage, epochs in stages.items():
            if gaps := sorted(set(range(1, max(epochs) + 1)) - set(epochs)):
                where = seen.others["epochs"][key]
                yield Fault(
                    where, f"{key!r} lacks epoch {gaps[0]} of {max(epochs)} in stage {stage}", AGAIN
                )
        count = sum(map(len, stages.values()))
        if row.get("status") in store.ENDED and row.get("epochs_done") not in (None, count):
            yield Fault(
                uri,
                f"{key!r} has epochs_done = {row['epochs_done']}, but {count} rows of epochs",
                AGAIN,
            )


def _studies(root: str, seen: _Seen) -> Iterator[Fault]:
    known = set(store.described(root))
    for name in sorted(known):
        try:
            store.describe(root, name)
        except UserError as error:
            uri = storage.join(root, "studies", f"{name}.json")
            yield Fault(
                uri,
                str(error).removeprefix(f"{uri!r} ").split(". Move it")[0],
                "Move it away and run the study again.",
            )
    lost: dict[str, list[str]] = defaultdict(list)
    for key, (_, row) in seen.trials.items():
        if (
            row.get("study") is not None
            and row["study"] not in known
            and row.get("phase") not in PHASES_ALONE
        ):
            lost[row["study"]].append(key)
    for name, keys in lost.items():
        uri = storage.join(root, "studies", f"{name}.json")
        yield Fault(
            uri,
            f"is missing, but the study {name!r} has {len(keys)} rows",
            "Run the study again, or `sadcl studies delete`.",
        )


def _checkpoints(seen: _Seen, progress: Callable[[str], cache.Progress] | None) -> Iterator[Fault]:
    rows: list[Mapping[str, Any]] = [
        row for _, row in seen.trials.values() if row.get("checkpoint")
    ]
    for i, row in enumerate(rows):
        system, path = storage.resolve(row["checkpoint"])
        if not isinstance(system, fs.LocalFileSystem):
            continue
        try:
            with open(path, "rb") as file:
                now = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        except OSError:
            yield Fault(row["checkpoint"], f"is missing, but {row['key']!r} names it", AGAIN)
            continue
        if row.get("weights_digest") not in (None, now):
            what = f"has the digest {now}, but {row['key']!r} was recorded with {row['weights_digest']}"
            yield Fault(
                row["checkpoint"],
                what,
                "It is another file, or it is damaged: take it from a copy, or run again.",
            )
        if progress is not None:
            progress("checkpoints")(i + 1, len(rows))


def _digest(text: str) -> str | None:
    """What :meth:`sadcl.config.Config.digest` gives for a configuration's JSON."""
    try:
        return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()[
            :12
        ]
    except ValueError:
        return None
