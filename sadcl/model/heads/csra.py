r"""CSRA: class-specific residual attention.

    s_lp = w_l . x_p / ||w_l||                                     (score of label l at position p)
    base_l = mean_p s_lp
    att_l = sum_p s_lp softmax_p(T s_lp),    max_p s_lp for T = 99
    logit_l = sum over heads (base_l + lambda att_l)

x_p is the feature map at position p. Each head has its own weights w and its own temperature T;
there is no bias and no epsilon.

Axes: B images, C channels, H, W height and width of the feature map, P = H * W positions, L labels,
K heads.

Source: Zhu and Wu, Residual Attention: A Simple but Effective Method for Multi-Label Recognition,
ICCV 2021, and its released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sadcl.model.heads.head import HeadOutput, Task

MAXIMUM = 99
"""The temperature that stands for the maximum."""
TEMPERATURES = {
    1: (1,),
    2: (1, MAXIMUM),
    4: (1, 2, 4, MAXIMUM),
    6: (1, 2, 3, 4, 5, MAXIMUM),
    8: (1, 2, 3, 4, 5, 6, 7, MAXIMUM),
}
"""The published temperatures for each number of heads."""


class CSRA(nn.Module):
    """A label's score is its mean over the positions, plus lambda times its attended score.

    Args:
        task: what the head is built for.
        heads: K; 1, 2, 4, 6 or 8 unless ``temperatures`` are given.
        lam: lambda, at least 0; published: 0.1 for VOC 2007, 0.5 for MS-COCO with 6 heads.
        temperatures: T of each head, above 0; None for the published ones.

    Raises:
        ValueError: for an argument out of its range, or temperatures that are not one for each
            head.
    """

    def __init__(
        self,
        task: Task,
        *,
        heads: int = 1,
        lam: float = 0.1,
        temperatures: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam must be at least 0 and finite, but got {lam}")
        if temperatures is None:
            if heads not in TEMPERATURES:
                known = ", ".join(map(str, TEMPERATURES))
                raise ValueError(
                    f"heads must be one of {known} unless temperatures are given, but got {heads}"
                )
            temperatures = TEMPERATURES[heads]
        if len(temperatures) != heads or heads < 1:
            raise ValueError(
                f"temperatures must be one for each of the heads, but got {list(temperatures)} for "
                f"heads = {heads}"
            )
        if not all(0 < temperature < math.inf for temperature in temperatures):
            raise ValueError(
                f"temperatures must be above 0 and finite, but got {list(temperatures)}"
            )
        self.lam = lam
        self.temperature_K11: Tensor
        kept = torch.tensor(temperatures, dtype=torch.get_default_dtype())
        self.register_buffer("temperature_K11", kept[:, None, None], persistent=False)
        channels = task.channels[-1]
        bound = channels**-0.5
        weight_KLC = torch.empty(heads, len(task.labels), channels).uniform_(-bound, bound)
        self.weight_KLC = nn.Parameter(weight_KLC)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map (B, C, H, W) into (B, L) logits.

        Under autocast too they are computed in the precision of the weights: in bfloat16 many would
        be equal.
        """
        return HeadOutput(self.head_logits(map_BCHW).sum(1))

    def head_logits(self, map_BCHW: Tensor) -> Tensor:
        """Compute the logits of each head, (B, K, L)."""
        with torch.autocast(map_BCHW.device.type, enabled=False):
            scores_BKLP = self._scores(map_BCHW)
            soft_BKL = (scores_BKLP * (self.temperature_K11 * scores_BKLP).softmax(3)).sum(3)
            is_maximum_K1 = self.temperature_K11[..., 0] == MAXIMUM
            attended_BKL = torch.where(is_maximum_K1, scores_BKLP.max(3).values, soft_BKL)
            return scores_BKLP.mean(3) + self.lam * attended_BKL

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute the weights softmax_p(T s_lp), averaged over the heads, (B, L, H, W).

        They sum to 1. A head of the maximum has all its weight at one position.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            scores_BKLP = self._scores(map_BCHW)
            soft_BKLP = (self.temperature_K11 * scores_BKLP).softmax(3)
            highest_BKLP = functional.one_hot(scores_BKLP.argmax(3), scores_BKLP.shape[3])
            is_maximum_K11 = self.temperature_K11 == MAXIMUM
            weights_BKLP = torch.where(is_maximum_K11, highest_BKLP.to(soft_BKLP), soft_BKLP)
            return weights_BKLP.mean(1).unflatten(2, map_BCHW.shape[2:])

    def _scores(self, map_BCHW: Tensor) -> Tensor:
        """Compute s, (B, K, L, P)."""
        positions_BCP = map_BCHW.flatten(2).to(self.weight_KLC.dtype)
        products_BRP = self.weight_KLC.flatten(0, 1) @ positions_BCP  # R = K * L rows
        products_BKLP = products_BRP.unflatten(1, self.weight_KLC.shape[:2])
        return products_BKLP / self.weight_KLC.norm(dim=2, keepdim=True)
