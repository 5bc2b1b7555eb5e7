"""Data sets behind one interface: images on disk, a matrix of targets, and a held-out part."""

from sadcl.data.base import Boxes, ImageSet, MultiLabelData, Progress
from sadcl.data.dataset import Dataset, image_set
from sadcl.data.image_augmentation import ImageAugmentation
from sadcl.data.load import (
    Listing,
    Reader,
    annotation_folder,
    label_sources,
    load,
    read_listing,
    resolve,
    witness_files,
)
from sadcl.data.sampler import Sampler

__all__ = [
    "Boxes",
    "Dataset",
    "ImageAugmentation",
    "ImageSet",
    "Listing",
    "MultiLabelData",
    "Progress",
    "Reader",
    "Sampler",
    "annotation_folder",
    "image_set",
    "label_sources",
    "load",
    "read_listing",
    "resolve",
    "witness_files",
]
