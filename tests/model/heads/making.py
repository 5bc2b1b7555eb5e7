"""How tests of heads make their inputs.

Axes: C channels, H, W height and width of a feature map, B images, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import Task


def task(num_labels: int, *channels: int) -> Task:
    """A task with numbered labels, each of which half the images have, and pairs a quarter."""
    counts_LL = torch.full((num_labels, num_labels), 25.0, dtype=torch.float64)
    counts_LL = counts_LL + 25 * torch.eye(num_labels, dtype=torch.float64)
    return Task(channels, tuple(f"label {n}" for n in range(num_labels)), counts_LL)


def filled(head: nn.Module) -> nn.Module:
    """The head in float64 with parameters and statistics that are not 0 or 1 anywhere."""
    generator = torch.Generator().manual_seed(5)
    head = head.double()
    with torch.no_grad():
        for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(1 + 0.3 * noise.tanh() if "running_var" in name else 0.4 * noise)
    return head


def maps(images: int, *shapes: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Feature maps (B, C, H, W) of these shapes (C, H, W) in float64."""
    generator = torch.Generator().manual_seed(7)
    return tuple(
        torch.randn((images, *shape), generator=generator, dtype=torch.float64) for shape in shapes
    )
