"""Activations that are computed again in the backward pass, for less memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from sadcl.errors import UserError


def recompute(module: nn.Module) -> None:
    """Let a module keep its inputs only and compute the rest again in the backward pass, with the same dropout.

    Running statistics of BatchNorm take in each batch once.
    """
    module.forward = partial(_recomputed, module, module.forward)


def recompute_backbone(body: nn.Module, name: str) -> None:
    """The same for each block of the trainable stages of a timm feature extractor.

    Raises:
        UserError: where it does not call its stages one by one.
    """
    stages = [part for part in body.children() if any(p.requires_grad for p in part.parameters())]
    if not hasattr(body, "return_layers"):
        raise UserError(
            f"model.checkpointing = True is not possible with {name}, which timm does not build stage by stage."
        )
    for stage in stages:
        for block in stage if isinstance(stage, nn.Sequential) else (stage,):
            recompute(block)


def _recomputed(module: nn.Module, forward: Any, *given: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given)
    options: dict[str, Any] = {}
    if not torch.compiler.is_compiling():  # a compiled backward pass does not update them
        options["context_fn"] = lambda: (contextlib.nullcontext(), _untracked(module))
    return checkpoint(forward, *given, use_reentrant=False, **options)


@contextlib.contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """BatchNorm uses the batch's statistics as before and adds nothing of them to its own."""
    live = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in live]
    for layer in live:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(live, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
