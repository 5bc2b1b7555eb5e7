"""The network as it is exported: scores and logits by name, without what only training needs.

Axes: B images of a batch, L labels, S side of the input in pixels.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from sadcl.model import Network

INPUT = "images"
OUTPUTS = ("scores", "logits")
"""Names of the input and the outputs in the exported file; the outputs are in this order."""
_OF_TRAINING = ("projection", "prototypes")
"""Parts of a network that no score depends on."""


class ExportedNetwork(nn.Module):
    """A trained network in float32 that returns its scores too.

    Args:
        network: it is copied and stays as it is.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)
        for name, _ in list(self.network.named_children()):
            if name in _OF_TRAINING:
                delattr(self.network, name)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Turn normalised images (B, 3, S, S) into scores, 0 to 1, and logits, both (B, L)."""
        logits_BL = self.network(images).logits_BL
        return {"scores": logits_BL.sigmoid(), "logits": logits_BL}
