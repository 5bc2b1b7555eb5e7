"""The plan of a search: keys, shared stages, budgets, and what is left to run."""

import json

from sadcl import Search, recipes
from sadcl.search import Choice, Float, Plan, When, contrast_space
from sadcl.search.plan_text import plan_lines

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


def test_a_key_is_what_the_trial_is():
    p = plan()
    one, same, other = (
        p.search_trial({"loss.tau": v, "bank.epsilon": 0.5}) for v in (0.1, 0.1, 0.2)
    )
    assert one.key == same.key != other.key
    assert one.key.startswith("s-demo-tuned-s0-")
    assert plan(name="t").search_trial({"loss.tau": 0.1}).key.startswith("t-demo-tuned-s0-")
    keys = [
        t.key for t in (*p.baselines(), *p.controls(), *p.confirmations({"loss.tau": 0.1}), one)
    ]
    assert len(set(keys)) == len(keys) == 2 + 3 + 3 + 1


def test_settings_of_stage_2_share_one_stage_1_and_the_rest_have_their_own():
    p = plan()
    shared = p.stage1(p.base).key
    assert p.search_trial({"loss.tau": 0.1}).stage1.key == shared
    control = next(t for t in p.baselines() if t.arm == "stage2")
    assert control.stage1.key == shared
    assert p.search_trial({"stage1.lr": 0.1}).stage1.key != shared
    assert p.search_trial({"model.dropout": 0.1}).stage1.key != shared
    seeds = {t.stage1.key for t in p.confirmations({})}
    assert len(seeds) == 3
    assert shared not in seeds
    assert [t.stage1.key for t in p.controls()] == [
        t.stage1.key for t in p.confirmations({"loss.tau": 0.3})
    ]
    assert Plan(p.search, "demo", p.base, 8, "other data", "d2").stage1(p.base).key != shared


def test_the_baseline_trains_as_long_as_both_stages():
    baseline = next(t for t in plan("full").baselines() if t.arm == "baseline")
    assert baseline.stage1 is None
    assert baseline.epochs == 160
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


def test_epochs_left_is_what_the_plan_trains():
    p = plan()
    s1, s2 = p.base.stage1.epochs, p.base.stage2.epochs
    # stage 1: search, three seeds, final; baseline; control four times; trials; confirmations;
    # final
    everything = 5 * s1 + (s1 + s2) + 4 * s2 + 8 * s2 + 3 * s2 + s2
    assert p.remaining_work([]) == (5 + 1 + 4 + 8 + 3 + 1, everything)
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
    assert p.remaining_work([*done, *tried[:3]])[1] == everything - s1 - s2 - 3 * s2
    # The search is over: its best is confirmed three times, and the final run stops where the
    # held-out images said.
    rest = everything - s1 - s2 - 8 * s2 - (s1 - 9) - (s2 - 2)
    assert p.remaining_work([*done, *tried])[1] == rest
    assert not p.is_complete([*done, *tried])
    every = [
        row(t.key, 50.0, t.phase, arm=t.arm, seed=t.config.seed, params='{"loss.tau": 0.8}')
        for t in p.planned_trials([*done, *tried])
    ]
    rows = [*done, *tried, *(r for r in every if r["key"] not in {d["key"] for d in done})]
    assert p.remaining_work(rows) == (0, 0)
    assert p.is_complete(rows)
    baseline = [
        {**r, "status": status} if r["phase"] == "baseline" else r
        for status in ("failed", "running")
        for r in rows
    ]
    assert p.is_complete(baseline[: len(rows)])
    assert not p.is_complete(baseline[len(rows) :])


def test_a_study_of_stage2_alone_has_no_stage1_and_is_another_with_another_checkpoint():
    start = {"stage1.epochs": 0, "model.start": "best.pt"}
    value = search(demo=recipes.demo().override(start))
    one, other = (
        Plan(value, "demo", value.config("demo"), 1, "d1", "d2", digest) for digest in ("a", "b")
    )
    assert one.identity() != other.identity()
    assert "stage 2 from model.start" in " ".join(plan_lines(one))
    trial = one.search_trial({"loss.tau": 0.1})
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
    assert {t.phase for t in one.planned_trials(rows)} == {"baseline", "confirm", "final"}
    both = Plan(
        search(), "demo", recipes.demo().override({"model.start": "best.pt"}), 1, "d1", "d2", "a"
    )
    assert both.stage1(both.base).key.endswith("-d1-a")


def test_settings_to_try_first():
    space = contrast_space(recipes.demo(), epsilon=(0.3, 0.7))
    value = search(space=contrast_space(recipes.coco14()), demo_space=space)
    plan = Plan(value, "demo", value.demo, 8, "d1", "d2")
    (recipe,) = plan.first_settings([])
    assert (
        recipe["prototypes.epsilon"] == recipe["bank.epsilon"] == 0.5
    )  # the recipe has one threshold for both
    assert plan.first_settings([{"phase": "search", "params": json.dumps(recipe)}]) == []
    alone = search(recipe_first=False, start_with=({"loss.tau": 0.1},))
    assert Plan(alone, "full", alone.base, 8, "d1", "d2").first_settings([]) == [{"loss.tau": 0.1}]
    outside = search(space={"loss.tau": Float(0.3, 0.5)})  # does not hold the recipe's 0.2
    assert Plan(outside, "full", outside.base, 8, "d1", "d2").first_settings([]) == []


def test_a_budget_of_epochs_or_hours_ends_the_search():
    def trial(status, epochs=4, seconds=1800.0):
        return {
            "key": f"{status}{epochs}",
            "phase": "search",
            "status": status,
            "epochs_done": epochs,
            "seconds": seconds,
        }

    def plan(**budget):
        value = search(**budget)
        return Plan(value, "full", value.base, 10, "d1", "d2")

    ended = [trial("complete"), trial("pruned"), trial("failed")]
    assert plan().remaining_trials(ended) == 7  # a failed trial was tried too
    assert plan(max_epochs=12).remaining_trials(ended) == 0
    assert plan(max_epochs=13).remaining_trials(ended) == 7
    assert plan(max_hours=1.5).remaining_trials(ended) == 0
    assert plan(max_hours=1.6).remaining_trials(ended) == 7
    assert (
        plan(max_epochs=12).remaining_trials([*ended, trial("running", None, None)]) == 1
    )  # what was begun ends


def test_what_another_study_has_found_is_tried_after_the_recipe_in_a_demo_space_too():
    value = search(
        space=contrast_space(recipes.coco14()), demo_space={"loss.tau": Float(0.05, 0.5)}
    )
    plan = Plan(value, "demo", value.demo, 8, "d1", "d2", warm_start=({"loss.tau": 0.07},))
    assert plan.first_settings([]) == [{"loss.tau": 0.2}, {"loss.tau": 0.07}]
    assert plan.first_settings(
        [{"phase": "search", "params": '{"bank.epsilon": 0.4, "loss.tau": 0.07}'}]
    ) == [{"loss.tau": 0.2}]


def test_a_condition_may_hold_away_from_the_base_only():
    """The stage 1 of the final run is certain early if no setting of the space changes it."""
    demo = recipes.demo().override({"bank.policy": "fifo", "bank.size": 8})
    space = {
        "bank.policy": Choice("slot", "fifo"),
        "loss.anchor_mask": When("bank.policy", "slot", Choice("activated", "released")),
    }
    value = search(base=demo, demo=demo, space=space)
    plan = Plan(value, "demo", demo, 8, "d1", "d2")
    assert plan.early_stage1({"epoch": 3, "weights": "raw"}) is not None
