"""mAP, precision, recall and F1 over COCO's 40,504 test images and 80 labels, beside the released way.

python experiments/benchmarks/metrics.py        # a minute

The released way writes a line of text for each image, its scores and its targets, reads the file again, and goes over images
and labels in loops of Python: each label's images sorted by score, precision after each, the envelope, the area; then hits,
predictions and positives for precision, recall and F1, of all labels above the threshold and of the three highest. It is
written here from that description. It computes the same figures as ours: checked first, and nothing is timed where they
differ. Scores have four digits, so that the text loses nothing and many are tied.

How to read it: times are of the processor, which others on the machine do not add to; a ratio is reference / ours, with its
range over the rounds, each of one run of the reference and several of ours. The limit is numpy's sort of each label's scores
and nothing else: no AP goes without the order.

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
from rows import Row, compared, show

from sadcl.console import console
from sadcl.metrics import multilabel_metrics

IMAGES, LABELS, CARDINALITY, GOAL = 40_504, 80, 2.9, 50
Scores = NDArray[np.float64]
Targets = NDArray[np.int8]


def drawn(images: int, labels: int) -> tuple[Scores, Targets]:
    """Scores (N, L) and targets (N, L) of a network that is neither blind nor perfect."""
    rng = np.random.default_rng(0)
    frequency_L = np.arange(1, labels + 1) ** -0.7  # long-tailed, as COCO's labels are
    targets_NL = (
        rng.random((images, labels)) < frequency_L * CARDINALITY / frequency_L.sum()
    ).astype(np.int8)
    logits_NL = rng.normal(size=targets_NL.shape) + 3.5 * targets_NL - 2.5
    return (1 / (1 + np.exp(-logits_NL))).round(4), targets_NL


def released(scores_NL: Scores, targets_NL: Targets, path: Path) -> dict[str, float]:
    """The figures by way of a file of text and loops."""
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
        area([scores[j] for scores, _ in table], [targets[j] for _, targets in table])
        for j in range(labels)
    ]
    there = [value for value in areas if not math.isnan(value)]
    return {
        "mAP": sum(there) / len(there),
        **counted(table, labels, ""),
        **counted(table, labels, "_top3"),
    }


def area(scores: list[float], targets: list[int]) -> float:
    """AP of a label, percent; of tied scores only the last counts."""
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


def counted(
    table: list[tuple[list[float], list[int]]], labels: int, suffix: str
) -> dict[str, float]:
    hits, predicted, positive = [0] * labels, [0] * labels, [0] * labels
    for scores, targets in table:
        among = range(labels)
        if suffix:
            among = sorted(among, key=lambda j: -scores[j])[:3]  # type: ignore[assignment]
        for j in among:
            if scores[j] > 0.5:
                predicted[j] += 1
                hits[j] += targets[j]
        for j in range(labels):
            positive[j] += targets[j]
    known = [j for j in range(labels) if positive[j]]
    CP = 100 * sum(hits[j] / max(predicted[j], 1) for j in known) / len(known)
    CR = 100 * sum(hits[j] / positive[j] for j in known) / len(known)
    F1 = 100 * sum(2 * hits[j] / (predicted[j] + positive[j]) for j in known) / len(known)
    OP, OR = 100 * sum(hits) / max(sum(predicted), 1), 100 * sum(hits) / sum(positive)
    figures = {"CP": CP, "CR": CR, "CF1": 2 * CP * CR / (CP + CR), "CF1_macro": F1}
    figures |= {"OP": OP, "OR": OR, "OF1": 2 * OP * OR / (OP + OR)}
    return {name + suffix: value for name, value in figures.items()}


def seconds(work: Callable[[], Any], runs: int = 1) -> float:
    began = time.process_time()
    for _ in range(runs):
        work()
    return (time.process_time() - began) / runs


def benchmark(quick: bool = False, repeats: int = 5) -> list[Row]:
    """The one row; ``quick`` is a check of the way on few images.

    Raises:
        ValueError: where both ways differ by 1e-9 percent or more.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    images, labels = (200, 12) if quick else (IMAGES, LABELS)
    scores_NL, targets_NL = drawn(images, labels)
    columns_LN = np.ascontiguousarray(scores_NL.T)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.txt"
        wanted, found = (
            released(scores_NL, targets_NL, path),
            multilabel_metrics(scores_NL, targets_NL),
        )
        apart = max(abs(found[name] - value) for name, value in wanted.items())
        console.print(
            f"{len(wanted)} figures differ by {apart:.1e} percent at most; mAP {wanted['mAP']:.2f}",
            highlight=False,
        )
        if not apart < 1e-9:
            raise ValueError(
                f"the reference must compute the same to 1e-9 percent, but differs by {apart}"
            )
        rounds = [
            (
                seconds(lambda: multilabel_metrics(scores_NL, targets_NL), 5),
                seconds(lambda: released(scores_NL, targets_NL, path)),
                seconds(lambda: np.sort(columns_LN, axis=1), 5),
            )
            for _ in range(1 if quick else repeats)
        ]
    ours, reference, limit = (
        [1e3 * each for each in column] for column in zip(*rounds, strict=True)
    )
    return [
        compared(
            f"mAP and F1, {images:,} x {labels}", "ms", ours, reference, limit=min(limit), goal=GOAL
        )
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="few images, to see that it runs")
    show(benchmark(**vars(parser.parse_args())))
