"""Tables of images and labels: CSV, TSV and JSON lines, in the forms that people have them.

- A column of labels: one name, several with ``;`` or ``|`` between them, or a list; an image may
  have a row for each of its labels. Where a column ``confidence`` is 0, as in OpenImages, people
  have verified that the label is absent.
- A column for each label with 0 and 1 (multi-hot), as Roboflow's ``_classes.csv`` and Kaggle have.
- ``metadata.csv`` or ``metadata.jsonl`` of Hugging Face's image folders, also with objects.

A column ``split``, or else the name of a folder, says the split.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sadcl.data.convert.source import Item, Source, head_of, split_of
from sadcl.data.readers import files
from sadcl.errors import UserError

_FILE = (
    *("file_name", "filename", "file", "filepath", "file_path", "path", "image_path", "image"),
    *("image_name", "image_id", "imageid", "image index", "img", "img_name", "photo", "id"),
)
"""Names of a column of images, the surest first."""
_LABELS = (
    *("labels", "label", "label_name", "labelname", "tags", "tag", "classes", "class", "category"),
    *("categories", "class_name", "finding labels", "objects", "target"),
)
"""Names of a column of labels."""
_SPLIT = ("split", "set", "subset", "partition", "split_name", "usage", "phase")
_SHOWN = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "y", "x"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "n", ""), False),
}
_UNKNOWN = ("-1", "-1.0", "nan", "none")
_HINT = "It is to be a table of images and labels."
Row = dict[str, Any]


def find_metadata(source: Source) -> list[Path]:
    """Return the tables of Hugging Face's image folders."""
    return [path for path in source.with_suffix(".csv", ".jsonl") if path.stem == "metadata"]


def find(source: Source) -> list[Path]:
    """Return the tables that have a column of images and another one."""
    tables = source.with_suffix(".csv", ".tsv", ".jsonl")
    return [path for path in tables if path.stem != "metadata" and _looks_right(path)]


def _looks_right(path: Path) -> bool:
    line = head_of(path).partition("\n")[0]
    try:
        names = list(json.loads(line)) if path.suffix == ".jsonl" else re.split("[,;\t]", line)
    except (ValueError, TypeError, RecursionError):
        return False
    clean = [str(name).strip().strip('"').lower() for name in names]
    return len(clean) > 1 and any(name in clean for name in _FILE)


class _Columns(NamedTuple):
    """Which columns of a table are used, by their names; None for those that it lacks."""

    file: Any
    split: Any
    labels: Any
    confidence: Any
    multi_hot: list[Any]
    """A column for each label, if there is no column of labels."""


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield an image for each row; those of one image are joined."""
    for path in paths:
        rows = list(_rows(path))
        if not rows:
            source.remark("tables without a row", source.shown(path))
            continue
        columns = _columns(source, path, rows)
        source.add_labels(map(str, columns.multi_hot))
        below = source.place_of(path)
        for row in rows:
            name = row.get(columns.file)
            if name is None:
                source.remark("rows without an image", f"{source.shown(path)}: {row}")
            elif columns.confidence is not None and _is_zero(row.get(columns.confidence)):
                what = "rows of confidence 0, whose labels are absent, left out"
                source.remark(what, f"{name}: {row.get(columns.labels)}")
            else:
                split = _split(source, path, row, columns)
                labels = (
                    _shown(source, row, columns)
                    if columns.labels is None
                    else list(_names(row.get(columns.labels), source.between))
                )
                item = source.item(str(name), labels, split, below)
                if item is None:
                    continue
                if columns.split is None and not split:  # the name is listed without its folder
                    item = item._replace(split=source.split_of(item.image))
                yield item


def _columns(source: Source, path: Path, rows: Sequence[Row]) -> _Columns:
    """Return the columns of a table, which are those of all rows: JSON lines may lack some.

    Raises:
        UserError: if there is no column of images or none of labels.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    by_name = {str(name).strip().lower(): name for name in reversed(names)}
    file = _file_column(source, path, by_name, rows)
    split = next((by_name[name] for name in _SPLIT if name in by_name), None)
    others = [name for name in names if name not in (file, split)]
    label = next((by_name[name] for name in _LABELS if by_name.get(name) in others), None)
    confidence = by_name.get("confidence") if label is not None else None
    multi_hot = _multi_hot(others, rows) if label is None else []
    if label is None and not multi_hot:
        raise UserError(
            f"{str(path)!r} has no labels: a column called {', '.join(_LABELS[:4])} or the like, "
            f"or a column of 0 and 1 for each label, is needed. It has {files.shown(names)}."
        )
    left = [name for name in others if name not in (label, confidence, *multi_hot)]
    _remark_on_columns(source, multi_hot, left if multi_hot else [], rows)
    source.remark("columns that are no labels", ", ".join(map(str, left)), len(left))
    if split is not None and not any(_text(row.get(split)) for row in rows):
        split = None  # an empty column says no split
    return _Columns(file, split, label, confidence, multi_hot)


def _rows(path: Path) -> Iterator[Row]:
    text = files.read_text(path, _HINT)
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _object(line, f"{str(path)!r} line {number}")
        return
    first = text.partition("\n")[0]
    between = max("\t;,", key=first.count) if path.suffix.lower() == ".csv" else "\t"
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(rows)]
        if len(set(header)) < len(header):
            raise UserError(f"{str(path)!r} has two columns of one name: {files.shown(header)}.")
        for row in rows:
            if any(map(str.strip, row)):
                if len(row) != len(header):
                    raise UserError(
                        f"{str(path)!r} line {rows.line_num} has {len(row)} fields, the first line "
                        f"has {len(header)}."
                    )
                yield dict(zip(header, map(str.strip, row), strict=True))
    except csv.Error as error:
        raise UserError(f"{str(path)!r} line {rows.line_num} is not valid CSV: {error}.") from None


def _object(line: str, position: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{position} is not valid JSON: {error}.") from None
    if not isinstance(row, dict):
        raise UserError(f"{position} is {files.shown(row)}; one object a line is needed.")
    return row


def _file_column(source: Source, path: Path, columns: dict[str, Any], rows: Sequence[Row]) -> Any:
    """Return the column of images: the first by its name whose values are images' names."""
    named = [columns[name] for name in _FILE if name in columns]
    for name in named:
        values = (files.with_slashes(str(row.get(name, ""))).rpartition("/")[2] for row in rows)
        if any(map(source.has, values)):
            return name
    raise UserError(
        f"Give the folder of the images with --images: below {str(source.image_folder)!r} there "
        f"are {len(source.images):,}, none of which has a name that {str(path)!r} has in a column "
        f"called {', '.join(_FILE[:4])} or the like. The table has the columns "
        f"{files.shown(list(columns.values())[::-1])}."
    )


def _multi_hot(names: Sequence[Any], rows: Sequence[Row]) -> list[Any]:
    """Return the columns with 0 and 1 alone, and at least one of them."""
    found = []
    for name in names:
        values = {str(row.get(name, "")).strip().lower() for row in rows}
        if values <= {*_SHOWN, *_UNKNOWN} and values - {*_UNKNOWN, ""}:
            found.append(name)
    return found


def _remark_on_columns(
    source: Source, multi_hot: Sequence[Any], left: Sequence[Any], rows: Sequence[Row]
) -> None:
    """Remark on columns that may be labels and are not read so, or the other way round."""
    for name in left:
        values = [str(row.get(name, "")).strip() for row in rows]
        if "0" in values and all(re.fullmatch(r"\d{0,4}", value) for value in values):
            what = "columns of counts, not read as labels; if they are, write 0 and 1"
            source.remark(what, name)
    for name in multi_hot:
        if all(_SHOWN.get(str(row.get(name, "")).strip().lower()) for row in rows):
            source.remark("columns of 1 alone, read as a label that every image shows", name)


def _is_zero(value: Any) -> bool:
    try:
        return float(value) == 0
    except (TypeError, ValueError):
        return False


def _shown(source: Source, row: Row, columns: _Columns) -> list[str]:
    values = {name: str(row.get(name, "")).strip().lower() for name in columns.multi_hot}
    unknown = sum(value in _UNKNOWN for value in values.values())
    source.remark("values of -1 (not known), read as not shown", row[columns.file], unknown)
    return [str(name).strip() for name, value in values.items() if _SHOWN.get(value)]


def _split(source: Source, path: Path, row: Row, columns: _Columns) -> str:
    """Return the split of a row: by its column, or else by the folder of the table or image."""
    if columns.split is not None:
        said = _text(row.get(columns.split))
        split = split_of(said)
        if said and not split:
            source.remark("rows of no split that is known", repr(said))
        return split
    inside = path.relative_to(source.folder)
    folders = files.with_slashes(str(row[columns.file])).split("/")[:-1]
    return split_of(*inside.parts[:-1], path.stem, *folders)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _names(value: Any, between: str) -> Iterator[str]:
    """Yield the labels of a cell: a text, a list, numbers, or the objects of an image."""
    if isinstance(value, dict):  # the objects of an image
        inner = {str(key).lower(): one for key, one in value.items()}
        for name in _LABELS:
            if name in inner:
                yield from _names(inner[name], between)
                return
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _names(one, between or "\0")
    elif isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            try:
                yield from _names(ast.literal_eval(text), between)
                return
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                pass
        pattern = re.escape(between) if between else r"[;|]"
        yield from filter(str.strip, re.split(pattern, text))
    elif value is not None and not isinstance(value, float):
        yield str(value)
