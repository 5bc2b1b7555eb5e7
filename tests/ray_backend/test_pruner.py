"""Early stopping, compared with the rules written out."""

from __future__ import annotations

import random

import pytest

from sadcl.ray_backend.pruner import Pruner
from sadcl.search import ASHA, Median


def asha(values, rungs, reduction):
    """At which epoch trials stop that come one after the other.

    At a rung the best 1/reduction of those so far continue.
    """
    seen = {rung: [] for rung in rungs}
    stopped = {}
    for name, curve in values.items():
        for epoch, value in enumerate(curve, 1):
            if epoch in seen:
                seen[epoch].append(value)
                keep = max(len(seen[epoch]) // reduction, 1)
                if value < sorted(seen[epoch], reverse=True)[keep - 1]:
                    stopped[name] = epoch
                    break
    return stopped


@pytest.mark.parametrize("reduction", [2, 3])
def test_asha_keeps_the_best_part_of_each_rung(reduction):
    random.seed(1)
    values = {f"t{i}": [random.random() for _ in range(9)] for i in range(30)}
    pruner, stopped = Pruner(ASHA(1, reduction), []), {}
    for name, curve in values.items():
        for epoch, value in enumerate(curve, 1):
            if pruner.stop_reason(name, epoch, value):
                stopped[name] = epoch
                pruner.end(name, "pruned")
                break
        else:
            pruner.end(name, "complete")
    rungs = [reduction**k for k in range(4) if reduction**k <= 9]
    assert stopped == asha(values, rungs, reduction)
    assert 10 < len(stopped) < 30


def test_the_median_of_complete_trials_stops_what_is_below_it():
    pruner = Pruner(
        Median(min_epochs=2, min_trials=3),
        [(f"t{i}", "complete", {1: 10.0, 2: 20.0 + i}) for i in range(3)],
    )
    assert pruner.stop_reason("low", 1, 0.0) is None  # before min_epochs
    assert pruner.stop_reason(
        "low", 2, 20.5
    ) == "stopped after epoch 2 at 20.50 held-out mAP: " + str(Median(2, 3))
    assert pruner.stop_reason("high", 2, 21.5) is None
    few = Pruner(
        Median(min_trials=3),
        [("t0", "complete", {1: 50.0}), ("t1", "pruned", {1: 50.0}), ("t2", "failed", {})],
    )
    assert few.stop_reason("low", 1, 0.0) is None


def test_former_trials_count_and_an_epoch_reported_twice_counts_once():
    history = [("a", "complete", {1: 50.0, 2: 60.0}), ("b", "running", {1: 40.0})]
    pruner = Pruner(ASHA(1, 2), history)
    assert pruner.stop_reason("c", 1, 30.0)
    again = pruner.stop_reason("b", 1, 40.0)
    assert again
    assert len(pruner.study.trials) == 3
    pruner.end("b", "pruned")
    pruner.end("b", "pruned")
    pruner.end("unknown", "complete")
    assert pruner.stop_reason("d", 1, 55.0) is None
