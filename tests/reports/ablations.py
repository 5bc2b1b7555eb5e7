"""Ablations in a storage: their rows, and the file that describes the study."""

from __future__ import annotations

import json

from sadcl import storage
from sadcl.results import RunWriter

EVIL = r"a&b_50%#1 |x| $y$ {z} \n ~^ [w] *v* <i> `u` 🦆"
"""A name with the special characters of Markdown, LaTeX, rich and matplotlib."""


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
    gradients=None,
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
    writer = RunWriter(str(root), key, row)
    if gradients is not None:
        writer.epoch({"stage": 2, "epoch": 1, **gradients})
    if status != "running":
        writer.finish(status, cause=cause, metrics=metrics)


def ablation(root, figures, *, study="ab", dataset="coco14", scale="full", **about):
    """Write an ablation from the figures of each arm by seed; the first arm is the baseline."""
    for arm, values in figures.items():
        for seed, value in enumerate(values):
            add(root, arm, seed, value, study=study, dataset=dataset, scale=scale)
    arms = list(figures)
    description = {
        "name": study,
        "kind": "ablation",
        "question": "Why?",
        "baseline": arms[0],
        "order": arms,
        "scale": scale,
    }
    text = json.dumps({**description, "marks": {}, "published": {}, **about})
    storage.write(f"{root}/studies/{study}.json", text.encode())
    return str(root)


FIGURES = {
    "stage2": [80.0, 81.0, 79.5],
    "+SSCL": [80.1, 80.9, 79.7],
    "both": [81.01, 82.0, 80.49],
    "worse": [70.0, 71.1, 69.4],
}
MARKS = {"stage2": ["SARL"], "+SSCL": ["SARL", "SSCL"], "both": ["SARL", "SSCL", "PSCL"]}
PAPER = {"stage2": {"coco14": 85.0}, "both": {"coco14": 85.6, "nuswide": 65.9}}
