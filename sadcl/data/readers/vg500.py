"""Visual Genome with its 500 most frequent categories, as published or with the lists of SSGRL.

Files below the data root:

- ``objects.json``: a list of images with the names of their objects. A category is a name in lower
  case without blanks around it; its frequency is the number of images that have it; ties are in
  alphabetical order.
- ``vg_category_500_labels_index.json``, which is read instead if it exists: the label numbers of
  each image file. It has no names, so labels are called ``000`` to ``499``.
- ``train_list_500.txt`` and ``test_list_500.txt`` divide the images (82,904 and 10,000). Without
  them a fixed permutation of all images does, of which the last 10,000 test.
- ``VG_100K`` and ``VG_100K_2``: the images.

There is no policy field. ``objects.json`` is read image by image, and only the numbers of each
image's names stay in memory.

Source: Krishna et al., Visual Genome, 2017; for the split Chen, Xu, Hui, Wu, Lin, Learning
Semantic-Specific Graph Representation for Multi-Label Image Recognition, 2019.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sadcl.config import Data
from sadcl.data.base import ImageSet, has_area
from sadcl.data.readers import files, sources
from sadcl.errors import UserError

CATEGORIES, TEST = 500, 10_000
"""Number of labels, and of test images without the lists."""
CHUNK = 2**22
"""Number of characters that are read at once; the objects of one image are fewer."""
FOLDERS = ("VG_100K", "VG_100K_2")
_SEED = 500
_OBJECTS, _INDEX = "objects.json", "vg_category_500_labels_index.json"
_LISTS = ("train_list_500.txt", "test_list_500.txt")
_MARK = re.compile(r"\s*([\[,])\s*")

_LabelNumbers = dict[str, np.ndarray]
"""Numbers of the labels of each image file."""


def check_root(root: Path, config: Data) -> None:
    """Raise UserError if the root is no copy of Visual Genome."""
    _label_file(root)


def _label_file(root: Path) -> Path:
    """Return the file of labels; UserError if the root is no copy of Visual Genome."""
    labels = _INDEX if sources.is_file(root / _INDEX) else _OBJECTS
    if not sources.is_file(root / labels):
        raise UserError(
            f"The data root {str(root)!r} is not a copy of Visual Genome: there is neither "
            f"{_OBJECTS} nor {_INDEX} in it. Give the folder that has one of them and the image "
            f"folders {' and '.join(FOLDERS)} in it."
        )
    return root / labels


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test split, images in the order of the lists or of their ids.

    Raises:
        UserError: for a file that is missing or damaged, an unknown label, or an image without an
            entry.
    """
    path = _label_file(root)
    labels, numbers = _read_index(path) if path.name == _INDEX else _read_objects(path)
    if _has_lists(root):
        parts = [_read_list(root / name, numbers, path) for name in _LISTS]
        list_names = _LISTS
    else:
        parts = _permuted(path, numbers)
        list_names = (path.name, path.name)
    paths = _paths_on_disk(root)
    sets = []
    for part, images, list_name in zip(("train", "test"), parts, list_names, strict=True):
        targets = np.zeros((len(images), len(labels)), dtype=np.int8)
        for row_L, image in zip(targets, images, strict=True):
            row_L[numbers[image]] = 1
        stored = [paths.get(image.lower(), f"{FOLDERS[0]}/{image}") for image in images]
        array = pa.array(stored, pa.string())
        sets.append(ImageSet(f"vg500-{part}", str(root), array, targets, labels, list_name))
    return files.check_disjoint(*sets)


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Yield split, image, names and size of each box without area; none with SSGRL's index.

    Objects of all images in a split count, whether their names are labels or not. Call it after
    :func:`read`, whose checks it relies on.
    """
    path = _label_file(root)
    if path.name != _OBJECTS:
        return
    split_and_file = {
        file.rsplit("/", 1)[-1].lower(): (split, file)
        for split, images in enumerate(splits)
        for file in images.files.to_pylist()
    }

    def names_and_size(item: dict[str, Any]) -> Any:
        return (item["names"], *map(item.get, "xywh")) if "names" in item else item

    for entry in _entries(path, names_and_size):
        if (image := split_and_file.get(f"{entry['image_id']}.jpg")) is None:
            continue
        for names, left, top, width, height in entry["objects"]:
            if (width, height) == (None, None):
                continue
            numbers = [0 if left is None else left, 0 if top is None else top, width, height]
            are_numbers = all(isinstance(number, (int, float)) for number in numbers)
            if not are_numbers or not _has_area(*numbers):
                values = zip("xywh", (left, top, width, height), strict=True)
                given = ", ".join(f"{key} {value}" for key, value in values if value is not None)
                yield *image, ", ".join(names), given


def _has_area(left: float, top: float, width: float, height: float) -> bool:
    try:
        return has_area((left, top, left + width, top + height))
    except OverflowError:  # an integer beyond every number
        return False


def _has_lists(root: Path) -> bool:
    exist = [sources.is_file(root / name) for name in _LISTS]  # each is looked at
    return any(exist)


def _permuted(path: Path, numbers: _LabelNumbers) -> list[list[str]]:
    """Divide all images by a fixed permutation; each part is in the order of its ids."""
    names = sorted(numbers, key=lambda name: (len(name), name))  # by id
    if len(names) <= TEST:
        raise UserError(
            f"{str(path)!r} has {len(names):,} images, of which {TEST:,} would test. Add "
            f"{' and '.join(_LISTS)}, or use the publisher's whole file."
        )
    order = np.random.default_rng(_SEED).permutation(len(names))
    return [[names[i] for i in np.sort(part)] for part in (order[:-TEST], order[-TEST:])]


def _read_index(path: Path) -> tuple[tuple[str, ...], _LabelNumbers]:
    """Return labels and label numbers from SSGRL's index."""
    content = files.read_text(path, "It comes with SSGRL.")
    try:
        index = json.loads(content, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is not valid JSON: {error}. It may have been cut short; fetch it again."
        ) from None
    by_image: _LabelNumbers = {}
    for pair in index if isinstance(index, list) else [index]:
        name, numbers = pair if isinstance(pair, tuple) else (None, pair)
        are_numbers = isinstance(numbers, list) and all(
            type(n) is int and 0 <= n < CATEGORIES for n in numbers
        )
        is_name = isinstance(name, str) and not files.bad_character(name)
        if not is_name or not are_numbers or name in by_image:
            raise UserError(
                f"{str(path)!r} has an entry that is no file name, given once, with label numbers "
                f"from 0 to {CATEGORIES - 1}: {ascii(pair)[:120]}. Use SSGRL's file."
            )
        by_image[name] = np.array(numbers, dtype=np.int32)
    return numbers_as_labels(), by_image


def numbers_as_labels() -> tuple[str, ...]:
    """Return the labels of SSGRL's index, which has no names: 000, 001 and so on."""
    return tuple(f"{i:03}" for i in range(CATEGORIES))


def _read_objects(path: Path) -> tuple[tuple[str, ...], _LabelNumbers]:
    """Return labels and label numbers from the publisher's file of objects."""
    number: dict[str, int] = {}
    frequency: Counter[int] = Counter()
    by_image: _LabelNumbers = {}
    for entry in _entries(path):
        image = entry.get("image_id") if isinstance(entry, dict) else None
        things = entry.get("objects") if isinstance(entry, dict) else None
        if type(image) is not int or not isinstance(things, list) or f"{image}.jpg" in by_image:
            raise UserError(
                f"{str(path)!r} has an entry without an image_id of its own and objects: "
                f"{str(entry)[:120]}."
            )
        if not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in things
        ):
            raise UserError(
                f"{str(path)!r}: image {image} has an object without a list of names. Use the "
                "publisher's file."
            )
        names = {clean for names in things for name in names if (clean := name.strip().lower())}
        numbers = [number.setdefault(name, len(number)) for name in names]
        frequency.update(numbers)
        by_image[f"{image}.jpg"] = np.array(numbers, dtype=np.int32)
    ranked = sorted(number, key=lambda name: (-frequency[number[name]], name))[:CATEGORIES]
    if len(ranked) < CATEGORIES:
        raise UserError(
            f"{str(path)!r} has {len(ranked)} categories, {CATEGORIES} are needed; use the "
            "publisher's file."
        )
    for name in ranked:
        if char := files.bad_character(name):
            raise UserError(
                f"{str(path)!r} has the character {char} in the name {name!a}; use the publisher's "
                "file."
            )
    column = np.full(len(number), -1, dtype=np.int32)
    column[[number[name] for name in ranked]] = np.arange(CATEGORIES)
    return tuple(ranked), {
        image: (columns := column[numbers])[columns >= 0] for image, numbers in by_image.items()
    }


def _names(item: dict[str, Any]) -> Any:
    """Keep only the names of an object: its box and synsets take most of the memory."""
    return item.get("names", item)


def _entries(path: Path, keep: Callable[[dict[str, Any]], Any] = _names) -> Iterator[Any]:
    """Yield the items of a JSON list one by one, without ever holding the whole list.

    Args:
        path: the file.
        keep: what to make of each JSON object in it.
    """
    decoder = json.JSONDecoder(object_hook=keep)
    text, done = "", 0
    try:
        with sources.open_text(path) as file:
            while len(text) <= CHUNK and (new := file.read(CHUNK)):
                text, at = text + new, 0
                while (mark := _MARK.match(text, at)) and mark[1] == ("," if done + at else "["):
                    try:
                        item, at = decoder.raw_decode(text, mark.end())
                    except ValueError:  # the rest of the item has not been read, or there is none
                        break
                    yield item
                text, done = text[at:], done + at
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read after character {done:,}: {error}. Fetch it again."
        ) from None
    if text.strip() != "]":
        raise UserError(
            f"{str(path)!r} is not a valid JSON list after character {done:,}: it may have been "
            "cut short while it was copied or unpacked; fetch it again."
        )


def _read_list(path: Path, numbers: Mapping[str, np.ndarray], labels: Path) -> list[str]:
    """Return the images of one of SSGRL's lists, each of which must have an entry in ``labels``."""
    hint = f"{' and '.join(_LISTS)} come together, with SSGRL; add the other, or remove both."
    names = files.read_entries(path, hint)
    for name, line in names.items():
        if name not in numbers:
            raise UserError(
                f"{str(path)!r} line {line} lists {name!r}, which has no entry in {labels.name}."
            )
    return list(names)


def _paths_on_disk(root: Path) -> dict[str, str]:
    """Return the path of each image file below the root by its name in lower case."""
    paths: dict[str, str] = {}
    for folder in reversed(FOLDERS):
        names = sources.names_in(root / folder)
        paths |= {name.lower(): f"{folder}/{name}" for name in names}
    return paths
