"""Studies as values: what cannot be is refused at once; keys are what a trial is; who starts from which stage 1."""

import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.search import Choice, Float, Int, Plan
from sadcl.search.ranking import best_trials, winning_trial

SPACE = {"loss.tau": Float(0.05, 0.5, log=True), "bank.epsilon": Float(0.3, 0.7)}


def search(**changes):
    options = {
        "name": "s",
        "question": "?",
        "base": recipes.coco14(),
        "demo": recipes.demo(),
        "space": SPACE,
    }
    return Search(**options | changes)


def plan(scale="demo", **changes):
    value = search(**changes)
    return Plan(value, scale, value.config(scale), 8, "d1", "d2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(3, 1), r"low < high must hold, but got low=3, high=1"),
        (lambda: Float(0, 1, log=True), r"low > 0, but got low=0"),
        (lambda: Float(0, float("inf")), r"low < high"),
        (lambda: Int(1, 2.5), r"whole bounds, but got low=1, high=2.5"),
        (lambda: Choice("a"), r"two different values"),
        (lambda: Choice(1, 1), r"two different values"),
        (lambda: search(space={}), r"space is empty"),
        (
            lambda: search(space={"loss.tua": Float(0.1, 1)}),
            r"no configuration field 'loss.tua'. Did you mean 'loss.tau'",
        ),
        (
            lambda: search(space={"loss.tau": Float(-1, 1)}),
            r"loss.tau = -1 is not possible: .* greater than or equal to 0.005",
        ),
        (lambda: search(space={"bank.policy": Choice("slot", "lifo")}), r"bank.policy = 'lifo'"),
        (lambda: search(baselines={"x": {"model.arhc": "pooled"}}), r"model.arch"),
        (
            lambda: search(baselines={"warm": {"model.start": "x.pt"}}),
            r"model.start belongs to the base",
        ),
        (lambda: search(name="a/b"), r"must be a file name"),
        (lambda: search(confirm_seeds=(0, 1)), r"must not hold the search's own seed 0"),
        (lambda: search(confirm_seeds=(1, 1)), r"differ"),
        (lambda: search(confirm_top=9), r"confirm_top=9"),
        (
            lambda: search(demo=recipes.demo().override({"data.holdout": 0.0})),
            r"data.holdout must be above 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_key_is_what_the_trial_is():
    p = plan()
    one, same, other = (p.try_out({"loss.tau": v, "bank.epsilon": 0.5}) for v in (0.1, 0.1, 0.2))
    assert one.key == same.key != other.key
    assert one.key.startswith("s-demo-tuned-s0-")
    assert plan(name="t").try_out({"loss.tau": 0.1}).key.startswith("t-demo-tuned-s0-")
    keys = [t.key for t in (*p.baselines(), *p.controls(), *p.confirm({"loss.tau": 0.1}), one)]
    assert len(set(keys)) == len(keys) == 2 + 2 + 2 + 1


def test_settings_of_stage_2_share_one_stage_1_and_the_rest_have_their_own():
    p = plan()
    shared = p.stage1(p.base).key
    assert p.try_out({"loss.tau": 0.1}).stage1.key == shared
    control = next(t for t in p.baselines() if t.arm == "stage2")
    assert control.stage1.key == shared
    assert p.try_out({"stage1.lr": 0.1}).stage1.key != shared
    assert p.try_out({"model.dropout": 0.1}).stage1.key != shared
    seeds = {t.stage1.key for t in p.confirm({})}
    assert len(seeds) == 2
    assert shared not in seeds
    assert [t.stage1.key for t in p.controls()] == [
        t.stage1.key for t in p.confirm({"loss.tau": 0.3})
    ]
    assert Plan(p.search, "demo", p.base, 8, "other data", "d2").stage1(p.base).key != shared


def test_the_baseline_trains_as_long_as_both_stages():
    baseline = next(t for t in plan("full").baselines() if t.arm == "baseline")
    assert baseline.stage1 is None
    assert baseline.epochs == 40
    assert baseline.config.stage1.planned_epochs == 160
    assert baseline.config.stage2.epochs == 0


def test_the_final_run_takes_epochs_and_weights_from_the_runs_that_chose_them():
    p = plan("full")
    final = p.final(
        {"loss.tau": 0.1}, {"epoch": 11, "weights": "ema"}, {"epoch": 7, "weights": "raw"}
    )
    assert final.config.data.holdout == 0
    assert (final.config.stage1.epochs, final.config.stage2.epochs) == (11, 7)
    assert (final.config.stage1.planned_epochs, final.config.stage2.planned_epochs) == (80, 80)
    assert final.config.stage1.patience is final.config.stage2.patience is None
    assert final.config.loss.tau == 0.1
    assert (final.config.optim.report, final.stage1.config.optim.report) == ("raw", "ema")
    assert final.stage1.key.endswith("-d2")  # of the data with nothing held out
    assert p.early_stage1({"epoch": 11, "weights": "ema"}).key == final.stage1.key
    longer = p.final(
        {"stage2.planned_epochs": 90},
        {"epoch": 11, "weights": "ema"},
        {"epoch": 7, "weights": "raw"},
    )
    assert longer.config.stage2.planned_epochs == 90
    assert (
        plan("full", space={"stage1.lr": Float(1e-5, 1e-4)}).early_stage1(
            {"epoch": 11, "weights": "ema"}
        )
        is None
    )


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


def test_epochs_left_is_what_the_plan_trains():
    p = plan()
    s1, s2 = p.base.stage1.epochs, p.base.stage2.epochs
    # stage 1: search, two seeds, final; baseline; control three times; trials; confirmations; final
    everything = 4 * s1 + (s1 + s2) + 3 * s2 + 8 * s2 + 2 * s2 + s2
    assert p.left([]) == (4 + 1 + 3 + 8 + 2 + 1, everything)
    start = p.stage1(p.base).key
    done = [
        row(start, 60.0, "stage1", epoch=9, weights="ema"),
        row(p.baselines()[1].key, 61.0, "baseline", arm="stage2"),
    ]
    tried = [
        row(
            f"t{i}",
            60.0 + i,
            stage1_key=start,
            epoch=2,
            weights="raw",
            params=f'{{"loss.tau": 0.{i + 1}}}',
        )
        for i in range(8)
    ]
    assert p.left([*done, *tried[:3]])[1] == everything - s1 - s2 - 3 * s2
    # the search is over: its best is confirmed twice, and the final run stops where the held-out images said
    rest = everything - s1 - s2 - 8 * s2 - (s1 - 9) - (s2 - 2)
    assert p.left([*done, *tried])[1] == rest
    assert not p.answered([*done, *tried])
    every = [
        row(t.key, 50.0, t.phase, arm=t.arm, seed=t.config.seed, params='{"loss.tau": 0.8}')
        for t in p.decided([*done, *tried])
    ]
    rows = [*done, *tried, *(r for r in every if r["key"] not in {d["key"] for d in done})]
    assert p.left(rows) == (0, 0)
    assert p.answered(rows)
    baseline = [
        {**r, "status": status} if r["phase"] == "baseline" else r
        for status in ("failed", "running")
        for r in rows
    ]
    assert p.answered(baseline[: len(rows)])
    assert not p.answered(baseline[len(rows) :])


def test_a_study_of_stage2_alone_has_no_stage1_and_is_another_with_another_checkpoint():
    start = {"stage1.epochs": 0, "model.start": "best.pt"}
    value = search(demo=recipes.demo().override(start))
    one, other = (
        Plan(value, "demo", value.config("demo"), 1, "d1", "d2", digest) for digest in ("a", "b")
    )
    assert one.identity() != other.identity()
    assert "stage 2 from model.start" in " ".join(one.lines())
    trial = one.try_out({"loss.tau": 0.1})
    assert trial.stage1 is None
    assert trial.epochs == 4
    pooled, control = one.baselines()
    assert (pooled.config.stage1.epochs, pooled.stage1, control.stage1) == (4, None, None)
    assert one.early_stage1(None) is None
    row = {
        "key": trial.key,
        "phase": "search",
        "arm": "tuned",
        "status": "complete",
        "params": "{}",
        "stage1_key": None,
    }
    rows = [{**row, "val_mAP": 50.0, "epoch": 3, "weights": "raw"}]
    final = one.final_of(rows)
    assert (final.stage1, final.config.stage1.epochs, final.config.stage2.epochs) == (None, 0, 3)
    assert {t.phase for t in one.decided(rows)} == {"baseline", "confirm", "final"}
    both = Plan(
        search(), "demo", recipes.demo().override({"model.start": "best.pt"}), 1, "d1", "d2", "a"
    )
    assert both.stage1(both.base).key.endswith("-d1-a")
