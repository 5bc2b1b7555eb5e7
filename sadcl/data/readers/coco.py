"""MS-COCO as its publisher distributes it: instances JSON and folders of images, 2014 or 2017.

Every annotation gives its image its category's label, boxes without area too; where all of a label's are of crowds,
``data.crowd`` decides. What is wrong with a copy
is found here, before anything trains.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sadcl.config import Data
from sadcl.data.base import TARGET, Boxes, ImageSet
from sadcl.data.readers import files
from sadcl.errors import UserError

YEARS = {"coco14": "2014", "coco17": "2017"}


def concrete(name: str, root: Path) -> str:
    """``coco14`` or ``coco17``: which of the two a data root holds, 2014 first where it was left open.

    Raises:
        UserError: where the root holds no annotations of that year.
    """
    wanted = [name] if name in YEARS else list(YEARS)
    held = [n for n in YEARS if _json(root, "train", n).exists() or _json(root, "val", n).exists()]
    for candidate in wanted:
        if candidate in held:
            return candidate
    looked = " or ".join(_json(root, "train", n).relative_to(root).as_posix() for n in wanted)
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    found = sorted(entry.name for entry in folder.iterdir())
    there = (
        ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
        if found
        else "nothing"
    )
    hint = f" It holds {' and '.join(held)}: is that the data set you mean?" if held else ""
    raise UserError(
        f"The data root {str(root)!r} is not a copy of COCO: looked for {looked}, found {there} in {str(folder)!r}."
        f"{hint} Give the folder that has annotations/instances_train2014.json (or 2017) and the image folders in it."
    )


def sources(root: Path, config: Data) -> list[Path]:
    """The annotation files."""
    return [_json(root, part, config.name) for part in ("train", "val")]


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """The training and the test split (the publisher's val), images in the order of their ids.

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
        odd = sorted(set(train.labels) ^ set(test.labels))
        which = f"{odd[0]!r} is in one of them only" if odd else "their order differs"
        raise UserError(
            f"The annotations of {config.name} in {str(root)!r} disagree: {len(train.labels)} categories in train, "
            f"{len(test.labels)} in val, and {which}. Both files must come from one release."
        )
    return files.disjoint(train, test)


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Split, image, label and values of each box without area; after :func:`read`, whose checks it relies on."""
    for split, part in enumerate(("train", "val")):
        content = _content(_json(root, part, config.name))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        labels = {category["id"]: category["name"] for category in content["categories"]}
        for annotation in content["annotations"]:
            box = annotation.get("bbox")
            try:
                flat = box is not None and not (box[2] > 0 and box[3] > 0)
            except (TypeError, LookupError):
                flat = True
            if flat:
                yield (
                    split,
                    names[annotation["image_id"]],
                    labels[annotation["category_id"]],
                    f"bbox {box}",
                )


def boxes(root: Path, config: Data, images: ImageSet) -> Boxes:
    """The boxes with area of what a set of these images shows, crowds too; after :func:`read`, whose checks it relies on.

    An image under another name than the listed one has none.
    """
    content = _content(root / "annotations" / images.listed)
    place = {file: i for i, file in enumerate(images.files.to_pylist())}
    about = {image["id"]: image for image in content["images"] if image["file_name"] in place}
    column = {name: i for i, name in enumerate(images.labels)}
    labels = {category["id"]: column[category["name"]] for category in content["categories"]}
    found: list[tuple[int, int, float, float, float, float]] = []
    for annotation in content["annotations"]:
        if (image := about.get(annotation["image_id"])) is None:
            continue
        at, label = place[image["file_name"]], labels[annotation["category_id"]]
        try:
            left, top, width, height = map(float, annotation["bbox"])
            wide, high = float(image["width"]), float(image["height"])
        except (KeyError, TypeError, ValueError):
            continue
        if images.targets[at, label] == 1 and min(width, height, wide, high) > 0:
            found.append(
                (at, label, left / wide, top / high, (left + width) / wide, (top + height) / high)
            )
    return Boxes.sorted(found)


def _json(root: Path, part: str, name: str) -> Path:
    return root / "annotations" / f"instances_{part}{YEARS[name]}.json"


def _split(root: Path, part: str, year: str, crowd: int) -> ImageSet:
    path, folder = _json(root, part, year), root / f"{part}{YEARS[year]}"
    content = _content(path)
    categories = {
        _field(c, "id", int, path): _field(c, "name", str, path) for c in content["categories"]
    }
    if not categories:
        raise UserError(
            f"{str(path)!r} lists no categories, so no image can have a label; use the publisher's file."
        )
    column = {identity: i for i, identity in enumerate(sorted(categories))}
    labels = tuple(categories[identity] for identity in column)
    if len(set(labels)) < len(content["categories"]):
        raise UserError(
            f"{str(path)!r} lists a category twice, by id or by name; use the publisher's file."
        )

    images = {
        _field(i, "id", int, path): _field(i, "file_name", str, path) for i in content["images"]
    }
    if not images:
        raise UserError(f"{str(path)!r} lists no images: the {part} split of {year} is empty.")
    row = {identity: i for i, identity in enumerate(sorted(images))}
    names = [images[identity] for identity in row]
    for name in names:
        if not files.inside(name):
            raise UserError(
                f"{str(path)!r} lists the file {name!r}; the plain name of a file in {str(folder)!r} is needed. Use the "
                "publisher's file."
            )
    if len(set(names)) < len(content["images"]):
        raise UserError(
            f"{str(path)!r} lists an image twice, by id or by file name; use the publisher's file."
        )

    targets = np.zeros((len(row), len(column)), dtype=np.int8)
    for annotation in content["annotations"]:
        image = _field(annotation, "image_id", int, path)
        category = _field(annotation, "category_id", int, path)
        if image not in row or category not in column:
            kind, value = ("image_id", image) if image not in row else ("category_id", category)
            raise UserError(
                f"{str(path)!r} has an annotation with {kind} {value}, which it does not list ({len(row)} images, "
                f"{len(column)} categories are listed); the file is damaged or was put together wrongly."
            )
        at = row[image], column[category]
        many = annotation.get("iscrowd", 0)
        if type(many) is not int or many not in (0, 1):
            raise UserError(
                f"{str(path)!r} has an annotation of image_id {image} with iscrowd = {many!r}; 0 or 1 is possible. Use the "
                "publisher's file."
            )
        if not many:
            targets[at] = 1
        elif targets[at] != 1:
            targets[at] = crowd
    return ImageSet(
        f"{year}-{part}", str(folder), pa.array(names, pa.string()), targets, labels, path.name
    )


def _content(path: Path) -> dict[str, list[Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"The annotation file {str(path)!r} cannot be read: {error.strerror or error}. It is part of COCO's "
            "annotations_trainval archive; unpack that into the data root."
        ) from None
    try:
        content = json.loads(data, object_hook=_without_outlines)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} ({len(data):,} bytes) is not valid JSON: {error}. It may have been cut short while it was "
            "copied or unpacked; fetch it again."
        ) from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            found = (
                ", ".join(map(repr, content))
                if isinstance(content, dict)
                else f"a {type(content).__name__}"
            )
            raise UserError(
                f"{str(path)!r} has no list {key!r}: found {found or 'nothing'}. Instances JSON is needed, not "
                "captions or the image lists of the test server."
            )
    return content


def _without_outlines(item: dict[str, Any]) -> dict[str, Any]:
    """Drop what takes most of the memory while the file is still being parsed."""
    item.pop("segmentation", None)
    return item


def _field(item: Any, key: str, kind: type, path: Path) -> Any:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(
            f"{str(path)!r} has an entry without a usable {key!r} ({kind.__name__} is needed, found {value!r}): "
            f"{json.dumps(item)[:120]}. Use the publisher's file."
        )
    if isinstance(value, str) and (char := files.odd(value)):
        raise UserError(
            f"{str(path)!r} has a {key} with the character {char}: {ascii(value)[:80]}. Use the publisher's file."
        )
    return value
