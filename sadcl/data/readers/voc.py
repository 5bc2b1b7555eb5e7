"""PASCAL VOC 2007 and 2012 as the devkit unpacks.

Files below ``VOCdevkit/VOC2007`` (or ``VOC2012``), which may also be the data root itself:

- ``ImageSets/Main/{train,val,trainval,test}.txt``: the names of images, one a line.
- ``Annotations/<name>.xml``: the objects of an image.
- ``JPEGImages/<name>.jpg``: the images; tools write ``.png`` and others, which are read as well.

Policies: a label is 1 if one of its objects is not marked difficult; if all are, ``data.difficult``
decides. VOC 2007 trains on trainval and tests on test. The test labels of VOC 2012 are only with
its evaluation server; what its test archive has in ``Annotations`` belongs in part to other tasks.
So ``data.voc2012_test`` is ``val`` to train on train and test on val, as is usual without the
server, or ``server`` to train on trainval (11,540 images) with all test targets ignored.

Source: Everingham, Eslami, Van Gool, Williams, Winn, Zisserman, The PASCAL Visual Object Classes
Challenge: A Retrospective, 2015.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl.config import Data
from sadcl.data.base import TARGET, Boxes, ImageSet, has_area
from sadcl.data.readers import files, sources, xml_tree
from sadcl.errors import UserError

LABELS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes in the devkit's order."""
SERVER = 10_991
"""Number of test images of VOC 2012."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIZE = ("size/width", "size/height")


def check_root(root: Path, config: Data) -> None:
    """Raise UserError if the root is no copy of that year."""
    _home(root, config.name)


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test split, images in the order of the lists.

    Args:
        root: the folder that holds ``VOCdevkit``, that folder, or ``VOC2007`` (``VOC2012``) itself.
        config: its name is ``voc2007`` or ``voc2012``.

    Raises:
        UserError: for a list or an annotation that is missing or damaged, or a class that is not
            VOC's.
    """
    home = _home(root, config.name)
    train, test = (_split(home, part, config) for part in _parts(config))
    return files.check_disjoint(train, test)


def server_images(root: Path) -> ImageSet:
    """Return the test images of VOC 2012, whose labels its evaluation server keeps.

    Raises:
        UserError: if their list or some of them are missing.
    """
    config = Data(name="voc2012", voc2012_test="server")
    images = files.existing_images(_split(_home(root, config.name), "test", config), "error")
    if len(images) and re.fullmatch(r"\d{6}\.\w+", images.files[0].as_py()):
        raise UserError(
            f"The images that test.txt lists in {str(root)!r} are VOC 2007's, first "
            f"{images.files[0].as_py()!r}; give the root of VOC 2012."
        )
    return images


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Yield split, image, label and corners of each box without area in its image.

    Call it after :func:`read`, whose checks it relies on.
    """
    home = _home(root, config.name)
    for split, images in enumerate(splits):
        if (images.targets < 0).all():  # the server's; annotations here are those of other tasks
            continue
        for file in images.files.to_pylist():
            annotation = _root(_xml(home, file))
            for thing in annotation.iterfind("object"):
                if (box := thing.find("bndbox")) is None:
                    continue
                corners = _numbers(box, _CORNERS)
                W, H = _numbers(annotation, _SIZE) or (math.inf, math.inf)
                if corners is None or not has_area(corners, W + 1, H + 1):  # counted from 1
                    label = thing.findtext("name", "").strip()
                    texts = ", ".join(box.findtext(name, "") for name in _CORNERS)
                    yield split, file, label, f"corners {texts}"


def boxes(root: Path, config: Data, images: ImageSet) -> Boxes:
    """Return the boxes of labels that these images show, those of difficult objects included.

    Call it after :func:`read`, whose checks it relies on. An image whose name differs from the
    listed one has no boxes.
    """
    home = _home(root, config.name)
    rows: list[tuple[float, ...]] = []
    for i in np.flatnonzero((images.targets == 1).any(axis=1)).tolist():
        path = _xml(home, images.files[i].as_py())
        if not path.exists():
            continue
        annotation = _root(path)
        for thing in annotation.iterfind("object"):
            label = LABELS.index(thing.findtext("name", "").strip())
            size = _numbers(annotation, _SIZE)
            corners = _numbers(thing, [f"bndbox/{name}" for name in _CORNERS])
            if images.targets[i, label] == 1 and size is not None and corners is not None:
                (W, H), (left, top, right, bottom) = size, corners
                if min(size) > 0 and has_area(corners):
                    # pixels are counted from 1, and the last one belongs to the box
                    rows.append((i, label, (left - 1) / W, (top - 1) / H, right / W, bottom / H))
    return Boxes.sorted(rows)


def _root(path: Path) -> ElementTree.Element:
    return xml_tree.parse(path.read_bytes(), path)


def _numbers(element: ElementTree.Element, paths: Sequence[str]) -> tuple[float, ...] | None:
    """Return the numbers at these paths below an element; None if one is missing or none."""
    try:
        return tuple(float(element.findtext(path, "")) for path in paths)
    except ValueError:
        return None


def _xml(home: Path, file: str) -> Path:
    """Return the annotation file of an image file."""
    stem, dot, ending = file.rpartition(".")
    return (
        home
        / "Annotations"
        / f"{stem if f'{dot}{ending}'.lower() in files.IMAGE_ENDINGS else file}.xml"
    )


def _folder_of_year(name: str) -> str:
    """Return ``VOC2007`` or ``VOC2012``."""
    return name.upper()


def _parts(config: Data) -> tuple[str, str]:
    """Return the names of the training and the test list."""
    if config.name == "voc2012" and config.voc2012_test == "val":
        return "train", "val"
    return "trainval", "test"


def _home(root: Path, name: str) -> Path:
    """Return the folder of the year."""
    folder = _folder_of_year(name)
    for home in (root / "VOCdevkit" / folder, root / folder, root):
        if sources.is_dir(home / "ImageSets" / "Main"):
            return home
    raise UserError(
        f"The data root {str(root)!r} is not a copy of {name}: there is no folder ImageSets/Main "
        f"in it, in {folder} or in VOCdevkit/{folder}. Give the folder that the devkit's archives "
        f"were unpacked in. {files.convert_hint(root)}"
    )


def _split(home: Path, part: str, config: Data) -> ImageSet:
    path = home / "ImageSets" / "Main" / f"{part}.txt"
    hint = f"It comes with {config.name}'s archives; unpack them all into one folder."
    names = list(map(files.with_slashes, files.read_entries(path, hint)))
    targets = np.full((len(names), len(LABELS)), -1, dtype=np.int8)
    if part != "test" or config.name == "voc2007":
        for row_L, name in zip(targets, names, strict=True):
            row_L[:] = _targets(home / "Annotations" / f"{name}.xml", path, config)
    images = pa.array(_image_names(home / "JPEGImages", names), pa.string())
    folder = str(home / "JPEGImages")
    return ImageSet(f"{config.name}-{part}", folder, images, targets, LABELS, path.name)


def _image_names(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the file name of each listed image: a JPEG file, or what tools write instead of it."""
    existing: dict[str, set[str]] = {}
    images = []
    for name in names:
        place = name.rpartition("/")[0]
        if place not in existing:
            existing[place] = {
                f"{place}/{file}".lstrip("/") for file in sources.names_in(folder / place)
            }
        fits = (name + ending for ending in files.IMAGE_ENDINGS if name + ending in existing[place])
        images.append(next(fits, f"{name}.jpg"))
    return images


def _targets(path: Path, list_path: Path, config: Data) -> NDArray[np.int8]:
    """Return the targets (L,) of one image."""
    annotation = _parse(path, list_path, config)
    _check_annotation(annotation, path, config)
    row_L = np.zeros(len(LABELS), dtype=np.int8)
    for thing in annotation.findall("object"):
        names, difficult = thing.findall("name"), thing.findtext("difficult", "0").strip()
        if len(names) != 1:
            raise UserError(
                f"{str(path)!r} has an object with {len(names)} names; one is needed. Fetch it "
                "again."
            )
        name = (names[0].text or "").strip()
        if name not in LABELS:
            raise UserError(
                f"{str(path)!r} has an object of class {name!r}, which is none of VOC's "
                f"{len(LABELS)} classes."
            )
        if difficult not in ("0", "1"):
            raise UserError(
                f"{str(path)!r} has a {name} with difficult = {difficult!r}; 0 or 1 is possible."
            )
        label = LABELS.index(name)
        if difficult == "0":
            row_L[label] = 1
        elif row_L[label] != 1:
            row_L[label] = TARGET[config.difficult]
    return row_L


def _parse(path: Path, list_path: Path, config: Data) -> ElementTree.Element:
    try:
        data = sources.read_bytes(path)
    except OSError as error:
        raise UserError(
            f"{list_path.name} lists {path.stem!r}, but {str(path)!r} cannot be read: "
            f"{error.strerror or error}. Unpack all of {config.name}'s archives into one folder."
        ) from None
    return xml_tree.parse(data, path)


def _check_annotation(annotation: ElementTree.Element, path: Path, config: Data) -> None:
    """Raise UserError unless an annotation is of this year and image.

    It may have no object, as tools write it for a picture that shows none of the classes.
    """
    folder = annotation.findtext("folder", "").strip()
    if folder.startswith("VOC") and folder != _folder_of_year(config.name):
        raise UserError(
            f"{str(path)!r} belongs to {folder}, but data.name = {config.name!r}: give the root of "
            "that year."
        )
    filename = annotation.findtext("filename", path.stem).strip()
    name = re.split(r"[/\\]", filename)[-1].lower()  # tools write paths, or no ending
    if path.stem.lower() not in (name, name.rpartition(".")[0]):
        raise UserError(
            f"{str(path)!r} is the annotation of another image, {filename!r}; fetch it again. If a "
            "tool has renamed the images, sadcl data convert goes by the names of the files."
        )
    unknown_tags = [
        child.tag
        for child in annotation
        if child.tag not in ("object", "owner") and child.find("name") is not None
    ]
    if annotation.tag != "annotation" or unknown_tags:
        tags = f"<{annotation.tag}> with {len(annotation.findall('object'))} <object>"
        tags += "".join(f" and <{tag}>" for tag in unknown_tags)
        raise UserError(
            f"{str(path)!r} is no annotation of VOC: an <annotation> of <object>s is needed, found "
            f"{tags}."
        )
