"""Feature maps whose channels have mean 0 and standard deviation 1.

Axes: B images, C channels, H, W height and width of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_SHARE = 0.01
"""A channel is divided by at least this share of the channels' mean standard deviation: one that is
nearly constant over the training images may not be so over others."""


class Standardization(nn.Module):
    """Subtracts the mean of each channel and divides by its standard deviation.

    Both are measured once (:meth:`set_from`) and then stay. Before that a map passes unchanged.

    Args:
        channels: C.
    """

    mean_C: Tensor
    std_C: Tensor
    is_measured: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("std_C", torch.ones(channels))
        self.register_buffer("is_measured", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def set_from(self, sums_3C: Tensor) -> None:
        """Take over mean and standard deviation.

        Args:
            sums_3C: float64; the number, the sum and the sum of squares of each channel's values.
        """
        count_C, sum_C, square_C = sums_3C
        mean_C = sum_C / count_C
        std_C = (square_C / count_C - mean_C.square()).clamp(min=0).sqrt()
        least = MIN_SHARE * std_C.mean()
        self.mean_C.copy_(mean_C)
        self.std_C.copy_(std_C.clamp(min=least) if least > 0 else torch.ones_like(std_C))
        self.is_measured.fill_(True)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return the map with each channel standardised, in its own number format."""
        scale_C = self.std_C.reciprocal()
        bias_C = -self.mean_C * scale_C
        scale_C11, bias_C11 = scale_C[:, None, None], bias_C[:, None, None]
        return torch.addcmul(bias_C11, map_BCHW.to(scale_C.dtype), scale_C11).to(map_BCHW.dtype)
