"""MS-COCO as its publisher distributes it: instances JSON and folders of images, 2014 or 2017.

Files below the data root, for the year 2014 or 2017:

- ``annotations/instances_train2014.json`` and ``instances_val2014.json``: lists ``images``,
  ``annotations`` and ``categories``.
- ``train2014`` and ``val2014``: the images. The publisher's val is the test split.

Policy: every annotation gives its image the label of its category, even if its box has no area. If
all annotations of a label are crowds (``iscrowd``), ``data.crowd`` decides its target.

Source: Lin et al., Microsoft COCO: Common Objects in Context, 2014.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl.config import Data
from sadcl.data.base import TARGET, Boxes, ImageSet, has_area
from sadcl.data.readers import files, sources
from sadcl.errors import UserError

YEARS = {"coco14": "2014", "coco17": "2017"}
_LISTS = ("images", "annotations", "categories")


def concrete(name: str, root: Path) -> str:
    """Return which data set a root holds, ``coco14`` or ``coco17``.

    Args:
        name: one of the two, or ``coco`` for either; coco14 comes first.
        root: the data root.

    Raises:
        UserError: if the root holds no annotations of that year.
    """
    candidates = [name] if name in YEARS else list(YEARS)
    existing = [
        n for n in YEARS if _json(root, "train", n).exists() or _json(root, "val", n).exists()
    ]
    for candidate in candidates:
        if candidate in existing:
            return candidate
    expected = [_json(root, "train", n).relative_to(root).as_posix() for n in candidates]
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    entries = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(entries) - 6} more" if len(entries) > 6 else ""
    hint = f" It holds {' and '.join(existing)}: is that the data set you mean?" if existing else ""
    raise UserError(
        f"The data root {str(root)!r} is not a copy of COCO: looked for {' or '.join(expected)}, "
        f"found {(', '.join(entries[:6]) + more) or 'nothing'} in {str(folder)!r}.{hint} Give the "
        "folder that has annotations/instances_train2014.json (or 2017) and the image folders in "
        f"it. {files.convert_hint(root)}"
    )


def check_root(root: Path, config: Data) -> None:
    """Raise UserError if the root holds no annotations of that year."""
    concrete(config.name, root)


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test split, images in the order of their ids.

    Args:
        root: a folder with ``annotations``, ``train2014`` and ``val2014`` (or 2017).
        config: its name is ``coco14`` or ``coco17``.

    Raises:
        UserError: for a file that is missing or damaged, or ids that are listed nowhere.
    """
    train, test = (
        _split(root, part, config.name, TARGET[config.crowd]) for part in ("train", "val")
    )
    if train.labels != test.labels:
        difference = sorted(set(train.labels) ^ set(test.labels))
        which = f"{difference[0]!r} is in one only" if difference else "their order differs"
        raise UserError(
            f"The annotations of {config.name} in {str(root)!r} disagree: {len(train.labels)} "
            f"categories in train, {len(test.labels)} in val, and {which}. Both files must come "
            "from one release."
        )
    return files.check_disjoint(train, test)


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Yield split, image, label and values of each box without area in its image.

    Call it after :func:`read`, whose checks it relies on.
    """
    for split, part in enumerate(("train", "val")):
        content = read_content(_json(root, part, config.name))
        images = {image["id"]: image for image in content["images"]}
        labels = {category["id"]: category["name"] for category in content["categories"]}
        for annotation in content["annotations"]:
            box, image = annotation.get("bbox"), images[annotation["image_id"]]
            if box is None:
                continue
            corners, size = _corners(box), _size(image)
            if corners is None or not has_area(corners, *(size or ())):
                label = labels[annotation["category_id"]]
                yield split, image["file_name"], label, f"bbox {box}"


def boxes(root: Path, config: Data, images: ImageSet) -> Boxes:
    """Return the boxes with area of labels that these images show, crowds included.

    Call it after :func:`read`, whose checks it relies on. An image whose name differs from the
    listed one has no boxes.
    """
    content = read_content(root / "annotations" / images.list_name)
    position = {file: i for i, file in enumerate(images.files.to_pylist())}
    by_id = {image["id"]: image for image in content["images"] if image["file_name"] in position}
    column = {name: i for i, name in enumerate(images.labels)}
    labels = {category["id"]: column[category["name"]] for category in content["categories"]}
    rows: list[tuple[int, int, float, float, float, float]] = []
    for annotation in content["annotations"]:
        if (image := by_id.get(annotation["image_id"])) is None:
            continue
        i, label = position[image["file_name"]], labels[annotation["category_id"]]
        corners, size = _corners(annotation.get("bbox")), _size(image)
        if corners is not None and size is not None and images.targets[i, label] == 1:
            (left, top, right, bottom), (W, H) = corners, size
            rows.append((i, label, left / W, top / H, right / W, bottom / H))
    return Boxes.sorted(rows)


def _corners(box: Any) -> tuple[float, float, float, float] | None:
    """Return left, top, right and bottom of a ``bbox`` in pixels; None if it is none."""
    try:
        left, top, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return None
    return left, top, left + width, top + height


def _size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return width and height that the file gives for an image; None if they are no sizes."""
    try:
        size = float(image["width"]), float(image["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _json(root: Path, part: str, name: str) -> Path:
    return root / "annotations" / f"instances_{part}{YEARS[name]}.json"


def _split(root: Path, part: str, name: str, crowd: int) -> ImageSet:
    path, folder = _json(root, part, name), root / f"{part}{YEARS[name]}"
    content = read_content(path)
    categories = _categories(content, path)
    images = {
        _field(i, "id", int, path): _field(i, "file_name", str, path) for i in content["images"]
    }
    if not images:
        raise UserError(f"{str(path)!r} lists no images: the {part} split of {name} is empty.")
    row = {identity: i for i, identity in enumerate(sorted(images))}
    file_names = [images[identity] for identity in row]
    for file_name in file_names:
        if not files.is_inside(file_name):
            raise UserError(
                f"{str(path)!r} lists the file {file_name!r}; the plain name of a file in "
                f"{str(folder)!r} is needed. Use the publisher's file."
            )
    if len(set(file_names)) < len(content["images"]):
        raise UserError(
            f"{str(path)!r} lists an image twice, by id or by file name; use the publisher's file."
        )
    column = {identity: i for i, identity in enumerate(sorted(categories))}
    labels = tuple(categories[identity] for identity in column)
    targets = _targets(content, row, column, crowd, path)
    images_array = pa.array(file_names, pa.string())
    return ImageSet(f"{name}-{part}", str(folder), images_array, targets, labels, path.name)


def _categories(content: dict[str, list[Any]], path: Path) -> dict[int, str]:
    """Return the name of each category by its id."""
    categories = {
        _field(c, "id", int, path): _field(c, "name", str, path) for c in content["categories"]
    }
    if not categories:
        raise UserError(
            f"{str(path)!r} lists no categories, so no image can have a label; use the publisher's "
            "file."
        )
    if len(set(categories.values())) < len(content["categories"]):
        raise UserError(
            f"{str(path)!r} lists a category twice, by id or by name; use the publisher's file."
        )
    return categories


def _targets(
    content: dict[str, list[Any]],
    row: dict[int, int],
    column: dict[int, int],
    crowd: int,
    path: Path,
) -> NDArray[np.int8]:
    """Return the targets (N, L) from the annotations.

    Args:
        content: of the annotation file ``path``.
        row, column: positions of images and categories by their ids.
        crowd: target of a label whose annotations are all crowds.
        path: of the file, for messages.
    """
    targets = np.zeros((len(row), len(column)), dtype=np.int8)
    for annotation in content["annotations"]:
        image = _field(annotation, "image_id", int, path)
        category = _field(annotation, "category_id", int, path)
        if image not in row or category not in column:
            kind, value = ("image_id", image) if image not in row else ("category_id", category)
            raise UserError(
                f"{str(path)!r} has an annotation with {kind} {value}, which it does not list "
                f"({len(row)} images, {len(column)} categories are listed); the file is damaged or "
                "was put together wrongly."
            )
        is_crowd = annotation.get("iscrowd", 0)
        if type(is_crowd) is not int or is_crowd not in (0, 1):
            raise UserError(
                f"{str(path)!r} has an annotation of image_id {image} with iscrowd = "
                f"{is_crowd!r}; 0 or 1 is possible. Use the publisher's file."
            )
        cell = row[image], column[category]
        if not is_crowd:
            targets[cell] = 1
        elif targets[cell] != 1:
            targets[cell] = crowd
    return targets


def read_content(path: Path) -> dict[str, list[Any]]:
    """Return the content of an annotation file after checking that it has the three lists.

    It is without outlines, and names of files have slashes, also where Windows wrote them.
    """
    try:
        data = sources.read_bytes(path)
    except OSError as error:
        raise UserError(
            f"The annotation file {str(path)!r} cannot be read: {error.strerror or error}. It is "
            "part of COCO's annotations_trainval archive; unpack that into the data root."
        ) from None
    try:
        content = json.loads(data, object_hook=_simplified)
        if any(data.count(b'"%s"' % key.encode()) > 1 for key in _LISTS):
            json.loads(data, object_pairs_hook=_check_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} ({len(data):,} bytes) is not valid JSON: {error}. It may have been cut "
            "short while it was copied or unpacked; fetch it again."
        ) from None
    for key in _LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            keys = (
                ", ".join(map(repr, content))
                if isinstance(content, dict)
                else f"a {type(content).__name__}"
            )
            raise UserError(
                f"{str(path)!r} has no list {key!r}: found {keys or 'nothing'}. Instances JSON is "
                "needed, not captions or the image lists of the test server."
            )
    return content


def _check_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise ValueError for an object with two lists of one name, of which JSON keeps the last."""
    item = dict(pairs)
    for key in _LISTS if len(item) < len(pairs) else ():
        if sum(name == key for name, _ in pairs) > 1:
            raise ValueError(f"it has two lists {key!r}, of which one would be lost")
    return item


def _simplified(item: dict[str, Any]) -> dict[str, Any]:
    """Drop outlines, which take most of the memory, while the file is still being parsed."""
    item.pop("segmentation", None)
    if isinstance(name := item.get("file_name"), str) and "\\" in name:
        item["file_name"] = files.with_slashes(name)
    return item


def _field(item: Any, key: str, kind: type, path: Path) -> Any:
    """Return a field of an entry after checking its type and characters."""
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(
            f"{str(path)!r} has an entry without a usable {key!r} ({kind.__name__} is needed, "
            f"found {value!r}): {json.dumps(item)[:120]}. Use the publisher's file."
        )
    if isinstance(value, str) and (char := files.bad_character(value)):
        raise UserError(
            f"{str(path)!r} has a {key} with the character {char}: {ascii(value)[:80]}. Use the "
            "publisher's file."
        )
    return value
