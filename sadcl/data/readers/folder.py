"""Your own images: a folder with a table of file names and label names.

The table is ``labels.csv``, ``labels.jsonl`` or ``labels.parquet`` with a column ``split`` (train or test), or two of them,
``train.*`` and ``test.*``. Columns ``file``, a path below the folder, and ``labels``, a list of names or one text with ``;``
between them. ``labels.txt``, where it is there, names the labels in their order, one a line, and another label is an error;
else they are those that occur, by alphabet. Which images test is never decided for you.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sadcl.config import Data
from sadcl.data.base import ImageSet
from sadcl.data.readers import files
from sadcl.errors import UserError

KINDS = (".csv", ".jsonl", ".parquet")
_NEED = "labels.csv, .jsonl or .parquet with a column 'split', or train.* and test.*, are needed"


def sources(root: Path, config: Data) -> list[Path]:
    """The tables, and the list of labels where there is one.

    Raises:
        UserError: where there is none, or more than one could be meant.
    """
    tables = {
        stem: [p for kind in KINDS if (p := root / f"{stem}{kind}").is_file()]
        for stem in ("labels", "train", "test")
    }
    found = [path.name for paths in tables.values() for path in paths]
    kinds = tuple(len(paths) for paths in tables.values())
    if kinds not in ((1, 0, 0), (0, 1, 1)):
        what = "in doubt" if max(kinds) > 1 or kinds[0] else "incomplete"
        raise UserError(
            f"The tables of {str(root)!r} are {what}: {_NEED}, found {', '.join(found) or 'none of them'}."
        )
    vocabulary = root / "labels.txt"
    return [root / name for name in found] + ([vocabulary] if vocabulary.is_file() else [])


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """The training and the test split, images in the order of the rows.

    Raises:
        UserError: naming file and row, for a label that is not known, a file that is listed twice, a value that is
            missing, or a table without test rows.
    """
    paths = sources(root, config)
    vocabulary = paths.pop() if paths[-1].name == "labels.txt" else None
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for path in paths:
        for place, row in _rows(path):
            file, part, labels = _checked(place, row, None if path.stem == "labels" else path.stem)
            if file in rows:
                raise UserError(
                    f"{place} has {file!r} a second time, first in {rows[file][0]}; remove one of the two rows."
                )
            rows[file] = (place, part, labels)
    if vocabulary is None:
        names = sorted({label for _, _, labels in rows.values() for label in labels})
    else:
        names = list(files.lines(vocabulary, "It names the labels, one a line."))
    column = {label: i for i, label in enumerate(names)}
    seen: dict[str, str] = {}
    for label in names:
        if (other := seen.setdefault(unicodedata.normalize("NFC", label), label)) != label:
            raise UserError(
                f"The labels {other!r} ({other!a}) and {label!r} ({label!a}) in {str(root)!r} look alike, written "
                "in other Unicode characters; write both in the same."
            )
    if not column:
        raise UserError(
            f"No row of {' and '.join(p.name for p in paths)} in {str(root)!r} has a label."
        )
    sets = []
    for part in ("train", "test"):
        images = [file for file, (_, of, _) in rows.items() if of == part]
        listed = paths[-1 if part == "test" else 0]
        if not images:
            raise UserError(
                f"{str(listed)!r} has no {part} rows: say which images {part}, in the column 'split'; {_NEED}."
            )
        targets = np.zeros((len(images), len(column)), dtype=np.int8)
        for row_L, file in zip(targets, images, strict=True):
            place, _, labels = rows[file]
            for label in labels:
                if label not in column:
                    near = difflib.get_close_matches(label, names, n=1, cutoff=0)
                    raise UserError(
                        f"{place} has the label {label!r}, which is not in labels.txt. Did you mean {near[0]!r}?"
                    )
                row_L[column[label]] = 1
        sets.append(
            ImageSet(
                f"folder-{part}",
                str(root),
                pa.array(images, pa.string()),
                targets,
                tuple(names),
                listed.name,
            )
        )
    return sets[0], sets[1]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place, for messages."""
    if path.suffix == ".csv":
        yield from files.table(path, {"file", "labels"}, _NEED)
        return
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                names = [
                    name for name in ("file", "labels", "split") if name in file.schema_arrow.names
                ]
                rows = file.read(names).to_pylist()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{str(path)!r} cannot be read as Parquet: {reason} It is damaged or cut short."
            ) from None
        for number, row in enumerate(rows, start=1):
            yield f"{str(path)!r} row {number}", row
        return
    for number, line in enumerate(files.rows(path, _NEED), start=1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{str(path)!r} line {number} is not valid JSON: {error}."
                ) from None
            yield f"{str(path)!r} line {number}", row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice among {', '.join(repr(key) for key, _ in pairs)}")
    return found


def _checked(place: str, row: Any, part: str | None) -> tuple[str, str, list[str]]:
    """File, split and labels of a row."""
    for key in ("file", "labels", *(["split"] if part is None else [])):
        if not isinstance(row, dict) or row.get(key) is None:
            found = ", ".join(map(repr, row)) if isinstance(row, dict) else repr(row)
            raise UserError(f"{place} has no {key!r}, found {found}; {_NEED}.")
    file, labels, of = row["file"], row["labels"], part or str(row["split"]).strip()
    if isinstance(labels, str):
        labels = [label for label in labels.split(";") if label.strip()]
    if not isinstance(labels, list) or not all(
        isinstance(label, str) and label.strip() for label in labels
    ):
        raise UserError(
            f"{place} has labels {labels!r}; a list of names, or one text with ';' between them, is needed."
        )
    name = posixpath.normpath(file.strip()) if isinstance(file, str) and file.strip() else "."
    if not files.inside(name):
        raise UserError(
            f"{place} has the file {file!r}; a path below the folder of the table is needed."
        )
    if of not in ("train", "test"):
        raise UserError(f"{place} has the split {of!r}; train or test is possible.")
    labels = [label.strip() for label in labels]
    for value in (name, *labels):
        if char := files.odd(value):
            raise UserError(f"{place} has the character {char} in {ascii(value)[:80]}; remove it.")
    return name, of, labels
