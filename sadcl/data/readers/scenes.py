"""Embedded scenes: small drawn images with known labels and boxes, for machines without a data set.

This is a generator and no reader: it writes JPEG files and instances JSON in the layout of COCO
2017, which the COCO reader reads. The 20 labels differ in shape, texture and scale. They mostly
share their colours, so that a colour histogram does not reveal them. They occur in groups, with
long-tailed frequencies, behind each other and among clutter. ``data.scene_train``,
``data.scene_test`` and ``data.scene_seed`` say how many images are drawn and which, and
``data.scene_kind`` how far frequencies, co-occurrence and sizes are those of photographs.
"""

from __future__ import annotations

import colorsys
import io
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sadcl.data.base import Progress
from sadcl.data.readers.scene_labels import LABELS, Label, Points
from sadcl.errors import UserError

VERSION = 2
"""Raise it with every change to what is drawn: the folder and the data digest depend on it."""
SIDE = 96
"""Width and height of an image in pixels."""
SPLITS = ("train2017", "val2017")

_GROUPS = tuple(dict.fromkeys(label.group for label in LABELS))


class Kind(NamedTuple):
    """How often labels occur, alone and together, and how large their objects are."""

    decay: float
    """The weight of a label, over that of the next more frequent one."""
    in_group: tuple[float, float]
    """Factors on the weight of a label of the image's group, and of another group."""
    cardinality: tuple[float, ...]
    """Probability of 0, 1, 2, ... labels in an image."""
    again: float
    """Probability that a label has one more object in the image."""
    copies: int
    """The largest number of further objects of a label."""
    scale: tuple[float, float] | None = None
    """Range of a log-uniform factor on the radius; None leaves the label's own range."""


KINDS = {
    "even": Kind(0.91, (4.0, 0.6), (0.02, 0.1, 0.23, 0.29, 0.22, 0.1, 0.04), 0.2, 1),
    "photographs": Kind(
        0.75, (8.0, 0.3), (0.0, 0.2, 0.26, 0.2, 0.15, 0.11, 0.08), 0.5, 4, scale=(0.35, 2.2)
    ),
}
"""``photographs`` is between MS-COCO and VOC: the most frequent label is in 40 % of the images and
the rarest in less than 1 %, most labels occur with others of their group, and the areas of objects
differ by a factor of forty."""
_Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, inside the image."""


class _Object(NamedTuple):
    label: int
    box: _Box


def version_of(kind: str, seed: int) -> str:
    """Return what says which images are drawn, but for their numbers."""
    return f"scenes-v{VERSION}{_suffix(kind)}-{seed}"


def name_of(kind: str, seed: int) -> str:
    """Return the name of the data set; the default kind and seed are ``scenes`` alone."""
    return f"scenes{_suffix(kind)}-{seed}" if kind != "even" or seed > 0 else "scenes"


def _suffix(kind: str) -> str:
    return "" if kind == "even" else f"-{kind}"


def ensure(
    root: Path,
    *,
    seed: int,
    train: int,
    test: int,
    kind: str = "even",
    progress: Progress | None = None,
) -> Path:
    """Return the folder with these scenes below ``root``, and draw them if there is none.

    Several processes may call it at the same time.

    Args:
        root: the folder of all scenes.
        seed: of the images.
        train: number of training images.
        test: number of test images.
        kind: a key of ``KINDS``.
        progress: called with the number of drawn images and of all images.

    Returns:
        A folder in COCO 2017's layout: ``annotations``, ``train2017`` and, as the test split,
        ``val2017``.

    Raises:
        UserError: if the folder cannot be written.
    """
    folder = root / f"{version_of(kind, seed)}-{train}-{test}"
    if (folder / "complete").exists():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=root))
        try:
            write(part, seed=seed, train=train, test=test, kind=kind, progress=progress)
            (part / "complete").touch()
            part.chmod(0o755)
            _publish(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"The drawn scenes cannot be written below {str(root)!r} "
            f"({error.strerror or error}). Make room or give another folder: the data root, or the "
            "environment variable XDG_CACHE_HOME."
        ) from None
    return folder


def write(
    folder: Path,
    *,
    seed: int,
    train: int,
    test: int,
    kind: str = "even",
    progress: Progress | None = None,
) -> None:
    """Draw all images and write both splits; an image depends on (seed, split, index) alone."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, (name, count) in enumerate(zip(SPLITS, (train, test), strict=True)):
        (folder / name).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            image, objects = draw(seed, split, index, kind)
            identity = split * 500_000 + index + 1
            file = f"{identity:012d}.jpg"
            (folder / name / file).write_bytes(jpeg(image))
            images.append({"id": identity, "file_name": file, "width": SIDE, "height": SIDE})
            for thing in objects:
                annotations.append(_annotation(len(annotations) + 1, identity, thing))
            if progress is not None:
                progress(split * train + index + 1, train + test)
        content = {
            "info": {"description": "sadcl embedded scenes", "version": str(VERSION), "seed": seed},
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": i + 1, "name": k.name, "supercategory": k.group}
                for i, k in enumerate(LABELS)
            ],
        }
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def draw(
    seed: int, split: int, index: int, kind: str = "even"
) -> tuple[Image.Image, list[_Object]]:
    """Draw one image, and return it with its objects, the farthest object first."""
    statistics = KINDS[kind]
    rng = np.random.default_rng([VERSION, seed, split, index])
    objects: list[_Object] = []
    drawings: list[list[tuple[Points, int]]] = []
    # all objects come before the first pixel, so that they do not depend on an imaging library
    for label in _choose_labels(statistics, rng):
        placement = _place(LABELS[label], objects, statistics.scale, rng)
        if placement is not None:  # without room for it the object is left out
            drawings.append(placement[0])
            objects.append(_Object(label, placement[1]))
    image = _background(rng)
    ground = np.asarray(image.resize((1, 1), Image.Resampling.BOX), dtype=float)[0, 0]
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 6)):
        _clutter(pen, rng)
    for thing, parts in zip(objects, drawings, strict=True):
        inks = _inks(LABELS[thing.label], ground, rng)
        for points, ink in parts:
            pen.polygon([(2 * x, 2 * y) for x, y in points.tolist()], fill=inks[ink])
    for _ in range(rng.integers(0, 3)):
        _scratch(pen, rng)
    small = np.asarray(image.reduce(2), dtype=np.int16)
    noise = rng.integers(-10, 11, small.shape, dtype=np.int16)
    return Image.fromarray((small + noise).clip(0, 255).astype(np.uint8)), objects


def jpeg(image: Image.Image) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _choose_labels(kind: Kind, rng: np.random.Generator) -> list[int]:
    """Choose the labels of the objects: a few that belong together, some of them repeatedly."""
    group = _GROUPS[rng.integers(len(_GROUPS))]
    inside, outside = kind.in_group
    factors = np.array([inside if label.group == group else outside for label in LABELS])
    weights = kind.decay ** np.arange(len(LABELS)) * factors
    count = rng.choice(len(kind.cardinality), p=kind.cardinality)
    labels = rng.choice(len(LABELS), count, replace=False, p=weights / weights.sum())
    objects = again = labels
    for _ in range(kind.copies):
        again = again[rng.random(len(again)) < kind.again]
        objects = np.concatenate([objects, again])
    return [int(label) for label in rng.permutation(objects)]


def _place(
    label: Label,
    objects: list[_Object],
    scale: tuple[float, float] | None,
    rng: np.random.Generator,
) -> tuple[list[tuple[Points, int]], _Box] | None:
    """Place an object so that its overlap with any other is less than 0.4 of the smaller box.

    Returns:
        Its polygons and its box, or None if twelve random places do not fit.
    """
    radius = rng.uniform(*label.radius)
    if scale is not None:
        radius *= math.exp(rng.uniform(*np.log(scale)))
    angle = math.radians(rng.uniform(-15, 15))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    stretch = radius * np.array([rng.choice([-1.0, 1.0]), 1.0]) * rng.uniform(0.85, 1.15, 2)
    parts = [((points * stretch) @ turn, ink) for points, ink in label.parts]
    every = np.concatenate([points for points, _ in parts])
    low, high = every.min(axis=0), every.max(axis=0)
    for _ in range(12):
        centre = rng.uniform(
            np.minimum(-0.8 * low, SIDE / 2), np.maximum(SIDE - 0.8 * high, SIDE / 2)
        )
        left, top = np.maximum(centre + low, 0).tolist()
        right, bottom = np.minimum(centre + high, SIDE).tolist()
        box = (left, top, right, bottom)
        if all(_overlap(box, other.box) < 0.4 for other in objects):
            return [(points + centre, ink) for points, ink in parts], box
    return None


def _overlap(one: _Box, other: _Box) -> float:
    """Return the intersection of two boxes as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return max(width, 0.0) * max(height, 0.0) / smaller


def _inks(label: Label, ground: Points, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return a light colour that stands out from the ground, and a dark one.

    The hue of the light colour is near the label's in two cases of five, and random otherwise.
    """
    for _ in range(6):
        hue = rng.normal(label.hue, 0.05) if rng.random() < 0.4 else rng.random()
        red, green, blue = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.3, 1), rng.uniform(0.7, 1))
        first = 255 * np.array([red, green, blue])
        if np.abs(first - ground).max() > 90:
            break
    second = rng.uniform(0, 45, 3)
    return [(int(r), int(g), int(b)) for r, g, b in (first, second)]


def _background(rng: np.random.Generator) -> Image.Image:
    """Draw soft patches of dull colour, at twice the size of the image."""
    base = rng.uniform(70, 130) + rng.uniform(-20, 20, 3)
    patches = (base + rng.normal(0, 14, (5, 5, 3))).clip(0, 255).astype(np.uint8)
    return Image.fromarray(patches).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)


def _clutter(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a ragged blob or a stroke, which is no object."""
    if rng.random() < 0.4:
        _scratch(pen, rng)
        return
    n = int(rng.integers(4, 8))
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    radius = rng.uniform(6, 26, n)
    points = rng.uniform(0, 2 * SIDE, 2) + np.stack(
        [radius * np.cos(angle), radius * np.sin(angle)], axis=1
    )
    pen.polygon([(x, y) for x, y in points.tolist()], fill=_any_colour(rng))


def _scratch(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y = rng.uniform(0, 2 * SIDE, 2)
    dx, dy = rng.normal(0, 40, 2)
    pen.line([(x, y), (x + dx, y + dy)], fill=_any_colour(rng), width=int(rng.integers(2, 6)))


def _any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(30, 170, 3).tolist()
    return red, green, blue


def _annotation(identity: int, image: int, thing: _Object) -> dict[str, Any]:
    left, top, right, bottom = (round(v, 2) for v in thing.box)
    width, height = round(right - left, 2), round(bottom - top, 2)
    return {
        "id": identity,
        "image_id": image,
        "category_id": thing.label + 1,
        "bbox": [left, top, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
    }


def _publish(part: Path, folder: Path) -> None:
    """Move the finished folder to its place, unless another process was faster."""
    if folder.exists() and not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(part, folder)
    except OSError:
        if not (folder / "complete").exists():
            raise
