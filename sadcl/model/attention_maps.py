"""Maps of where in an image a network finds each label.

Axes: B images, L labels, H, W the feature map's height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sadcl.errors import UserError
from sadcl.model.network import Network, Output


def with_maps(network: Network, images: Tensor | tuple[Tensor, ...]) -> tuple[Output, Tensor]:
    """Run a forward pass and also compute a map of each label over the feature map.

    The map is what the head says (``attention_maps``): of SARL the attention of the label's query,
    of the pooled baseline the class activation map.

    Args:
        network: in inference mode.
        images: (B, 3, H', W'), normalised, or the backbone's feature maps of them.

    Returns:
        The output, bit-identical to that of a plain forward pass, and the maps (B, L, H, W), which
        are computed in the precision of the weights: in bfloat16 a map's highest value would often
        be found twice.

    Raises:
        UserError: for a head without maps.
    """
    check_maps(network)
    captured: list[Tensor] = []
    head: Any = network.head
    hook = head.register_forward_pre_hook(lambda _, inputs: captured.extend(inputs))
    try:
        output = network(images)
    finally:
        hook.remove()
    dtype = next(network.parameters()).dtype
    with torch.autocast(captured[0].device.type, enabled=False):
        return output, head.attention_maps(*(part.to(dtype) for part in captured))


def check_maps(network: Network) -> None:
    """Check that a network can say where it finds a label.

    Raises:
        UserError: where its head cannot.
    """
    if not network.has_maps:
        raise UserError(
            f"The head {type(network.head).__name__} has no map of where it finds a label: it has "
            "no method attention_maps."
        )
