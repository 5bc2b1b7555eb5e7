r"""The class loss (Eq. 8) and its asymmetric variant.

Eq. 8, with the minus sign that the paper leaves out, for image i:

    L_BCE = - \sum_{j=1}^{L} [ y_ij log s_ij + (1 - y_ij) log(1 - s_ij) ]

with targets y_ij in {0, 1} and scores s_ij = sigmoid(logit_ij) (Eq. 7). Asymmetric (Ridnik et al.
2021):

    L_ASL = - \sum_{j=1}^{L} [ y_ij       (1 - s_ij)^{gamma+} log s_ij
                            + (1 - y_ij) m_ij^{gamma-}       log(1 - m_ij) ]
    m_ij  = max(s_ij - clip, 0)

The published run takes the weights (1 - s)^{gamma+} and m^{gamma-} as constants, and no logarithm
of less than 1e-5.

Axes: B images of this worker, L labels.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class ClassLoss(Protocol):
    """A class loss: yours is a function with these three tensors and keyword arguments of its own.

    It takes logits (B, L) before the sigmoid, targets (B, L) of 1, 0 or -1 (ignored), and weights
    (B,) of 1 for a real image or 0 for a padding image. It returns the sum over this worker's
    images and labels, and the number of its real images; both are scalars. The platform divides by
    the number of all workers::

        def focal(logits_BL, targets_BL, weight_B, *, gamma: float = 2.0):
            plain_BL = F.binary_cross_entropy_with_logits(
                logits_BL, (targets_BL == 1).to(logits_BL.dtype), reduction="none"
            )
            loss_BL = (1 - (-plain_BL).exp()) ** gamma * plain_BL * (targets_BL >= 0)
            return (loss_BL.sum(1) * weight_B).sum(), weight_B.sum()
    """

    def __call__(
        self, logits_BL: Tensor, targets_BL: Tensor, weight_B: Tensor, /
    ) -> tuple[Tensor, Tensor]: ...


def class_loss(
    logits_BL: Tensor,
    targets_BL: Tensor,
    weight_B: Tensor | None = None,
    *,
    kind: str = "bce",
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    clip: float = 0.05,
    focus_gradient: bool = True,
    floor: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (Eq. 8 with its minus sign), or the asymmetric loss.

    With both gammas and the clip 0 the two losses are equal.

    Args:
        logits_BL: scores before the sigmoid.
        targets_BL: 1, 0, or -1 (ignored).
        weight_B: 1 for a real image, 0 for a padding image; None means all ones.
        kind: ``bce`` or ``asymmetric``; the other arguments belong to ``asymmetric``.
        gamma_negative: exponent of the weight of negatives.
        gamma_positive: exponent of the weight of positives.
        clip: what is subtracted from a negative's score, 0 to 1.
        focus_gradient: whether the gradient also goes through the weights (1 - s)^gamma_positive
            and m^gamma_negative; False takes them as constants.
        floor: for both kinds, the lowest probability whose logarithm is taken, 0 to 0.5; where the
            probability is lower, there is no gradient.

    Returns:
        Sum over this worker's images and labels, and the number of its real images.

    Raises:
        ValueError: for an unknown kind.

    Source: Ma et al., ECAI 2023, Eq. 8; Ridnik et al., ICCV 2021, Eq. 4-7.
    """
    logits_BL = logits_BL if logits_BL.dtype == torch.float64 else logits_BL.float()
    if weight_B is None:
        weight_B = logits_BL.new_ones(len(logits_BL))
    weight_B = weight_B.to(logits_BL.dtype)
    positive_BL, negative_BL = (targets_BL == 1), (targets_BL == 0)
    if kind not in ("bce", "asymmetric"):
        raise ValueError(f"kind must be 'bce' or 'asymmetric', but got {kind!r}")
    if kind == "bce":
        gamma_negative = gamma_positive = clip = 0.0
    if kind == "bce" and not floor:
        loss_BL = F.binary_cross_entropy_with_logits(
            logits_BL, positive_BL.to(logits_BL.dtype), reduction="none"
        )
        loss_BL = loss_BL * (positive_BL | negative_BL)
    else:
        # log s and log(1 - s); with clip = 0, m = s
        log_score_BL, log_complement_BL = F.logsigmoid(logits_BL), F.logsigmoid(-logits_BL)
        weight_positive_BL = (gamma_positive * log_complement_BL).exp()
        weight_negative_BL = (gamma_negative * log_score_BL).exp()
        log_negative_BL = log_complement_BL
        if clip > 0:
            shifted_BL = (logits_BL.sigmoid() - clip).clamp(min=0)
            # The bound keeps the slope at 0 finite for an exponent below 1.
            weight_negative_BL = shifted_BL.clamp(min=1e-12) ** gamma_negative
            log_negative_BL = torch.log1p(-shifted_BL.clamp(max=1 - 1e-7))
        if not focus_gradient:
            weight_positive_BL = weight_positive_BL.detach()
            weight_negative_BL = weight_negative_BL.detach()
        if floor:
            log_score_BL = log_score_BL.clamp(min=math.log(floor))
            log_negative_BL = log_negative_BL.clamp(min=math.log(floor))
        loss_BL = -(
            positive_BL * weight_positive_BL * log_score_BL
            + negative_BL * weight_negative_BL * log_negative_BL
        )
    return (loss_BL.sum(1) * weight_B).sum(), weight_B.sum()
