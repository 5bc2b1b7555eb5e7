"""Label Studio's JSON and JSON-MIN: a list of tasks with the choices or regions of each image.

Labels of all annotators are joined. A task that nobody has finished is not a picture without
labels, so that it is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sadcl.data.convert.source import Item, Source, head_of, split_of
from sadcl.data.readers import files
from sadcl.errors import UserError

_KINDS = (
    *("choices", "rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels"),
    *("ellipselabels", "bitmasklabels", "vectorlabels", "labels", "taxonomy"),
)
"""Where a region, or an answer, has its labels."""
_ANSWERS = ("choice", "choices", "label", "labels", "tag", "tags", "class", "category", "taxonomy")
"""Fields of JSON-MIN whose texts are labels; others may be columns of the user's."""
_FACTS = ("created_at", "updated_at", "annotator", "split", "subset")
"""Fields of JSON-MIN that are never labels."""


def find(source: Source) -> list[Path]:
    """Return the exported files."""
    keys = ('"data"', '"annotation_id"', '"annotator"', '"lead_time"')
    return [
        path
        for path in source.with_suffix(".json")
        if (head := head_of(path)).startswith("[") and any(key in head for key in keys)
    ]


def read(source: Source, paths: list[Path]) -> Iterator[Item]:
    """Yield each finished task; an annotation without a result has no label."""
    for path in paths:
        for number, task in enumerate(_tasks(path), start=1):
            where = f"{source.shown(path)} task {task.get('id', number)}"
            data = task.get("data", task)
            name = _image_name(data if isinstance(data, dict) else {})
            if not name:
                source.remark("tasks without an image", where)
                continue
            labels = _of_annotations(task) if "data" in task else _of_short_form(source, task, name)
            if labels is None:
                source.remark("tasks that nobody has finished", where)
                continue
            split = split_of(str(data.get("split", data.get("subset", ""))))
            item = source.item(name, labels, split)
            if item is not None:
                yield item


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(files.read_text(path, "Label Studio exports it."))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(path)!r} is not valid JSON: {error}. Export it again.") from None
    if not isinstance(tasks, list):
        raise UserError(f"{str(path)!r} is no list of tasks; export 'JSON' or 'JSON-MIN'.")
    return [task for task in tasks if isinstance(task, dict)]


def _image_name(data: dict[str, Any]) -> str:
    """Return the first value that names an image, or else the one that is called so."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for text in texts.values():
        if text.partition("?")[0].lower().endswith(files.IMAGE_ENDINGS) or "/?d=" in text:
            return text
    return texts.get("image", "")


def _of_annotations(task: dict[str, Any]) -> list[str] | None:
    """Return the labels of the full form; None if there is no finished annotation."""
    annotations = [
        one
        for one in task.get("annotations") or task.get("completions") or []
        if isinstance(one, dict) and not one.get("was_cancelled")
    ]
    if not annotations:
        return None
    regions = [region for one in annotations for region in one.get("result") or []]
    values = [region.get("value") for region in regions if isinstance(region, dict)]
    return [label for value in values for label in _labels(value)]


def _of_short_form(source: Source, task: dict[str, Any], image: str) -> list[str]:
    """Return the labels of JSON-MIN, which has a field for each question, and columns beside."""
    labels = []
    for key, value in task.items():
        if isinstance(value, str) and key in _ANSWERS:
            labels.append(value)
        elif isinstance(value, str) and key not in _FACTS and value != image:
            source.remark("texts of other fields, not read as labels", f"{key}: {value}")
        else:
            labels += _labels(value)
    return labels


def _labels(value: Any) -> Iterator[str]:
    """Yield the labels of a region, of several, or of an answer; of a taxonomy the last names."""
    if isinstance(value, list):
        for one in value:
            yield from _labels(one)
    elif isinstance(value, dict):
        for kind in _KINDS:
            for label in value[kind] if isinstance(value.get(kind), list) else []:
                yield str(label[-1] if isinstance(label, list) and label else label)
