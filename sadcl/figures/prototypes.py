"""Fig. 4: the category prototypes, and whether those of labels that occur together are close.

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
from sadcl.figures.drawing import FAINT, SEED, bare, caption, look_of, save, t_sne
from sadcl.inference import Opened
from sadcl.model import SADCL
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
FEWEST = 4
"""Prototypes that a t-SNE makes sense of."""
PERMUTATIONS = 4999
LINES = 1.2
"""Pairs of labels drawn, for each label."""


class Agreement(NamedTuple):
    """Of two matrices over the same labels."""

    rho: float
    """Spearman's, over all pairs of different labels."""
    p: float
    """Share of the orders of the labels with at least this rho (one-sided), this one among them."""


def mantel(
    one_LL: Floats, other_LL: Floats, permutations: int = PERMUTATIONS, seed: int = SEED
) -> Agreement:
    """Mantel's test with ranks: whether labels that are close by one matrix are so by the other.

    Args:
        one_LL, other_LL: symmetric; diagonals are left out.

    Source: Mantel, The Detection of Disease Clustering and a Generalized Regression Approach, 1967.
    """
    from scipy.stats import rankdata

    labels = len(one_LL)
    upper = np.triu_indices(labels, 1)
    ranks_R, other_R = rankdata(one_LL[upper]), rankdata(other_LL[upper])
    ranks_LL = np.zeros((labels, labels))
    ranks_LL[upper] = ranks_R - ranks_R.mean()
    ranks_LL += ranks_LL.T
    other_R = other_R - other_R.mean()
    scale = np.sqrt((ranks_LL[upper] ** 2).sum() * (other_R**2).sum())
    if scale == 0:
        return Agreement(np.nan, np.nan)
    rng, found = np.random.default_rng(seed), float(ranks_LL[upper] @ other_R / scale)
    orders = (rng.permutation(labels) for _ in range(permutations))
    as_high = sum(
        ranks_LL[order[upper[0]], order[upper[1]]] @ other_R / scale >= found - 1e-12
        for order in orders
    )
    return Agreement(found, float((1 + as_high) / (1 + permutations)))


def log_odds(targets_NL: NDArray[np.int8]) -> Floats:
    """(L, L) log odds ratio of two labels in one image, half an image added to each count (Haldane and Anscombe)."""
    shows_NL, lacks_NL = ((targets_NL == value).astype(np.float64) for value in (1, 0))
    both, neither, one = shows_NL.T @ shows_NL, lacks_NL.T @ lacks_NL, shows_NL.T @ lacks_NL
    return np.log((both + 0.5) * (neither + 0.5) / ((one + 0.5) * (one.T + 0.5)))


def together(targets_NL: NDArray[np.int8]) -> Floats:
    """(L, L) the smaller of P(a | b) and P(b | a), 0 to 1, so that a label that is everywhere is not tied to all others."""
    shows_NL = (targets_NL == 1).astype(np.float64)
    both_LL = shows_NL.T @ shows_NL
    count_L = np.diag(both_LL).clip(min=1)
    return both_LL / np.maximum(count_L[:, None], count_L)


def draw_prototypes(opened: Opened, uri: str) -> list[str]:
    """Draw Fig. 4 and say in sentences what it shows.

    The prototypes are as both contrasts see them: projected, compared by cosine.

    Raises:
        UserError: for a checkpoint with fewer than 4 prototypes, or a file that cannot be written.
    """
    names, rows_LP, targets_NL = _prototypes(opened)
    unit_LP = rows_LP / np.linalg.norm(rows_LP, axis=1, keepdims=True).clip(1e-12)
    cosine_LL = unit_LP @ unit_LP.T
    agreement = mantel(cosine_LL, log_odds(targets_NL))
    places_L2, perplexity = t_sne(rows_LP)
    said = [
        f"t-SNE of {len(names)} projected prototypes by cosine, perplexity {perplexity:.1f}, seed {SEED}.",
        "Lines: the label pairs that occur together most in the training images (the smaller of the two conditional "
        "probabilities; thicker is higher).",
        f"Cosine of two prototypes against log odds of their labels in one image, all {len(names) * (len(names) - 1) // 2} "
        f"pairs: Spearman {agreement.rho:+.2f}, p = {agreement.p:.4f} (Mantel, one-sided, {PERMUTATIONS:,} permutations).",
    ]
    from matplotlib import style

    with style.context(["default", STYLE]):
        save(_figure(names, places_L2, together(targets_NL), said), uri)
    return said


def _prototypes(opened: Opened) -> tuple[list[str], Floats, NDArray[np.int8]]:
    network = opened.predictor.network
    labels = opened.predictor.labels
    valid_L = (
        network.prototypes.valid_L.cpu().numpy()
        if isinstance(network, SADCL)
        else np.zeros(len(labels), dtype=bool)
    )
    if valid_L.sum() < FEWEST:
        raise UserError(
            f"The checkpoint has {int(valid_L.sum())} prototypes of {len(labels)} labels; Fig. 4 needs {FEWEST}. Give one of "
            "a stage 2 with loss.prototype_weight > 0 that admits rows (prototypes.epsilon)."
        )
    assert isinstance(network, SADCL)
    with torch.inference_mode():
        rows_LP = network.projection(network.prototypes.rows_LD).double().cpu().numpy()
    names = [label for label, valid in zip(labels, valid_L, strict=True) if valid]
    return names, rows_LP[valid_L], opened.data.train.targets[:, valid_L]


def _figure(
    names: list[str], places_L2: Floats, together_LL: Floats, said: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    inches = 5.2 if len(names) <= 40 else 7.2
    figure = Figure(figsize=(inches, inches * 0.98), layout="constrained")
    axes = figure.add_subplot()
    bare(axes, "Category prototypes")
    axes.margins(x=0.12)
    upper = np.triu_indices(len(names), 1)
    strength_R = together_LL[upper]
    strongest = np.argsort(-strength_R, kind="stable")[: round(LINES * len(names))]
    least, most = strength_R[strongest[-1]], max(strength_R[strongest[0]], 1e-12)
    for pair in strongest:
        if strength_R[pair] > 0:
            ends = places_L2[[upper[0][pair], upper[1][pair]]]
            width = 0.5 + 2.5 * (strength_R[pair] - least) / max(most - least, 1e-12)
            axes.plot(
                *ends.T, color=FAINT, alpha=0.45, linewidth=width, zorder=1, solid_capstyle="round"
            )
    groups = groups_of(names)
    kinds = list(dict.fromkeys(groups.values())) if groups else []
    for i, name in enumerate(names):
        look = look_of(kinds.index(groups[name])) if groups else look_of(0)
        axes.scatter(
            places_L2[i, 0],
            places_L2[i, 1],
            s=34,
            zorder=2,
            edgecolor="white",
            linewidth=0.6,
            **look,
        )
        axes.annotate(
            name, places_L2[i], (4, 3), textcoords="offset points", fontsize=6.5, zorder=3
        )
    for i, kind in enumerate(kinds):
        axes.scatter([], [], label=kind, **look_of(i))
    if kinds:
        figure.legend(
            loc="outside right upper",
            frameon=False,
            fontsize=7,
            title="superclass",
            title_fontsize=7,
        )
    caption(figure, said, inches)
    return figure
