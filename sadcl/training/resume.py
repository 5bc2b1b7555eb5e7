"""The state of a stage in mid-run: what goes on from it is what an uninterrupted run would have done.

With the same number of workers to the bit (on CPUs); with another number up to rounding, as for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sadcl import distributed
from sadcl.errors import UserError
from sadcl.training.engine import Training


@dataclass
class Progress:
    """What a resumed stage has to know of its past."""

    epoch: int = 0
    """Epochs that are over."""
    step: int = 0
    """Steps of the next that are done."""
    totals: dict[str, Tensor] = field(default_factory=dict)
    """Sums over these steps of the global terms."""
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    before: float = 0.0
    """Seconds of the epochs that are over."""
    images: int = 0
    done: bool = False
    stopped: str = ""
    """Why the report stopped it early."""


def worker_state(training: Training) -> list[dict[str, Tensor]]:
    """What each worker holds for itself, by worker: live BatchNorm statistics, a bank of its own; a collective call."""
    if distributed.world_size() == 1:
        return []
    own: dict[str, Tensor] = {}
    for part, module in _parts(training).items():
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm):
                own |= {f"{part}.{name}.{key}": buffer for key, buffer in layer.named_buffers()}
    if training.bank is not None and training.config.bank.scope == "worker":
        own |= {f"bank.{name}": tensor for name, tensor in training.bank.state_dict().items()}
    gathered = {name: distributed.all_gather_rows(tensor[None]) for name, tensor in own.items()}
    return [
        {name: tensors[w] for name, tensors in gathered.items()}
        for w in range(distributed.world_size())
    ]


def _parts(training: Training) -> dict[str, torch.nn.Module]:
    parts = {"model": training.network, "ema": training.ema, "bank": training.bank}
    return {name: module for name, module in parts.items() if module is not None}


def resume_state(
    training: Training, progress: Progress, own: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Everything that affects what comes next; random numbers are functions of seed and position and need no saving."""
    return {
        "config": training.config.json_text(),
        "world": distributed.world_size(),
        "step": training.step,
        "progress": vars(progress),
        **{name: module.state_dict() for name, module in _parts(training).items()},
        "own": own,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
    }


def restore(training: Training, content: dict[str, Any]) -> Progress:
    if content["config"] != training.config.json_text():
        raise UserError(
            "The run's folder holds a checkpoint of another configuration; give the run another folder."
        )
    same = content["world"] == distributed.world_size()
    own = content["own"][distributed.rank()] if same and content["own"] else {}
    for part, module in _parts(training).items():
        if part == "bank" and training.config.bank.scope == "worker" and not same:
            continue  # banks of another number of workers cannot be divided: they fill anew
        mine = {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in own.items()
            if name.startswith(f"{part}.")
        }
        module.load_state_dict({**content[part], **mine})
    training.optimizer.load_state_dict(content["optimizer"])
    training.schedule.load_state_dict(content["schedule"])
    training.step = content["step"]
    progress = Progress(**content["progress"])
    progress.totals = {name: total.to(training.device) for name, total in progress.totals.items()}
    return progress
