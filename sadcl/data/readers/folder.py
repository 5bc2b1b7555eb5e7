"""A folder of your own images with a table of their labels.

Files below the data root:

- ``labels.csv``, ``labels.jsonl`` or ``labels.parquet`` with a column ``split`` (train or test), or
  two tables ``train.*`` and ``test.*`` without it. Which images test is never decided for you. The
  column ``file`` is a path below the folder; ``labels`` is a list of names, or one text with ``;``
  between them.
- ``labels.txt``, optional: the labels in their order, one a line; another label in a table is an
  error. Without it the labels are those that occur, in alphabetical order.

There is no policy field.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sadcl.config import Data
from sadcl.data.bad_rows import RowProblems
from sadcl.data.base import ImageSet
from sadcl.data.readers import files, sources
from sadcl.errors import UserError

KINDS = (".csv", ".jsonl", ".parquet")
_NEED = "labels.csv, .jsonl or .parquet with a column 'split', or train.* and test.*, are needed"


_JOIN = (
    "'cat;dog'. sadcl data convert {table!r} -o DIR joins them, or pandas: "
    "table.groupby(['file', 'split'], as_index=False)['labels'].agg(';'.join)"
)
"""How to make one row of several that have one label each."""


class _Row(NamedTuple):
    """A checked row of a table, without its file name."""

    position: str
    """File and line, for messages."""
    part: str
    """``train`` or ``test``."""
    labels: list[str]


def check_root(root: Path, config: Data) -> None:
    """Raise UserError unless there are tables, and only one way to take them."""
    _tables(root)


def _tables(root: Path) -> list[Path]:
    """Return the tables, and the list of labels if there is one.

    Raises:
        UserError: if there is no table, or more than one could be meant.
    """
    tables = {
        stem: [p for kind in KINDS if sources.is_file(p := root / f"{stem}{kind}")]
        for stem in ("labels", "train", "test")
    }
    names = [path.name for paths in tables.values() for path in paths]
    counts = tuple(len(paths) for paths in tables.values())
    if counts not in ((1, 0, 0), (0, 1, 1)):
        what = "ambiguous" if max(counts) > 1 or counts[0] else "incomplete"
        convert = "" if names else f" {files.convert_hint(root)}"
        raise UserError(
            f"The tables of {str(root)!r} are {what}: {_NEED}, found "
            f"{', '.join(names) or 'none of them'}.{convert}"
        )
    vocabulary = root / "labels.txt"
    return [root / name for name in names] + ([vocabulary] if sources.is_file(vocabulary) else [])


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test split, images in the order of the rows.

    Raises:
        BadRows: with file and row, for labels that are not listed, files that are listed twice and
            values that are missing or not possible.
        UserError: for a table without test rows, or one that cannot be read.
    """
    paths = _tables(root)
    vocabulary = paths.pop() if paths[-1].name == "labels.txt" else None
    listed = None
    if vocabulary is not None:
        listed = list(files.read_entries(vocabulary, "It names the labels, one a line."))
    problems = RowProblems()
    rows: dict[str, _Row] = {}
    for path in paths:
        part = None if path.stem == "labels" else path.stem
        needed = {"file", "labels", *(["split"] if part is None else [])}
        for position, values in _rows(path, problems.add):
            try:
                file, row = _checked_row(position, values, part)
                _check_is_new(file, row, rows, path)
                _check_is_listed(row, listed)
            except UserError as error:
                if path.suffix != ".jsonl" and not needed <= values.keys():
                    raise  # a column is missing, which is no mistake of a row
                problems.add(error)
            else:
                rows[file] = row
    try:
        splits = _splits(root, rows, listed, paths)
    except UserError:
        problems.check(root, None)
        raise
    problems.check(root, splits)
    return splits


def _check_is_new(file: str, row: _Row, rows: Mapping[str, _Row], table: Path) -> None:
    if file in rows:
        others = rows[file].labels != row.labels
        join = _JOIN.format(table=str(table))
        raise UserError(
            f"{row.position} has {files.shown(file)} a second time, first in "
            f"{rows[file].position}; remove one of the two rows"
            + (f", or give all labels of an image in one: {join}." if others else ".")
        )


def _check_is_listed(row: _Row, listed: Collection[str] | None) -> None:
    for label in row.labels:
        if listed is not None and label not in listed:
            near = difflib.get_close_matches(label, listed, n=1, cutoff=0)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"{row.position} has the label {files.shown(label)}, which is not in labels.txt."
                f"{hint}"
            )


def _splits(
    root: Path, rows: dict[str, _Row], listed: Sequence[str] | None, paths: Sequence[Path]
) -> tuple[ImageSet, ImageSet]:
    """Return both splits of the rows, with the listed labels or those that occur."""
    labels = listed
    if labels is None:
        labels = sorted({label for row in rows.values() for label in row.labels})
    _check_labels(labels, root, paths)
    train = _image_set(root, "train", rows, labels, paths[0])
    return train, _image_set(root, "test", rows, labels, paths[-1])


def _check_labels(labels: Sequence[str], root: Path, paths: Sequence[Path]) -> None:
    """Raise UserError if there are no labels, or two that differ in Unicode form only."""
    by_normal_form: dict[str, str] = {}
    for label in labels:
        other = by_normal_form.setdefault(unicodedata.normalize("NFC", label), label)
        if other != label:
            raise UserError(
                f"The labels {other!r} ({other!a}) and {label!r} ({label!a}) in {str(root)!r} look "
                "alike, written in other Unicode characters; write both in the same."
            )
    if not labels:
        tables = " and ".join(path.name for path in paths)
        raise UserError(f"No row of {tables} in {str(root)!r} has a label.")


def _image_set(
    root: Path, part: str, rows: dict[str, _Row], labels: Sequence[str], table: Path
) -> ImageSet:
    images = [file for file, row in rows.items() if row.part == part]
    if not images:
        raise UserError(
            f"{str(table)!r} has no {part} rows: say which images {part}, in the column 'split'; "
            f"{_NEED}."
        )
    column = {label: i for i, label in enumerate(labels)}
    targets = np.zeros((len(images), len(column)), dtype=np.int8)
    for row_L, file in zip(targets, images, strict=True):
        row_L[[column[label] for label in rows[file].labels]] = 1
    array = pa.array(images, pa.string())
    return ImageSet(f"folder-{part}", str(root), array, targets, tuple(labels), table.name)


def _rows(path: Path, bad_row: Callable[[UserError], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a table as a mapping, with its position for messages.

    Args:
        path: of the table.
        bad_row: takes the error of a row that cannot be read.
    """
    if path.suffix == ".csv":
        yield from files.read_csv(path, {"file", "labels"}, _csv_hint(path), bad_row)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        yield from _json_rows(path, bad_row)


def _csv_hint(path: Path) -> str:
    return (
        "Commas are needed between the columns file, labels and split. sadcl data convert "
        f"{shlex.quote(str(path))} -o DIR also reads semicolons and tabs, other names of columns, "
        "and a column of 0 and 1 for each label."
    )


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(sources.local(path), page_checksum_verification=True) as file:
            columns = file.schema_arrow.names
            rows = file.read([n for n in ("file", "labels", "split") if n in columns]).to_pylist()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{str(path)!r} cannot be read as Parquet: {reason} It is damaged or cut short."
        ) from None
    for number, row in enumerate(rows, start=1):
        yield f"{str(path)!r} row {number}", row


def _json_rows(
    path: Path, bad_row: Callable[[UserError], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(files.read_lines(path, _NEED), start=1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_without_duplicates)
            except (ValueError, RecursionError) as error:
                text = (
                    f"{str(path)!r} line {number} is not valid JSON: {error}. One object a line is "
                    "needed (pandas: to_json(..., orient='records', lines=True))."
                )
                bad_row(UserError(text))
                continue
            yield f"{str(path)!r} line {number}", row


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) < len(pairs):
        raise ValueError(f"a key occurs twice among {', '.join(repr(key) for key, _ in pairs)}")
    return item


def _checked_row(position: str, row: Any, part: str | None) -> tuple[str, _Row]:
    """Return file name and values of a row.

    Args:
        position: file and line, for messages.
        row: as read; anything is possible.
        part: the split that the table is about; None if its column ``split`` says it.
    """
    for key in ("file", "labels", *(["split"] if part is None else [])):
        if not isinstance(row, dict) or row.get(key) is None:
            if isinstance(row, list):
                raise UserError(
                    f"{position} is a list of {len(row):,} items; one object a line is needed "
                    "(pandas: to_json(..., orient='records', lines=True))."
                )
            if isinstance(row, dict) and key in row:
                none = "; an image without labels has [] or an empty text" * (key == "labels")
                raise UserError(f"{position} has no value for {key!r} (null){none}.")
            content = ", ".join(map(repr, row)) if isinstance(row, dict) else repr(row)
            more = "..." if len(content) > 120 else ""
            raise UserError(f"{position} has no {key!r}, found {content[:120]}{more}; {_NEED}.")
    file, labels, part = row["file"], row["labels"], part or str(row["split"]).strip()
    if isinstance(labels, str):
        labels = [label for label in labels.split(";") if label.strip()]
    if not isinstance(labels, list) or not all(
        isinstance(label, str) and label.strip() for label in labels
    ):
        raise UserError(
            f"{position} has labels {files.shown(labels)}; a list of names, or one text with ';' "
            "between them, is needed."
        )
    path = files.with_slashes(file.strip()) if isinstance(file, str) else ""
    name = posixpath.normpath(path)  # of an empty text it is "."
    if not files.is_inside(name):
        raise UserError(
            f"{position} has the file {files.shown(file)}; a path below the folder of the table "
            "is needed (sadcl data convert finds images by paths of another place)."
        )
    if part not in ("train", "test"):
        raise UserError(
            f"{position} has the split {files.shown(part)}; train or test is possible. The part "
            "that selects is held out of train (data.holdout), and sadcl data convert makes train "
            "or test of val."
        )
    labels = [label.strip() for label in labels]
    for value in (name, *labels):
        if char := files.bad_character(value):
            raise UserError(
                f"{position} has the character {char} in {ascii(value)[:80]}; remove it."
            )
    return name, _Row(position, part, labels)
