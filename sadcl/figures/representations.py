"""Fig. 6: activated label-level representations before and after the projection head.

Axes: A representations, D hidden size, P projection size, N images, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl import build
from sadcl.data.base import Progress
from sadcl.data.readers.label_groups import groups_of
from sadcl.errors import UserError
from sadcl.figures.drawing import SEED, bare, caption, look_of, save, t_sne
from sadcl.inference import Opened
from sadcl.model import SADCL
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
COUNT = 2000
NEIGHBOURS = 10
MANY = 24
"""Labels that colours and marks tell apart; of more the superclass is shown."""


class Activated(NamedTuple):
    """Representations of what test images show (y = 1)."""

    label_A: NDArray[np.int64]
    before_AD: Floats
    after_AP: Floats
    images: int
    """That they come from."""


def collect(opened: Opened, count: int = COUNT, progress: Progress | None = None) -> Activated:
    """``count`` representations of labels that random test images show, or all there are.

    Raises:
        UserError: for a checkpoint of the pooled baseline, or a test split whose labels are not known.
    """
    network, data = opened.predictor.network, opened.data
    if not isinstance(network, SADCL):
        raise UserError(
            "The pooled baseline has no representation of each label: Fig. 6 needs a checkpoint of SADCL."
        )
    if not (data.test.targets == 1).any():
        raise UserError(
            f"No label of the test images of {data.name} is known: Fig. 6 has nothing to show."
        )
    rng = np.random.default_rng(SEED)
    order_N = rng.permutation(np.flatnonzero((data.test.targets == 1).any(axis=1)))
    shown_N = np.cumsum((data.test.targets[order_N] == 1).sum(axis=1))
    images = data.test.subset(
        np.sort(order_N[: np.searchsorted(shown_N, count) + 1]), data.test.name
    )
    parts: list[tuple[Any, Any, Any]] = []
    loader = build.loader(
        opened.predictor.config, images, build.Worker(device=opened.predictor.device)
    )
    with torch.inference_mode():
        for done, batch in enumerate(loader.batches(0), start=1):
            features_BLD = network(batch.images_BCHW).features_BLD
            assert features_BLD is not None
            active_BL = batch.targets_BL == 1
            rows_AD = features_BLD[active_BL]
            parts.append((active_BL.nonzero()[:, 1], rows_AD, network.projection(rows_AD)))
            if progress is not None:
                progress(done, loader.steps)
    label_A, before_AD, after_AP = (
        torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)
    )
    kept = np.sort(rng.permutation(len(label_A))[:count])
    return Activated(
        label_A[kept], before_AD[kept].astype(float), after_AP[kept].astype(float), len(images)
    )


def purity(rows_AD: Floats, label_A: NDArray[np.int64], neighbours: int = NEIGHBOURS) -> float:
    """Share of the nearest neighbours by cosine that have the same label, in percent; a row is none of its own."""
    from sklearn.neighbors import NearestNeighbors

    most = min(neighbours, len(rows_AD) - 1)
    near_AK = (
        NearestNeighbors(n_neighbors=most, metric="cosine")
        .fit(rows_AD)
        .kneighbors(return_distance=False)
    )
    return float(100 * (label_A[near_AK] == label_A[:, None]).mean())


def silhouette(rows_AD: Floats, label_A: NDArray[np.int64]) -> float:
    """Mean silhouette by cosine, -1 to 1, labels with a single row left out; nan for fewer than two labels."""
    from sklearn.metrics import silhouette_score

    common_A = np.bincount(label_A)[label_A] > 1
    if len(np.unique(label_A[common_A])) < 2:
        return float("nan")
    return float(silhouette_score(rows_AD[common_A], label_A[common_A], metric="cosine"))


def draw_representations(opened: Opened, uri: str, progress: Progress | None = None) -> list[str]:
    """Draw Fig. 6 and say in sentences what it shows.

    Raises:
        UserError: as :func:`collect`, and for a file that cannot be written.
    """
    found = collect(opened, progress=progress)
    if len(found.label_A) < 10:
        raise UserError(
            f"The test images show {len(found.label_A)} labels in all; Fig. 6 needs 10 representations."
        )
    spaces = {"before projection": found.before_AD, "after projection": found.after_AP}
    places = {name: t_sne(rows_AD) for name, rows_AD in spaces.items()}
    (_, perplexity), *_ = places.values()
    scores = [
        (silhouette(rows, found.label_A), purity(rows, found.label_A)) for rows in spaces.values()
    ]
    said = [
        f"t-SNE of {len(found.label_A):,} activated representations of {found.images:,} test images by cosine, "
        f"perplexity {perplexity:.1f}, seed {SEED}.",
        "Measured in all dimensions, before and after the projection, by label: "
        f"silhouette {scores[0][0]:.3f} and {scores[1][0]:.3f}, "
        f"{NEIGHBOURS} nearest neighbours of the same label {scores[0][1]:.1f} % and {scores[1][1]:.1f} %.",
    ]
    if opened.stage == 1 or not opened.predictor.config.loss.contrasts:
        said.append(
            "No contrast has trained this checkpoint's projection head: it is as it was initialised."
        )
    from matplotlib import style

    with style.context(["default", STYLE]):
        save(
            _figure(
                found.label_A, {n: p for n, (p, _) in places.items()}, opened.predictor.labels, said
            ),
            uri,
        )
    return said


def _figure(
    label_A: NDArray[np.int64],
    places: dict[str, Floats],
    labels: Sequence[str],
    said: Sequence[str],
) -> Figure:
    from matplotlib.figure import Figure

    kinds, kind_A = kinds_of(label_A, labels)
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    for axes, (name, places_A2) in zip(
        figure.subplots(1, len(places)), places.items(), strict=True
    ):
        bare(axes, name)
        for i, kind in enumerate(kinds):
            axes.scatter(
                *places_A2[kind_A == i].T, s=7, linewidth=0, alpha=0.75, label=kind, **look_of(i)
            )
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        *handles,
        loc="outside right center",
        frameon=False,
        fontsize=6.5,
        markerscale=1.8,
        handletextpad=0.2,
    )
    caption(figure, said, 8.2)
    return figure


def kinds_of(
    label_A: NDArray[np.int64], labels: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """What is coloured: the labels, or of many their superclasses, or the most frequent ones and the rest."""
    groups = groups_of(labels)
    if len(labels) <= MANY or groups is None:
        order = np.argsort(-np.bincount(label_A, minlength=len(labels)), kind="stable")
        kept = order if len(labels) <= MANY else order[: MANY - 1]
        rank_L = np.full(len(labels), len(kept))
        rank_L[kept] = np.arange(len(kept))
        return [labels[i] for i in kept] + ["others"] * (len(kept) < len(labels)), rank_L[label_A]
    kinds = list(dict.fromkeys(groups.values()))
    return kinds, np.array([kinds.index(groups[label]) for label in labels])[label_A]
