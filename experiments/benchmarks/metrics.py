"""mAP, precision, recall and F1 of COCO's 40,504 test images, against the released way.

python experiments/benchmarks/metrics.py    # a minute

The released way writes a line of text for each image, with its scores and its targets, reads the
file again, and goes over images and labels in loops of Python. For each label, it sorts the images
by score, and computes the precision after each, the envelope and the area; then it counts hits,
predictions and positives for precision, recall and F1, for all labels above the threshold and for
the three highest. It is written here from that description. It computes the same figures as ours.
This is checked first, and nothing is timed if they differ. Scores have four digits, so that the
text loses nothing and many scores are tied.

How to read it: times are processor times, to which other processes do not add. A ratio is reference
/ ours, with its range over the rounds, each of one run of the reference and several of ours. The
limit is numpy's sort of each label's scores alone: no AP can be computed without the order.

Axes: N images, L labels.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import Row, compare, print_rows

from sadcl.console import console
from sadcl.metrics import multilabel_metrics

IMAGES, LABELS, CARDINALITY, GOAL = 40_504, 80, 2.9, 50
Scores = NDArray[np.float64]
Targets = NDArray[np.int8]


def draw_scores(images: int, labels: int) -> tuple[Scores, Targets]:
    """Draw scores (N, L) and targets (N, L) as of a network that is neither blind nor perfect."""
    rng = np.random.default_rng(0)
    frequency_L = np.arange(1, labels + 1) ** -0.7  # long-tailed, as COCO's labels are
    targets_NL = (
        rng.random((images, labels)) < frequency_L * CARDINALITY / frequency_L.sum()
    ).astype(np.int8)
    logits_NL = rng.normal(size=targets_NL.shape) + 3.5 * targets_NL - 2.5
    return (1 / (1 + np.exp(-logits_NL))).round(4), targets_NL


def released_metrics(scores_NL: Scores, targets_NL: Targets, path: Path) -> dict[str, float]:
    """Compute the figures through a text file and loops."""
    with open(path, "w") as file:
        for image, (scores, targets) in enumerate(zip(scores_NL, targets_NL, strict=True)):
            words = [
                f"{image}",
                *(f"{score:.4f}" for score in scores),
                *(f"{target}" for target in targets),
            ]
            file.write(" ".join(words) + "\n")
    table, labels = [], scores_NL.shape[1]
    with open(path) as file:
        for line in file:
            words = line.split()
            table.append(
                ([float(w) for w in words[1 : 1 + labels]], [int(w) for w in words[1 + labels :]])
            )
    areas = [
        average_precision([scores[j] for scores, _ in table], [targets[j] for _, targets in table])
        for j in range(labels)
    ]
    defined = [value for value in areas if not math.isnan(value)]
    return {
        "mAP": sum(defined) / len(defined),
        **precision_recall(table, labels, ""),
        **precision_recall(table, labels, "_top3"),
    }


def average_precision(scores: list[float], targets: list[int]) -> float:
    """Return the AP of a label in percent; only the last of tied scores counts."""
    total, hits = sum(targets), 0
    if not total:
        return math.nan
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    recalls, precisions = [0.0], [0.0]
    for rank, i in enumerate(order, 1):
        hits += targets[i]
        if rank == len(order) or scores[order[rank]] != scores[i]:
            recalls.append(hits / total)
            precisions.append(hits / rank)
    for i in range(len(precisions) - 2, -1, -1):
        precisions[i] = max(precisions[i], precisions[i + 1])
    return 100 * sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in range(1, len(recalls)))


def precision_recall(
    table: list[tuple[list[float], list[int]]], labels: int, suffix: str
) -> dict[str, float]:
    """Return precision, recall and F1 in percent.

    Args:
        table: scores and targets of each image.
        labels: their number.
        suffix: of the names; one that is not empty counts only the three highest scores of an
            image.
    """
    hits, predicted, positive = [0] * labels, [0] * labels, [0] * labels
    for scores, targets in table:
        candidates = range(labels)
        if suffix:
            candidates = sorted(candidates, key=lambda j: -scores[j])[:3]  # type: ignore[assignment]
        for j in candidates:
            if scores[j] > 0.5:
                predicted[j] += 1
                hits[j] += targets[j]
        for j in range(labels):
            positive[j] += targets[j]
    occurring = [j for j in range(labels) if positive[j]]
    CP = 100 * sum(hits[j] / max(predicted[j], 1) for j in occurring) / len(occurring)
    CR = 100 * sum(hits[j] / positive[j] for j in occurring) / len(occurring)
    F1 = 100 * sum(2 * hits[j] / (predicted[j] + positive[j]) for j in occurring) / len(occurring)
    OP, OR = 100 * sum(hits) / max(sum(predicted), 1), 100 * sum(hits) / sum(positive)
    figures = {"CP": CP, "CR": CR, "CF1": 2 * CP * CR / (CP + CR), "CF1_macro": F1}
    figures |= {"OP": OP, "OR": OR, "OF1": 2 * OP * OR / (OP + OR)}
    return {name + suffix: value for name, value in figures.items()}


def process_seconds(work: Callable[[], Any], runs: int = 1) -> float:
    """Measure the processor seconds of one run of ``work``."""
    start = time.process_time()
    for _ in range(runs):
        work()
    return (time.process_time() - start) / runs


def benchmark(quick: bool = False, repeats: int = 5) -> list[Row]:
    """Return the one row of this benchmark.

    Args:
        quick: use few images and one round, to see that it runs.
        repeats: timed rounds.

    Raises:
        ValueError: for fewer than one round, or if both ways differ by 1e-9 percent or more.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    images, labels = (200, 12) if quick else (IMAGES, LABELS)
    scores_NL, targets_NL = draw_scores(images, labels)
    columns_LN = np.ascontiguousarray(scores_NL.T)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.txt"
        expected = released_metrics(scores_NL, targets_NL, path)
        metrics = multilabel_metrics(scores_NL, targets_NL)
        difference = max(abs(metrics[name] - value) for name, value in expected.items())
        console.print(
            f"{len(expected)} figures differ by at most {difference:.1e} percent; "
            f"mAP {expected['mAP']:.2f}",
            highlight=False,
        )
        if not difference < 1e-9:
            raise ValueError(f"the reference must agree to 1e-9 %, but differs by {difference}")
        rounds = [
            (
                process_seconds(lambda: multilabel_metrics(scores_NL, targets_NL), 5),
                process_seconds(lambda: released_metrics(scores_NL, targets_NL, path)),
                process_seconds(lambda: np.sort(columns_LN, axis=1), 5),
            )
            for _ in range(1 if quick else repeats)
        ]
    ours, reference, limit = (
        [1e3 * each for each in column] for column in zip(*rounds, strict=True)
    )
    name = f"mAP and F1, {images:,} x {labels}"
    return [compare(name, "ms", ours, reference, limit=min(limit), goal=GOAL)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="use few images, to see that it runs")
    print_rows(benchmark(**vars(parser.parse_args())))
