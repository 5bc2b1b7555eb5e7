"""The class loss (Eq. 8) and its asymmetric sibling.

Axes: B images of this worker, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_loss(
    logits_BL: Tensor,
    targets_BL: Tensor,
    weight_B: Tensor | None = None,
    *,
    kind: str = "bce",
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    clip: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (Eq. 8, with the minus sign that the paper leaves out), or the asymmetric loss.

    Asymmetric (Ridnik et al. 2021): positives weigh (1 - p)^gamma_positive, negatives p_m^gamma_negative with
    p_m = max(p - clip, 0). With both gammas and the clip 0 the two are equal.

    Args:
        logits_BL: scores before the sigmoid.
        targets_BL: 1, 0, or -1 (ignored).
        weight_B: 1 for a real image, 0 for padding; None is all ones.

    Returns:
        Sum over this worker's images and labels, and the number of its real images.

    Raises:
        ValueError: for another kind.
    """
    logits_BL = logits_BL if logits_BL.dtype == torch.float64 else logits_BL.float()
    if weight_B is None:
        weight_B = logits_BL.new_ones(len(logits_BL))
    weight_B = weight_B.to(logits_BL.dtype)
    positive_BL, negative_BL = (targets_BL == 1), (targets_BL == 0)
    if kind == "bce":
        loss_BL = F.binary_cross_entropy_with_logits(logits_BL, positive_BL.to(logits_BL.dtype), reduction="none")
        loss_BL = loss_BL * (positive_BL | negative_BL)
    elif kind == "asymmetric":
        score_BL = logits_BL.sigmoid()
        shifted_BL = (score_BL - clip).clamp(min=0)
        log_positive_BL = F.logsigmoid(logits_BL)
        log_negative_BL = torch.where(
            shifted_BL == score_BL, F.logsigmoid(-logits_BL), torch.log1p(-shifted_BL.clamp(max=1 - 1e-7))
        )
        loss_BL = -(
            positive_BL * (1 - score_BL) ** gamma_positive * log_positive_BL
            + negative_BL * shifted_BL**gamma_negative * log_negative_BL
        )
    else:
        raise ValueError(f"kind must be 'bce' or 'asymmetric', but got {kind!r}")
    return (loss_BL.sum(1) * weight_B).sum(), weight_B.sum()
