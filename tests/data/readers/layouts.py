"""Small copies of every data set in the layout that its publisher distributes.

A split is a list of sets of label numbers, one set for each image. The layout decides how many
labels there are and what they are called.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.io import encode_jpeg

from sadcl.config import Data
from sadcl.data.readers import voc
from sadcl.errors import UserError

TRAIN = [{0}, {1, 2}, set(), {0, 1}, {1, 2}, {0}, {1}, {0, 2}]
TEST = [{0, 1}, {2}, set(), {0}]
"""Labels by number: 0 is more frequent than 1, 1 than 2."""
_JPEG = encode_jpeg(torch.full((3, 8, 8), 99, dtype=torch.uint8)).numpy().tobytes()

Split = list[set[int]]


class Layout(NamedTuple):
    """A layout, how to write it, and what reading it has to give."""

    name: str
    config: Data
    labels: tuple[str, ...]
    write: Callable[[Path, Split, Split], None]
    files: tuple[Callable[[int], str], Callable[[int], str]]
    """Path below the split's folder of its image i."""
    sources: tuple[str, ...]
    """Patterns of the files that labels and paths follow from."""

    def __repr__(self):
        return self.name


def put(path, content=_JPEG):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(path, lines):
    put(path, "".join(f"{line}\n" for line in lines))


def coco(year):
    labels = ("dog", "cat", "cow")

    def name(part, i):
        return f"COCO_{part}2014_{i:012}.jpg" if year == 2014 else f"{i:012}.jpg"

    def write(root, train, test):
        for part, split in (("train", train), ("val", test)):
            for i in range(len(split)):
                put(root / f"{part}{year}" / name(part, i))
            box = {
                "segmentation": [[1, 1, 5, 1, 5, 5]],
                "area": 16.0,
                "bbox": [1.0, 1.0, 4.0, 4.0],
                "iscrowd": 0,
            }
            boxes = [
                {**box, "image_id": i, "category_id": 10 + label}
                for i, shown in enumerate(split)
                for label in shown
            ]
            content = {
                "info": {"year": year},
                "images": [
                    {"license": 1, "file_name": name(part, i), "height": 8, "id": i}
                    for i in range(len(split))
                ],
                "annotations": [{**box, "id": i} for i, box in enumerate(boxes)],
                "categories": [
                    {"supercategory": "animal", "id": 10 + i, "name": label}
                    for i, label in enumerate(labels)
                ],
            }
            put(root / "annotations" / f"instances_{part}{year}.json", json.dumps(content))

    files = (lambda i: name("train", i), lambda i: name("val", i))
    return Layout(
        f"coco{year % 100}", Data(name="coco"), labels, write, files, ("annotations/*.json",)
    )


def objects_xml(year, things, filename=None):
    """Things are names with difficult or None."""
    corners = (
        "<bndbox>\n<xmin>1</xmin>\n<ymin>2</ymin>\n<xmax>{}</xmax>\n<ymax>9</ymax>\n</bndbox>\n"
    )
    parts = [
        f"<object>\n<name>{name}</name>\n<pose>Left</pose>\n<truncated>0</truncated>\n"
        + ("" if hard is None else f"<difficult>{hard}</difficult>\n")
        + f"{corners.format(5)}<part>\n<name>head</name>\n{corners.format(4)}</part>\n</object>\n"
        for name, hard in things
    ]
    file = f"<filename>{filename}</filename>\n" if filename else ""
    owner = "<owner>\n<name>Somebody</name>\n</owner>\n"
    return f"<annotation>\n<folder>{year}</folder>\n{file}{owner}{''.join(parts)}</annotation>\n"


def pascal(year, parts, home):
    def write(root, train, test):
        for part, split, first in ((parts[0], train, 0), (parts[1], test, 500)):
            table(
                root / home / f"ImageSets/Main/{part}.txt",
                [f"{first + i:06}" for i in range(len(split))],
            )
            table(root / home / f"ImageSets/Main/{voc.LABELS[0]}_{part}.txt", [f"{first:06}  1"])
            for i, shown in enumerate(split, start=first):
                # the lists have no image without an object
                things = [(voc.LABELS[label], 0) for label in sorted(shown)] or [
                    (voc.LABELS[-1], 1)
                ]
                put(
                    root / home / f"Annotations/{i:06}.xml",
                    objects_xml(year, things, f"{i:06}.jpg"),
                )
                put(root / home / f"JPEGImages/{i:06}.jpg")

    files = (lambda i: f"{i:06}.jpg", lambda i: f"{500 + i:06}.jpg")
    lists = (f"ImageSets/Main/{part}.txt" for part in parts)
    sources = tuple((Path(home) / name).as_posix() for name in ("Annotations/*.xml", *lists))
    name = f"{year.lower()}{'' if home else '-itself'}"
    return Layout(
        name, Data(name=year.lower(), difficult="negative"), voc.LABELS, write, files, sources
    )


CONCEPTS = tuple(f"concept{i:02}" for i in range(81))


def nuswide(kind):
    names = (lambda i: f"actor/{i:04}_77{i}.jpg", lambda i: f"zoo/{i:04}_88{i}.jpg")
    flat = tuple(lambda i, f=f: f(i).rsplit("/", 1)[1] for f in names)
    files = {
        "lists": names,
        "all": flat,
        "csv": tuple(lambda i, f=f: f"images/{f(i)}" for f in flat),
    }[kind]

    def write(root, train, test):
        for name, split in zip(files, (train, test), strict=True):
            for i in range(len(split)):
                put(root / {"lists": "Flickr", "all": "images", "csv": ""}[kind] / name(i))
        table(
            root / ("Concepts81.txt" if kind == "csv" else "ConceptsList/Concepts81.txt"), CONCEPTS
        )
        if kind == "csv":
            rows = [["filepath", "label", "split_name"]]
            for part, name, split in (("train", files[0], train), ("val", files[1], test)):
                rows += [
                    [name(i), str([CONCEPTS[x] for x in sorted(shown)]), part]
                    for i, shown in enumerate(split)
                ]
            with (root / "nus_wid_data.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
            return
        listed = [
            [name(i).replace("/", "\\") for i in range(len(s))]
            for name, s in zip(names, (train, test), strict=True)
        ]
        for part, entries in zip(("Train", "Test"), listed, strict=True):
            table(root / f"ImageList/{part}Imagelist.txt", entries)
        table(root / "ImageList/Imagelist.txt", listed[1] + listed[0])
        for label, concept in enumerate(CONCEPTS):
            columns = [[int(label in shown) for shown in split] for split in (train, test)]
            if kind == "all":
                table(root / f"Groundtruth/AllLabels/Labels_{concept}.txt", columns[1] + columns[0])
            else:
                for part, column in zip(("Train", "Test"), columns, strict=True):
                    table(root / f"Groundtruth/TrainTestLabels/Labels_{concept}_{part}.txt", column)

    config = Data(name="nuswide", nuswide_split="csv" if kind == "csv" else "lists")
    sources = (
        ("*.csv",)
        if kind == "csv"
        else ("ImageList/T*.txt", "Groundtruth/*/Labels_concept0[0-2]*.txt")
    )
    return Layout(f"nuswide-{kind}", config, CONCEPTS, write, files, sources)


def genome(kind):
    """With three categories: tests set ``vg500.CATEGORIES`` and ``vg500.TEST``."""
    files = (lambda i: f"VG_100K/{i + 1}.jpg", lambda i: f"VG_100K_2/{i + 101}.jpg")
    words = ([" Man"], ["tree", "tree"], ["tall window "])

    def write(root, train, test):
        splits = ((files[0], train, "train_list_500.txt"), (files[1], test, "test_list_500.txt"))
        shown = {}
        for name, split, path in splits:
            names = [name(i).rsplit("/", 1)[1] for i in range(len(split))]
            table(root / path, names)
            for i, (image, labels) in enumerate(zip(names, split, strict=True)):
                put(root / name(i))
                shown[image] = sorted(labels)
        if kind == "index":
            put(root / "vg_category_500_labels_index.json", json.dumps(shown))
            return
        images = []
        for name, numbers in shown.items():
            box = {"merged_object_ids": [], "x": 0, "y": 3, "w": 2, "h": 1}
            things = [
                {"object_id": 1, "names": words[n], "synsets": ["x.n.01"], **box} for n in numbers
            ]
            things += [{"object_id": 2, "names": [f"only in {name}"], "synsets": [], **box}]
            images.append(
                {
                    "image_id": int(name.split(".")[0]),
                    "objects": things,
                    "image_url": f"https://x/{name}",
                }
            )
        put(root / "objects.json", json.dumps(images))

    labels = ("000", "001", "002") if kind == "index" else ("man", "tree", "tall window")
    return Layout(
        f"vg500-{kind}", Data(name="vg500"), labels, write, files, ("*.json", "*_list_500.txt")
    )


def own(kind):
    files = (lambda i: f"photos/{i}.jpg", lambda i: f"photos/more/{i}.jpg")
    words = ("ant", "bee hive", "cat")

    def write(root, train, test):
        parts = []
        for name, split, part in ((files[0], train, "train"), (files[1], test, "test")):
            rows = [
                {"file": name(i), "labels": [words[x] for x in sorted(shown)]}
                for i, shown in enumerate(split)
            ]
            parts.append([{**row, "split": part} for row in rows])
            for row in rows:
                put(root / row["file"])
        if kind == "csv":
            rows = [[r["split"], r["file"], ";".join(r["labels"])] for r in parts[0] + parts[1]]
            with (root / "labels.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    [["split", "file", "labels"], *rows]
                )
            table(root / "labels.txt", words)
        elif kind == "jsonl":
            for part, rows in zip(("train", "test"), parts, strict=True):
                table(
                    root / f"{part}.jsonl",
                    [json.dumps({k: r[k] for k in ("file", "labels")}) for r in rows],
                )
        else:
            pq.write_table(
                pa.Table.from_pylist(parts[0] + parts[1]),
                root / "labels.parquet",
                write_page_checksum=True,
            )

    sources = {"csv": ("*.csv", "labels.txt"), "jsonl": ("*.jsonl",), "parquet": ("*.parquet",)}[
        kind
    ]
    return Layout(f"folder-{kind}", Data(name="folder"), words, write, files, sources)


LAYOUTS = (
    *(coco(2014), coco(2017)),
    *(
        pascal("VOC2007", ("trainval", "test"), "VOCdevkit/VOC2007"),
        pascal("VOC2007", ("trainval", "test"), ""),
    ),
    pascal("VOC2012", ("train", "val"), "VOCdevkit/VOC2012"),
    *(nuswide(kind) for kind in ("lists", "all", "csv")),
    *(genome(kind) for kind in ("objects", "index")),
    *(own(kind) for kind in ("csv", "jsonl", "parquet")),
)
BY_NAME = {layout.name: layout for layout in LAYOUTS}


def refused(read, message, **fields):
    """Assert that reading raises a UserError of one paragraph that matches the message."""
    with pytest.raises(UserError, match=message) as caught:
        read(**fields)
    assert "\n" not in str(caught.value)
