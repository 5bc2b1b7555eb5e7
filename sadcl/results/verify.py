"""Find what is wrong with a store: files, keys, duplicates, gaps, digests and figures.

:func:`verify` looks at the names of the files, then at each file, then at the rows of all tables
together, then at the descriptions of the studies, and last, if asked to, at the checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sadcl import storage
from sadcl.results import benchmarks, cache, files, schema, store, table_file
from sadcl.results.checkpoints import checkpoint_uri
from sadcl.results.errors import BadFile, FileVanished
from sadcl.results.figure_faults import EPOCH_FIGURES, MEASURED_COLUMNS, Figures
from sadcl.results.file_faults import Fault, check_file_names
from sadcl.results.files import TableFiles
from sadcl.results.remedies import MOVE_AWAY, RESTORE, doubtful
from sadcl.results.status import ENDED, Status

STANDALONE_PHASES = ("train", "stage1")
"""Phases of runs that need no study's description.

They are single runs, and a stage 1 that outlives the study that trained it."""
assert schema.PHASES.keys() >= set(STANDALONE_PHASES)


@dataclass
class _Contents:
    """What the files hold, collected file by file.

    Attributes:
        trials: file and row of each trial, by key.
        other_files: the file with rows of a key in each other table, by table and key.
        epochs: the epochs of each stage, by key and stage.
        figures: what is not a finite number, and what could not be measured.
    """

    trials: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    other_files: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    epochs: dict[str, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    figures: Figures = field(default_factory=Figures)


def verify(
    root: str, *, checkpoints: bool = False, progress: Callable[[str], cache.Progress] | None = None
) -> Iterator[Fault]:
    """Yield everything that is wrong with a store, and notes on what only looks wrong.

    Args:
        root: of the store.
        checkpoints: read each checkpoint that is on a local disk, and compare its digest with that
            of the row.
        progress: takes a table's name, and returns what is called while its files are read.

    Raises:
        UserError: if the root is not a store.
    """
    store.check_store(root)
    contents = _Contents()
    yield from check_file_names(root)
    for table in schema.TRIAL_TABLES:
        yield from _check_table(root, table, contents, progress)
    yield from _check_orphans(root, contents)
    for key, (uri, row) in contents.trials.items():
        yield from _check_trial(root, uri, row, contents)
        yield from _check_epochs(root, key, row, contents)
    yield from contents.figures.check(contents.trials)
    yield from _check_studies(root, contents)
    try:
        benchmarks.read_benchmarks(root)
    except BadFile as error:
        yield Fault(error.uri, error.problem, error.remedy)
    if checkpoints:
        yield from _check_checkpoints(root, contents, progress)


def _check_table(
    root: str,
    table: str,
    contents: _Contents,
    progress: Callable[[str], cache.Progress] | None,
) -> Iterator[Fault]:
    """Read and check each file of a table."""
    listed = files.list_table(root, table)
    sources: list[tuple[str, Sequence[str]]] = [
        (listed.uri(run_file), ()) for run_file in listed.run_files.values()
    ]
    sources += listed.merged.items()
    # Of the trials all columns are needed, of the other tables the key, and a few figures.
    columns = None if table == "trials" else [*schema.KEYS[table]]
    if columns is not None and table == "epochs":
        columns += EPOCH_FIGURES
    if columns is not None and table == "labels":
        columns += [name for name in MEASURED_COLUMNS if name not in columns]
    for i, (uri, superseded) in enumerate(sources):
        try:
            rows = table_file.without_keys(table_file.read_file(uri, columns), superseded)
        except FileVanished:
            continue  # replaced or merged since it was listed
        except BadFile as error:
            yield Fault(uri, error.problem, error.remedy)
            continue
        yield from _check_rows(table, uri, listed, rows, contents)
        if progress is not None:
            progress(table)(i + 1, len(sources))


def _check_rows(
    table: str, uri: str, listed: TableFiles, rows: pa.Table, contents: _Contents
) -> Iterator[Fault]:
    """Check the rows of one file, and collect them."""
    missing = [name for name in schema.KEYS[table] if name not in rows.column_names]
    if missing:
        yield Fault(uri, f"has no column {', '.join(missing)}", RESTORE)
        return
    if rows["key"].null_count:
        yield Fault(uri, f"has {rows['key'].null_count} rows without a key", RESTORE)
        rows = rows.filter(pc.is_valid(rows["key"]))
    yield from _check_keys(uri, listed, rows["key"].unique().to_pylist())
    identity = [pc.cast(rows[name], pa.string()) for name in schema.KEYS[table]]
    if len(identity) > 1:
        separator = pa.scalar("\0", pa.string())
        identity = [pc.binary_join_element_wise(*identity, separator, null_handling="replace")]
    if duplicates := len(rows) - pc.count_distinct(identity[0], mode="all").as_py():
        yield Fault(
            uri,
            f"has {duplicates} duplicate rows (the same {', '.join(schema.KEYS[table])})",
            RESTORE,
        )
    if table == "trials":
        contents.trials |= {row["key"]: (uri, row) for row in rows.to_pylist()}
        return
    contents.other_files[table] |= dict.fromkeys(rows["key"].unique().to_pylist(), uri)
    if table == "epochs":
        for key, stage, epoch in zip(
            *(rows[name].to_pylist() for name in schema.KEYS[table]), strict=True
        ):
            contents.epochs[key][stage].append(epoch)
        contents.figures.add_epochs(uri, rows)
    if table == "labels":
        contents.figures.add_labels(rows)


def _check_keys(uri: str, listed: TableFiles, keys: list[str]) -> Iterator[Fault]:
    """Check that a file has rows of those keys alone that its name, or its index, says."""
    if uri in listed.merged:
        indexed = set(files.read_index(uri)["key"].to_pylist()) - set(listed.merged[uri])
        if different := sorted(indexed ^ set(keys)):
            yield Fault(
                uri, f"and its index do not have the same keys, e.g. {different[0]!r}", RESTORE
            )
        return
    stem, _ = files.split_file_name(uri.rsplit("/", 1)[-1])
    for key in keys:
        if files.file_stem(key) != stem:
            yield Fault(
                uri,
                f"has rows of another key, {key!r}",
                f"No run has written it there. {MOVE_AWAY}",
            )


def _check_orphans(root: str, contents: _Contents) -> Iterator[Fault]:
    """Find rows of other tables whose trial has no row."""
    for keys in contents.other_files.values():
        for key, uri in keys.items():
            if key in contents.trials:
                continue
            folders = {files.MERGED_FOLDER, files.OLD_MERGED_FOLDER}
            is_shared = bool(folders & set(uri.split("/")[-3:]))  # it has rows of other runs too
            yield Fault(
                uri,
                f"has rows of {key!r}, which has no row in the table trials: a deletion was "
                "interrupted",
                f"sadcl.results.store.delete({root!r}, {key!r}) deletes them."
                if is_shared
                else "Delete the file.",
            )


def _check_trial(
    root: str, uri: str, row: Mapping[str, Any], contents: _Contents
) -> Iterator[Fault]:
    """Check one row of the trials table: status, digest, that it has figures, and stage 1."""
    key, status = row["key"], row.get("status")
    if status not in tuple(Status):
        yield Fault(
            uri,
            f"gives {key!r} the unknown status {status!r}",
            doubtful(root, key, "Whether it has ended is"),
        )
    config = row.get("config")
    if config is not None and row.get("config_digest") != (digest := _config_digest(config)):
        yield Fault(
            uri,
            f"gives {key!r} the config_digest {row.get('config_digest')!r}, but its config has "
            f"{digest!r}",
            doubtful(root, key, "Its setting is"),
        )
    has_figures = any(row.get(name) is not None for name in ("val_mAP", "test_mAP"))
    if status == Status.COMPLETE and not has_figures and _is_measured(row, contents):
        yield Fault(
            uri,
            f"says that {key!r} is complete, but without val_mAP and test_mAP",
            doubtful(root, key, "That it is complete is"),
        )
    stage1 = row.get("stage1_key")
    if stage1 is not None and stage1 not in contents.trials:
        yield Fault(
            uri,
            f"says that {key!r} starts from the stage 1 {stage1!r}, which has no row",
            "The figures of this run stay valid. The command of its study trains that stage 1 "
            "again where runs that are still to come need it.",
        )


def _is_measured(row: Mapping[str, Any], contents: _Contents) -> bool:
    """Return whether a complete run has to have figures.

    A run that trains on all images has none on held-out ones. It has some on the test images only
    if its phase evaluates them (a stage 1 does not) and their labels are public.
    """
    holdout = row.get("data_holdout")
    if holdout is None and row.get("config"):  # of a version without the column
        with contextlib.suppress(ValueError, AttributeError):
            holdout = json.loads(row["config"]).get("data", {}).get("holdout")
    if holdout is None:
        return row.get("phase") != "stage1"
    return holdout > 0 or row["key"] in contents.other_files["labels"]


def _check_epochs(
    root: str, key: str, row: Mapping[str, Any], contents: _Contents
) -> Iterator[Fault]:
    """Check that a trial has all its epochs."""
    stages = contents.epochs.get(key, {})
    for stage, epochs in stages.items():
        if gaps := sorted(set(range(1, max(epochs) + 1)) - set(epochs)):
            yield Fault(
                contents.other_files["epochs"][key],
                f"lacks epoch {gaps[0]} of {max(epochs)} in stage {stage} of {key!r}",
                doubtful(root, key, "Its curve is"),
            )
    count = sum(map(len, stages.values()))
    if row.get("status") in ENDED and row.get("epochs_done") not in (None, count):
        yield Fault(
            contents.trials[key][0],
            f"gives {key!r} epochs_done = {row['epochs_done']}, but the table epochs has {count} "
            "rows of it",
            doubtful(root, key, "Its curve is"),
        )


def _check_studies(root: str, contents: _Contents) -> Iterator[Fault]:
    """Check that each study that needs a description has a readable one."""
    recorded = set(store.recorded_studies(root))
    for name in sorted(recorded):
        try:
            store.study_record(root, name)
        except BadFile as error:
            yield Fault(error.uri, error.problem, error.remedy)
    without_record: dict[str, int] = defaultdict(int)
    for _, row in contents.trials.values():
        study = row.get("study")
        standalone = row.get("phase") in STANDALONE_PHASES
        if study is not None and study not in recorded and not standalone:
            without_record[study] += 1
    for name, count in without_record.items():
        yield Fault(
            storage.join(root, "studies", f"{name}.json"),
            f"is missing, but the study {name!r} has {count} rows",
            "Run the command of the study again, which writes it; no row is lost by that.",
        )


def _check_checkpoints(
    root: str, contents: _Contents, progress: Callable[[str], cache.Progress] | None
) -> Iterator[Fault]:
    """Compare each local checkpoint with its recorded digest; object stores are skipped."""
    uris = [(row, checkpoint_uri(root, row)) for _, row in contents.trials.values()]
    rows = [(row, uri) for row, uri in uris if uri is not None]
    for i, (row, uri) in enumerate(rows):
        system, path = storage.resolve(uri)
        if not isinstance(system, fs.LocalFileSystem):
            continue
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        except OSError:
            yield Fault(
                uri,
                f"is missing, but {row['key']!r} names it",
                "Copy it from where the storage was copied from; the figures stay valid "
                "without it.",
            )
            continue
        if row.get("weights_digest") not in (None, digest):
            yield Fault(
                uri,
                f"has the digest {digest}, but {row['key']!r} was recorded with "
                f"{row['weights_digest']}",
                "It is another file, or it is damaged: take it from a copy of the storage. The "
                "figures are of the former one and stay valid.",
            )
        if progress is not None:
            progress("checkpoints")(i + 1, len(rows))


def _config_digest(text: str) -> str | None:
    """Return what :meth:`sadcl.config.Config.digest` gives for a configuration's JSON.

    None if it is not JSON.
    """
    try:
        tree = json.loads(text)
    except ValueError:
        return None
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
