"""Trials of a search with a known effect of each field."""

from __future__ import annotations

import json

import numpy as np

from sadcl.search.study_file import read_space

UNIT_TEXTS = {"a": "0 to 1", "b": "0 to 1", "c": "0 to 1"}
UNIT = read_space({"space": UNIT_TEXTS})


def trials(figure, count, *, fields="abc", seed=0, **more):
    """Make complete trials with settings drawn uniformly."""
    rng = np.random.default_rng(seed)
    settings = [{field: float(rng.random()) for field in fields} for _ in range(count)]
    return [
        {
            "status": "complete",
            "val_mAP": 60 + figure(s, rng),
            "params": json.dumps(s),
            "key": f"k{i}",
            **more,
        }
        for i, s in enumerate(settings)
    ]


def a_alone(setting, rng):
    return 5 * setting["a"] + rng.normal(0, 0.3)


def noise(setting, rng):
    return rng.normal(0, 1)
