"""Annotations in the XML of PASCAL VOC, of any classes: LabelImg, CVAT, Roboflow, Supervisely.

There is one XML file an image, in ``Annotations`` or beside it. Lists in ``ImageSets/Main`` say the
split, or the name of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sadcl.data.convert.source import Item, Source, head_of, split_of
from sadcl.data.readers import files, xml_tree

_SPLITS = ("train", "val", "test")
"""The splits of lists; of an image in several the last counts, as in ``trainval`` and ``val``."""


def find(source: Source) -> list[Path]:
    """Return the annotation files."""
    return [
        path
        for path in source.with_suffix(".xml")
        if re.search(r"<annotation[\s>]", head_of(path, 4096))
    ]


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each annotated image; one without an object has no label."""
    listed = _listed(source)
    for path in paths:
        root = xml_tree.parse(path.read_bytes(), path)
        inside = path.relative_to(source.folder).with_suffix("")
        name = inside.as_posix().rpartition("Annotations/")[2]
        split = listed.get(name) or listed.get(inside.name) or ""
        if listed and not split:
            source.remark("annotations in no list of ImageSets/Main", source.shown(path))
            continue
        split = split or split_of(*inside.parts[:-1])
        objects = root.findall("object")
        labels = [thing.findtext("name", "") for thing in objects]
        easy = {
            label
            for label, thing in zip(labels, objects, strict=True)
            if thing.findtext("difficult", "0").strip() != "1"
        }
        hard = set(labels) - easy
        source.remark("labels that are difficult in all objects, read as shown", name, len(hard))
        listed_name = name if source.has(inside.name) else root.findtext("filename", name)
        item = source.item(listed_name, labels, split, source.nearest(inside.name, path))
        if item is not None:
            yield item


def _listed(source: Source) -> dict[str, str]:
    """Return the split of each name in the lists; empty without lists."""
    lists: dict[str, list[Path]] = {split: [] for split in _SPLITS}
    for path in source.with_suffix(".txt"):
        split = split_of(path.stem)
        if split and path.parent.name == "Main" and "_" not in path.stem:  # others are of one class
            lists[split].append(path)
    return {
        name: split
        for split, paths in lists.items()
        for path in paths
        for name in files.read_entries(path, "It lists images.")
    }
