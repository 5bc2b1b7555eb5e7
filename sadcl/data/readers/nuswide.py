"""NUS-WIDE: 81 concepts over Flickr images, in the layouts in which copies of it circulate.

Files below the data root; ``data.nuswide_split`` chooses between the first two and the third:

- ``lists``: ``ImageList/{Train,Test}Imagelist.txt``, one image a line, and
  ``Groundtruth/TrainTestLabels/Labels_<concept>_{Train,Test}.txt``, a 0 or 1 for each line.
- ``lists`` without these label files: ``Groundtruth/AllLabels/Labels_<concept>.txt``, a 0 or 1 for
  each line of ``ImageList/Imagelist.txt``, divided by the same two lists.
- ``csv``: ``nus_wid_data.csv`` with the columns ``filepath``, ``label`` and ``split_name`` (train
  or val), another split, which was published with ASL.

Images lie in ``Flickr`` or ``images``: in folders of their search words as listed, all in one
folder under their name, or in one folder under the id that ends the name. Many are no longer
available: ``data.missing``. Labels come in the order of ``ConceptsList/Concepts81.txt``, which is
alphabetical.

Source: Chua, Tang, Hong, Li, Luo, Zheng, NUS-WIDE: A Real-World Web Image Database from National
University of Singapore, 2009.
"""

from __future__ import annotations

import ast
import fnmatch
import posixpath
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl.config import Data
from sadcl.data.base import ImageSet
from sadcl.data.readers import files, sources
from sadcl.errors import UserError

CONCEPTS = 81
_HINT = (
    "It comes with the publisher's archives Groundtruth, ImageList and ConceptsList; unpack them "
    "into the data root."
)
_CSV = "nus_wid_data.csv"


def check_root(root: Path, config: Data) -> None:
    """Raise UserError if the root is no copy in the layout of ``data.nuswide_split``."""
    if config.nuswide_split == "csv":
        if not (root / _CSV).is_file():
            raise UserError(
                f"The data root {str(root)!r} has no {_CSV}, which data.nuswide_split = 'csv' asks "
                "for."
            )
        return
    lists, truth = root / "ImageList", root / "Groundtruth"
    if not lists.is_dir() or not truth.is_dir():
        has_csv = (root / _CSV).is_file()
        hint = f" It has {_CSV}: data.nuswide_split = 'csv' reads that split." if has_csv else ""
        raise UserError(
            f"The data root {str(root)!r} is not a copy of NUS-WIDE: folders ImageList and "
            f"Groundtruth are needed.{hint} Give the folder that the publisher's archives were "
            "unpacked in."
        )


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test split, images in the order of the lists.

    Raises:
        UserError: for a file that is missing or damaged, lists of unequal length, or an unknown
            concept.
    """
    if config.nuswide_split == "csv":
        return files.check_disjoint(*_read_csv(root))
    concepts = _concepts(root)
    folder = root / "Groundtruth" / "TrainTestLabels"
    is_divided = bool(_label_files(folder))
    sets = []
    for part in ("Train", "Test"):
        path = root / "ImageList" / f"{part}Imagelist.txt"
        names = list(_positions(path))
        if is_divided:
            columns = [
                _column(folder / f"Labels_{concept}_{part}.txt", path, len(names))
                for concept in concepts
            ]
            targets = np.stack(columns, axis=1)
        else:
            targets = _targets_from_all(root, concepts, names, path)
        sets.append(_image_set(root, part.lower(), names, targets, concepts, path.name))
    return files.check_disjoint(*sets)


def _positions(path: Path) -> dict[str, int]:
    """Return the images of a list with their positions."""
    positions: dict[str, int] = {}
    for entry, line in files.read_entries(path, _HINT).items():
        if re.search(r"\.(jpe?g|png)\s+\S", entry, re.IGNORECASE):
            raise UserError(
                f"{str(path)!r} line {line} has several columns, {entry[:80]!r}; the publisher's "
                "lists have one image's name a line, and labels are in Groundtruth. Use those."
            )
        positions[entry.replace("\\", "/")] = len(positions)
    return positions


def _concept_lists(root: Path) -> tuple[Path, ...]:
    return root / "ConceptsList" / "Concepts81.txt", root / "Concepts81.txt"


def _concepts(root: Path, csv_labels: set[str] | None = None) -> tuple[str, ...]:
    """Return the concepts in the publisher's order.

    Without the publisher's list they are those of the CSV file, if given, or of the label files, in
    alphabetical order.
    """
    for path in _concept_lists(root):
        if sources.is_file(path):
            labels, source = tuple(files.read_entries(path, _HINT)), path
            break
    else:
        source = root / _CSV if csv_labels is not None else root / "Groundtruth"
        folders = [source / name for name in sources.names_in(source)]
        stems = {
            Path(name).stem.removesuffix("_Train").removesuffix("_Test")
            for folder in folders
            for name in _label_files(folder)
        }
        names = {stem.removeprefix("Labels_") for stem in stems}
        labels = tuple(sorted(csv_labels if csv_labels is not None else names))
    if len(labels) != CONCEPTS:
        raise UserError(
            f"{str(source)!r} has {len(labels)} concepts; NUS-WIDE has {CONCEPTS}. {_HINT}"
        )
    return labels


def _label_files(folder: Path) -> list[str]:
    """Return the names of the label files in a folder."""
    return fnmatch.filter(sources.names_in(folder), "Labels_*.txt")


def _column(path: Path, list_path: Path, count: int) -> NDArray[np.int8]:
    """Return the targets (N,) of one concept for the ``count`` images of a list."""
    content = files.read_text(path, _HINT)
    values = content.split()
    digits = np.frombuffer("".join(values).encode(), dtype=np.uint8) - ord("0")
    if (digits > 1).any() or len(digits) != len(values):
        line, value = next(
            (n, v)
            for n, v in enumerate(content.splitlines(), start=1)
            if v.strip() not in ("", "0", "1")
        )
        raise UserError(
            f"{str(path)!r} line {line} is {value[:40]!r}; 0 or 1 is possible. Fetch the file "
            "again."
        )
    if len(digits) != count:
        raise UserError(
            f"{str(path)!r} has {len(digits):,} labels for the {count:,} images that "
            f"{list_path.name} lists; both must come from one release, whole."
        )
    return digits.astype(np.int8)


def _targets_from_all(
    root: Path, concepts: tuple[str, ...], names: list[str], list_path: Path
) -> NDArray[np.int8]:
    """Return the targets (N, L) of these images from the label files of all images."""
    path = root / "ImageList" / "Imagelist.txt"
    row = _positions(path)
    for name in names:
        if name not in row:
            raise UserError(
                f"{str(list_path)!r} lists {name!r}, which {path.name} does not; both must come "
                "from one release."
            )
    rows = [row[name] for name in names]
    folder = root / "Groundtruth" / "AllLabels"
    return np.stack(
        [_column(folder / f"Labels_{concept}.txt", path, len(row))[rows] for concept in concepts],
        axis=1,
    )


def _read_csv(root: Path) -> tuple[ImageSet, ImageSet]:
    path = root / _CSV
    rows = _csv_rows(path)
    concepts = _concepts(root, {label for _, labels in rows.values() for label in labels})
    column = {concept: i for i, concept in enumerate(concepts)}
    sets = []
    for part in ("train", "val"):
        names = [name for name, (row_part, _) in rows.items() if row_part == part]
        targets = np.zeros((len(names), len(concepts)), dtype=np.int8)
        for row_L, name in zip(targets, names, strict=True):
            for label in rows[name][1]:
                if label not in column:
                    raise UserError(
                        f"{str(path)!r} gives {name!r} the label {label!r}, which is no concept of "
                        "NUS-WIDE."
                    )
                row_L[column[label]] = 1
        images = pa.array(names, pa.string())
        sets.append(ImageSet(f"nuswide-{part}", str(root), images, targets, concepts, path.name))
    return sets[0], sets[1]


def _csv_rows(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Return split and labels of each image in the CSV file."""
    rows: dict[str, tuple[str, list[str]]] = {}
    columns = {"filepath", "label", "split_name"}
    for position, row in files.read_csv(path, columns, "It came with ASL's code."):
        try:
            labels = ast.literal_eval(row["label"])
        # the latter two are raised for many brackets
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            labels = None
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(
                f"{position} has label {row['label']!r}; a list such as ['sky', 'sun'] is needed."
            )
        name, part = posixpath.normpath(row["filepath"].replace("\\", "/")), row["split_name"]
        if not files.is_inside(name) or part not in ("train", "val"):
            raise UserError(
                f"{position} has filepath {name!r} and split_name {part!r}; a path below the root, "
                "and train or val, are needed."
            )
        if name in rows:
            raise UserError(f"{position} has {name!r} a second time; remove one of the two rows.")
        rows[name] = part, labels
    return rows


def _image_folder(root: Path) -> Path:
    return root / "Flickr" if sources.is_dir(root / "Flickr") else root / "images"


def _image_set(
    root: Path,
    part: str,
    names: list[str],
    targets: NDArray[np.int8],
    concepts: tuple[str, ...],
    list_name: str,
) -> ImageSet:
    """Return a split with the names that its images are stored under.

    These are the listed names, the names without their folder, or the ids alone.
    """
    folder = _image_folder(root)
    entries = set(sources.names_in(folder))
    without_folder = [name.rsplit("/", 1)[-1] for name in names]
    ids = [name.rsplit("_", 1)[-1] for name in without_folder]
    stored = next((other for other in (without_folder, ids) if entries.intersection(other)), None)
    if stored:
        listed_as: dict[str, str] = {}
        for name, file in zip(names, stored, strict=True):
            if file in listed_as:
                raise UserError(
                    f"{list_name} lists {listed_as[file]!r} and {name!r}, and both are {file!r} in "
                    f"{str(folder)!r}. Keep the images in folders as they are listed."
                )
            listed_as[file] = name
        names = stored
    images = pa.array(names, pa.string())
    return ImageSet(f"nuswide-{part}", str(folder), images, targets, concepts, list_name)
