"""Write what a converter has read as a folder of one's own (``readers/folder.py``).

It is written beside its place, read back, and moved there, so that it is whole or does not exist.
An empty folder that exists is filled, its table last.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sadcl.config import Data
from sadcl.data.base import ImageSet, Progress
from sadcl.data.convert.source import Item, Source
from sadcl.data.readers import files, folder
from sadcl.data.split import hold_out
from sadcl.errors import UserError

_NO_TEST = (
    "No image is said to test: which images test is never decided for you. Name a folder or a "
    "column so (train, val, test), or let --test 0.2 draw that part at random, stratified by label."
)


@dataclass
class Image:
    """One image of the folder that is written."""

    path: Path
    """Of the source's file."""
    labels: tuple[str, ...]
    split: str
    """``train`` or ``test``; before :func:`divided` as :class:`Item` has it."""


def joined(items: Iterable[Item], source: Source) -> list[Image]:
    """Return one image for each file, with the labels of all its items.

    Files that are listed by several names, or in several splits, are left out, with a remark.
    """
    by_path: dict[Path, list[Item]] = {}
    for item in items:
        by_path.setdefault(item.image, []).append(item)
    images = []
    for path, group in by_path.items():
        names = {files.spelling(files.with_slashes(item.name.strip())) for item in group}
        splits = {item.split for item in group}
        if len(names) > 1:
            source.remark("files that several listed names fit", " and ".join(sorted(names)))
        elif len(splits) > 1:
            what = " and ".join(sorted(split or "no split" for split in splits))
            source.remark("images in several splits", f"{source.shown(path)} ({what})")
        else:
            source.remark(
                "rows of one image, joined", f"{source.shown(path)}: {len(group)}", len(group) - 1
            )
            labels = dict.fromkeys(label for item in group for label in item.labels)
            images.append(Image(path, tuple(labels), splits.pop()))
    listed = by_path.keys()
    for path in source.images:
        if path not in listed:
            source.remark("images on disk of which the source says nothing", path.name)
    return images


def divided(images: Sequence[Image], share: float | None, source: Source) -> list[Image]:
    """Return the images that train or test.

    Where there is no test split, the images of ``val`` test; else they train, because the part that
    selects is held out of the training images.

    Args:
        images: as :func:`joined` returns them.
        share: of the images that test, drawn at random where the source does not say which.
        source: takes remarks.

    Raises:
        UserError: if no image tests or none trains.
    """
    number = {split: sum(one.split == split for one in images) for split in ("test", "val", "")}
    if share is not None and (number["test"] or number["val"]):
        raise UserError(
            "The source says itself which images test, so that --test has nothing to draw; leave "
            "it out."
        )
    if share is not None:
        labels = {label: i for i, label in enumerate(source.labels)}
        targets = np.zeros((len(images), len(labels)), dtype=np.int8)
        for row_L, one in zip(targets, images, strict=True):
            row_L[[labels[label] for label in one.labels]] = 1
        tests = hold_out(targets, share, seed=0).tolist()
        for one, is_test in zip(images, tests, strict=True):
            one.split = "test" if is_test else "train"
    elif number["val"]:
        meaning = "train" if number["test"] else "test"
        source.remark(f"images of 'val', which {meaning} here", meaning, number["val"])
        for one in images:
            one.split = meaning if one.split == "val" else one.split
    for one in images:
        if not one.split and any(other.split for other in images):
            source.remark("images in no split", source.shown(one.path))
    kept = [one for one in images if one.split]
    parts = {one.split for one in kept}
    if "test" not in parts:
        raise UserError(f"{_NO_TEST} The source is {str(source.path)!r}.")
    if "train" not in parts:
        raise UserError(f"All {len(kept):,} images of {str(source.path)!r} test; none trains.")
    return kept


def write(
    images: Sequence[Image], source: Source, target: Path, *, copy: bool, progress: Progress
) -> tuple[ImageSet, ImageSet]:
    """Write table, labels and images; return both splits as they are read back.

    Labels that no image shows are left out. A label with ``;`` needs JSON lines instead of CSV.

    Raises:
        UserError: if the target exists and is not empty, or cannot be written, or if what is
            written cannot be read, as without an image that trains.
    """
    check_target(target)
    shown = {label for one in images for label in one.labels}
    labels = [label for label in source.labels if label in shown]
    for label in source.labels.keys() - shown:
        source.remark("labels that no image shows", label)
    place = target.absolute()  # "." has no name
    hidden = f".{place.name}.{uuid.uuid4().hex[:8]}"
    part = place / hidden if place.exists() else place.with_name(hidden)
    try:
        part.mkdir(parents=True)
        rows = []
        for done, one in enumerate(images, start=1):
            name = f"images/{one.path.relative_to(source.image_folder).as_posix()}"
            if files.bad_character(name):
                source.remark("images whose names have a control character", repr(name))
                continue
            _place(one.path, part / name, copy)
            rows.append({"file": name, "labels": list(one.labels), "split": one.split})
            if done % 64 == 0 or done == len(images):
                progress(done, len(images))
        table, text = _table(rows, any(";" in label for label in labels))
        (part / table).write_text(text, encoding="utf-8")
        (part / "labels.txt").write_text("".join(f"{one}\n" for one in labels), encoding="utf-8")
        splits = _read_back(part, target)
        if part.parent == place:
            for name in ("images", "labels.txt", table):
                (part / name).rename(place / name)
        else:
            part.rename(place)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{str(target)!r} cannot be written: {reason}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return splits


def _read_back(part: Path, target: Path) -> tuple[ImageSet, ImageSet]:
    """Return both splits of the hidden folder; errors name the target instead of it."""
    try:
        return folder.read(part, Data(name="folder"))
    except UserError as error:
        hidden, shown = (repr(str(path))[1:-1] for path in (part, target))
        raise UserError(str(error).replace(hidden, shown)) from None


def check_target(target: Path) -> None:
    """Raise UserError if the target exists and is not an empty folder."""
    if target.is_symlink() or (
        target.exists() and not (target.is_dir() and not any(target.iterdir()))
    ):
        raise UserError(f"{str(target)!r} exists already; give a new folder with -o.")


def _place(source: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copy2(source, target)
    else:
        os.symlink(source.resolve(), target)


def _table(rows: Sequence[Mapping[str, object]], as_json: bool) -> tuple[str, str]:
    """Return name and content of the table."""
    if as_json:
        return "labels.jsonl", "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "labels", "split"])
    for row in rows:
        labels = row["labels"]
        assert isinstance(labels, list)
        table.writerow([row["file"], ";".join(labels), row["split"]])
    return "labels.csv", text.getvalue()
