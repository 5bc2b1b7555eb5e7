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
from sadcl.figures.drawing import SEED, caption, look_of, remove_ticks, save, t_sne
from sadcl.inference import CheckpointWithData
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
COUNT = 2000
"""Largest number of representations in the figure."""
FEWEST = 10
"""Smallest number of representations in the figure."""
NEIGHBOURS = 10
MANY_LABELS = 24
"""Number of labels that colours and marks can distinguish; with more, superclasses are shown."""


class Representations(NamedTuple):
    """Representations of labels that test images show (y = 1)."""

    label_A: NDArray[np.int64]
    before_AD: Floats
    after_AP: Floats
    images: int
    """Number of images that they come from."""


def collect(
    opened: CheckpointWithData, count: int = COUNT, progress: Progress | None = None
) -> Representations:
    """Compute representations of labels that random test images show.

    Args:
        opened: the checkpoint and its data.
        count: number of representations; all if there are fewer.
        progress: called with the number of finished batches and of all batches.

    Raises:
        UserError: for a head without label-level features, or a test split whose labels are not
            known.
    """
    network, data = opened.predictor.network, opened.data
    if network.feature_size is None:
        raise UserError(
            f"The head {type(network.head).__name__} has no label-level features: Fig. 6 needs a "
            "checkpoint of a head that has them, such as SADCL."
        )
    if not (data.test.targets == 1).any():
        raise UserError(
            f"No label of the test images of {data.name} is known: Fig. 6 has nothing to show."
        )
    rng = np.random.default_rng(SEED)
    order_N = rng.permutation(np.flatnonzero((data.test.targets == 1).any(axis=1)))
    total_N = np.cumsum((data.test.targets[order_N] == 1).sum(axis=1))
    enough = np.searchsorted(total_N, count) + 1
    images = data.test.subset(np.sort(order_N[:enough]), data.test.name)
    assert network.projection is not None
    parts: list[tuple[Any, Any, Any]] = []
    loader = build.loader(
        opened.predictor.config, images, build.Worker(device=opened.predictor.device)
    )
    with torch.inference_mode():
        for done, batch in enumerate(loader.batches(0), start=1):
            features_BLD = network(batch.images_BCHW).features_BLD
            assert features_BLD is not None
            positive_BL = batch.targets_BL == 1
            rows_AD = features_BLD[positive_BL]
            parts.append((positive_BL.nonzero()[:, 1], rows_AD, network.projection(rows_AD)))
            if progress is not None:
                progress(done, loader.steps)
    label_A, before_AD, after_AP = (
        torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)
    )
    sample = np.sort(rng.permutation(len(label_A))[:count])
    return Representations(
        label_A[sample],
        before_AD[sample].astype(float),
        after_AP[sample].astype(float),
        len(images),
    )


def purity(rows_AD: Floats, label_A: NDArray[np.int64], neighbours: int = NEIGHBOURS) -> float:
    """Return the percentage of the nearest neighbours by cosine that have the same label.

    A row is no neighbour of itself.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(neighbours, len(rows_AD) - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(rows_AD)
    near_AK = search.kneighbors(return_distance=False)
    return float(100 * (label_A[near_AK] == label_A[:, None]).mean())


def silhouette(rows_AD: Floats, label_A: NDArray[np.int64]) -> float:
    """Return the mean silhouette by cosine, -1 to 1.

    Labels with a single row are left out; it is nan for fewer than two labels.
    """
    from sklearn.metrics import silhouette_score

    repeated_A = np.bincount(label_A)[label_A] > 1
    if len(np.unique(label_A[repeated_A])) < 2:
        return float("nan")
    return float(silhouette_score(rows_AD[repeated_A], label_A[repeated_A], metric="cosine"))


def draw_representations(
    opened: CheckpointWithData, uri: str, progress: Progress | None = None
) -> list[str]:
    """Draw Fig. 6 and return sentences about it.

    Raises:
        UserError: as :func:`collect`, for test images that show fewer than 10 labels, and for a
            file that cannot be written.
    """
    label_A, before_AD, after_AP, images = collect(opened, progress=progress)
    if len(label_A) < FEWEST:
        raise UserError(
            f"The test images show {len(label_A)} labels in all; Fig. 6 needs {FEWEST} "
            "representations."
        )
    spaces = {"before projection": before_AD, "after projection": after_AP}
    planes = {name: t_sne(rows_AD) for name, rows_AD in spaces.items()}
    (_, perplexity), *_ = planes.values()
    before, after = (
        (silhouette(rows_AD, label_A), purity(rows_AD, label_A)) for rows_AD in spaces.values()
    )
    sentences = [
        f"t-SNE of {len(label_A):,} activated representations of {images:,} test images by cosine, "
        f"perplexity {perplexity:.1f}, seed {SEED}.",
        "Measured in all dimensions, before and after the projection, by label: "
        f"silhouette {before[0]:.3f} and {after[0]:.3f}, {NEIGHBOURS} nearest neighbours of the "
        f"same label {before[1]:.1f} % and {after[1]:.1f} %.",
    ]
    if opened.stage == 1 or not opened.predictor.config.loss.contrasts:
        sentences.append(
            "No contrast has trained this checkpoint's projection head: it is as it was "
            "initialised."
        )
    from matplotlib import style

    positions = {name: positions_A2 for name, (positions_A2, _) in planes.items()}
    with style.context(["default", STYLE]):
        save(_figure(label_A, positions, opened.predictor.labels, sentences), uri)
    return sentences


def _figure(
    label_A: NDArray[np.int64],
    positions: dict[str, Floats],
    labels: Sequence[str],
    sentences: Sequence[str],
) -> Figure:
    from matplotlib.figure import Figure

    classes, class_A = classes_of(label_A, labels)
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    for axes, (title, positions_A2) in zip(
        figure.subplots(1, len(positions)), positions.items(), strict=True
    ):
        remove_ticks(axes, title)
        for i, name in enumerate(classes):
            points = positions_A2[class_A == i].T
            axes.scatter(*points, s=7, linewidth=0, alpha=0.75, label=name, **look_of(i))
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        *handles,
        loc="outside right center",
        frameon=False,
        fontsize=6.5,
        markerscale=1.8,
        handletextpad=0.2,
    )
    caption(figure, sentences, 8.2)
    return figure


def classes_of(
    label_A: NDArray[np.int64], labels: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes that are coloured, and the class of each representation.

    They are the labels; with more than ``MANY_LABELS`` labels their superclasses, or without
    superclasses the most frequent labels and the class ``others``.
    """
    groups = groups_of(labels)
    if len(labels) > MANY_LABELS and groups is not None:
        names = list(dict.fromkeys(groups.values()))
        return names, np.array([names.index(groups[label]) for label in labels])[label_A]
    order = np.argsort(-np.bincount(label_A, minlength=len(labels)), kind="stable")
    if len(labels) <= MANY_LABELS:
        top, others = order, []
    else:
        top, others = order[: MANY_LABELS - 1], ["others"]
    rank_L = np.full(len(labels), len(top))
    rank_L[top] = np.arange(len(top))
    return [labels[i] for i in top] + others, rank_L[label_A]
