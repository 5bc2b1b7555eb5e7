"""CVAT's own XML for images (``CVAT for images 1.1``): shapes and tags of each image.

An image's ``subset`` says its split, or else a folder in its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sadcl.data.convert.source import Item, Source, head_of, split_of
from sadcl.data.readers import xml_tree
from sadcl.errors import UserError


def find(source: Source) -> list[Path]:
    """Return the annotation files."""
    return [path for path in source.with_suffix(".xml") if "<annotations>" in head_of(path, 4096)]


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each image; one without a shape or a tag has no label."""
    for path in paths:
        root = xml_tree.parse(path.read_bytes(), path)
        if root.find("track") is not None:
            raise UserError(
                f"{str(path)!r} is about a video (it has tracks). Export the task as 'CVAT for "
                "images 1.1' or COCO, with its frames as images."
            )
        source.add_labels(label.findtext("name", "") for label in root.iter("label"))
        for image in root.findall("image"):
            name = image.get("name", "")
            labels = [shape.get("label", "") for shape in image if shape.get("label") is not None]
            split = split_of(*name.replace("\\", "/").split("/")[:-1], image.get("subset", ""))
            item = source.item(name, labels, split)
            if item is not None:
                yield item
