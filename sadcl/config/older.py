"""Configurations that older versions have stored in checkpoints and in the trials table."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_BEFORE: dict[str, dict[str, Any]] = {
    "data": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "model": {"position": "halves"},
    "loss": {"candidates": "all"},
    "optim": {"ema_start": "first_step"},
}
"""What was done before a field existed, where it is not the field's default."""
_HEADS = {"sadcl": "sadcl.model.heads:SARL", "pooled": "sadcl.model.heads:Pooled"}
"""The head of each ``model.arch``."""
_CLASS_LOSS = {
    "class_loss": "kind",
    "gamma_negative": "gamma_negative",
    "gamma_positive": "gamma_positive",
    "clip": "clip",
}
"""Fields of ``loss`` that each stage has now."""


def as_today(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the plain values of an older version's configuration into those of this one.

    Values of this version come back unchanged.
    """
    today = copy.deepcopy(dict(tree))
    for section, values in _BEFORE.items():
        today[section] = {**values, **today.get(section, {})}
    model, loss = today["model"], today["loss"]
    if "arch" in model:
        model["head"] = _HEADS[model.pop("arch")]
    if "contrast_reduction" in loss:
        reduction = loss.pop("contrast_reduction")
        loss["sample_reduction"] = loss["prototype_reduction"] = reduction
    class_loss = {new: loss.pop(old) for old, new in _CLASS_LOSS.items() if old in loss}
    for stage in ("stage1", "stage2") if class_loss else ():
        today[stage] = {**today.get(stage, {}), "class_loss": class_loss}
    return today


def renamed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the former name of a field, and its value, into those of today."""
    today = dict(changes)
    if isinstance(arch := today.get("model.arch"), str) and arch in _HEADS:
        del today["model.arch"]
        today["model.head"] = _HEADS[arch]
    return today
