"""Fig. 4: the category prototypes, and whether labels that occur together have close ones.

Axes: L labels, P projection size, N images, R pairs of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl.data.readers.label_groups import groups_of
from sadcl.errors import UserError
from sadcl.figures.drawing import (
    FAINT,
    SEED,
    caption,
    look_of,
    remove_ticks,
    save,
    t_sne,
)
from sadcl.inference import CheckpointWithData
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
FEWEST_PROTOTYPES = 4
"""Smallest number of prototypes for a t-SNE."""
PERMUTATIONS = 4999
LINES_PER_LABEL = 1.2
"""Number of label pairs that are drawn as lines, for each label."""


class Agreement(NamedTuple):
    """Agreement of two matrices over the same labels."""

    rho: float
    """Spearman's correlation over all pairs of different labels."""
    p: float
    """Share of the permutations of the labels with at least this rho (one-sided); the identity is
    counted as one of them."""


def mantel(
    one_LL: Floats, other_LL: Floats, permutations: int = PERMUTATIONS, seed: int = SEED
) -> Agreement:
    """Test with ranks whether labels that are close in one matrix are close in the other (Mantel).

    Args:
        one_LL, other_LL: symmetric; diagonals are left out.
        permutations: number of random orders of the labels.
        seed: of the permutations.

    Returns:
        nan for both numbers if all values of a matrix are equal.

    Source: Mantel, The Detection of Disease Clustering and a Generalized Regression Approach, 1967.
    """
    from scipy.stats import rankdata

    num_labels = len(one_LL)
    upper = np.triu_indices(num_labels, 1)
    ranks_R, other_R = rankdata(one_LL[upper]), rankdata(other_LL[upper])
    ranks_LL = np.zeros((num_labels, num_labels))
    ranks_LL[upper] = ranks_R - ranks_R.mean()
    ranks_LL += ranks_LL.T
    other_R = other_R - other_R.mean()
    scale = np.sqrt((ranks_LL[upper] ** 2).sum() * (other_R**2).sum())
    if scale == 0:
        return Agreement(np.nan, np.nan)
    rng, rho = np.random.default_rng(seed), float(ranks_LL[upper] @ other_R / scale)
    orders = (rng.permutation(num_labels) for _ in range(permutations))
    at_least_rho = sum(
        ranks_LL[order[upper[0]], order[upper[1]]] @ other_R / scale >= rho - 1e-12
        for order in orders
    )
    return Agreement(rho, float((1 + at_least_rho) / (1 + permutations)))


def log_odds(targets_NL: NDArray[np.int8]) -> Floats:
    """Return the log odds ratio (L, L) of two labels in one image.

    Half an image is added to each count (Haldane and Anscombe).
    """
    positive_NL, negative_NL = ((targets_NL == value).astype(np.float64) for value in (1, 0))
    both_LL = positive_NL.T @ positive_NL
    neither_LL = negative_NL.T @ negative_NL
    one_LL = positive_NL.T @ negative_NL
    return np.log((both_LL + 0.5) * (neither_LL + 0.5) / ((one_LL + 0.5) * (one_LL.T + 0.5)))


def co_occurrence(targets_NL: NDArray[np.int8]) -> Floats:
    """Return the smaller one of P(a | b) and P(b | a) for two labels, (L, L), 0 to 1.

    With the smaller one, a label that is in every image is not tied to all others.
    """
    positive_NL = (targets_NL == 1).astype(np.float64)
    both_LL = positive_NL.T @ positive_NL
    count_L = np.diag(both_LL).clip(min=1)
    return both_LL / np.maximum(count_L[:, None], count_L)


def draw_prototypes(opened: CheckpointWithData, uri: str) -> list[str]:
    """Draw Fig. 4 and return sentences about it.

    The prototypes are projected and compared by cosine, as both contrasts do.

    Raises:
        UserError: for a checkpoint with fewer than 4 prototypes, or a file that cannot be written.
    """
    names, rows_LP, targets_NL = _prototypes(opened)
    unit_LP = rows_LP / np.linalg.norm(rows_LP, axis=1, keepdims=True).clip(1e-12)
    cosine_LL = unit_LP @ unit_LP.T
    agreement = mantel(cosine_LL, log_odds(targets_NL))
    positions_L2, perplexity = t_sne(rows_LP)
    pairs = len(names) * (len(names) - 1) // 2
    sentences = [
        f"t-SNE of {len(names)} projected prototypes by cosine, perplexity {perplexity:.1f}, "
        f"seed {SEED}.",
        "Lines: the label pairs that occur together most in the training images (the smaller of "
        "the two conditional probabilities; thicker is higher).",
        f"Cosine of two prototypes against log odds of their labels in one image, all {pairs} "
        f"pairs: Spearman {agreement.rho:+.2f}, p = {agreement.p:.4f} (Mantel, one-sided, "
        f"{PERMUTATIONS:,} permutations).",
    ]
    from matplotlib import style

    with style.context(["default", STYLE]):
        save(_figure(names, positions_L2, co_occurrence(targets_NL), sentences), uri)
    return sentences


def _prototypes(opened: CheckpointWithData) -> tuple[list[str], Floats, NDArray[np.int8]]:
    """Return the labels with a prototype, the projected prototypes (L, P), and targets (N, L)."""
    network = opened.predictor.network
    labels = opened.predictor.labels
    valid_L = (
        network.prototypes.valid_L.cpu().numpy()
        if network.prototypes is not None
        else np.zeros(len(labels), dtype=bool)
    )
    if valid_L.sum() < FEWEST_PROTOTYPES:
        raise UserError(
            f"The checkpoint has {int(valid_L.sum())} prototypes of {len(labels)} labels; Fig. 4 "
            f"needs {FEWEST_PROTOTYPES}. Give a checkpoint of a stage 2 with "
            "loss.prototype_weight > 0 that admits rows (prototypes.epsilon)."
        )
    assert network.prototypes is not None
    assert network.projection is not None
    with torch.inference_mode():
        rows_LP = network.projection(network.prototypes.rows_LD).double().cpu().numpy()
    names = [label for label, valid in zip(labels, valid_L, strict=True) if valid]
    return names, rows_LP[valid_L], opened.data.train.targets[:, valid_L]


def _figure(
    names: list[str], positions_L2: Floats, together_LL: Floats, sentences: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    inches = 5.2 if len(names) <= 40 else 7.2
    figure = Figure(figsize=(inches, inches * 0.98), layout="constrained")
    axes = figure.add_subplot()
    remove_ticks(axes, "Category prototypes")
    axes.margins(x=0.12)
    _draw_lines(axes, positions_L2, together_LL)
    groups = groups_of(names)
    group_names = list(dict.fromkeys(groups.values())) if groups else []
    for i, name in enumerate(names):
        look = look_of(group_names.index(groups[name])) if groups else look_of(0)
        x, y = positions_L2[i]
        axes.scatter(x, y, s=34, zorder=2, edgecolor="white", linewidth=0.6, **look)
        axes.annotate(
            name, positions_L2[i], (4, 3), textcoords="offset points", fontsize=6.5, zorder=3
        )
    for i, group in enumerate(group_names):
        axes.scatter([], [], label=group, **look_of(i))
    if group_names:
        figure.legend(
            loc="outside right upper",
            frameon=False,
            fontsize=7,
            title="superclass",
            title_fontsize=7,
        )
    caption(figure, sentences, inches)
    return figure


def _draw_lines(axes: Axes, positions_L2: Floats, together_LL: Floats) -> None:
    """Connect the label pairs that occur together most; a stronger pair has a thicker line."""
    upper = np.triu_indices(len(positions_L2), 1)
    strength_R = together_LL[upper]
    order_R = np.argsort(-strength_R, kind="stable")
    pairs = order_R[: round(LINES_PER_LABEL * len(positions_L2))]
    least, most = strength_R[pairs[-1]], max(strength_R[pairs[0]], 1e-12)
    for pair in pairs:
        if strength_R[pair] > 0:
            ends = positions_L2[[upper[0][pair], upper[1][pair]]]
            width = 0.5 + 2.5 * (strength_R[pair] - least) / max(most - least, 1e-12)
            axes.plot(
                *ends.T, color=FAINT, alpha=0.45, linewidth=width, zorder=1, solid_capstyle="round"
            )
