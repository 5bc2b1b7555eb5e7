"""Small exports of the tools that people label with, as each of them writes its files.

Each function writes images and annotations of :data:`IMAGES`, or of others, below a folder.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import yaml

from sadcl.config import Data
from sadcl.data.readers.folder import read as read_folder
from tests.data.pictures import picture
from tests.data.readers.layouts import put


class Shown(NamedTuple):
    """An image of an export."""

    name: str
    labels: tuple[str, ...]
    split: str


IMAGES = (
    Shown("a.jpg", ("dog",), "train"),
    Shown("b.jpg", ("cat", "dog"), "train"),
    Shown("c.jpg", (), "train"),
    Shown("d.jpg", ("cow", "cat"), "test"),
    Shown("e.jpg", ("dog",), "test"),
)
Images = Sequence[Shown]


def read(root: Path) -> dict[str, tuple[str, set[str]]]:
    """Split and labels of each image of a folder that was written, by its name."""
    splits = zip(("train", "test"), read_folder(root, Data(name="folder")), strict=True)
    return {
        name.rpartition("/")[2]: (part, {images.labels[x] for x in np.flatnonzero(row_L == 1)})
        for part, images in splits
        for name, row_L in zip(images.files.to_pylist(), images.targets, strict=True)
    }  # fmt: skip


def names_of(images: Images) -> list[str]:
    return list(dict.fromkeys(label for one in images for label in one.labels))


def _parts(images: Images) -> dict[str, list[Shown]]:
    return {split: [one for one in images if one.split == split] for split in ("train", "test")}


def _pixels(root: Path, images: Images, folder: str) -> None:
    for i, one in enumerate(images):
        put(root / folder.format(split=one.split) / one.name, _jpeg(i))


@functools.cache
def _jpeg(i: int) -> bytes:
    """A picture of its own, so that no two have the same bytes."""
    file = io.BytesIO()
    picture(16, 12 + i).save(file, "JPEG")
    return file.getvalue()


def _coco(images: Images, name: Callable[[Shown], str] = lambda one: one.name) -> str:
    labels = names_of(images)
    return json.dumps(
        {
            "info": {"description": ""},
            "licenses": [],
            "categories": [
                {"id": 0, "name": "all-of-them", "supercategory": "none"},
                *(
                    {"id": i, "name": label, "supercategory": "all-of-them"}
                    for i, label in enumerate(labels, start=1)
                ),
            ],
            "images": [
                {"id": i, "file_name": name(one), "height": 8, "width": 8}
                for i, one in enumerate(images)
            ],
            "annotations": [
                {"id": 10 * i + k, "image_id": i, "category_id": labels.index(label) + 1,
                 "bbox": [1, 1, 4, 4], "iscrowd": 0}
                for i, one in enumerate(images)
                for k, label in enumerate(one.labels)
            ],
        }
    )  # fmt: skip


def roboflow_coco(root: Path, images: Images) -> None:
    _pixels(root, images, "{split}")
    for split, part in _parts(images).items():
        put(root / split / "_annotations.coco.json", _coco(part))


def cvat_coco(root: Path, images: Images) -> None:
    _pixels(root, images, "images/{split}")
    for split, part in _parts(images).items():
        put(root / f"annotations/instances_{split}.json", _coco(part))


def windows_coco(root: Path, images: Images) -> None:
    """Paths of another machine, and texts as ids."""
    _pixels(root, images, "photos/{split}")
    for split, part in _parts(images).items():
        text = _coco(part, lambda one: f"C:\\data\\{one.split}\\{one.name}")
        put(root / f"{split}.json", text.replace('"image_id": 0', '"image_id": "0"'))


def _voc(one: Shown, stem: str) -> str:
    objects = "".join(
        f"<object><name>{escape(label)}</name><difficult>0</difficult></object>"
        for label in one.labels
    )
    file = escape(one.name)
    return f"<annotation><filename>{file}</filename>{objects}</annotation>"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def devkit(root: Path, images: Images) -> None:
    _pixels(root, images, "VOC2007/JPEGImages")
    for one in images:
        stem = _stem(one.name)
        put(root / f"VOC2007/Annotations/{stem}.xml", _voc(one, stem))
    for split, part in _parts(images).items():
        name = {"train": "trainval", "test": "test"}[split]
        listed = "".join(f"{_stem(one.name)}\n" for one in part)
        put(root / f"VOC2007/ImageSets/Main/{name}.txt", listed)
        put(root / f"VOC2007/ImageSets/Main/dog_{name}.txt", "a  1\n")


def roboflow_voc(root: Path, images: Images) -> None:
    _pixels(root, images, "{split}")
    for one in images:
        stem = _stem(one.name)
        put(root / one.split / f"{stem}.xml", _voc(one, stem))


def _boxes(one: Shown, labels: list[str]) -> str:
    return "".join(f"{labels.index(label)} 0.5 0.5 0.25 0.25\n" for label in one.labels)


def ultralytics(root: Path, images: Images) -> None:
    _pixels(root, images, "images/{split}")
    labels = names_of(images)
    for one in images:
        if one.labels:  # a picture of the background has no file
            put(root / "labels" / one.split / f"{_stem(one.name)}.txt", _boxes(one, labels))
    content: dict[str, object] = {"path": "../data", "train": "images/train", "test": "images/test"}
    content |= {"names": dict(enumerate(labels))}
    put(root / "data.yaml", yaml.safe_dump(content, allow_unicode=True))


def roboflow_yolo(root: Path, images: Images) -> None:
    """Outlines instead of boxes, and a background picture with an empty file."""
    _pixels(root, images, "{split}/images")
    labels = names_of(images)
    for one in images:
        text = _boxes(one, labels).replace("0.25 0.25", "0.1 0.2 0.3 0.4 0.5 0.6")
        put(root / one.split / "labels" / f"{_stem(one.name)}.txt", text)
    names = {"train": "../train/images", "test": "../test/images", "names": labels}
    put(root / "data.yaml", yaml.safe_dump({"nc": len(labels), **names}))
    put(root / "README.roboflow.txt", "exported\n")


def cvat_yolo(root: Path, images: Images) -> None:
    labels = names_of(images)
    for split, folder in (("train", "obj_train_data"), ("test", "obj_test_data")):
        for i, one in enumerate(images):
            if one.split == split:
                put(root / folder / one.name, _jpeg(i))
                put(root / folder / f"{_stem(one.name)}.txt", _boxes(one, labels))
        listed = "".join(f"data/{folder}/{one.name}\n" for one in _parts(images)[split])
        put(root / f"{split}.txt", listed)
    put(root / "obj.names", "".join(f"{label}\n" for label in labels))
    put(root / "obj.data", "classes = 3\ntrain = data/train.txt\n")


def cvat_xml(root: Path, images: Images) -> None:
    _pixels(root, images, "images/{split}")
    labels = "".join(f"<label><name>{escape(label)}</name></label>" for label in names_of(images))
    kinds = ("box", "tag", "polygon")
    parts = []
    for i, one in enumerate(images):
        shapes = "".join(
            f"<{kinds[k % 3]} label={quoteattr(label)} source='manual'></{kinds[k % 3]}>"
            for k, label in enumerate(one.labels)
        )
        subset = one.split.capitalize()
        parts.append(
            f'<image id="{i}" name={quoteattr(one.name)} subset="{subset}">{shapes}</image>'
        )
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    text = f"<annotations><version>1.1</version>{meta}{''.join(parts)}</annotations>"
    put(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}')


def _region(kind: str, labels: Sequence[str]) -> dict[str, object]:
    return {"type": kind, "from_name": "x", "to_name": "image", "value": {kind: list(labels)}}


def label_studio(root: Path, images: Images) -> None:
    """Uploaded images, whose names have eight digits before them; choices and rectangles."""
    _pixels(root, images, "images")
    tasks = []
    for i, one in enumerate(images):
        result = [_region("choices", one.labels[:1])] if one.labels else []
        result += [_region("rectanglelabels", [label]) for label in one.labels[1:]]
        tasks.append(
            {"id": i, "annotations": [{"result": result, "was_cancelled": False}],
             "data": {"image": f"/data/upload/1/8f3a01{i:02}-{one.name}", "split": one.split}}
        )  # fmt: skip
    put(root / "project-1.json", json.dumps(tasks))


def label_studio_short(root: Path, images: Images) -> None:
    _pixels(root, images, "images")
    tasks = []
    for i, one in enumerate(images):
        task: dict[str, object] = {
            "image": f"/data/local-files/?d=images/{quote(one.name)}",
            "id": i,
            "split": one.split,
            "annotator": 1,
            "lead_time": 2.5,
        }
        if len(one.labels) == 1:
            task["choice"] = one.labels[0]
        elif one.labels:
            task["choice"] = {"choices": list(one.labels)}
        tasks.append(task)
    put(root / "min.json", json.dumps(tasks))


def _csv(path: Path, rows: Sequence[Sequence[object]], between: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=between).writerows(rows)


def roboflow_classes(root: Path, images: Images) -> None:
    """A column for each class, with a blank before its name."""
    _pixels(root, images, "{split}")
    labels = names_of(images)
    for split, part in _parts(images).items():
        rows = [[one.name, *(int(label in one.labels) for label in labels)] for one in part]
        _csv(root / split / "_classes.csv", [["filename", *(f" {one}" for one in labels)], *rows])


def kaggle(root: Path, images: Images) -> None:
    """A column for each class, ids without an ending, and columns that are no labels."""
    _pixels(root, images, "photos")
    labels = names_of(images)
    rows = [
        [_stem(one.name), 17.5 + i, one.split, *(float(label in one.labels) for label in labels)]
        for i, one in enumerate(images)
    ]
    _csv(root / "train_labels.csv", [["image_id", "age", "split", *labels], *rows], ";")


def row_a_label(root: Path, images: Images) -> None:
    _pixels(root, images, "photos")
    rows = [[one.name, label, one.split] for one in images for label in one.labels or ("",)]
    _csv(root / "data.csv", [["file", "label", "set"], *rows])


def chest_x_ray(root: Path, images: Images) -> None:
    _pixels(root, images, "photos")
    rows = [[one.name, "|".join(one.labels), one.split] for one in images]
    _csv(root / "entries.csv", [["Image Index", "Finding Labels", "split"], *rows])


def huggingface(root: Path, images: Images) -> None:
    _pixels(root, images, "{split}")
    for split, part in _parts(images).items():
        rows = [{"file_name": one.name, "labels": list(one.labels)} for one in part]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        put(root / split / "metadata.jsonl", text)


def huggingface_objects(root: Path, images: Images) -> None:
    _pixels(root, images, "data/{split}")
    rows = [
        {"file_name": f"data/{one.split}/{one.name}",
         "objects": {"bbox": [[1, 1, 4, 4]] * len(one.labels), "categories": list(one.labels)}}
        for one in images
    ]  # fmt: skip
    put(root / "metadata.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def huggingface_csv(root: Path, images: Images) -> None:
    _pixels(root, images, "{split}")
    for split, part in _parts(images).items():
        rows = [[one.name, repr(list(one.labels))] for one in part]
        _csv(root / split / "metadata.csv", [["file_name", "tags"], *rows])


EXPORTS: dict[Callable[[Path, Images], None], str] = {
    roboflow_coco: "coco",
    cvat_coco: "coco",
    windows_coco: "coco",
    devkit: "voc",
    roboflow_voc: "voc",
    ultralytics: "yolo",
    roboflow_yolo: "yolo",
    cvat_yolo: "yolo",
    cvat_xml: "cvat",
    label_studio: "label-studio",
    label_studio_short: "label-studio",
    roboflow_classes: "table",
    kaggle: "table",
    row_a_label: "table",
    chest_x_ray: "table",
    huggingface: "huggingface",
    huggingface_objects: "huggingface",
    huggingface_csv: "huggingface",
}
"""The exports, each with the format that it is."""
