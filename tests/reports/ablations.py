"""Makes an ablation in a storage: its rows, and the file that says what it is."""

from __future__ import annotations

import json

from sadcl import storage
from sadcl.results import RunWriter

EVIL = r"a&b_50%#1 |x| $y$ {z} \n ~^ [w] *v* <i> `u` 🦆"
"""A name with all that Markdown, LaTeX, rich and matplotlib take for their own."""


def add(
    root,
    arm,
    seed,
    test=None,
    *,
    study="ab",
    dataset="coco14",
    status="complete",
    cause=None,
    scale="full",
    phase="arm",
):
    row = {
        "study": study,
        "phase": phase,
        "arm": arm,
        "seed": seed,
        "dataset": dataset,
        "scale": scale,
        "params": "{}",
    }
    key = f"{study}-{arm}-{dataset}-s{seed}"
    metrics = {} if test is None else {"test_mAP": test, "val_mAP": test - 1, "test_undefined": 0.0}
    if status != "running":
        RunWriter(str(root), key, row).finish(status, cause=cause, metrics=metrics)
    else:
        RunWriter(str(root), key, row)


def ablation(root, figures, *, study="ab", dataset="coco14", scale="full", **about):
    """Figures by arm, one a seed; the first arm is the baseline."""
    for arm, values in figures.items():
        for seed, value in enumerate(values):
            add(root, arm, seed, value, study=study, dataset=dataset, scale=scale)
    arms = list(figures)
    known = {
        "name": study,
        "kind": "ablation",
        "question": "Why?",
        "baseline": arms[0],
        "order": arms,
        "scale": scale,
    }
    text = json.dumps({**known, "marks": {}, "published": {}, **about})
    storage.write(f"{root}/studies/{study}.json", text.encode())
    return str(root)
