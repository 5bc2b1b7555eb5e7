"""Optimiser, schedule and weight averaging of one stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from sadcl.config import Optim, Stage


def adamw(network: nn.Module, stage: Stage, optim: Optim) -> AdamW:
    """AdamW over what trains; learned prototypes are points in feature space and are not pulled to zero by decay."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (kept if name.startswith("prototypes.") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": optim.weight_decay}]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    return AdamW(groups, lr=stage.lr, foreach=True)


def one_cycle(optimizer: AdamW, stage: Stage, optim: Optim, steps: int) -> OneCycleLR:
    """OneCycle over the planned epochs of ``steps`` each, which may be more than are run."""
    total = (stage.planned_epochs or stage.epochs) * steps
    rise = max(optim.pct_start, min(1.5 / total, 0.5))  # torch divides by the steps of the rise less one
    return OneCycleLR(optimizer, max_lr=stage.lr, total_steps=total, pct_start=rise)


def averaged(network: nn.Module, optim: Optim) -> AveragedModel | None:
    """Exponential moving average of weights and BatchNorm statistics; None where the decay is 0."""
    if optim.ema_decay == 0:
        return None

    @torch.no_grad()
    def average(means: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        if not torch.is_floating_point(means[0]):
            for mean, value in zip(means, values, strict=True):
                mean.copy_(value)
            return
        decay = optim.ema_decay
        if optim.ema_warmup:
            decay = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(means), list(values), 1 - decay)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
