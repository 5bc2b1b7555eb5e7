"""COCO's JSON as any tool writes it: CVAT, Label Studio, Roboflow, FiftyOne and others.

It is read without the publisher's rules: ids of any type, paths of other machines, annotations of
images that are not listed. The file's name, or its folder's, says the split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sadcl.data.convert.source import Item, Source, head_of, split_of
from sadcl.data.readers import coco


def find(source: Source) -> list[Path]:
    """Return the files of instances."""
    found = [path for path in source.with_suffix(".json") if _looks_right(head_of(path))]
    instances = [path for path in found if path.name.startswith("instances_")]
    return instances or found  # the publisher's other files repeat the images


def _looks_right(head: str) -> bool:
    keys = ('"images"', '"annotations"', '"categories"', '"licenses"')
    return head.startswith("{") and any(key in head for key in keys)


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each listed image; one without an annotation has no label."""
    for path in paths:
        content = coco.read_content(path)
        inside = path.relative_to(source.folder)
        split = split_of(*inside.parts[:-1], path.stem)
        below = source.place_of(path)
        names = {_key(one, "id"): str(one.get("name", "")) for one in _dicts(content["categories"])}
        source.add_labels(names.values())
        labels: dict[str, list[str]] = {_key(one, "id"): [] for one in _dicts(content["images"])}
        for annotation in _dicts(content["annotations"]):
            image, category = _key(annotation, "image_id"), _key(annotation, "category_id")
            if image not in labels:
                what = "annotations of images that are not listed"
                source.remark(what, f"{source.shown(path)}: image_id {image}")
            elif category not in names:
                what = "annotations of categories that are not listed"
                source.remark(what, f"{source.shown(path)}: category_id {category}")
            else:
                labels[image].append(names[category])
                if "score" in annotation:
                    what = "annotations with a score, as predictions have, read as labels"
                    source.remark(what, f"image_id {image}: {annotation['score']}")
        for one in _dicts(content["images"]):
            name = str(one.get("file_name", ""))
            item = source.item(name, labels[_key(one, "id")], split, below)
            if item is not None:
                yield item


def _dicts(entries: list[Any]) -> list[dict[str, Any]]:
    return [one for one in entries if isinstance(one, dict)]


def _key(entry: dict[str, Any], name: str) -> str:
    """Return an id as text: some tools write numbers in one list and texts in another."""
    return str(entry.get(name))
