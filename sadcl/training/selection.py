"""The epoch and the weights that a run's figures come from.

The held-out images decide; the test images never do.

Axes: N images of a split, L labels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sadcl import build, distributed, storage
from sadcl.data.base import MultiLabelData
from sadcl.errors import UserError
from sadcl.metrics import multilabel_metrics, own_figures
from sadcl.training import checkpoint
from sadcl.training.engine import Training
from sadcl.training.evaluation import evaluate, evaluate_each
from sadcl.training.features import FeaturesReport, FeatureStore, split_of, store_of
from sadcl.training.localiser import MEASURES, Localiser


def select(
    training: Training,
    data: MultiLabelData,
    best: dict[str, Any],
    epoch: int,
    worker: build.Worker,
    store: FeatureStore | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Evaluate an epoch on the held-out images; if it is the best so far, it is returned as such.

    Without held-out images nothing is chosen, and the last epoch counts as the best.

    Args:
        training: after the epoch.
        data: its held-out split ``data.val`` decides.
        best: the best epoch so far; empty before the first.
        epoch: number of the epoch, from 1.
        worker: this process.
        store: of feature maps in place of images.

    Returns:
        The epoch's figures, and the best epoch: ``epoch``, ``weights`` (raw or ema), ``metrics``,
        ``rows`` (one for each label) and ``logits`` (of the held-out images, in float16).
    """
    candidates = _candidates(training)
    weights: str = training.config.optim.report
    if not len(data.val):
        if weights == "best":
            weights = "ema" if "ema" in candidates else "raw"
        best = {"epoch": epoch, "weights": weights, "metrics": {}, "rows": [], "logits": {}}
        return {}, best
    loader = build.loader(training.config, data.val, worker, features=split_of(store, "val"))
    evaluated = evaluate_each(
        list(candidates.values()), loader, training.device, config=training.config
    )
    scores = dict(zip(candidates, evaluated, strict=True))
    results = {
        name: multilabel_metrics(scores_NL, data.val.targets) for name, scores_NL in scores.items()
    }
    if weights == "best":
        weights = max(candidates, key=lambda name: rank(results[name]["mAP"]))
    by_weights = {f"val_mAP_{name}": float(result["mAP"]) for name, result in results.items()}
    own = own_figures(build.metrics(training.config), scores[weights], data.val.targets)
    result = results[weights] | own
    figures = {"val_mAP": float(result["mAP"]), **by_weights}
    figures |= {f"val_{name}": value for name, value in own.items()}
    if not best or rank(figures["val_mAP"]) > rank(best["metrics"]["val_mAP"]):
        metrics, rows = tabulate(result, "val", data.labels)
        best = {
            "epoch": epoch,
            "weights": weights,
            "metrics": {**metrics, **by_weights},
            "rows": rows,
            "logits": {"val": half_logits(scores[weights])},
        }
    return figures, best


def _candidates(training: Training) -> dict[str, Any]:
    """The networks whose weights may be reported, by their name."""
    candidates: dict[str, Any] = {"raw": training.network}
    if training.ema is not None:
        candidates["ema"] = training.ema.module
    return candidates


def evaluate_test(
    training: Training,
    data: MultiLabelData,
    folder: str,
    worker: build.Worker,
    report: FeaturesReport | None = None,
) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, Tensor]]:
    """Evaluate the selected weights on the test images, and add the figures to their checkpoint.

    Where the boxes of objects are known and the head has maps, the same pass measures how well
    these point at them.

    Args:
        training: its network is loaded with the selected weights.
        data: its test split is evaluated.
        folder: URI of the run's checkpoints.
        worker: this process.
        report: called while feature maps of the test images are computed.

    Returns:
        Figures, one row for each label, and the logits in float16.

    Raises:
        UserError: for a data set without test images.
    """
    if not len(data.test):
        raise UserError(f"{data.name} has no test images to evaluate.")
    uri = storage.join(folder, "best.pt")
    content = checkpoint.load_checkpoint(uri)
    training.network.load_state_dict(content["model"])
    store = store_of(training.config, training.network, data, worker, report)
    loader = build.loader(training.config, data.test, worker, features=split_of(store, "test"))
    boxes = data.boxes if training.network.has_maps else None
    localiser = Localiser(boxes(data.test)) if boxes is not None else None
    scores_NL, targets_NL = evaluate(
        training.network, loader, training.device, localiser, config=training.config
    )
    figures = multilabel_metrics(scores_NL, targets_NL)
    figures |= own_figures(build.metrics(training.config), scores_NL, targets_NL)
    if localiser is not None:
        figures |= localiser.means(len(data.labels), training.device)
    metrics, rows = tabulate(figures, "test", data.labels)
    if distributed.rank() == 0:
        other_rows = [row for row in content["rows"] if row["split"] != "test"]
        checkpoint.save_checkpoint(
            uri,
            {**content, "metrics": {**content["metrics"], **metrics}, "rows": other_rows + rows},
        )
    return metrics, rows, {"test": half_logits(scores_NL)}


def half_logits(scores_NL: NDArray[np.float64]) -> Tensor:
    """Invert the sigmoid of the scores, in float16 and finite as the predictions table has it."""
    with np.errstate(divide="ignore"):
        logits_NL = np.log(scores_NL) - np.log1p(-scores_NL)
    limit = float(np.finfo(np.float16).max)
    return torch.from_numpy(logits_NL.clip(-limit, limit).astype(np.float16))


def weights_checkpoint(
    training: Training, data: MultiLabelData, selected: dict[str, Any]
) -> dict[str, Any]:
    """Return a checkpoint of the present weights: what made them, and the figures of their epoch.

    Its tensors are those that the training changes.

    Args:
        training: after the epoch.
        data: its names and digest are in the checkpoint too.
        selected: from :func:`select`, in the epoch that it returns as the best.
    """
    network = _candidates(training).get(selected["weights"], training.network)
    return {
        "config": training.config.json_text(),
        "stage": training.stage,
        "labels": list(data.labels),
        "dataset": data.name,
        "data_digest": data.digest,
        "threads": torch.get_num_threads(),
        "precision": build.precision(training.config, training.device),
        **selected,
        "model": network.state_dict(),
    }


def save_last(
    training: Training, data: MultiLabelData, epoch: int, weights: str, folder: str
) -> None:
    """Save the weights after the last epoch as ``last.pt``; nothing was chosen by them.

    Args:
        training: after the last epoch.
        data: its names and digest are saved too.
        epoch: number of the last epoch, from 1.
        weights: ``raw`` or ``ema``, the kind that was selected.
        folder: URI of the run's checkpoints.
    """
    if distributed.rank() == 0:
        last = {"epoch": epoch, "weights": weights, "metrics": {}, "rows": []}
        content = weights_checkpoint(training, data, last)
        checkpoint.save_checkpoint(storage.join(folder, "last.pt"), content)


def tabulate(
    result: dict[str, Any], split: str, labels: tuple[str, ...]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Turn the metrics of a split into figures named ``val_mAP`` and so on, and one row a label.

    Localisation is None where no image has a box of the label, and its figures are means over the
    other labels.

    Args:
        result: from :func:`sadcl.metrics.multilabel_metrics`, with localisation or without.
        split: ``val`` or ``test``.
        labels: names of the labels.
    """
    columns = {name: value for name, value in result.items() if getattr(value, "ndim", 0) == 1}
    figures = {
        f"{split}_{name}": float(value) for name, value in result.items() if name not in columns
    }
    rows: list[dict[str, Any]] = [
        {
            "split": split,
            "label": label,
            **{name: float(values[i]) for name, values in columns.items()},
        }
        for i, label in enumerate(labels)
    ]
    for name in [name for name in MEASURES if name in columns]:
        defined = [row[name] for row in rows if not math.isnan(row[name])]
        if defined:
            figures[f"{split}_{name}"] = sum(defined) / len(defined)
        for row in rows:
            row[name] = None if math.isnan(row[name]) else row[name]
    return figures, rows


def rank(value: float) -> float:
    """Make nan (no label of the split has a positive) the worst of all values."""
    return -math.inf if math.isnan(value) else value
