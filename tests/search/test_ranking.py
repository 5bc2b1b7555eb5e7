"""The best trials: the held-out images and the confirmed means choose."""

from sadcl.search.ranking import best_trials, objective, pareto_front, winning_trial


def row(key, value, phase="search", params="{}", **more):
    known = {
        "key": key,
        "phase": phase,
        "arm": "tuned",
        "status": "complete",
        "val_mAP": value,
        "params": params,
    }
    return known | more


def test_the_confirmed_mean_chooses_and_not_the_lucky_seed():
    trials = [
        row("a", 70.0, params='{"x": 1}'),
        row("b", 69.0, params='{"x": 2}'),
        row("c", 68.0, params='{"x": 3}'),
    ]
    assert [r["key"] for r in best_trials(trials, 2)] == ["a", "b"]
    assert winning_trial(trials, 2, (7, 8))["key"] == "a"
    again = [
        row(f"{x}{s}", v, "confirm", f'{{"x": {x}}}', seed=s)
        for x, s, v in ((1, 7, 60), (1, 8, 61), (2, 7, 63), (2, 8, 59), (3, 7, 99))
    ]
    assert winning_trial([*trials, *again], 2, (7, 8))["key"] == "b"
    assert winning_trial([*trials, *again], 1, (7, 8))["key"] == "a"
    assert winning_trial([], 1, (7, 8)) is None
    lucky = [
        r for r in again if r["key"] != "17"
    ]  # seed 7 of the first failed: on seed 8, which both have, it is better
    assert winning_trial([*trials, *lucky], 2, (7, 8))["key"] == "a"
    assert (
        winning_trial(
            [*trials, *again[1:4], row("18", 66, "confirm", '{"x": 1}', seed=9)], 2, (7, 8)
        )["key"]
        == "a"
    )
    harder = [
        row("28", 62, "confirm", '{"x": 2}', seed=8),
        row("18", 61, "confirm", '{"x": 1}', seed=8),
    ]
    easier = [row("17", 99, "confirm", '{"x": 1}', seed=7)]
    assert (
        winning_trial([*trials, *harder, *easier], 2, (7, 8))["key"] == "b"
    )  # not by seeds that only one has
    assert (
        winning_trial([*trials, harder[0]], 2, (7, 8))["key"] == "b"
    )  # and not one of which nothing was confirmed
    assert best_trials([row("d", None), row("e", 1.0, status="failed")], 5) == []


def test_the_front_has_what_no_other_trial_beats():
    costs = {
        "a": (70.0, 9.0),
        "b": (69.0, 5.0),
        "c": (68.0, 6.0),
        "d": (69.0, 5.0),
        "e": (60.0, 1.0),
    }
    rows = [row(key, value, seconds=seconds) for key, (value, seconds) in costs.items()]
    rows.append(row("f", 99.0, seconds=1.0, status="pruned"))
    front = pareto_front(rows, ("val_mAP", "seconds"))
    assert [r["key"] for r in front] == ["a", "b", "d", "e"]
    assert [r["key"] for r in pareto_front(rows, ("val_mAP",))] == ["a"]


def test_the_front_can_have_a_metric_of_ones_own_and_its_direction():
    trials = [
        row("a", 70.0, val_one_error=9.0),
        row("b", 69.0, val_one_error=5.0),
        row("c", 68.0, val_one_error=8.0),
        row("d", 67.0, val_one_error=float("nan")),
        row("e", 66.0),
    ]
    assert objective("-val_one_error") == ("val_one_error", "min")
    assert objective("val_one_error") == ("val_one_error", "max")
    assert objective("seconds") == ("seconds", "min")
    less = pareto_front(trials, ("val_mAP", "-val_one_error"))
    assert [r["key"] for r in less] == ["a", "b"]
    assert [r["key"] for r in pareto_front(trials, ("val_mAP", "val_one_error"))] == ["a"]
