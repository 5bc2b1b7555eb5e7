"""PASCAL VOC 2007 and 2012 as the devkit unpacks: lists of images, and one XML file of objects for each.

A label is 1 where one of its objects is not marked difficult; where all of them are, ``data.difficult`` decides.

VOC 2007 trains on trainval and tests on test. The test labels of VOC 2012 are with its evaluation server only (what its
test archive has in ``Annotations`` covers other tasks in part), so by ``data.voc2012_test`` one trains on train and tests
on val, as is usual without the server, or trains on trainval (11,540 images) and has all test targets ignored.

Source: Everingham, Eslami, Van Gool, Williams, Winn, Zisserman, The PASCAL Visual Object Classes Challenge: A
Retrospective, 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl.config import Data
from sadcl.data.base import TARGET, Boxes, ImageSet
from sadcl.data.readers import files
from sadcl.errors import UserError

LABELS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
"""In the devkit's order."""
SERVER = 10_991
"""Test images of VOC 2012."""


def sources(root: Path, config: Data) -> list[Path]:
    """The two lists and every annotation.

    Raises:
        UserError: where the root is no copy of that year.
    """
    home = _home(root, config.name)
    lists = [home / "ImageSets" / "Main" / f"{part}.txt" for part in _parts(config)]
    return [
        *lists,
        *sorted(path for path in (home / "Annotations").glob("*.xml") if files.encodes(path.name)),
    ]


def read(root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
    """The training and the test split, images in the order of the lists.

    Args:
        root: the folder that holds ``VOCdevkit``, that folder, or ``VOC2007`` (``VOC2012``) itself.
        config: its name is ``voc2007`` or ``voc2012``.

    Raises:
        UserError: for a list or an annotation that is missing or damaged, or a class that is not VOC's.
    """
    home = _home(root, config.name)
    train, test = (_split(home, part, config) for part in _parts(config))
    return files.disjoint(train, test)


def server_images(root: Path) -> ImageSet:
    """The test images of VOC 2012, whose labels its evaluation server keeps.

    Raises:
        UserError: where their list or some of them are missing.
    """
    config = Data(name="voc2012", voc2012_test="server")
    images = files.present(_split(_home(root, config.name), "test", config), "error")
    if len(images) and re.fullmatch(r"\d{6}\.\w+", images.files[0].as_py()):
        raise UserError(
            f"The images that test.txt lists in {str(root)!r} are VOC 2007's, first {images.files[0].as_py()!r}; give the "
            "root of VOC 2012."
        )
    return images


def flat_boxes(
    root: Path, config: Data, splits: Sequence[ImageSet]
) -> Iterator[tuple[int, str, str, str]]:
    """Split, image, label and corners of each box without area; after :func:`read`, whose checks it relies on."""
    home = _home(root, config.name)
    for split, images in enumerate(splits):
        if (images.targets < 0).all():  # the server's: what is there is of other tasks
            continue
        for file in images.files.to_pylist():
            annotation = ElementTree.parse(
                home / "Annotations" / f"{file.removesuffix('.jpg')}.xml"
            )
            for thing in annotation.iterfind("object"):
                if (box := thing.find("bndbox")) is not None:
                    left, top, right, bottom = words = [
                        box.findtext(n, "") for n in ("xmin", "ymin", "xmax", "ymax")
                    ]
                    try:
                        flat = not (float(left) < float(right) and float(top) < float(bottom))
                    except ValueError:
                        flat = True
                    if flat:
                        yield (
                            split,
                            file,
                            thing.findtext("name", "").strip(),
                            f"corners {', '.join(words)}",
                        )


def boxes(root: Path, config: Data, images: ImageSet) -> Boxes:
    """The boxes of what a set of these images shows, difficult ones too; after :func:`read`, whose checks it relies on.

    An image under another name than the listed one has none.
    """
    home = _home(root, config.name)
    found: list[tuple[float, ...]] = []
    for at in np.flatnonzero((images.targets == 1).any(axis=1)).tolist():
        path = home / "Annotations" / f"{images.files[at].as_py().removesuffix('.jpg')}.xml"
        annotation = (
            ElementTree.parse(path)
            if path.exists()
            else ElementTree.ElementTree(ElementTree.Element("none"))
        )
        for thing in annotation.iterfind("object"):
            label = LABELS.index(thing.findtext("name", "").strip())
            try:
                wide, high = (
                    float(annotation.findtext(f"size/{name}", "")) for name in ("width", "height")
                )
                left, top, right, bottom = (
                    float(thing.findtext(f"bndbox/{name}", ""))
                    for name in ("xmin", "ymin", "xmax", "ymax")
                )
            except ValueError:
                continue
            if images.targets[at, label] == 1 and min(wide, high, right - left, bottom - top) > 0:
                # pixels are counted from 1, and the last one is in the box
                found.append(
                    (at, label, (left - 1) / wide, (top - 1) / high, right / wide, bottom / high)
                )
    return Boxes.sorted(found)


def _year(name: str) -> str:
    return name.upper()


def _parts(config: Data) -> tuple[str, str]:
    return (
        ("train", "val")
        if config.name == "voc2012" and config.voc2012_test == "val"
        else ("trainval", "test")
    )


def _home(root: Path, name: str) -> Path:
    places = (root / "VOCdevkit" / _year(name), root / _year(name), root)
    for home in places:
        if (home / "ImageSets" / "Main").is_dir():
            return home
    raise UserError(
        f"The data root {str(root)!r} is not a copy of {name}: there is no folder ImageSets/Main in it, in {_year(name)} or "
        f"in VOCdevkit/{_year(name)}. Give the folder that the devkit's archives were unpacked in."
    )


def _split(home: Path, part: str, config: Data) -> ImageSet:
    path = home / "ImageSets" / "Main" / f"{part}.txt"
    names = list(
        files.lines(
            path, f"It comes with {config.name}'s archives; unpack them all into one folder."
        )
    )
    targets = np.full((len(names), len(LABELS)), -1, dtype=np.int8)
    if part != "test" or config.name == "voc2007":
        for row, name in zip(targets, names, strict=True):
            row[:] = _targets(home / "Annotations" / f"{name}.xml", path, config)
    images = pa.array([f"{name}.jpg" for name in names], pa.string())
    return ImageSet(
        f"{config.name}-{part}", str(home / "JPEGImages"), images, targets, LABELS, path.name
    )


def _targets(path: Path, listed: Path, config: Data) -> NDArray[np.int8]:
    """(L,) of one image."""
    try:
        annotation = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{listed.name} lists {path.stem!r}, but {str(path)!r} cannot be read: {error.strerror or error}. Unpack all of "
            f"{config.name}'s archives into one folder."
        ) from None
    except (
        ElementTree.ParseError,
        ValueError,
        LookupError,
    ) as error:  # the latter two of encodings
        raise UserError(
            f"{str(path)!r} is not valid XML: {error}. It may have been cut short while it was copied or unpacked; fetch it "
            "again."
        ) from None
    folder = annotation.findtext("folder", "").strip()
    if folder.startswith("VOC") and folder != _year(config.name):
        raise UserError(
            f"{str(path)!r} belongs to {folder}, but data.name = {config.name!r}: give the root of that year."
        )
    filename = annotation.findtext("filename", path.stem).strip()
    if Path(filename).stem.lower() != path.stem.lower():
        raise UserError(
            f"{str(path)!r} is the annotation of another image, {filename!r}; fetch it again."
        )
    things = annotation.findall("object")
    odd = [
        child.tag
        for child in annotation
        if child.tag not in ("object", "owner") and child.find("name") is not None
    ]
    if annotation.tag != "annotation" or not things or odd:
        found = f"<{annotation.tag}> with {len(things)} <object>" + "".join(
            f" and <{tag}>" for tag in odd
        )
        raise UserError(
            f"{str(path)!r} is no annotation of VOC: an <annotation> of <object>s is needed, found {found}."
        )
    row = np.zeros(len(LABELS), dtype=np.int8)
    for thing in things:
        names, difficult = thing.findall("name"), thing.findtext("difficult", "0").strip()
        if len(names) != 1:
            raise UserError(
                f"{str(path)!r} has an object with {len(names)} names; one is needed. Fetch it again."
            )
        name = (names[0].text or "").strip()
        if name not in LABELS:
            raise UserError(
                f"{str(path)!r} has an object of class {name!r}, which is none of VOC's {len(LABELS)} classes."
            )
        if difficult not in ("0", "1"):
            raise UserError(
                f"{str(path)!r} has a {name} with difficult = {difficult!r}; 0 or 1 is possible."
            )
        label = LABELS.index(name)
        if difficult == "0":
            row[label] = 1
        elif row[label] != 1:
            row[label] = TARGET[config.difficult]
    return row
