"""The columns of the trials table that follow from elsewhere: configuration fields and metrics.

They have the types and meanings of a :data:`sadcl.results.schema.Columns`. The configuration is
imported when it is first asked for, because most queries need none of this.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Annotated, Any, Literal

import pyarrow as pa

_SPLITS = {"val": "held-out training", "test": "test"}
_MEANS = {
    "mAP_step": "mean over the labels of scikit-learn's average precision",
    "mAP_11pt": "mean over the labels of VOC 2007's 11-point average precision",
    "CP": "precision at 0.5, mean over the labels",
    "CR": "recall at 0.5, mean over the labels",
    "CF1": "harmonic mean of CP and CR",
    "CF1_macro": "F1 at 0.5, mean over the labels",
    "OP": "precision at 0.5 over all pairs of image and label",
    "OR": "recall at 0.5 over all pairs of image and label",
    "OF1": "harmonic mean of OP and OR",
}
_LOCALISATION = {
    "pointing": "share of the images with a label whose attention map is highest inside a box",
    "box_energy": "share of the attention map inside the label's boxes",
    "box_area": "share of the image inside the label's boxes",
}


@functools.cache
def trial_columns() -> dict[str, tuple[pa.DataType, str]]:
    """Return type and meaning of each field of the configuration and of each metric."""
    from sadcl.config import fields

    columns = {
        name.replace(".", "_"): (
            _kind(field.annotation),
            f"field {name} of the configuration: {field.meaning}",
        )
        for name, field in fields.all_fields().items()
    }
    return columns | _metrics()


@functools.cache
def whole_columns() -> frozenset[str]:
    """Return the columns that hold whole numbers although their type is float64."""
    from sadcl.config import fields

    counts = ("support", "bank_fill", "val_undefined", "test_undefined")
    return frozenset(counts).union(
        name.replace(".", "_")
        for name, field in fields.all_fields().items()
        if _is_whole(field.annotation)
    )


def _is_whole(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return _is_whole(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        return all(map(_is_whole, parts))
    return annotation is int


def _kind(annotation: Any) -> pa.DataType:
    """Return the type of a field's column: numbers are float64, and what is no value is text."""
    if typing.get_origin(annotation) is Annotated:
        return _kind(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = {_kind(part) for part in typing.get_args(annotation) if part is not types.NoneType}
        return kinds.pop() if len(kinds) == 1 else pa.string()
    values = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    if annotation is bool or (values and all(isinstance(value, bool) for value in values)):
        return pa.bool_()
    if annotation in (int, float):
        return pa.float64()
    return pa.string()


def _metrics() -> dict[str, tuple[pa.DataType, str]]:
    top3 = {
        f"{name}_top3": f"{meaning}, of the three highest scores of each image"
        for name, meaning in _MEANS.items()
        if not name.startswith("mAP")
    }
    columns = {}
    for split, images in _SPLITS.items():
        on = f"on the {images} images; null where not measured"
        for name, meaning in {**_MEANS, **top3}.items():
            columns[f"{split}_{name}"] = (pa.float64(), f"percent: {meaning}, {on}")
        columns[f"{split}_undefined"] = (
            pa.float64(),
            f"count of the labels without a positive {on}",
        )
        for name, meaning in _LOCALISATION.items():
            text = f"percent: {meaning}, mean over images and then labels, {on}"
            columns[f"{split}_{name}"] = (pa.float64(), text)
    for weights, text in {"raw": "raw weights", "ema": "weights' moving average"}.items():
        columns[f"val_mAP_{weights}"] = (
            pa.float64(),
            f"percent: val_mAP of the {text} in the chosen epoch; null where not measured",
        )
    return columns
