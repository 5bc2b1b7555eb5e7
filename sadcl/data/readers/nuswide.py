"""NUS-WIDE: 81 concepts over Flickr images, in the layouts in which it goes around.

- The publisher's: ``Groundtruth/TrainTestLabels/Labels_<concept>_{Train,Test}.txt``, a 0 or 1 for each line of
  ``ImageList/{Train,Test}Imagelist.txt``; or ``Groundtruth/AllLabels/Labels_<concept>.txt`` for each line of
  ``ImageList/Imagelist.txt``, divided by the same two lists.
- ``nus_wid_data.csv`` (``data.nuswide_split = "csv"``): columns ``filepath``, ``label`` and ``split_name`` (train or val),
  another split, published with ASL.

Images lie in ``Flickr`` or ``images``: in folders of their search words as listed, all in one under the name, or in one
under the id that ends the name. Many can no longer be had: ``data.missing``. Labels come in the order of
``Concepts81.txt``, which is alphabetical.

Source: Chua, Tang, Hong, Li, Luo, Zheng, NUS-WIDE: A Real-World Web Image Database from National University of
Singapore, 2009.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl.config import Data
from sadcl.data.base import ImageSet
from sadcl.data.readers import files
from sadcl.errors import UserError

CONCEPTS = 81
_HINT = "It comes with the publisher's archives Groundtruth, ImageList and ConceptsList; unpack them into the data root."
_CSV = "nus_wid_data.csv"


def sources(root: Path, config: Data) -> list[Path]:
    """The lists and label files, and the folder of images, whose layout decides the paths.

    Raises:
        UserError: where the root is no copy of NUS-WIDE in the layout that ``data.nuswide_split`` asks for.
    """
    concepts = [path for path in _concept_lists(root) if path.is_file()]
    if config.nuswide_split == "csv":
        if not (root / _CSV).is_file():
            raise UserError(
                f"The data root {str(root)!r} has no {_CSV}, which data.nuswide_split = 'csv' asks for."
            )
        return [root / _CSV, *concepts, _images(root)]
    lists, truth = root / "ImageList", root / "Groundtruth"
    if not lists.is_dir() or not truth.is_dir():
        hint = (
            f" It has {_CSV}: data.nuswide_split = 'csv' reads that split."
            if (root / _CSV).is_file()
            else ""
        )
        raise UserError(
            f"The data root {str(root)!r} is not a copy of NUS-WIDE: folders ImageList and Groundtruth are needed.{hint} "
            "Give the folder that the publisher's archives were unpacked in."
        )
    names = ("TrainImagelist.txt", "TestImagelist.txt", "Imagelist.txt")
    found = [lists / name for name in names if name != "Imagelist.txt" or (lists / name).is_file()]
    labels = sorted(path for path in truth.glob("*/Labels_*.txt") if files.encodes(str(path)))
    return [*found, *concepts, *labels, _images(root)]


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """The training and the test split, images in the order of the lists.

    Raises:
        UserError: for a file that is missing or damaged, lists of unequal length, or a concept that is not known.
    """
    if config.nuswide_split == "csv":
        return files.disjoint(*_read_csv(root))
    concepts = _concepts(root)
    divided = root / "Groundtruth" / "TrainTestLabels"
    whole = not any(divided.glob("Labels_*.txt"))
    sets = []
    for part in ("Train", "Test"):
        path = root / "ImageList" / f"{part}Imagelist.txt"
        names = list(_listed(path))
        if whole:
            targets = _of_all(root, concepts, names, path)
        else:
            columns = [
                _column(divided / f"Labels_{concept}_{part}.txt", path, len(names))
                for concept in concepts
            ]
            targets = np.stack(columns, axis=1)
        sets.append(_set(root, part.lower(), names, targets, concepts, path.name))
    return files.disjoint(*sets)


def _listed(path: Path) -> dict[str, int]:
    """The images of a list, each with its position."""
    found: dict[str, int] = {}
    for entry, line in files.lines(path, _HINT).items():
        if re.search(r"\.(jpe?g|png)\s+\S", entry, re.IGNORECASE):
            raise UserError(
                f"{str(path)!r} line {line} has several columns, {entry[:80]!r}; the publisher's lists have one image's "
                "name a line, and labels are in Groundtruth. Use those."
            )
        found[entry.replace("\\", "/")] = len(found)
    return found


def _concept_lists(root: Path) -> tuple[Path, ...]:
    return root / "ConceptsList" / "Concepts81.txt", root / "Concepts81.txt"


def _concepts(root: Path, found: set[str] | None = None) -> tuple[str, ...]:
    """In the publisher's order; without the list those of the label files, or those given, by alphabet."""
    for path in _concept_lists(root):
        if path.is_file():
            labels, where = tuple(files.lines(path, _HINT)), path
            break
    else:
        where = root / _CSV if found is not None else root / "Groundtruth"
        stems = {
            path.stem.removesuffix("_Train").removesuffix("_Test")
            for path in where.glob("*/Labels_*.txt")
        }
        labels = tuple(
            sorted(found if found is not None else {stem.removeprefix("Labels_") for stem in stems})
        )
    if len(labels) != CONCEPTS:
        raise UserError(
            f"{str(where)!r} has {len(labels)} concepts; NUS-WIDE has {CONCEPTS}. {_HINT}"
        )
    return labels


def _column(path: Path, listed: Path, count: int) -> NDArray[np.int8]:
    """(N,) of one concept."""
    content = files.text(path, _HINT)
    values = content.split()
    digits = np.frombuffer("".join(values).encode(), dtype=np.uint8) - ord("0")
    if (digits > 1).any() or len(digits) != len(values):
        line, value = next(
            (n, v)
            for n, v in enumerate(content.splitlines(), start=1)
            if v.strip() not in ("", "0", "1")
        )
        raise UserError(
            f"{str(path)!r} line {line} is {value[:40]!r}; 0 or 1 is possible. Fetch the file again."
        )
    if len(digits) != count:
        raise UserError(
            f"{str(path)!r} has {len(digits):,} labels for the {count:,} images that {listed.name} lists; both must come "
            "from one release, whole."
        )
    return digits.astype(np.int8)


def _of_all(
    root: Path, concepts: tuple[str, ...], names: list[str], listed: Path
) -> NDArray[np.int8]:
    """(N, L) of these images out of the ground truth of all."""
    path = root / "ImageList" / "Imagelist.txt"
    row = _listed(path)
    for name in names:
        if name not in row:
            raise UserError(
                f"{str(listed)!r} lists {name!r}, which {path.name} does not; both must come from one release."
            )
    chosen = [row[name] for name in names]
    folder = root / "Groundtruth" / "AllLabels"
    return np.stack(
        [_column(folder / f"Labels_{concept}.txt", path, len(row))[chosen] for concept in concepts],
        axis=1,
    )


def _read_csv(root: Path) -> tuple[ImageSet, ImageSet]:
    path = root / _CSV
    seen: dict[str, tuple[str, list[str]]] = {}
    for place, row in files.table(
        path, {"filepath", "label", "split_name"}, "It came with ASL's code."
    ):
        try:
            labels = ast.literal_eval(row["label"])
        except (
            ValueError,
            SyntaxError,
            RecursionError,
            MemoryError,
        ):  # the latter two of many brackets
            labels = None
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(
                f"{place} has label {row['label']!r}; a list such as ['sky', 'sun'] is needed."
            )
        name, part = posixpath.normpath(row["filepath"].replace("\\", "/")), row["split_name"]
        if not files.inside(name) or part not in ("train", "val"):
            raise UserError(
                f"{place} has filepath {name!r} and split_name {part!r}; a path below the root, and train or val, are needed."
            )
        if name in seen:
            raise UserError(f"{place} has {name!r} a second time; remove one of the two rows.")
        seen[name] = part, labels
    concepts = _concepts(root, {label for _, labels in seen.values() for label in labels})
    column = {concept: i for i, concept in enumerate(concepts)}
    sets = []
    for part in ("train", "val"):
        names = [name for name, (of, _) in seen.items() if of == part]
        targets = np.zeros((len(names), len(concepts)), dtype=np.int8)
        for row_L, name in zip(targets, names, strict=True):
            for label in seen[name][1]:
                if label not in column:
                    raise UserError(
                        f"{str(path)!r} gives {name!r} the label {label!r}, which is no concept of NUS-WIDE."
                    )
                row_L[column[label]] = 1
        images = pa.array(names, pa.string())
        sets.append(ImageSet(f"nuswide-{part}", str(root), images, targets, concepts, path.name))
    return sets[0], sets[1]


def _images(root: Path) -> Path:
    return root / "Flickr" if (root / "Flickr").is_dir() else root / "images"


def _set(
    root: Path,
    part: str,
    names: list[str],
    targets: NDArray[np.int8],
    concepts: tuple[str, ...],
    listed: str,
) -> ImageSet:
    """With the names by which the images are stored: as listed, without the folder, or by the id alone."""
    folder = _images(root)
    entries = set(os.listdir(folder)) if folder.is_dir() else set()
    flat = [name.rsplit("/", 1)[-1] for name in names]
    by_id = [name.rsplit("_", 1)[-1] for name in flat]
    if stored := next((other for other in (flat, by_id) if entries.intersection(other)), None):
        of: dict[str, str] = {}
        for name, file in zip(names, stored, strict=True):
            if file in of:
                raise UserError(
                    f"{listed} lists {of[file]!r} and {name!r}, and both are {file!r} in {str(folder)!r}. Keep the images in "
                    "folders as they are listed."
                )
            of[file] = name
        names = stored
    return ImageSet(
        f"nuswide-{part}", str(folder), pa.array(names, pa.string()), targets, concepts, listed
    )
