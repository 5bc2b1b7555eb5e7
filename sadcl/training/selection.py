"""Which epoch and which weights a run's figures come from: the held-out images decide, the test images never do."""

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
from sadcl.metrics import multilabel_metrics
from sadcl.training import checkpoint
from sadcl.training.engine import Training, evaluate
from sadcl.training.localiser import MEASURES, Localiser


def select(
    training: Training,
    data: MultiLabelData,
    best: dict[str, Any],
    epoch: int,
    folder: str,
    share: dict[str, Any],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Evaluate an epoch on the held-out images, save it where it is the best so far.

    Without held-out images nothing is chosen: the last epoch is the one kept.

    Returns:
        The epoch's figures, and what is known of the best epoch: ``epoch, weights, metrics, rows`` and ``logits``, those of
        the held-out images in float16.
    """
    candidates: dict[str, Any] = {"raw": training.network}
    if training.ema is not None:
        candidates["ema"] = training.ema.module
    wanted: str = training.config.optim.report
    if not len(data.val):
        wanted = max(candidates, key="ema".__eq__) if wanted == "best" else wanted
        best = {"epoch": epoch, "weights": wanted, "metrics": {}, "rows": [], "logits": {}}
        _save(training, data, best, candidates[wanted], folder)
        return {}, best
    loader = build.loader(training.config, data.val, **share)
    scores = {
        name: evaluate(network, loader, training.device) for name, network in candidates.items()
    }
    results = {name: multilabel_metrics(*pair) for name, pair in scores.items()}
    if wanted == "best":
        wanted = max(candidates, key=lambda name: rank(results[name]["mAP"]))
    both = {f"val_mAP_{name}": float(result["mAP"]) for name, result in results.items()}
    figures = {"val_mAP": float(results[wanted]["mAP"]), **both}
    if not best or rank(figures["val_mAP"]) > rank(best["metrics"]["val_mAP"]):
        metrics, rows = tabulate(results[wanted], "val", data.labels)
        logits = {"val": half_logits(scores[wanted][0])}
        best = {
            "epoch": epoch,
            "weights": wanted,
            "metrics": {**metrics, **both},
            "rows": rows,
            "logits": logits,
        }
        _save(training, data, best, candidates[wanted], folder)
    return figures, best


def test(
    training: Training, data: MultiLabelData, folder: str, share: dict[str, Any]
) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, Tensor]]:
    """Figures of the selected weights on the test images, added to the checkpoint too; and their logits in float16.

    Where the boxes of objects are known, the same pass finds out how well the network's maps point at them.

    Raises:
        UserError: for a data set without test images.
    """
    if not len(data.test):
        raise UserError(f"{data.name} has no test images to evaluate.")
    uri = storage.join(folder, "best.pt")
    content = checkpoint.load_checkpoint(uri)
    training.network.load_state_dict(content["model"])
    loader = build.loader(training.config, data.test, **share)
    look = Localiser(data.boxes(data.test)) if data.boxes is not None else None
    scores_NL, targets_NL = evaluate(training.network, loader, training.device, look)
    figures = multilabel_metrics(scores_NL, targets_NL)
    if look is not None:
        figures |= look.means(len(data.labels), training.device)
    metrics, rows = tabulate(figures, "test", data.labels)
    if distributed.rank() == 0:
        kept = [row for row in content["rows"] if row["split"] != "test"]
        checkpoint.save_checkpoint(
            uri, {**content, "metrics": {**content["metrics"], **metrics}, "rows": kept + rows}
        )
    return metrics, rows, {"test": half_logits(scores_NL)}


def half_logits(scores_NL: NDArray[np.float64]) -> Tensor:
    """What the scores are the sigmoid of, in float16 and finite, as the predictions table has it."""
    with np.errstate(divide="ignore"):
        logits_NL = np.log(scores_NL) - np.log1p(-scores_NL)
    most = float(np.finfo(np.float16).max)
    return torch.from_numpy(logits_NL.clip(-most, most).astype(np.float16))


def save_last(
    training: Training, data: MultiLabelData, epoch: int, weights: str, folder: str
) -> None:
    """Save the weights after the last epoch as ``last.pt``, of the kind that was selected; nothing was chosen by them."""
    network = (
        training.ema.module if weights == "ema" and training.ema is not None else training.network
    )
    about = {"epoch": epoch, "weights": weights, "metrics": {}, "rows": []}
    _save(training, data, about, network, folder, "last.pt")


def tabulate(
    result: dict[str, Any], split: str, labels: tuple[str, ...]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Figures of a split as ``val_mAP`` and so on, and one row a label.

    Localisation is null where no image has a box of the label; its figures are means over the other labels.
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
        found = [row[name] for row in rows if not math.isnan(row[name])]
        if found:
            figures[f"{split}_{name}"] = sum(found) / len(found)
        for row in rows:
            row[name] = None if math.isnan(row[name]) else row[name]
    return figures, rows


def rank(value: float) -> float:
    """A figure to compare by: nan (no label of the split has a positive) is the worst."""
    return -math.inf if math.isnan(value) else value


def _save(
    training: Training,
    data: MultiLabelData,
    chosen: dict[str, Any],
    network: torch.nn.Module,
    folder: str,
    name: str = "best.pt",
) -> None:
    if distributed.rank() != 0:
        return
    about = {
        "config": training.config.json_text(),
        "stage": training.stage,
        "labels": list(data.labels),
        "dataset": data.name,
        "data_digest": data.digest,
        "threads": torch.get_num_threads(),
    }
    checkpoint.save_checkpoint(
        storage.join(folder, name), {**about, **chosen, "model": network.state_dict()}
    )
