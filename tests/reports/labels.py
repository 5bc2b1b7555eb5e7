"""Runs with APs by label, as rows and in a storage."""

from __future__ import annotations

import numpy as np

from sadcl import storage
from sadcl.reports import label_gains
from sadcl.results import RunWriter

SUPPORT = [640, 320, 160, 80, 40, 20, 10, 5]
NAMES = [f"l{i}" for i in range(len(SUPPORT))]
ABLATION = (
    '{"kind": "ablation", "baseline": "stage2", "order": ["stage2", "both", "+SSCL"], '
    '"scale": "full"}'
)


def rows(ap_SL, arm, *, names=NAMES, support=SUPPORT, size=None, **more):
    """Make the run of each seed, and its rows of the labels table."""
    trials, labels = [], []
    for seed, ap_L in enumerate(ap_SL):
        key = f"{arm}-{seed}"
        trials.append(
            {
                "key": key,
                "study": "ab",
                "phase": "arm",
                "arm": arm,
                "seed": seed,
                "dataset": "coco14",
                "scale": "full",
                "status": "complete",
                "cause": None,
                "params": "{}",
                **more,
            }
        )
        for i, ap in enumerate(ap_L):
            area = {} if size is None else {"box_area": size[i]}
            labels.append(
                {
                    "key": key,
                    "label": names[i],
                    "AP": ap,
                    "support": float(support[i]),
                    "split": "test",
                    **area,
                }
            )
    return trials, labels


def compared(base_SL, arm_SL, **options):
    """Compute the gains of an arm from APs by seed and label."""
    one, two = rows(base_SL, "stage2", **options), rows(arm_SL, "both", **options)
    return label_gains.gains_of(one[0] + two[0], one[1] + two[1], "both", "stage2")


def store_of(
    root, arms, *, phase="arm", name="ab", description=None, params="{}", names=NAMES, **more
):
    """Write runs of arms with their labels, and the description of the study."""
    for arm, ap_SL in arms.items():
        for trial, seed in zip(rows(ap_SL, arm)[0], range(9), strict=False):
            row = {**trial, "study": name, "phase": phase, "params": params, **more}
            labels = [
                {"split": "test", "label": label, "AP": float(ap), "support": float(n)}
                for label, ap, n in zip(names, ap_SL[seed], SUPPORT, strict=True)
            ]
            writer = RunWriter(str(root), f"{name}-{phase}-{arm}-{seed}-{len(params)}", row)
            writer.finish(
                "complete", metrics={"val_mAP": float(np.mean(ap_SL[seed]))}, labels=labels
            )
    if description is not None:
        storage.write(f"{root}/studies/{name}.json", description.encode())
    return str(root)
