"""Where in an image a network finds each label.

Axes: B images, L labels, S positions of the feature map, H and W its height and width, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.pooled import Pooled
from sadcl.model.heads.sadcl import SADCL, Output


def with_maps(network: SADCL | Pooled, images: Tensor) -> tuple[Output, Tensor]:
    """A forward pass, to the bit the usual one, and a map (B, L, H, W) of each label over the feature map.

    Of SADCL the attention that the label's query pays to each position in the last decoder layer, the mean over the heads
    (Fig. 5; it sums to 1). Of the pooled baseline its class activation map: the label's row of the linear layer times the
    features of each position, without the bias, of either sign; its mean and the bias make the score.

    Source: Zhou, Khosla, Lapedriza, Oliva, Torralba, Learning Deep Features for Discriminative Localization, 2016, Eq. 2.
    """
    kept: dict[str, Any] = {}
    hooks = [
        network.backbone.register_forward_hook(
            lambda _, given, features: kept.update(features_BCHW=features)
        )
    ]
    if isinstance(network, SADCL):
        last: Any = network.transformer.decoder[-1]
        hooks.append(last.register_forward_pre_hook(lambda _, given: kept.update(given=given)))
    try:
        output = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    features_BCHW: Tensor = kept["features_BCHW"]
    if isinstance(network, Pooled):
        return output, torch.einsum("lc,bchw->blhw", network.classifier.weight, features_BCHW)
    target_BLD, query_LD, key_BSD, value_BSD = kept["given"]
    _, weights_BLS = last.attention(target_BLD + query_LD, key_BSD, value_BSD, need_weights=True)
    return output, weights_BLS.unflatten(2, features_BCHW.shape[2:])
