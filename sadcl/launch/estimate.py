"""What a study takes: hours, from timed steps, and bytes of checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sadcl import build, storage
from sadcl.config import Config
from sadcl.console import count_text
from sadcl.launch.step_time import StepTime, step_time
from sadcl.study import record
from sadcl.study.placement import Placement


def hours_text(hours: float) -> str:
    """Write a duration as ``3 minutes``, ``1.5 hours`` or ``1,200 hours``."""
    if hours >= 10:
        return f"{hours:,.0f} hours"
    if hours >= 1:
        return f"{hours:.1f} hours"
    return count_text(max(round(hours * 60), 1), "minute")


def disk_limit(root: str, gigabytes: float | None) -> float | None:
    """Return the maximum number of bytes of checkpoints that a storage may hold.

    Args:
        root: The storage.
        gigabytes: The user's limit, 1e9 bytes each; None for no limit but the disk's.

    Returns:
        The user's limit, and never more than 95 % of what is free besides the checkpoints that
        exist; None for an object store without a limit.
    """
    free = storage.free_bytes(root)
    if free is None:
        return None if gigabytes is None else gigabytes * 1e9
    most = record.checkpoint_bytes(root)["."] + 0.95 * free
    return most if gigabytes is None else min(most, gigabytes * 1e9)


class TimedTraining(NamedTuple):
    """How long one worker trains.

    Attributes:
        hours: Estimated from a step.
        step: The step that was timed.
    """

    hours: float
    step: StepTime


def training_hours(
    config: Config, num_labels: int, images: int, placement: Placement
) -> TimedTraining:
    """Estimate how long one worker trains, from timed steps forward and backward.

    Args:
        config: What is trained.
        num_labels: Of the data set.
        images: Training images, counted once an epoch.
        placement: What the worker gets.

    Raises:
        UserError: Where not even a step of one image is possible.
    """
    on_gpu = torch.cuda.is_available() and placement.gpus > 0
    threads = placement.threads(config.stores_features)
    step = step_time(config, num_labels, threads=threads, on_gpu=on_gpu)
    return TimedTraining(images * step.seconds / step.images / 3600, step)


def checkpoint_bytes(config: Config, num_labels: int) -> tuple[int, int]:
    """Estimate the size of a run's files.

    Returns:
        Bytes that a run leaves (``best.pt`` and ``last.pt``), and bytes of its state while it runs.
    """
    network = build.model(config, num_labels, pretrained=False)
    tensors = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    state = tensors * (2 if config.optim.ema_decay else 1) + 2 * trained
    hidden = config.model.hidden or 0
    if config.loss.contrasts and config.bank.policy != "none":
        rows = config.optim.batch_size if config.bank.policy == "slot" else config.bank.size
        state += 4 * rows * num_labels * hidden
    return 2 * tensors, state
