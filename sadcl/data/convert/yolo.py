"""YOLO's text files, as Ultralytics, Roboflow, CVAT, Label Studio and LabelImg write them.

There is one text file an image: a line for each box or outline, which begins with the number of a
class. ``data.yaml``, ``classes.txt`` or ``obj.names`` has the classes. Lists or folders that
``data.yaml`` names say the split, or else the names of folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sadcl.data.convert.source import Item, Source, split_of
from sadcl.data.readers import files
from sadcl.errors import UserError

_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")


def find(source: Source) -> list[Path]:
    """Return the file of the classes: of several the YAML file, or the first."""
    named = [path for path in source.with_suffix(".yaml", ".yml") if _yaml(path).get("names")]
    listed = [path for path in source.files if path.name.lower() in _LISTS]
    return [*named, *listed][:1] if _has_boxes(source) else []


def lack_of_names(source: Source) -> str:
    """Return a sentence about boxes without the names of their classes; empty without boxes."""
    if not _has_boxes(source):
        return ""
    return (
        " Its text files look like YOLO's boxes, but no file names the classes: data.yaml with "
        "names (valid YAML), or classes.txt with one a line, is needed."
    )


def _has_boxes(source: Source) -> bool:
    return any(_looks_right(path) for path in source.with_suffix(".txt"))


def _looks_right(path: Path) -> bool:
    """Return whether a text file has boxes: numbers alone, at least five in its first line."""
    with path.open("rb") as file:
        words = file.readline(4096).split()
    try:
        return len(words) > 4 and bool([float(word) for word in words])
    except ValueError:
        return False


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _classes(path: Path) -> dict[int, str]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(files.read_entries(path, "It has the classes, one a line.")))
    names = _yaml(path)["names"]
    if isinstance(names, list):
        return dict(enumerate(map(str, names)))
    try:
        return {int(number): str(name) for number, name in names.items()}
    except (AttributeError, ValueError, TypeError):
        raise UserError(
            f"{str(path)!r} has names = {files.shown(names)}; a list, or a mapping from numbers to "
            "names, is needed."
        ) from None


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each image; one without a text file, or with an empty one, has no label."""
    classes = _classes(paths[0])
    source.add_labels(classes.values())
    texts = {path: _lines(path) for path in source.with_suffix(".txt") if path != paths[0]}
    listed = _listed(source, paths[0], texts)
    used = set()
    for image in source.images:
        inside = image.relative_to(source.image_folder)
        path = next((one for one in _text_files(source, inside) if one in texts), None)
        if path is None:
            source.remark("images without a text file, read as images without labels", inside)
        else:
            used.add(path)
        numbers = [_number(line) for line in texts[path]] if path is not None else []
        wrong = [number for number in numbers if number not in classes]
        source.remark("lines of no class", path and source.shown(path), len(wrong))
        labels = [classes[number] for number in numbers if number in classes]
        split = listed.get(inside.as_posix()) or split_of(*inside.parts[:-1])
        yield source.known_item(image, inside.as_posix(), labels, split)
    for path in texts.keys() - used:
        if any(_number(line) in classes for line in texts[path]):
            source.remark("text files without an image", source.shown(path))


def _lines(path: Path) -> list[list[str]]:
    text = path.read_text("utf-8", errors="replace")
    return [words for line in text.splitlines() if (words := line.split())]


def _number(words: list[str]) -> int:
    """Return the class of a line; -1 if it is no box and no outline."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return -1
    return int(numbers[0]) if len(numbers) > 4 and numbers[0].is_integer() else -1


def _text_files(source: Source, inside: Path) -> Iterator[Path]:
    """Yield where the text file of an image may be: in ``labels`` for ``images``, or beside it."""
    parts = list(inside.with_suffix(".txt").parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            yield source.folder.joinpath(*parts[:i], "labels", *parts[i + 1 :])
    yield source.folder.joinpath(*parts)
    yield source.folder.joinpath("labels", *parts)
    yield source.folder.joinpath("labels", parts[-1])


def _listed(source: Source, path: Path, texts: dict[Path, list[list[str]]]) -> dict[str, str]:
    """Return the split of images that ``data.yaml`` names in lists, or by folders."""
    content = _yaml(path) if path.suffix.lower() in (".yaml", ".yml") else {}
    listed: dict[str, str] = {}
    for key in ("train", "val", "test"):
        places = content.get(key) or []
        for place in places if isinstance(places, list) else [places]:
            parts = [part for part in Path(str(place)).parts if part not in ("..", ".", "/")]
            ends = [one for one in texts if parts and one.parts[-len(parts) :] == tuple(parts)]
            for image in source.images:
                inside = image.relative_to(source.image_folder)
                if parts and inside.parts[: len(parts)] == tuple(parts):
                    listed[inside.as_posix()] = key
            for words in texts[ends[0]] if ends else []:
                image_path = source.image(" ".join(words), key)
                if image_path is not None:
                    listed[image_path.relative_to(source.image_folder).as_posix()] = key
    return listed
