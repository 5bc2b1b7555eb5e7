"""Optimiser, schedule and weight averaging of one stage."""

from __future__ import annotations

from itertools import chain

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)
from torch.optim.swa_utils import AveragedModel

from sadcl.config import Optim, Stage


def create_optimizer(
    network: nn.Module, stage: Stage, optim: Optim, *, decay_prototypes: bool = False
) -> Optimizer:
    """Build the optimiser over the trainable parameters.

    Learned prototypes are points in feature space: weight decay, which would pull them to zero,
    leaves them alone unless ``decay_prototypes`` says otherwise. A state that is loaded may come
    from another kind of device (:func:`_lay_out_moments`).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    layers = _shares_of_layers(network, optim.layer_decay)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        share = optim.backbone_lr if name.startswith("backbone.") else 1.0
        share *= layers.get(name, 1.0)
        decay = optim.weight_decay
        if name.startswith("prototypes."):
            decay = decay if decay_prototypes else 0.0
        elif not optim.decay_biases and parameter.dim() <= 1:
            decay = 0.0
        groups.setdefault((share, decay), []).append(parameter)
    parameters = [
        {"params": group, "lr": stage.lr * share, "weight_decay": decay}
        for (share, decay), group in groups.items()
    ]
    created: Optimizer
    if optim.kind == "sgd":
        created = SGD(parameters, lr=stage.lr, momentum=optim.momentum, fused=True)
    else:
        created = (AdamW if optim.kind == "adamw" else Adam)(parameters, lr=stage.lr, fused=True)
    created.register_load_state_dict_post_hook(_lay_out_moments)
    return created


def _shares_of_layers(network: nn.Module, decay: float) -> dict[str, float]:
    """Return each of the backbone's parameters with the share that its layer's rate is decayed to.

    Without decay there are none, and all of them have the same rate.
    """
    if decay == 1.0:
        return {}
    depths = _depths(network.get_submodule("backbone.body"))
    last = max(depths.values())
    return {f"backbone.body.{name}": decay ** (last - depth) for name, depth in depths.items()}


def _depths(body: nn.Module) -> dict[str, int]:
    """Return for each parameter of a backbone how many layers come before its own.

    The layers are timm's own where it lists them. Else they are the modules of the body, a sequence
    taken apart; a norm belongs to what it follows.
    """
    children = list(body.named_children())
    matcher = getattr(children[0][1], "group_matcher", None)
    if len(children) == 1 and callable(matcher):
        layers = group_parameters(children[0][1], matcher())
        return {
            f"{children[0][0]}.{name}": depth
            for depth, layer in enumerate(sorted(layers))
            for name in layers[layer]
        }
    depths: dict[str, int] = {}
    depth = -1
    for name, child in children:
        parts = child.named_children() if isinstance(child, nn.Sequential) else [("", child)]
        for part, module in parts:
            parameters = dict(module.named_parameters(prefix=f"{name}.{part}".rstrip(".")))
            depth += any(parameter.dim() > 1 for parameter in parameters.values())
            depths |= dict.fromkeys(parameters, max(depth, 0))
    return depths


@torch.no_grad()
def _lay_out_moments(optimizer: Optimizer) -> None:
    """Give each moment that was loaded the strides of its parameter.

    A GPU has convolutions in channels-last order and a CPU does not. Loading keeps the strides that
    a moment was saved with, and the fused kernels read parameter and moments side by side in
    memory: with other strides they would take each other's values, silently.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def create_schedule(optimizer: Optimizer, stage: Stage, optim: Optim, steps: int) -> LRScheduler:
    """Build the schedule over the planned epochs, which may be more than are trained.

    Args:
        optimizer: whose learning rates it sets.
        stage: epochs and learning rate.
        optim: kind of the schedule and its numbers.
        steps: steps of an epoch.
    """
    total = (stage.planned_epochs or stage.epochs) * steps
    if optim.schedule == "onecycle":
        # torch divides by the steps of the rise less one, so the rise has more than one step. A
        # single step has no rise: every share below 1 gives it the lowest learning rate.
        rise = max(optim.pct_start, min(1.5 / total, 0.75))
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(
            optimizer,
            max_lr=rates,
            total_steps=total,
            pct_start=rise,
            cycle_momentum=optim.kind != "sgd",
        )
    if optim.schedule == "step":
        ends = [epoch * steps for epoch in optim.step_epochs]
        return MultiStepLR(optimizer, ends, gamma=optim.step_factor)
    if optim.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total)
    return ConstantLR(optimizer, factor=1.0)


def create_average(network: nn.Module, optim: Optim) -> AveragedModel | None:
    """Copy a network for the exponential moving average of its weights and BatchNorm statistics.

    Returns:
        The copy; None where the decay is 0.
    """
    return AveragedModel(network, use_buffers=True) if optim.ema_decay else None


@torch.no_grad()
def update_average(ema: AveragedModel, network: nn.Module, optim: Optim, step: int) -> None:
    """Take one step's weights into the average.

    This replaces ``AveragedModel.update_parameters``, which copies its count to the device and back
    at each step and groups all tensors again.

    Args:
        ema: the average.
        network: whose weights are taken.
        optim: decay and warm-up.
        step: steps that are averaged already.
    """
    decay = optim.ema_decay
    if optim.ema_warmup:
        decay = min(decay, (1 + step) / (10 + step))
    if optim.ema_start == "first_step" and not step:
        decay = 0.0  # the first step's weights replace the initial ones
    means, values = (
        chain(module.parameters(), module.buffers()) for module in (ema.module, network)
    )
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for mean, value in zip(means, values, strict=True):
        mean_list, value_list = by_type.setdefault(mean.dtype, ([], []))
        mean_list.append(mean)
        value_list.append(value)
    for dtype, (mean_list, value_list) in by_type.items():
        if dtype.is_floating_point:
            torch._foreach_lerp_(mean_list, value_list, 1 - decay)
        else:
            torch._foreach_copy_(mean_list, value_list)
    ema.n_averaged += 1
