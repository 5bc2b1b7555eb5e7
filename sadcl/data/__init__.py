"""Data sets behind one interface: images on disk, a matrix of targets, a held-out part that selects."""

from sadcl.data.base import Boxes, ImageSet, MultiLabelData, Progress
from sadcl.data.load import (
    Listed,
    annotation_folder,
    label_sources,
    load,
    read_listed,
    resolve,
    witness_files,
)

__all__ = [
    "Boxes",
    "ImageSet",
    "Listed",
    "MultiLabelData",
    "Progress",
    "annotation_folder",
    "label_sources",
    "load",
    "read_listed",
    "resolve",
    "witness_files",
]
