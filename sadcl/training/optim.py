"""Optimiser, schedule and weight averaging of one stage."""

from __future__ import annotations

from itertools import chain

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
    return AdamW(groups, lr=stage.lr, fused=True)


def one_cycle(optimizer: AdamW, stage: Stage, optim: Optim, steps: int) -> OneCycleLR:
    """OneCycle over the planned epochs of ``steps`` each, which may be more than are run."""
    total = (stage.planned_epochs or stage.epochs) * steps
    rise = max(
        optim.pct_start, min(1.5 / total, 0.5)
    )  # torch divides by the steps of the rise less one
    return OneCycleLR(optimizer, max_lr=stage.lr, total_steps=total, pct_start=rise)


def averaged(network: nn.Module, optim: Optim) -> AveragedModel | None:
    """A copy for the exponential moving average of weights and BatchNorm statistics; None where the decay is 0."""
    return AveragedModel(network, use_buffers=True) if optim.ema_decay else None


@torch.no_grad()
def average(ema: AveragedModel, network: nn.Module, optim: Optim, step: int) -> None:
    """Take one step's weights into the average; the first ones whole.

    In place of ``AveragedModel.update_parameters``, which copies its count to the device and back at each step, and groups
    all tensors anew.

    Args:
        step: steps that are averaged already.
    """
    decay = optim.ema_decay if step else 0.0
    if optim.ema_warmup and step:
        decay = min(decay, (1 + step) / (10 + step))
    own, given = (chain(module.parameters(), module.buffers()) for module in (ema.module, network))
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for mean, value in zip(own, given, strict=True):
        for tensors, tensor in zip(
            by_type.setdefault(mean.dtype, ([], [])), (mean, value), strict=True
        ):
            tensors.append(tensor)
    for dtype, (means, values) in by_type.items():
        if dtype.is_floating_point:
            torch._foreach_lerp_(means, values, 1 - decay)
        else:
            torch._foreach_copy_(means, values)
    ema.n_averaged += 1
