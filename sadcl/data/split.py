"""Dividing the training images: the part that selects, and smaller sets for quick runs.

Axes: N images, L labels, S the two sides (kept, held out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hold_out(targets: NDArray[np.int8], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose about ``share`` of the images so that each label keeps its frequency on both sides.

    Iterative stratification: the label with the fewest images left goes first, and each of its images goes to the side
    that still lacks most of it. Departure: a label with two images or more asks for one on either side at least.

    Args:
        targets: (N, L) in {1, 0, -1}; only 1 counts.
        share: of the images, 0 to 1.
        seed: decides ties and order; the same seed gives the same images.

    Returns:
        (N,) True where an image is held out.

    Source: Sechidis, Tsoumakas, Vlahavas, On the Stratification of Multi-label Data, 2011.
    """
    rng = np.random.default_rng([seed, 1])
    positive_NL = targets == 1
    count_L = positive_NL.sum(axis=0).astype(float)
    held_L = (
        np.where(count_L >= 2, np.clip(share * count_L, 1, count_L - 1), 0.0)
        if share > 0
        else 0 * count_L
    )
    lacking_SL = np.stack([count_L - held_L, held_L])
    lacking_S = np.array([1 - share, share]) * len(targets)
    left_L = count_L.copy()
    side_N = np.full(len(targets), -1)
    while left_L.any():
        label = int(np.where(left_L > 0, left_L, np.inf).argmin())
        for image in rng.permutation(np.flatnonzero(positive_NL[:, label] & (side_N < 0))):
            kept, held = lacking_SL[:, label]
            side = int(held > kept or (held == kept and lacking_S[1] > lacking_S[0]))
            side_N[image] = side
            lacking_SL[side] -= positive_NL[image]
            lacking_S[side] -= 1
            left_L -= positive_NL[image]
    unlabelled = rng.permutation(np.flatnonzero(side_N < 0))
    side_N[unlabelled] = 0
    side_N[unlabelled[: max(round(lacking_S[1]), 0)]] = 1
    return side_N == 1


def draw(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    """``limit`` of ``count`` positions at random, ascending; a smaller limit draws from a larger one's."""
    return np.sort(np.random.default_rng([seed, 2]).permutation(count)[:limit])
