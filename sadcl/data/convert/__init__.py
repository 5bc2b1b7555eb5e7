"""Convert what other tools export into a folder of one's own (``readers/folder.py``).

A converter is a module with two functions: ``find(source)`` returns the annotation files of its
format, nothing if there are none, and ``read(source, paths)`` yields an :class:`Item` for each
image, or several, which are joined. What it cannot use it counts with ``source.remark``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sadcl.data.base import Progress
from sadcl.data.convert import class_folders, coco, cvat, label_studio, tables, voc, write, yolo
from sadcl.data.convert.source import Item, Source
from sadcl.errors import UserError


class Format(NamedTuple):
    """The two functions of a converter."""

    find: Callable[[Source], list[Path]]
    read: Callable[[Source, list[Path]], Iterator[Item]]


FORMATS = {
    "coco": Format(coco.find, coco.read),
    "voc": Format(voc.find, voc.read),
    "yolo": Format(yolo.find, yolo.read),
    "cvat": Format(cvat.find, cvat.read),
    "label-studio": Format(label_studio.find, label_studio.read),
    "huggingface": Format(tables.find_metadata, tables.read),
    "table": Format(tables.find, tables.read),
    "class-folders": Format(class_folders.find, class_folders.read),
}
"""Converters by the name of their format."""


class Converted(NamedTuple):
    """The folder that was written."""

    kind: str
    """The format that was read, a key of :data:`FORMATS`."""
    sources: tuple[str, ...]
    """The annotation files."""
    train: int
    test: int
    labels: tuple[str, ...]
    unlabelled: int
    """Images without a label."""
    remarks: Counter[str]
    examples: Mapping[str, list[str]]


def convert(
    path: Path,
    target: Path,
    *,
    kind: str | None = None,
    images: Path | None = None,
    test: float | None = None,
    between: str = "",
    copy: bool = False,
    progress: Progress = lambda done, total: None,
) -> Converted:
    """Read an export and write it as a folder of one's own.

    Args:
        path: of the export, a folder or one annotation file.
        target: the new folder.
        kind: the format, a key of :data:`FORMATS`; None recognises it.
        images: folder that the images are below, if they are not below ``path``.
        test: share of the images that test, drawn where the export does not say which.
        between: what stands between names in the cell of a table; empty is ``;`` or ``|``.
        copy: copy the images; otherwise the folder has links to them.
        progress: called with the number of placed images and of all images.

    Raises:
        UserError: for an export that is no such format, or of several, that has no image on disk or
            says of none that it tests, and for a target that exists.
    """
    write.check_target(target)
    source = Source(path, images, between)
    kind, paths = _recognised(source, kind)
    found = write.joined(FORMATS[kind].read(source, paths), source)
    if not found:
        raise UserError(
            f"No image of {str(path)!r} can be used. If the images are in another folder, give it "
            f"with --images. What was read: {_remarks_text(source)}."
        )
    kept = write.divided(found, test, source)
    if not any(one.labels for one in kept):
        raise UserError(
            f"None of the {len(kept):,} images of {str(path)!r} has a label: "
            f"{_remarks_text(source)}."
        )
    splits = write.write(kept, source, target, copy=copy, progress=progress)
    unlabelled = sum(int((images.targets == 0).all(axis=1).sum()) for images in splits)
    names = tuple(map(source.shown, paths))
    sizes = len(splits[0]), len(splits[1])
    return Converted(
        *(kind, names, *sizes, splits[0].labels, unlabelled, source.remarks, source.examples)
    )


def _recognised(source: Source, kind: str | None) -> tuple[str, list[Path]]:
    """Return the format and its annotation files.

    Raises:
        UserError: if there is none, or more than one.
    """
    kinds = FORMATS if kind is None else {kind: FORMATS[kind]}
    found = {name: paths for name, one in kinds.items() if (paths := one.find(source))}
    if len(found) > 1:
        what = "; ".join(f"{name} ({source.shown(paths[0])})" for name, paths in found.items())
        raise UserError(
            f"{str(source.path)!r} may be of several formats: {what}. Say which with --from."
        )
    if not found:
        some = ", ".join(source.shown(path) for path in source.files[:5])
        more = f" and {len(source.files) - 5:,} more" if len(source.files) > 5 else ""
        raise UserError(
            f"{str(source.path)!r} is not in a format that is known ({', '.join(kinds)}): it has "
            f"{some or 'no files'}{more}.{yolo.lack_of_names(source)}"
        )
    return found.popitem()


def _remarks_text(source: Source) -> str:
    texts = (
        f"{number:,} {what} (first {source.examples[what][0]})"
        for what, number in source.remarks.most_common(3)
    )
    return "; ".join(texts) or "it lists none"
