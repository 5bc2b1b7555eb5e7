"""Maps of where in an image a network finds each label.

Axes: B images, C channels of the backbone, L labels, H, W the feature map's height and width,
S = H * W its positions, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.pooled import Pooled
from sadcl.model.heads.sadcl import SADCL, Output


def with_maps(network: SADCL | Pooled, images: Tensor) -> tuple[Output, Tensor]:
    """Run a forward pass and also compute a map of each label over the feature map.

    For SADCL the map is the attention that the label's query pays to each position in the last
    decoder layer, averaged over the heads (Fig. 5); it sums to 1. For the pooled baseline it is the
    class activation map: the label's row of the linear layer times the features of each position,
    without the bias, of either sign; its mean plus the bias is the logit.

    Args:
        network: in inference mode.
        images: (B, 3, H', W'), normalised.

    Returns:
        The output, bit-identical to that of a plain forward pass, and the maps (B, L, H, W), which
        are computed in the precision of the weights: in bfloat16 a map's highest value would often
        be found twice.

    Source: Zhou, Khosla, Lapedriza, Oliva, Torralba, Learning Deep Features for Discriminative
    Localization, 2016, Eq. 2.
    """
    captured: dict[str, Any] = {}
    hooks = [
        network.backbone.register_forward_hook(
            lambda _, inputs, features: captured.update(features_BCHW=features)
        )
    ]
    if isinstance(network, SADCL):
        decoder: Any = network.transformer.decoder[-1]
        hooks.append(
            decoder.register_forward_pre_hook(lambda _, inputs: captured.update(inputs=inputs))
        )
    try:
        output = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    features_BCHW: Tensor = captured["features_BCHW"]
    with torch.autocast(features_BCHW.device.type, enabled=False):
        if isinstance(network, Pooled):
            weight_LC = network.classifier.weight
            return output, torch.einsum("lc,bchw->blhw", weight_LC, features_BCHW.to(weight_LC))
        dtype = network.classifier.weight_LD.dtype
        target_BLD, query_LD, key_BSD, value_BSD = (part.to(dtype) for part in captured["inputs"])
        _, weights_BLS = decoder.attention(
            target_BLD + query_LD, key_BSD, value_BSD, need_weights=True
        )
    return output, weights_BLS.unflatten(2, features_BCHW.shape[2:])
