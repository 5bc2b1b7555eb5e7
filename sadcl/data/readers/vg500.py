"""Visual Genome with its 500 most frequent categories: the publisher's objects, or the lists and labels of SSGRL.

- ``objects.json``: a list of images with their objects' names. A category is a name in lower case without blanks around
  it; its frequency is the number of images that have it; ties go by alphabet.
- ``vg_category_500_labels_index.json``, where it is there, is taken instead: the label numbers of each image file. Names do
  not come with it, so labels are called ``000`` to ``499``.
- ``train_list_500.txt`` and ``test_list_500.txt``, where they are there, divide the images (82,904 and 10,000). Without
  them a fixed permutation of all images does, of which the last 10,000 test.

The file of objects is read image by image: what stays in memory is the numbers of each image's names.

Source: Krishna et al., Visual Genome, 2017; Chen, Xu, Hui, Wu, Lin, Learning Semantic-Specific Graph Representation for
Multi-Label Image Recognition, 2019 (the split).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sadcl.config import Data
from sadcl.data.base import ImageSet
from sadcl.data.readers import files
from sadcl.errors import UserError

CATEGORIES, TEST = 500, 10_000
CHUNK = 2**22
"""Characters that are read at once; the objects of one image are fewer."""
FOLDERS = ("VG_100K", "VG_100K_2")
_SEED = 500
_OBJECTS, _INDEX = "objects.json", "vg_category_500_labels_index.json"
_LISTS = ("train_list_500.txt", "test_list_500.txt")
_MARK = re.compile(r"\s*([\[,])\s*")


def sources(root: Path, config: Data) -> list[Path]:
    """The file of labels, the lists, and the folders of images, which decide the paths.

    Raises:
        UserError: where the root is no copy of Visual Genome.
    """
    labels = _INDEX if (root / _INDEX).is_file() else _OBJECTS
    if not (root / labels).is_file():
        raise UserError(
            f"The data root {str(root)!r} is not a copy of Visual Genome: there is neither {_OBJECTS} nor {_INDEX} in it. "
            f"Give the folder that has one of them and the image folders {' and '.join(FOLDERS)} in it."
        )
    lists = (
        [root / name for name in _LISTS] if any((root / name).is_file() for name in _LISTS) else []
    )
    return [root / labels, *lists, *(root / name for name in FOLDERS)]


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """The training and the test split, images in the order of the lists or of their ids.

    Raises:
        UserError: for a file that is missing or damaged, a label that is not known, or an image without an entry.
    """
    path, *_ = sources(root, config)
    labels, shown = _index(path) if path.name == _INDEX else _objects(path)
    if any((root / name).is_file() for name in _LISTS):
        parts = [_listed(root / name, shown, path) for name in _LISTS]
        listed = _LISTS
    else:
        names = sorted(shown, key=lambda name: (len(name), name))  # by id
        if len(names) <= TEST:
            raise UserError(
                f"{str(path)!r} has {len(names):,} images, of which {TEST:,} would test. Add {' and '.join(_LISTS)}, or use "
                "the publisher's whole file."
            )
        order = np.random.default_rng(_SEED).permutation(len(names))
        parts = [[names[i] for i in np.sort(chosen)] for chosen in (order[:-TEST], order[-TEST:])]
        listed = (path.name, path.name)
    places = _places(root)
    sets = []
    for part, names, name in zip(("train", "test"), parts, listed, strict=True):
        targets = np.zeros((len(names), len(labels)), dtype=np.int8)
        for row, image in zip(targets, names, strict=True):
            row[shown[image]] = 1
        where = [places.get(image.lower(), f"{FOLDERS[0]}/{image}") for image in names]
        sets.append(
            ImageSet(
                f"vg500-{part}", str(root), pa.array(where, pa.string()), targets, labels, name
            )
        )
    return files.disjoint(*sets)


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Split, image, name and size of each box without area; none where labels come from SSGRL's index.

    Of images that are in a split, whether the name is one of the labels or not; after :func:`read`.
    """
    path, *_ = sources(root, config)
    if path.name != _OBJECTS:
        return
    place = {
        f.rsplit("/", 1)[-1].lower(): (s, f)
        for s, images in enumerate(splits)
        for f in images.files.to_pylist()
    }

    def sized(item: dict[str, Any]) -> Any:
        return (item["names"], item.get("w"), item.get("h")) if "names" in item else item

    for entry in _entries(path, sized):
        if (at := place.get(f"{entry['image_id']}.jpg")) is not None:
            for names, width, height in entry["objects"]:
                if (width, height) != (None, None) and not all(
                    isinstance(n, (int, float)) and n > 0 for n in (width, height)
                ):
                    yield *at, ", ".join(names), f"w {width}, h {height}"


_Shown = dict[str, np.ndarray]
"""File name -> numbers of its labels."""


def _index(path: Path) -> tuple[tuple[str, ...], _Shown]:
    content = files.text(path, "It comes with SSGRL.")
    try:
        index = json.loads(content, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is not valid JSON: {error}. It may have been cut short; fetch it again."
        ) from None
    shown: _Shown = {}
    for pair in index if isinstance(index, list) else [index]:
        name, numbers = pair if isinstance(pair, tuple) else (None, pair)
        good = isinstance(numbers, list) and all(
            type(n) is int and 0 <= n < CATEGORIES for n in numbers
        )
        if not isinstance(name, str) or files.odd(name) or not good or name in shown:
            raise UserError(
                f"{str(path)!r} has an entry that is no file name, given once, with label numbers from 0 to "
                f"{CATEGORIES - 1}: {ascii(pair)[:120]}. Use SSGRL's file."
            )
        shown[name] = np.array(numbers, dtype=np.int32)
    return tuple(f"{i:03}" for i in range(CATEGORIES)), shown


def _objects(path: Path) -> tuple[tuple[str, ...], _Shown]:
    number: dict[str, int] = {}
    frequency: Counter[int] = Counter()
    shown: _Shown = {}
    for entry in _entries(path):
        image = entry.get("image_id") if isinstance(entry, dict) else None
        things = entry.get("objects") if isinstance(entry, dict) else None
        if type(image) is not int or not isinstance(things, list) or f"{image}.jpg" in shown:
            raise UserError(
                f"{str(path)!r} has an entry without an image_id of its own and objects: {str(entry)[:120]}."
            )
        if not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in things
        ):
            raise UserError(
                f"{str(path)!r}: image {image} has an object without a list of names. Use the publisher's file."
            )
        names = {clean for names in things for name in names if (clean := name.strip().lower())}
        numbers = [number.setdefault(name, len(number)) for name in names]
        frequency.update(numbers)
        shown[f"{image}.jpg"] = np.array(numbers, dtype=np.int32)
    ranked = sorted(number, key=lambda name: (-frequency[number[name]], name))[:CATEGORIES]
    if len(ranked) < CATEGORIES:
        raise UserError(
            f"{str(path)!r} has {len(ranked)} categories, {CATEGORIES} are needed; use the publisher's file."
        )
    for name in ranked:
        if char := files.odd(name):
            raise UserError(
                f"{str(path)!r} has the character {char} in the name {name!a}; use the publisher's file."
            )
    column = np.full(len(number), -1, dtype=np.int32)
    column[[number[name] for name in ranked]] = np.arange(CATEGORIES)
    return tuple(ranked), {
        image: (columns := column[numbers])[columns >= 0] for image, numbers in shown.items()
    }


def _names(item: dict[str, Any]) -> Any:
    """Of an object alone: its box and synsets take most of the memory."""
    return item.get("names", item)


def _entries(path: Path, keep: Callable[[dict[str, Any]], Any] = _names) -> Iterator[Any]:
    """The items of a JSON list, one after the other, without ever holding the whole of it."""
    decoder = json.JSONDecoder(object_hook=keep)
    text, done = "", 0
    try:
        with path.open(encoding="utf-8") as file:
            while len(text) <= CHUNK and (new := file.read(CHUNK)):
                text, at = text + new, 0
                while (mark := _MARK.match(text, at)) and mark[1] == ("," if done + at else "["):
                    try:
                        item, at = decoder.raw_decode(text, mark.end())
                    except ValueError:  # the rest of it has not been read, or there is none
                        break
                    yield item
                text, done = text[at:], done + at
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read after character {done:,}: {error}. Fetch it again."
        ) from None
    if text.strip() != "]":
        raise UserError(
            f"{str(path)!r} is not a valid JSON list after character {done:,}: it may have been cut short while it was "
            "copied or unpacked; fetch it again."
        )


def _listed(path: Path, shown: Mapping[str, Sequence[int] | np.ndarray], labels: Path) -> list[str]:
    names = files.lines(
        path, f"{' and '.join(_LISTS)} come together, with SSGRL; add the other, or remove both."
    )
    for name, line in names.items():
        if name not in shown:
            raise UserError(
                f"{str(path)!r} line {line} lists {name!r}, of which {labels.name} knows nothing."
            )
    return list(names)


def _places(root: Path) -> dict[str, str]:
    """File name in lower case -> where it is below the root."""
    found: dict[str, str] = {}
    for folder in reversed(FOLDERS):
        if (root / folder).is_dir():
            found |= {name.lower(): f"{folder}/{name}" for name in os.listdir(root / folder)}
    return found
