"""Checkpoints without training, and the photographs that their exported files are compared on."""

from __future__ import annotations

from pathlib import Path

import torch

import sadcl
from sadcl import build, recipes
from sadcl.training import checkpoint

LABELS = ("dog", "Kätzchen", "tree house", "car", "star", "moon", "sea")
PHOTOS = Path(sadcl.__file__).parents[2] / "shared" / "data" / "coco" / "val2017"
"""Photographs of COCO, where they are."""


def write_checkpoint(folder: Path, **fields) -> str:
    """Write ``KEY/best.pt`` below a folder; fields are written with two underscores for a dot."""
    config = recipes.demo().override({name.replace("__", "."): v for name, v in fields.items()})
    network = build.model(config, len(LABELS), pretrained=False)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for name, tensor in network.state_dict().items():  # statistics as after training
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.1)
        for parameter in network.head.classifier.parameters():  # scores all over 0 to 1
            parameter.data.mul_(4)
    content = {
        "config": config.json_text(),
        "labels": list(LABELS),
        "stage": 2,
        "dataset": "scenes",
        "data_digest": "0123456789ab",
        "threads": 1,
        "epoch": 3,
        "weights": "ema",
        "metrics": {"val_mAP": 51.25, "test_CF1": float("nan")},
        "rows": [],
        "model": network.state_dict(),
    }
    (folder / "KEY").mkdir(parents=True)
    uri = str(folder / "KEY" / "best.pt")
    checkpoint.save_checkpoint(uri, content)
    return uri


def photographs(count: int) -> list[Path]:
    """The first photographs of COCO, or none."""
    return sorted(PHOTOS.glob("*.jpg"))[:count]
