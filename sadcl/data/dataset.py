"""A data set of your own: a function that reads your labels, however they are written.

It gets the data root and returns the training and the test split. A configuration names it by its
import path, ``data.name = "my_lab.birds:birds"``. The one that this page asks for is complete::

    def birds(root: Path, *, table: str = "birds.csv") -> tuple[ImageSet, ImageSet]:
        with (root / table).open(newline="") as file:
            rows = list(csv.DictReader(file))  # photo, species (with blanks between), split
        labels = sorted({name for row in rows for name in row["species"].split()})

        def part(split: str) -> ImageSet:
            chosen = [row for row in rows if row["split"] == split]
            targets_NL = [[name in row["species"].split() for name in labels] for row in chosen]
            return image_set(root / "photos", [row["photo"] for row in chosen], targets_NL, labels)

        return part("train"), part("test")

Everything else is the same as for a data set that is built in: images that are not on disk, the
held-out part, limits, the digest, the check of the image files, ``sadcl data check``. Resized
copies (``sadcl data prepare``) are not.

Axes: N images, L labels.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from sadcl.config import Data, component
from sadcl.data.base import ImageSet
from sadcl.data.readers import files as names
from sadcl.errors import UserError, reason_of

FIELD = "data.name"


class Dataset(Protocol):
    """The call that a data set of your own answers.

    Its own arguments are keywords with a type and a default, which ``data.arguments`` sets. The
    root is a local folder. Of a remote root (s3://, gs://) it is a mirror in which tables have
    their content and image files are empty, so that a data set must not look into its images.

    Each process that trains calls it once a run, so that it should take seconds. It must return the
    same on every machine: file names that were listed from a folder have to be sorted. The folder
    of both splits is the root or lies below it, and both have the same labels in the same order.

    What it raises is reported together with its path; ``ValueError`` is for data that it does not
    accept.
    """

    def __call__(self, root: Path, /) -> tuple[ImageSet, ImageSet]: ...


def image_set(
    folder: str | PathLike[str], files: Sequence[str], targets: ArrayLike, labels: Sequence[str]
) -> ImageSet:
    """Make a split of image files and what they show.

    Whether the files are on disk is checked later, by the policy ``data.missing``.

    Args:
        folder: that the files are in.
        files: (N,) their names below the folder, with ``/`` between parts.
        targets: (N, L) of 1 (the image shows the label), 0 (it does not) or -1 (not known, so that
            losses and metrics ignore it); truth values are possible too.
        labels: (L,) names.

    Raises:
        ValueError: for shapes that do not fit, another target, a file or a label that occurs twice,
            or a name that is not possible.
    """
    files, labels = [fspath(file) for file in files], tuple(labels)
    targets_NL = np.asarray(targets)
    if not len(files):
        targets_NL = targets_NL.reshape(0, len(labels))
    if targets_NL.shape != (len(files), len(labels)):
        raise ValueError(
            f"targets must have the shape (files, labels) = ({len(files)}, {len(labels)}), but "
            f"have {targets_NL.shape}"
        )
    if not np.isin(targets_NL, (-1, 0, 1)).all():
        image, label = np.argwhere(~np.isin(targets_NL, (-1, 0, 1)))[0]
        raise ValueError(
            f"targets must be 1, 0 or -1 (ignored), but {files[image]!r} has "
            f"{targets_NL[image, label].item()!r} for the label {labels[label]!r}"
        )
    _check_names("file", files)
    _check_names("label", labels)
    if outside := [file for file in files if not names.is_inside(file)]:
        raise ValueError(
            f"the file {outside[0]!r} must be a path below the folder, such as "
            f"{posixpath.basename(outside[0]) or 'a.jpg'!r}"
        )
    return ImageSet(
        "", fspath(folder), pa.array(files, pa.string()), targets_NL.astype(np.int8), labels
    )


def _check_names(kind: str, values: Sequence[str]) -> None:
    for value, count in Counter(values).items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"a {kind} must be a text that is not empty, but got {value!r}")
        if character := names.bad_character(value):
            raise ValueError(f"the {kind} {ascii(value)[:80]} has the character {character}")
        if count > 1:
            raise ValueError(f"the {kind} {value!r} occurs {count} times")


class OwnReader:
    """The reader of a data set of your own (:class:`sadcl.data.load.Reader`).

    Args:
        recorded: hash of each module's source, as the configuration records it; None checks none.
    """

    def __init__(self, recorded: Mapping[str, str] | None = None) -> None:
        self.recorded = recorded

    def check_root(self, root: Path, config: Data) -> None:
        """Leave the check to the function."""

    def read(self, root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
        """Call the function and check what it returns.

        Raises:
            UserError: for a function that cannot be imported, takes no such arguments, fails, or
                returns something else than two splits.
        """
        path = config.name
        arguments = config.arguments
        function = component.bound(path, arguments, FIELD, "data.arguments", self.recorded)
        try:
            returned = function(root)
        except Exception as error:
            raise UserError(f"{FIELD} = {path!r}: {reason_of(error)}") from None
        try:
            return checked_splits(returned, root, path)
        except ValueError as error:
            raise UserError(f"{FIELD} = {path!r}: {error}.") from None


def checked_splits(returned: object, root: Path, path: str) -> tuple[ImageSet, ImageSet]:
    """Return the two splits under names for messages; ValueError for anything else.

    Args:
        returned: by a data set.
        root: that it was called with.
        path: import path or name of the data set.
    """
    parts = list(returned) if isinstance(returned, tuple | list) else [returned]
    splits = [part for part in parts if isinstance(part, ImageSet)]
    if len(parts) != 2 or len(splits) != 2:
        what = ", ".join(type(part).__name__ for part in parts)
        raise ValueError(
            "it must return the training and the test split, each a sadcl.data.image_set(), but "
            f"returned ({what})"
        )
    train, test = splits
    if train.labels != test.labels:
        pairs = zip([*train.labels, None], [*test.labels, None], strict=False)
        first, second = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            "both splits must have the same labels in the same order, but where the training split "
            f"has {first!r} the test split has {second!r}"
        )
    for kind, part in (("training", train), ("test", test)):
        if not Path(part.folder).is_relative_to(root):
            raise ValueError(
                f"the images of the {kind} split must be below the data root {str(root)!r}, but "
                f"their folder is {part.folder!r}"
            )
    word = path.rpartition(":")[2]
    return (
        replace(train, name=f"{word}-train", list_name=f"the training split of {path}"),
        replace(test, name=f"{word}-test", list_name=f"the test split of {path}"),
    )
