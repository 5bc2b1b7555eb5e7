"""Lists and images as they lie on disk, whatever line ends and letter case a copy has got on its way."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sadcl.data.base import ImageSet
from sadcl.errors import UserError

_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def odd(name: str) -> str:
    """The first character that no name may have, escaped: a control character, a line separator or half a character."""
    found = _ODD.search(name)
    return ascii(found[0])[1:-1] if found else ""


def inside(name: str) -> bool:
    """Whether a path is one below its folder, and the only way to write it."""
    return (
        name == posixpath.normpath(name)
        and name not in (".", "..")
        and not name.startswith(("/", "../"))
    )


def encodes(name: str) -> bool:
    """False for names on disk that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(path: Path, hint: str) -> str:
    """A text file's content.

    Raises:
        UserError: where it cannot be read (then with the hint), is empty or is no text.
    """
    try:
        data = path.read_bytes()
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
            f"{str(path)!r} line {line} is no text (byte {error.start:,}): it is damaged; fetch it again."
        ) from None


def rows(path: Path, hint: str) -> list[str]:
    """Its lines; other separators than line ends, as U+2028, may be part of one."""
    return text(path, hint).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def lines(path: Path, hint: str) -> dict[str, int]:
    """What a list file lists, each with its line; blanks and line ends do not matter.

    Raises:
        UserError: as :func:`text`, and for what is listed twice, or has a control character.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(rows(path, hint), start=1):
        if entry := line.strip():
            if char := odd(entry.replace("\t", " ")):
                raise UserError(
                    f"{str(path)!r} line {number} has the character {char} in {entry[:80]!r}; remove it."
                )
            if entry in found:
                raise UserError(
                    f"{str(path)!r} lists {entry!r} twice, in lines {found[entry]} and {number}; remove one."
                )
            found[entry] = number
    return found


def table(path: Path, columns: set[str], hint: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of a CSV file with its place, for messages.

    Raises:
        UserError: as :func:`text`, and for a column that is missing or there twice, a field that is missing or has a
            control character, or a last line without an end.
    """
    content = text(path, hint)
    if not content.endswith(("\n", "\r")):
        raise UserError(
            f"{str(path)!r} does not end with a line end: was it cut short? Where it is whole, add one."
        )
    rows = csv.reader(io.StringIO(content, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(rows)]
        if lacking := columns - set(header):
            raise UserError(
                f"{str(path)!r} has no column {min(lacking)!r}: its first line is {', '.join(header)}."
            )
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise UserError(
                f"{str(path)!r} has the column {twice[0]!r} twice; remove or rename one."
            )
        for row in rows:
            place = f"{str(path)!r} line {rows.line_num}"
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{place} has {len(row)} fields, the first line has {len(header)}: {', '.join(row)[:120]}"
                )
            values = dict(zip(header, map(str.strip, row), strict=True))
            for name in sorted(columns):
                if char := odd(values[name]):
                    raise UserError(
                        f"{place} has the character {char} in {name} {values[name][:80]!r}; remove it."
                    )
            yield place, values
    except csv.Error as error:
        raise UserError(f"{str(path)!r} line {rows.line_num} is not valid CSV: {error}.") from None


def disjoint(train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Both, or UserError where an image is in both."""
    if os.path.realpath(train.folder) != os.path.realpath(test.folder):
        return train, test
    if both := set(train.files.to_pylist()) & set(test.files.to_pylist()):
        raise UserError(
            f"{len(both):,} images are in {train.listed} and in {test.listed} of {train.folder!r}, first {min(both)!r}: "
            "test images must not train. Use lists that belong together."
        )
    return train, test


def present(images: ImageSet, missing: str) -> ImageSet:
    """The images that are on disk, their names as they are there.

    Args:
        images: a set as listed.
        missing: ``error``, or ``drop`` those that are not there.

    Raises:
        UserError: as :func:`on_disk`, and for missing images, with their number and the first.
    """
    images, there = on_disk(images)
    lost = np.setdiff1d(np.arange(len(images)), there)
    if not len(lost):
        return images
    if missing == "error":
        raise UserError(
            f"{len(lost):,} of {len(images):,} images that {images.listed} lists are missing in {images.folder!r}, first "
            f"{images.files[lost[0]].as_py()!r}. Unpack the images there, use the annotation file that belongs to these "
            "images, or leave out what cannot be had any more with data.missing = 'drop'."
        )
    return images.subset(there, images.name)


def on_disk(images: ImageSet) -> tuple[ImageSet, NDArray[np.int64]]:
    """The same with names as they are on disk, and the positions of those that are there; each folder is listed once.

    Asking for each file is slow on a network disk. A name in another letter case is taken where only one file fits.

    Raises:
        UserError: for a folder that is missing, a name that several files fit, or a file that several names fit.
    """
    there = pa.array(_listing(images), pa.string())
    found_N = pc.is_in(images.files, value_set=there)
    if not len(images) or (
        pc.all(found_N).as_py() and pc.count_distinct(images.files).as_py() == len(images)
    ):
        return images, np.arange(len(images))
    cases: dict[str, list[str]] = {}
    for name in there.to_pylist():
        cases.setdefault(name.lower(), []).append(name)
    names = images.files.to_pylist()
    listed, kept, of = set(names), [], dict[str, str]()
    for i, found in enumerate(found_N.to_pylist()):
        fits = (
            [names[i]] if found else [n for n in cases.get(names[i].lower(), []) if n not in listed]
        )
        if len(fits) > 1:
            raise UserError(
                f"{images.listed} lists {names[i]!r}, and several files in {images.folder!r} differ from it in letter case "
                f"only: {', '.join(map(repr, sorted(fits)))}. Keep one of them under the listed name."
            )
        if fits:
            if fits[0] in of:
                raise UserError(
                    f"{images.listed} lists {of[fits[0]]!r} and {names[i]!r}, and both are the file {fits[0]!r} in "
                    f"{images.folder!r}, but for letter case; remove one of them."
                )
            of[fits[0]] = names[i]
            names[i] = fits[0]
            kept.append(i)
    return replace(images, files=pa.array(names, pa.string()), again=None), np.array(
        kept, dtype=np.int64
    )


def _listing(images: ImageSet) -> list[str]:
    """Names below the set's folder, of every folder that holds some of its images."""
    found: dict[str, None] = {}  # two spellings may lead to one folder
    for folder in pc.unique(pc.replace_substring_regex(images.files, r"[^/]*$", "")).to_pylist():
        try:
            places = (
                [folder]
                if os.path.isdir(f"{images.folder}/{folder}")
                else _cases(images.folder, folder)
            )
            for place in places:
                found |= dict.fromkeys(
                    place + name for name in os.listdir(f"{images.folder}/{place}") if encodes(name)
                )
        except OSError as error:
            raise UserError(
                f"{images.listed} lists {len(images):,} images, but their folder {images.folder!r} cannot be read: "
                f"{error.strerror or error}. Unpack the images there."
            ) from None
    return list(found)


def _cases(root: str, folder: str) -> list[str]:
    """The folders below the root that are called so in another letter case, each with a slash at its end."""
    found = [""]
    for part in folder.split("/")[:-1]:
        found = [
            f"{place}{name}/"
            for place in found
            for name in os.listdir(f"{root}/{place}")
            if name.lower() == part.lower()
            and encodes(name)
            and os.path.isdir(f"{root}/{place}{name}")
        ]
    return found
