"""The state of a stage in mid-run, from which it resumes as if it had not been interrupted.

With the same number of workers the result is bit-identical (on CPUs); with another number it is
equal up to rounding, as it is for any two numbers of workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sadcl import distributed
from sadcl.errors import UserError
from sadcl.training.engine import Training
from sadcl.training.first_values import start_bank


@dataclass
class Progress:
    """What a resumed stage must know of its past; saved field by field."""

    epoch: int = 0
    """Epochs that are over."""
    step: int = 0
    """Steps of the current epoch that are done."""
    totals: dict[str, Tensor] = field(default_factory=dict)
    """Sums of the global terms over these steps."""
    best: dict[str, Any] = field(default_factory=dict)
    """The best epoch so far; see :func:`sadcl.training.selection.select`."""
    highest: dict[str, float] = field(default_factory=dict)
    """The highest of each held-out mAP that ``patience`` counts."""
    better_epoch: int = 0
    """The last epoch in which one of them was higher than ever before; 0 before the first."""
    seconds: float = 0.0
    """Seconds of the stage, of all its processes one after the other."""
    before: float = 0.0
    """Seconds of the epochs that are over."""
    images: int = 0
    """Training images of the epochs that are over."""
    precisions: list[str] = field(default_factory=list)
    """The precisions of the stage so far, in order: another kind of device may have another one."""
    done: bool = False
    """Whether the last epoch is over."""
    stopped: str = ""
    """Why the report stopped the stage early; empty where it did not."""


def joined_precisions(precisions: Iterable[str]) -> str:
    """Return precisions in order, each change once: ``fp32``, or ``bf16 then fp32``."""
    return " then ".join(precision for precision, _ in itertools.groupby(precisions))


def note_precision(
    progress: Progress, current: str, report: Callable[[str, str], None] | None
) -> None:
    """Remember the precision of this device, and report it where the stage had another one.

    Args:
        progress: of the stage; it is changed.
        current: the precision of this process.
        report: takes the former precision and the present one, on the first worker.
    """
    precisions = progress.precisions
    if progress.done or precisions[-1:] == [current]:
        return
    if precisions and report is not None and distributed.rank() == 0:
        report(precisions[-1], current)
    precisions.append(current)


def worker_state(training: Training) -> list[dict[str, Tensor]]:
    """Gather what each worker holds for itself: BatchNorm statistics, a worker-local bank.

    This is a collective call.

    Returns:
        One state for each worker; empty for a single worker, whose modules hold everything.
    """
    if distributed.world_size() == 1:
        return []
    local: dict[str, Tensor] = {}
    for part, module in _parts(training).items():
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm):
                local |= {f"{part}.{name}.{key}": buffer for key, buffer in layer.named_buffers()}
    if training.bank is not None and training.config.bank.scope == "worker":
        local |= {f"bank.{name}": tensor for name, tensor in training.bank.state_dict().items()}
    gathered = {name: distributed.all_gather_rows(tensor[None]) for name, tensor in local.items()}
    return [
        {name: tensors[worker] for name, tensors in gathered.items()}
        for worker in range(distributed.world_size())
    ]


def _parts(training: Training) -> dict[str, torch.nn.Module]:
    parts = {"model": training.network, "ema": training.ema, "bank": training.bank}
    return {name: module for name, module in parts.items() if module is not None}


def resume_state(
    training: Training, progress: Progress, worker_states: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Collect everything that affects the rest of the stage.

    Random numbers are functions of seed and position and need no saving.

    Args:
        training: the stage.
        progress: its past.
        worker_states: from :func:`worker_state`.
    """
    return {
        "config": training.config.json_text(),
        "world": distributed.world_size(),
        "step": training.step,
        "progress": vars(progress),
        **{name: module.state_dict() for name, module in _parts(training).items()},
        "own": worker_states,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
    }


def restore(training: Training, content: dict[str, Any]) -> Progress:
    """Load a state from :func:`resume_state` into a stage, and return its progress.

    Raises:
        UserError: where the state belongs to another configuration.
    """
    if content["config"] != training.config.json_text():
        raise UserError(
            "The run's folder holds a checkpoint of another configuration; give the run another "
            "folder."
        )
    same_world = content["world"] == distributed.world_size()
    local = content["own"][distributed.rank()] if same_world and content["own"] else {}
    for part, module in _parts(training).items():
        if part == "bank" and training.config.bank.scope == "worker" and not same_world:
            # Worker-local banks of another number of workers cannot be divided: start again.
            if training.config.bank.start == "prototypes":
                start_bank(training)
            continue
        prefix = f"{part}."
        local_part = {
            name.removeprefix(prefix): tensor
            for name, tensor in local.items()
            if name.startswith(prefix)
        }
        module.load_state_dict({**content[part], **local_part})
    training.optimizer.load_state_dict(content["optimizer"])
    training.schedule.load_state_dict(content["schedule"])
    training.step = content["step"]
    progress = Progress(**content["progress"])
    progress.totals = {name: total.to(training.device) for name, total in progress.totals.items()}
    return progress
