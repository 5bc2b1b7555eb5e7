"""What a network costs by its configuration: trainable parameters, and operations of an image."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sadcl import build
from sadcl.config import Config


def network_cost(config: Config, num_labels: int) -> dict[str, float]:
    """Count the trainable parameters of a network, and the operations of one image's scores.

    Args:
        config: with the head, the backbone and the image size.
        num_labels: of the data set.

    Returns:
        ``parameters``: those that train in any stage; the projection head and learned prototypes
        are among them where a contrast takes part. ``gflops``: floating-point operations of a
        forward pass of one image in 1e9, a multiplication and an addition being two; those of
        matrix products and convolutions, as :mod:`torch.utils.flop_counter` counts them.
    """
    network = build.model(config, num_labels, pretrained=False).float().eval()
    of_contrasts = () if _has_contrasts(config) else ("projection.", "prototypes.")
    parameters = sum(
        p.numel()
        for name, p in network.named_parameters()
        if p.requires_grad and not name.startswith(of_contrasts)
    )
    side = config.data.image_size
    # Fused attention and the fast path of torch's encoder layers, which needs no_grad, are counted
    # as nothing.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, side, side))
    return {"parameters": float(parameters), "gflops": counter.get_total_flops() / 1e9}


def _has_contrasts(config: Config) -> bool:
    return bool(config.stage2.epochs) and config.loss.contrasts
