"""A folder for each class: image folders of torchvision, Keras and Hugging Face without metadata.

An image has one label, the name of its folder. The folder above may say the split. As any folder of
images looks so, it is only recognised where nothing else is in it, and all images lie equally deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sadcl.data.convert.source import Item, Source, split_of
from sadcl.data.readers import files

_ANNOTATIONS = (".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".parquet")
_NO_CLASSES = {
    *("images", "image", "imgs", "jpegimages", "photos", "rgb"),
    *("masks", "mask", "labels", "label", "annotations", "annots", "gt", "groundtruth", "depth"),
    *("segmentation", "segmentationclass", "segmentationobject", "vg_100k", "vg_100k_2"),
}
"""Names of folders, in lower case, that say what their files are and not what is on them."""


def find(source: Source) -> list[Path]:
    """Return the root if its images lie in the folders of at least two classes."""
    if source.image_folder != source.folder or source.with_suffix(*_ANNOTATIONS, ".txt"):
        return []
    places = {image.relative_to(source.folder).parts[:-1] for image in source.images}
    splits = {split_of(*place[:-1]) for place in places}
    depths = {len(place) for place in places}
    classes = {place[-1] for place in places if place}
    are_others = any(split_of(name) or name.lower() in _NO_CLASSES for name in classes)
    usual = depths in ({1}, {2}) and (depths == {1} or "" not in splits)
    return [source.folder] if usual and len(classes) > 1 and not are_others else []


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each image with the name of its folder."""
    for image in source.images:
        inside = image.relative_to(source.folder)
        name = files.composed(inside.parent.name)
        yield source.known_item(image, inside.as_posix(), [name], split_of(*inside.parts[:-2]))
