"""Activation checkpointing: activations are computed again in the backward pass to save memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from sadcl.errors import UserError


def recompute(module: nn.Module) -> None:
    """Let a module keep only its inputs and compute the rest again, with the same dropout.

    Running statistics of BatchNorm take in each batch once. Activations in the module are no longer
    computed in place: one that comes first would overwrite the input, and the second computation
    would start from another one.
    """
    for layer in module.modules():
        if getattr(layer, "inplace", False) is True:
            cast(Any, layer).inplace = False
    module.forward = partial(_recomputed, module, module.forward)


def recompute_backbone(body: nn.Module, name: str) -> None:
    """Apply :func:`recompute` to each block of the trainable stages of a timm feature extractor.

    A stage of blocks keeps the input of each, which takes less memory at once than a stage that is
    computed again as a whole. A stage that also has single layers, such as the deep stem of a
    ResNet-D, is a whole. A single layer stays as it is, because its input is all that it keeps.

    Args:
        body: the feature extractor.
        name: timm's name of it, for the message.

    Raises:
        UserError: where the extractor does not call its stages one by one.
    """
    stages = [part for part in body.children() if any(p.requires_grad for p in part.parameters())]
    if not hasattr(body, "return_layers"):
        raise UserError(
            f"model.checkpointing = True is not possible with {name}, because timm does not build "
            "it stage by stage. Set it to False, or choose another backbone."
        )
    for stage in stages:
        blocks = list(stage) if isinstance(stage, nn.Sequential) else []
        for part in blocks if blocks and not any(map(_is_layer, blocks)) else [stage]:
            if not _is_layer(part):
                recompute(part)


def _is_layer(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _recomputed(module: nn.Module, forward: Any, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    options: dict[str, Any] = {}
    if not torch.compiler.is_compiling():  # a compiled backward pass does not update statistics
        options["context_fn"] = lambda: (contextlib.nullcontext(), _untracked(module))
        versions = [value._version for value in inputs if isinstance(value, Tensor)]
    output = checkpoint(forward, *inputs, use_reentrant=False, **options)
    if options and versions != [value._version for value in inputs if isinstance(value, Tensor)]:
        raise UserError(
            f"model.checkpointing = True is not possible with this network: {type(module).__name__}"
            " changes its input in place, so that it cannot be computed again. Set it to False, or "
            "choose another backbone."
        )
    return output


@contextlib.contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm use the batch's statistics as before, but add nothing to its running ones."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    settings = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, settings, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
