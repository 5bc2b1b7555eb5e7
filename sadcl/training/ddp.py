"""What DistributedDataParallel needs beyond its defaults."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from sadcl import distributed
from sadcl.data.loader import Batch
from sadcl.training.engine import Training, forward, with_positive_index

_PARAMETERS = signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers": False
}
"""BatchNorm statistics stay each worker's own within an epoch; torch 2.14 renamed the option."""
GPU_BUCKET_MB = 100
"""MiB of gradients that are sent together on a GPU.

The largest weights have 64 MiB, more than torch's default of 25, so that most of those buckets hold
one tensor. NVLink and EFA need some 100 MB a message for their full rate. The last bucket, which no
computation hides, takes less than a millisecond over NVLink and a few over EFA."""


def wrap(network: nn.Module, device: torch.device, compression: str = "none") -> nn.Module:
    """Let DDP average the gradients over the workers; one worker needs no wrapper.

    Gradients are views of what is sent, which saves a copy of them all. The buckets of a CPU are
    torch's default.

    Args:
        network: on its device.
        device: where it is.
        compression: see :class:`sadcl.config.Optim`.
    """
    if distributed.world_size() == 1:
        return network
    options: dict[str, Any] = {"gradient_as_bucket_view": True, **_LOCAL_BUFFERS}
    if device.type == "cuda":
        options |= {"device_ids": [device], "bucket_cap_mb": GPU_BUCKET_MB}
    model = DistributedDataParallel(network, **options)
    if compression == "bf16":
        model.register_comm_hook(None, bf16_compress_hook)
    return model


def settle_buckets(training: Training, num_labels: int) -> None:
    """Run one step that changes nothing, so that a resumed run sums in the same order.

    DDP rearranges its gradient buckets after its first step, and their layout decides in which
    order three workers or more are summed. What is restored next overwrites the statistics that
    this step touches.
    """
    if distributed.world_size() == 1:
        return
    side, device = training.config.data.image_size, training.device
    images_BCHW = torch.zeros(2, 3, side, side, device=device)  # BatchNorm needs more than one
    targets_BL = torch.zeros(2, num_labels, dtype=torch.int8, device=device)
    targets_BL[0] = 1
    batch = with_positive_index(
        Batch(
            images_BCHW,
            targets_BL,
            torch.ones(2, device=device),
            torch.arange(2, device=device),
            first_position=0,
        )
    )
    output, batch, memory = forward(training, batch)
    training.criterion(output, batch, memory).loss.backward()
    training.optimizer.zero_grad(set_to_none=True)


def share_buffers(training: Training) -> None:
    """Broadcast the first worker's BatchNorm statistics, which are evaluated and saved.

    This is a collective call. While training, each worker has its own statistics.
    """
    if distributed.world_size() == 1:
        return
    for module in (training.network, training.ema):
        for buffer in module.buffers() if module is not None else ():
            if buffer.device.type == training.device.type:
                dist.broadcast(buffer, src=0)
