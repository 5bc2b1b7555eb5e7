"""What readers share: text files, lists and tables as they lie on disk, and the names of images.

Copies differ in line ends, blanks and letter case, depending on how they were made; the functions
here accept all of them. Their errors name the file and the line, and take a ``hint``: a sentence
that says where the file comes from.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sadcl.data.base import ImageSet
from sadcl.data.readers import sources
from sadcl.errors import UserError

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".avif", ".gif", ".jfif"),
)
"""Endings of image files, as tools write them; photographs mostly have the first."""
_BAD_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def convert_hint(root: Path) -> str:
    """Return what to do with a root that is no copy of a data set, for messages."""
    return (
        "If another tool exported it (COCO, VOC, YOLO, CVAT, Label Studio, Roboflow, Hugging Face "
        f"or a table), sadcl data convert {shlex.quote(str(root))} -o DIR makes a folder of it "
        "that trains."
    )


def bad_character(name: str) -> str:
    """Return the first character, escaped, that no name may have; empty if there is none.

    Such characters are control characters, line separators and surrogates.
    """
    match = _BAD_CHARACTER.search(name)
    return ascii(match[0])[1:-1] if match else ""


def composed(text: str) -> str:
    """Return a text in the Unicode form that lists have: letters and accents in one (NFC)."""
    return unicodedata.normalize("NFC", text)


def with_slashes(name: str) -> str:
    """Return a path with slashes, as Windows writes it with back-slashes."""
    return name.replace("\\", "/")


def is_inside(name: str) -> bool:
    """Return whether a relative path stays below its folder and is written in its normal form."""
    return (
        name == posixpath.normpath(name)
        and name not in (".", "..")
        and not name.startswith(("/", "../"))
    )


def read_text(path: Path, hint: str) -> str:
    """Return the content of a text file.

    Raises:
        UserError: if it cannot be read (with the hint), is empty, or is not UTF-8 text.
    """
    try:
        data = sources.read_bytes(path)
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read: {error.strerror or error}. {hint}"
        ) from None
    if not data.strip():
        raise UserError(
            f"{str(path)!r} is empty ({len(data)} bytes): it was not copied whole; fetch it again."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{str(path)!r} line {line} is no text (byte {error.start:,}): {_encoding_hint(data)}."
        ) from None


def _encoding_hint(data: bytes) -> str:
    """Return what to do about bytes that are not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data.count(0) > len(data) // 3:
        return "it is UTF-16, as some programs export tables; save it as UTF-8"
    letters = data.decode("cp1252", errors="replace")
    if all(c.isprintable() or c in "\t\r\n" for c in letters) and "\ufffd" not in letters:
        return (
            "it may be Windows-1252, as Excel saves 'CSV'; save it as UTF-8, in Excel 'CSV UTF-8'"
        )
    return "it is damaged; fetch it again"


def shown(value: object, length: int = 120) -> str:
    """Return what a file has, for a message: with quotes, and no longer than one can read."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


def read_lines(path: Path, hint: str) -> list[str]:
    """Return the lines of a text file; raises as :func:`read_text`.

    Only line ends separate lines: other separators, such as U+2028, may be part of one.
    """
    return read_text(path, hint).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_entries(path: Path, hint: str) -> dict[str, int]:
    """Return the entries of a list file with their line numbers, without blanks around them.

    Raises:
        UserError: as :func:`read_text`, and for an entry that is listed twice or has a control
            character.
    """
    entries: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, hint), start=1):
        if entry := line.strip():
            if char := bad_character(entry.replace("\t", " ")):
                raise UserError(
                    f"{str(path)!r} line {number} has the character {char} in {entry[:80]!r}; "
                    "remove it."
                )
            if entry in entries:
                raise UserError(
                    f"{str(path)!r} lists {entry!r} twice, in lines {entries[entry]} and {number}; "
                    "remove one."
                )
            entries[entry] = number
    return entries


def _raise(error: UserError) -> None:
    raise error


def read_csv(
    path: Path,
    columns: set[str],
    hint: str,
    bad_row: Callable[[UserError], None] = _raise,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV file as a mapping, with its position for messages.

    Args:
        path: the file.
        columns: names that the first line must have; more are possible.
        hint: where the file comes from.
        bad_row: takes the error of a row with a missing field or a control character, which is then
            left out; by default it is raised.

    Raises:
        UserError: as :func:`read_text`, and for a column that is missing or duplicate, a field that
            is missing or has a control character, or a last line without a line end.
    """
    content = read_text(path, hint)
    if not content.endswith(("\n", "\r")):
        raise UserError(
            f"{str(path)!r} does not end with a line end: was it cut short? If it is whole, add "
            "one."
        )
    rows = csv.reader(io.StringIO(content, newline=""), strict=True, skipinitialspace=True)
    try:
        header = _header(path, next(rows), columns, hint)
        for row in rows:
            position = f"{str(path)!r} line {rows.line_num}"
            if not any(map(str.strip, row)):
                continue
            values = dict(zip(header, map(str.strip, row), strict=False))
            if len(row) != len(header):
                mistake = (
                    f"has {len(row)} fields, the first line has {len(header)}: "
                    f"{', '.join(row)[:120]}"
                )
            else:
                mistake = _control_character(values, sorted(columns))
            if mistake:
                bad_row(UserError(f"{position} {mistake}"))
            else:
                yield position, values
    except csv.Error as error:
        raise UserError(f"{str(path)!r} line {rows.line_num} is not valid CSV: {error}.") from None


def _control_character(values: Mapping[str, str], columns: Iterable[str]) -> str:
    """Say which value of a row has a control character; empty if none has."""
    for name in columns:
        if char := bad_character(values[name]):
            return f"has the character {char} in {name} {values[name][:80]!r}; remove it."
    return ""


def _header(path: Path, first_row: list[str], columns: set[str], hint: str) -> list[str]:
    """Return the column names of a CSV file after checking them."""
    header = [name.strip() for name in first_row]
    if missing := columns - set(header):
        raise UserError(
            f"{str(path)!r} has no column {min(missing)!r}: its first line is "
            f"{shown(', '.join(header))}. {hint}"
        )
    if duplicates := [name for name in header if name and header.count(name) > 1]:
        raise UserError(
            f"{str(path)!r} has the column {duplicates[0]!r} twice; remove or rename one."
        )
    return header


def check_disjoint(train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return both splits.

    Raises:
        UserError: if an image is in both.
    """
    if os.path.realpath(train.folder) != os.path.realpath(test.folder):
        return train, test
    if both := set(train.files.to_pylist()) & set(test.files.to_pylist()):
        raise UserError(
            f"{len(both):,} images are in {train.list_name} and in {test.list_name} of "
            f"{train.folder!r}, first {min(both)!r}: test images must not train. Use lists that "
            "belong together."
        )
    return train, test


def existing_images(images: ImageSet, missing: str) -> ImageSet:
    """Return the images of a set that are on disk, with their names on disk.

    Args:
        images: a set as listed.
        missing: ``error`` or ``drop``, the policy for images that are not on disk.

    Raises:
        UserError: as :func:`match_files`, and with the policy ``error`` for missing images, with
            their number and the first.
    """
    images, existing = match_files(images)
    missing_images = np.setdiff1d(np.arange(len(images)), existing)
    if not len(missing_images):
        return images
    if missing == "error":
        first = shown(images.files[missing_images[0]].as_py())
        raise UserError(
            f"{len(missing_images):,} of {len(images):,} images that {images.list_name} lists are "
            f"missing in {images.folder!r}, first {first}. "
            "Unpack the images there, use the annotation file that belongs to these images, or "
            "leave out images that are no longer available with data.missing = 'drop'."
        )
    return images.subset(existing, images.name)


def match_files(images: ImageSet) -> tuple[ImageSet, NDArray[np.int64]]:
    """Match the listed names with the files on disk, which may differ in case or Unicode form.

    Archives of a Mac have letters and accents apart (NFD), lists mostly have them in one (NFC).

    Each folder is listed once, because asking for each file is slow on a network disk.

    Returns:
        The same set with names as they are on disk, and the positions of the images that exist.

    Raises:
        UserError: for a folder that is missing, a name that fits several files in other letter
            case or Unicode form, or a file that fits several names.
    """
    on_disk = pa.array(_names_on_disk(images), pa.string())
    exists_N = pc.is_in(images.files, value_set=on_disk)
    if not len(images) or (
        pc.all(exists_N).as_py() and pc.count_distinct(images.files).as_py() == len(images)
    ):
        return images, np.arange(len(images))
    by_spelling: dict[str, list[str]] = {}
    for name in on_disk.to_pylist():
        by_spelling.setdefault(spelling(name), []).append(name)
    names = images.files.to_pylist()
    listed, existing, listed_as = set(names), [], dict[str, str]()
    for i, exists in enumerate(exists_N.to_pylist()):
        name = names[i]
        others = by_spelling.get(spelling(name), [])
        fits = [name] if exists else [other for other in others if other not in listed]
        if len(fits) > 1:
            several = ", ".join(map(repr, sorted(fits)))
            raise UserError(
                f"{images.list_name} lists {name!r}, and several files in {images.folder!r} differ "
                f"from it in letter case or Unicode form only: {several}. Keep one of "
                "them under the listed name."
            )
        if fits:
            if fits[0] in listed_as:
                raise UserError(
                    f"{images.list_name} lists {listed_as[fits[0]]!r} and {name!r}, and both are "
                    f"the file {fits[0]!r} in {images.folder!r}, apart from letter case or Unicode "
                    "form; remove one of them."
                )
            listed_as[fits[0]] = name
            names[i] = fits[0]
            existing.append(i)
    on_disk_set = replace(images, files=pa.array(names, pa.string()), reopen=None)
    return on_disk_set, np.array(existing, dtype=np.int64)


def _names_on_disk(images: ImageSet) -> list[str]:
    """Return the names below the set's folder, from every folder that holds some of its images."""
    names: dict[str, None] = {}  # a set in order: two spellings may lead to one folder
    for folder in pc.unique(pc.replace_substring_regex(images.files, r"[^/]*$", "")).to_pylist():
        try:
            places = (
                [folder]
                if os.path.isdir(f"{images.folder}/{folder}")
                else _folders_in_other_case(images.folder, folder)
            )
            for place in places:
                names |= dict.fromkeys(
                    place + name
                    for name in os.listdir(f"{images.folder}/{place}")
                    if sources.is_utf8(name)
                )
        except OSError as error:
            raise UserError(
                f"{images.list_name} lists {len(images):,} images, but their folder "
                f"{images.folder!r} cannot be read: {error.strerror or error}. Unpack the images "
                "there."
            ) from None
    return list(names)


def spelling(name: str) -> str:
    """Return the same text for all spellings of a name that one file system or another equates."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def _folders_in_other_case(root: str, folder: str) -> list[str]:
    """Return the folders below the root that fit a name in any spelling, each with a slash."""
    places = [""]
    for part in folder.split("/")[:-1]:
        places = [
            f"{place}{name}/"
            for place in places
            for name in os.listdir(f"{root}/{place}")
            if spelling(name) == spelling(part)
            and sources.is_utf8(name)
            and os.path.isdir(f"{root}/{place}{name}")
        ]
    return places
