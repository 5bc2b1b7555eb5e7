"""Metrics in NumPy alone: of scores against targets (mAP, F1), and of maps against boxes.

A map is a grid over the whole image, whatever its proportions. A box is (left, top, right, bottom),
each 0 to 1 of the image's width or height.

Axes: N images, L labels, T distinct scores of positives; H, W a map's height and width, K boxes,
X, Y the pieces of its two axes between the edges of cells and boxes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sadcl.errors import UserError, reason_of

Floats = NDArray[np.float64]


class Metric(Protocol):
    """A metric of your own, which a configuration names by its import path in ``metrics``.

    It gets the scores (N, L), 0 to 1, of all images of a split and their targets (N, L), 1, 0 or -1
    (ignored), neither of which it may change. It returns one number. NaN says that the metric is
    not defined on a split, and is stored as such. This one is complete::

        def one_error(scores_NL: NDArray[np.float64], targets_NL: NDArray[np.int8]) -> float:
            labelled_N = (targets_NL == 1).any(axis=1)
            first_N = np.where(targets_NL >= 0, scores_NL, -1).argmax(axis=1)
            hit_N = targets_NL[np.arange(len(first_N)), first_N] == 1
            return 100 * float(1 - hit_N[labelled_N].mean())

    Its figure has the name of the function. It is measured beside the built-in ones, of the weights
    that are reported: on the held-out images after each epoch (``val_one_error`` in the tables
    epochs and trials) and on the test images once (``test_one_error`` in trials). A search can have
    ``val_one_error`` among its objectives, or ``-val_one_error`` where less is better. It chooses
    no epoch and no weights.
    """

    def __call__(self, scores_NL: Floats, targets_NL: NDArray[np.int8], /) -> float: ...


def metric_name(path: str) -> str:
    """Return the name that the figures of a metric have, the last part of its import path."""
    return path.rpartition(":")[2].rpartition(".")[2]


def check_names(paths: tuple[str, ...]) -> None:
    """Check that metrics can be told apart, from each other and from the built-in ones.

    Raises:
        UserError: for a name that is taken; upper and lower case make no difference to SQL.
    """
    sample_NL = np.eye(2)
    taken = {name.lower(): "is built in" for name in multilabel_metrics(sample_NL, sample_NL)}
    others = ("map_raw", "map_ema", "map_published", "pointing", "box_energy", "box_area")
    taken |= dict.fromkeys(others, "is built in")
    for i, path in enumerate(paths):
        name = metric_name(path)
        if name.lower() in taken:
            raise UserError(
                f"metrics[{i}] = {path!r}: its figures would be called {name!r}, but a metric of "
                f"that name {taken[name.lower()]}. Give the function another name."
            )
        taken[name.lower()] = f"is there already, metrics[{i}]"


def own_figures(
    metrics: Mapping[str, Metric], scores_NL: Floats, targets_NL: NDArray[np.int8]
) -> dict[str, float]:
    """Compute metrics of the user's.

    Args:
        metrics: by their import paths.
        scores_NL: 0 to 1.
        targets_NL: 1, 0 or -1 (ignored).

    Returns:
        Their figures by name; NaN where one is not defined.

    Raises:
        UserError: for a metric that fails, or returns something else than a number.
    """
    scores_NL, targets_NL = scores_NL.view(), targets_NL.view()
    scores_NL.flags.writeable = targets_NL.flags.writeable = False
    figures = {}
    for i, (path, metric) in enumerate(metrics.items()):
        try:
            returned: Any = metric(scores_NL, targets_NL)
        except Exception as error:
            raise UserError(f"metrics[{i}] = {path!r}: {reason_of(error)}") from None
        try:
            value = math.inf if isinstance(returned, str) else float(returned)
        except (TypeError, ValueError):
            value = math.inf
        if math.isinf(value):
            kind = type(returned).__name__
            raise UserError(
                f"metrics[{i}] = {path!r} must return one finite number, or NaN where it is not "
                f"defined, but returned {returned!r:.80} ({kind})."
            )
        figures[metric_name(path)] = value
    return figures


def check_metrics(metrics: Mapping[str, Metric], num_labels: int) -> None:
    """Try metrics of the user's on random scores, before anything is reserved.

    Raises:
        UserError: as :func:`own_figures`, and for one that is not defined even where each label has
            images with it and without it, or gives another figure when it is asked again.
    """
    rng = np.random.default_rng(0)
    scores_NL = rng.random((24, num_labels))
    targets_NL = np.indices((24, num_labels)).sum(axis=0).astype(np.int8) % 2
    first = own_figures(metrics, scores_NL, targets_NL)
    again = own_figures(metrics, scores_NL, targets_NL)
    for i, path in enumerate(metrics):
        value, other = first[metric_name(path)], again[metric_name(path)]
        if math.isnan(value):
            problem = "is NaN where each label has images with it and images without it"
        elif value != other:
            problem = f"gives {value} and then {other} for the same scores and targets"
        else:
            continue
        raise UserError(f"metrics[{i}] = {path!r} {problem}.")
    targets_NL[rng.random(targets_NL.shape) < 0.2] = -1
    own_figures(metrics, scores_NL, targets_NL)


def average_precision(scores: ArrayLike, targets: ArrayLike) -> dict[str, float]:
    """Average precision of one label by three conventions; tied scores enter together.

    Args:
        scores: (N,), higher is more confident.
        targets: (N,) with 1, 0 or -1 (ignored).

    Returns:
        ``AP``, the area under the interpolated precision envelope at all points (VOC 2010 devkit),
        ``AP_step`` without the envelope (scikit-learn's ``average_precision_score``) and
        ``AP_11pt`` (VOC 2007), in percent; nan without a positive.

    Source: Everingham et al. 2015, section 4.
    """
    scores_N, targets_N = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    labelled_N = targets_N >= 0
    scores_N, positive_N = scores_N[labelled_N], targets_N[labelled_N] == 1
    total = int(positive_N.sum())
    if not total:
        return {"AP": np.nan, "AP_step": np.nan, "AP_11pt": np.nan}
    # Precision falls between two scores of positives, so only the scores where recall grows count.
    thresholds_T, ties_T = np.unique(scores_N[positive_N], return_counts=True)
    hits_T = np.cumsum(ties_T[::-1])
    predicted_T = len(scores_N) - np.searchsorted(np.sort(scores_N), thresholds_T[::-1])
    recall_T, precision_T = hits_T / total, hits_T / predicted_T
    gain_T = np.diff(recall_T, prepend=0.0)
    envelope_T = np.maximum.accumulate(precision_T[::-1])[::-1]
    # recall >= tenth / 10, compared in whole numbers: 10 * hits >= tenth * total
    eleven = np.searchsorted(10 * hits_T, total * np.arange(11))
    return {
        "AP": float(100 * (gain_T * envelope_T).sum()),
        "AP_step": float(100 * (gain_T * precision_T).sum()),
        "AP_11pt": float(100 * envelope_T[eleven].mean()),
    }


def multilabel_metrics(
    scores: ArrayLike, targets: ArrayLike, *, threshold: float = 0.5, top_k: int = 3
) -> dict[str, Any]:
    """Compute all metrics of the literature's tables, in percent.

    A label is predicted where its score is above the threshold; for the ``_top3`` figures it must
    also be among the image's ``top_k`` highest (of equal scores the first label wins). A label that
    is never predicted has precision 0 and stays in the mean. A label without a positive has no AP,
    recall or F1 and is left out of the means over labels.

    Args:
        scores: (N, L), 0 to 1.
        targets: (N, L) with 1, 0 or -1 (ignored).
        threshold: score above which a label is predicted.
        top_k: number of labels of an image that ``_top3`` predicts at most.

    Returns:
        ``mAP`` (envelope), ``mAP_step`` (scikit-learn), ``mAP_11pt``; ``CP CR CF1 CF1_macro OP OR
        OF1`` and the same with ``_top3``; ``undefined``, the number of labels without a positive;
        and for each label (L,): ``AP``, ``P``, ``R``, ``F1`` and ``support`` (images). ``CF1`` is
        the harmonic mean of CP and CR, ``CF1_macro`` the mean of the labels' F1.

    Raises:
        ValueError: for shapes that differ, no image, a score that is not finite, or a target that
            is not 1, 0 or -1.
    """
    scores_NL, targets_NL = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores_NL.ndim != 2 or scores_NL.shape != targets_NL.shape or not scores_NL.size:
        raise ValueError(
            "scores and targets must have the same shape (N, L), but got "
            f"{scores_NL.shape} and {targets_NL.shape}"
        )
    if not np.isfinite(scores_NL).all():
        raise ValueError(
            f"scores must be finite, but {int((~np.isfinite(scores_NL)).sum())} are not"
        )
    if not np.isin(targets_NL, (-1, 0, 1), kind="sort").all():
        raise ValueError(
            f"targets must be 1, 0 or -1, but got {np.unique(targets_NL)[:5].tolist()}"
        )
    columns = zip(
        np.ascontiguousarray(scores_NL.T), np.ascontiguousarray(targets_NL.T), strict=True
    )
    areas = [average_precision(s, t) for s, t in columns]
    result: dict[str, Any] = {"AP": np.array([a["AP"] for a in areas])}
    for name, kind in (("mAP", "AP"), ("mAP_step", "AP_step"), ("mAP_11pt", "AP_11pt")):
        result[name] = _mean(np.array([a[kind] for a in areas]))
    predicted_NL = scores_NL > threshold
    result |= _counts(predicted_NL, targets_NL, "")
    top = _counts(predicted_NL & _highest(scores_NL, top_k), targets_NL, "_top3")
    result |= {name: value for name, value in top.items() if name.endswith("_top3")}
    result["undefined"] = int(np.isnan(result["AP"]).sum())
    return result


def _highest(scores_NL: Floats, k: int) -> NDArray[np.bool_]:
    """Whether each score is among its image's k highest."""
    rest_NL, rows_N = scores_NL.copy(), np.arange(len(scores_NL))
    for _ in range(min(k, scores_NL.shape[1])):
        rest_NL[rows_N, rest_NL.argmax(1)] = -np.inf  # the first of equals
    return rest_NL == -np.inf


def _counts(
    predicted_NL: NDArray[np.bool_], targets_NL: NDArray[Any], suffix: str
) -> dict[str, Any]:
    """Precision, recall and F1 over labels and overall, with a suffix, and of each label."""
    positive_NL, labelled_NL = targets_NL == 1, targets_NL >= 0
    hits_L = (predicted_NL & positive_NL).sum(0)
    predicted_L, positive_L = (predicted_NL & labelled_NL).sum(0), positive_NL.sum(0)
    defined_L = positive_L > 0
    P_L = _ratio(hits_L, predicted_L)
    R_L = np.where(defined_L, _ratio(hits_L, positive_L), np.nan)
    F1_L = np.where(defined_L, _ratio(2 * hits_L, predicted_L + positive_L), np.nan)
    CP, CR = _mean(P_L[defined_L]), _mean(R_L)
    OP = float(_ratio(hits_L.sum(), predicted_L.sum()))
    OR = float(_ratio(hits_L.sum(), positive_L.sum()))
    figures = {"CP": CP, "CR": CR, "CF1": _harmonic(CP, CR), "CF1_macro": _mean(F1_L)}
    figures |= {"OP": OP, "OR": OR, "OF1": _harmonic(OP, OR)}
    by_label = {"P": P_L, "R": R_L, "F1": F1_L, "support": positive_L}
    return {name + suffix: value for name, value in figures.items()} | by_label


def _ratio(part: Any, whole: Any) -> Any:
    """Percentage; 0 where the whole is 0."""
    return 100 * np.asarray(part) / np.maximum(whole, 1)


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other > 0 else 0.0


class Localisation(NamedTuple):
    """How well one map points at the boxes of its label in one image, each 0 to 1."""

    pointing: float
    """1 where the map's highest cell has its middle in a box, else 0."""
    energy: float
    """Share of the map's positive part that is inside the boxes."""
    area: float
    """Share of the image that is inside the boxes, which is a uniform map's energy."""


def box_coverage(boxes_K4: ArrayLike, height: int, width: int) -> Floats:
    """Compute exactly which share of each cell of a grid is inside any box, (H, W).

    Boxes may overlap each other.
    """
    size_4 = [width, height, width, height]
    boxes_K4 = np.clip(np.asarray(boxes_K4, dtype=np.float64).reshape(-1, 4), 0, 1) * size_4
    first_W, inside_KX, width_X = _pieces(boxes_K4[:, 0], boxes_K4[:, 2], width)
    first_H, inside_KY, height_Y = _pieces(boxes_K4[:, 1], boxes_K4[:, 3], height)
    area_YX = (inside_KY.T @ inside_KX > 0) * height_Y[:, None] * width_X
    return np.add.reduceat(np.add.reduceat(area_YX, first_H, axis=0), first_W, axis=1)


def _pieces(low_K: Floats, high_K: Floats, cells: int) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Cut an axis at each edge of a cell or a box.

    Returns:
        The first piece of each cell, whether each piece is inside each box (K, pieces), and the
        pieces' lengths.
    """
    ends = np.unique(np.concatenate([np.arange(cells + 1.0), low_K, high_K]))
    inside_K = (low_K[:, None] <= ends[:-1]) & (ends[:-1] < high_K[:, None])
    return np.searchsorted(ends, np.arange(cells)), inside_K.astype(np.float64), np.diff(ends)


def localisation(map_HW: ArrayLike, boxes_K4: ArrayLike) -> Localisation:
    """Score a map by the pointing game and by the energy inside the boxes.

    The map points at the middle of its highest cell, of equal ones the first; the tolerance of 15
    pixels that the pointing game's authors allow is left out. Energy counts the map's positive
    part; a map without one has the energy of a uniform map.

    Args:
        map_HW: higher where the label is.
        boxes_K4: at least one box.

    Source: Zhang, Lin, Brandt, Shen, Sclaroff, Top-Down Neural Attention by Excitation Backprop,
    2016 (pointing game); Wang et al., Score-CAM, 2020 (energy).
    """
    map_HW, boxes_K4 = np.asarray(map_HW, dtype=np.float64), np.asarray(boxes_K4, dtype=np.float64)
    height, width = map_HW.shape
    row, column = divmod(int(np.argmax(map_HW)), width)
    x, y = (column + 0.5) / width, (row + 0.5) / height
    left_K, top_K, right_K, bottom_K = boxes_K4.T
    hit = bool(((left_K <= x) & (x <= right_K) & (top_K <= y) & (y <= bottom_K)).any())
    covered_HW = box_coverage(boxes_K4, height, width)
    area = float(covered_HW.mean())
    positive_HW = map_HW.clip(min=0)
    total = positive_HW.sum()
    energy = float((positive_HW * covered_HW).sum() / total) if total > 0 else area
    return Localisation(float(hit), energy, area)
