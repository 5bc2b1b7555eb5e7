"""What a converter reads: the files below a folder, its images by their names, and what it skips.

Exports name their images by paths of other machines, addresses, or names without an ending; the
functions here find which file is meant, and never guess between two.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sadcl.data.readers import files, sources
from sadcl.errors import UserError

EXAMPLES = 3
"""How many examples of each remark are kept."""
_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "minival"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""


class Item(NamedTuple):
    """One image with labels, as an annotation file has it; several of one image are joined."""

    image: Path
    name: str
    """As listed: one image that is listed by two names is a mistake of somebody's."""
    labels: tuple[str, ...]
    split: str
    """``train``, ``val``, ``test``, or empty if it is not said."""


class Source:
    """A folder to convert, or one annotation file of it.

    Args:
        path: of the folder or file.
        images: folder that the images are below; None is the folder itself.
        between: what stands between names in the cell of a table; empty is ``;`` or ``|``.

    Raises:
        UserError: if it does not exist.
    """

    def __init__(self, path: Path, images: Path | None = None, between: str = "") -> None:
        for place in filter(None, (path, images)):
            if not place.exists():
                raise UserError(f"{str(place)!r} does not exist; give what your tool exported.")
        self.path, self.between = path, between
        self.folder = path if path.is_dir() else path.parent
        self.files = _files_below(path) if path.is_dir() else [path]
        self.image_folder = images or self.folder
        below = self.files if images is None and path.is_dir() else _files_below(self.image_folder)
        self.images = [file for file in below if file.suffix.lower() in files.IMAGE_ENDINGS]
        """The image files, sorted."""
        self.labels: dict[str, None] = {}
        """Labels in the order of the source."""
        self.remarks: Counter[str] = Counter()
        """How often something was skipped, or read in a way that is worth a look."""
        self.examples: dict[str, list[str]] = {}
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for image in self.images:
            self._by_name.setdefault(files.spelling(image.name), []).append(image)
            self._by_stem.setdefault(files.spelling(image.stem), []).append(image)

    def remark(self, what: str, example: object, number: int = 1) -> None:
        """Count something that is skipped or worth a look, with an example of it."""
        if number:
            self.remarks[what] += number
            shown = self.examples.setdefault(what, [])
            if len(shown) < EXAMPLES:
                shown.append(files.shown(str(example), 80)[1:-1])

    def shown(self, path: Path) -> str:
        """Return a path below the folder, for messages."""
        return os.path.relpath(path, self.folder)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return the files with one of these endings."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def add_labels(self, names: Iterable[str]) -> tuple[str, ...]:
        """Add labels in this order, and return them with one blank between words, in NFC.

        One that has no name, or has a control character, is left out.
        """
        labels = dict.fromkeys(filter(None, map(_clean, names)))
        self.labels |= labels
        return tuple(labels)

    def item(
        self, name: str, labels: Iterable[str], split: str = "", below: Path | None = None
    ) -> Item | None:
        """Return an image with labels; None, with a remark, if it is not clear which is meant.

        Args:
            name: as listed: a path of any machine, or an address.
            labels: its labels; one that has no name is left out.
            split: as :class:`Item` has it.
            below: a folder that the image must be in.
        """
        image = self.image(name, split, below)
        if image is None:
            return None
        if split and self.split_of(image) not in ("", split):
            what = "images in the folder of another split, taken as the source says"
            self.remark(what, f"{self.shown(image)} ({split})")
        return self.known_item(image, name, labels, split)

    def known_item(self, image: Path, name: str, labels: Iterable[str], split: str) -> Item:
        """Return an image with labels, as :meth:`item` does, where the file is known already."""
        labels = list(labels)
        for label in labels:
            if not _clean(label):
                self.remark("labels without a name, or with a control character", repr(label))
        return Item(image, name, self.add_labels(labels), split)

    def image(self, name: str, split: str = "", below: Path | None = None) -> Path | None:
        """Return the only file that a listed name fits best; None, with a remark, without one.

        It has the same name, apart from letter case and Unicode form, or without an ending the same
        name before it. Of several, those with the most folders in common fit best, and of these
        those in the folder of the split, or of none.
        """
        parts: tuple[str, ...] = ()
        fits: list[Path] = []
        for path in _paths_of(name):
            parts = PurePosixPath(path).parts
            if fits := self._candidates(parts[-1] if parts else ""):
                break
        if below is not None:
            fits = [image for image in fits if image.is_relative_to(below)]
        inside = {image: image.relative_to(self.image_folder).parts[:-1] for image in fits}
        common = {image: _common_end(inside[image], parts[:-1]) for image in fits}
        best = [image for image in fits if common[image] == max(common.values())]
        if split and len(best) > 1:
            best = [one for one in best if self.split_of(one) in ("", split)] or best
        if len(best) == 1:
            return best[0]
        self.remark("images that fit several files" if best else "images that are not there", name)
        return None

    def split_of(self, image: Path) -> str:
        """Return the split that the folder of an image says; empty if it says none."""
        return split_of(*image.relative_to(self.image_folder).parts[:-1])

    def has(self, name: str) -> bool:
        """Return whether there is an image of this name, in any folder."""
        return bool(self._candidates(name))

    def place_of(self, path: Path) -> Path | None:
        """Return the folder of an annotation file if the images are to be in it, or else None."""
        folder = path.parent
        if self.image_folder != self.folder:
            return None
        # in annotations/ beside images/ there is none
        return folder if any(image.is_relative_to(folder) for image in self.images) else None

    def nearest(self, name: str, path: Path) -> Path | None:
        """Return the innermost folder above a file that has an image of this name."""
        images = self._candidates(name)
        folders = (place for place in path.parents if place.is_relative_to(self.folder))
        return next(
            (place for place in folders if any(one.is_relative_to(place) for one in images)), None
        )

    def _candidates(self, name: str) -> list[Path]:
        index = self._by_stem
        if PurePosixPath(name).suffix.lower() in files.IMAGE_ENDINGS:
            index = self._by_name
        without_upload = _UPLOAD.sub("", name)
        return index.get(files.spelling(name)) or index.get(files.spelling(without_upload), [])


def _clean(label: str) -> str:
    """Return a label as it is written; empty if it cannot be."""
    clean = files.composed(" ".join(label.split()))
    return "" if files.bad_character(clean) else clean


def _paths_of(name: str) -> Iterator[str]:
    """Yield the path in a listed name: of another machine, an address, or Label Studio's files.

    An address may have blanks and other characters as ``%20``, or as they are.
    """
    text = name.strip()
    if "://" in text or text.startswith("/data/"):
        _, local, path = text.partition("/local-files/?d=")
        text = path if local else text
        yield files.with_slashes(text)
        text = urllib.parse.unquote(text if local else text.partition("?")[0])
    yield files.with_slashes(text)


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many folders two paths have in common, from the innermost."""
    number = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if files.spelling(a) != files.spelling(b):
            break
        number += 1
    return number


def split_of(*names: str) -> str:
    """Return the split that the last of these names with such a word says; empty if none does.

    Words are train, val, valid, test and the like: ``train2017``, ``obj_train_data``.
    """
    for name in reversed(names):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in _WORDS:
                return _WORDS[word]
    return ""


def head_of(path: Path, length: int = 1 << 16) -> str:
    """Return the beginning of a text file, to see what it is; empty if it is no text."""
    try:
        with path.open("rb") as file:
            head = file.read(length)
    except OSError:
        return ""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return head.decode(encoding, errors="replace").lstrip()


def _files_below(folder: Path) -> list[Path]:
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files but hidden ones, and those of a disk's own: ``@eaDir``, ``$RECYCLE.BIN``."""
    for place, folders, names in os.walk(folder, followlinks=True):
        # archives of a Mac have a second tree, and files that begin with a dot
        folders[:] = [one for one in folders if one[0] not in ".@$" and one != "__MACOSX"]
        yield from (Path(place, name) for name in names if name[0] != "." and sources.is_utf8(name))
