"""Divide the training images: the held-out part that selects, and smaller sets for quick runs.

Axes: N images, L labels, S the two sides (0 trains, 1 is held out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hold_out(targets: NDArray[np.int8], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose about ``share`` of the images so that each label keeps its frequency on both sides.

    This is iterative stratification: the label with the fewest remaining images goes first, and
    each of its images goes to the side that still needs most of that label. It departs from the
    source in one point: a label with two images or more gets at least one on either side.

    Args:
        targets: (N, L) in {1, 0, -1}; only 1 counts.
        share: of the images that is held out, 0 to 1.
        seed: decides ties and order; the same seed chooses the same images.

    Returns:
        (N,), True if an image is held out.

    Source: Sechidis, Tsoumakas, Vlahavas, On the Stratification of Multi-label Data, 2011.
    """
    rng = np.random.default_rng([seed, 1])
    positive_NL = targets == 1
    count_L = positive_NL.sum(axis=0).astype(float)
    held_out_L = (
        np.where(count_L >= 2, np.clip(share * count_L, 1, count_L - 1), 0.0)
        if share > 0
        else 0 * count_L
    )
    needed_SL = np.stack([count_L - held_out_L, held_out_L])
    needed_S = np.array([1 - share, share]) * len(targets)
    remaining_L = count_L.copy()
    side_N = np.full(len(targets), -1)
    while remaining_L.any():
        label = int(np.argmin(np.where(remaining_L > 0, remaining_L, np.inf)))
        for image in rng.permutation(np.flatnonzero(positive_NL[:, label] & (side_N < 0))):
            training, held_out = needed_SL[:, label]
            is_tie = held_out == training
            side = int(held_out > training or (is_tie and needed_S[1] > needed_S[0]))
            side_N[image] = side
            needed_SL[side] -= positive_NL[image]
            needed_S[side] -= 1
            remaining_L -= positive_NL[image]
    unlabelled = rng.permutation(np.flatnonzero(side_N < 0))
    side_N[unlabelled] = 0
    side_N[unlabelled[: max(round(needed_S[1]), 0)]] = 1
    return side_N == 1


def draw(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Draw ``limit`` of ``count`` positions at random, in ascending order.

    The positions of a smaller limit are among those of a larger one with the same seed.
    """
    return np.sort(np.random.default_rng([seed, 2]).permutation(count)[:limit])
