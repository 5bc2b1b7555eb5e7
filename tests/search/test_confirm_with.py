"""A search whose best settings are confirmed in another configuration."""

import json

import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.reports.search_summary import result_sentences, search_result
from sadcl.search import Float, Plan
from sadcl.search.plan_text import plan_lines

CHEAP = {"model.frozen": "all", "model.freeze_batchnorm": True}
REAL = {"model.frozen": (), "model.freeze_batchnorm": False}


def search(**changes):
    options = {
        "name": "s",
        "question": "?",
        "base": recipes.coco14().override(CHEAP),
        "demo": recipes.demo().override(CHEAP),
        "space": {"loss.tau": Float(0.05, 0.5)},
        "confirm_with": REAL,
        "confirm_top": 4,
    }
    return Search(**options | changes)


def plan(**changes):
    value = search(**changes)
    return Plan(value, "demo", value.demo, 8, "d1", "d2")


def test_the_confirmation_trains_with_it_and_the_search_does_not():
    p = plan()
    for trial in (*p.confirmations({"loss.tau": 0.1}), *p.controls()):
        assert (trial.config.model.frozen, trial.config.model.freeze_batchnorm) == ((), False)
        assert trial.stage1.config.model.frozen == ()
    for trial in (*p.baselines(), p.search_trial({"loss.tau": 0.1}), p.stage1(p.base)):
        assert trial.config.model.frozen == "all"
    (first, *_) = p.confirmations({"loss.tau": 0.1})
    assert (first.params, first.config.loss.tau) == ({"loss.tau": 0.1}, 0.1)
    assert "the best 4, with model.frozen = (), model.freeze_batchnorm = False, again over" in (
        " ".join(plan_lines(p))
    )


def test_the_final_run_is_of_what_was_confirmed():
    p = plan(confirm_top=1)
    known = {"status": "complete", "arm": "tuned", "val_mAP": 50.0, "params": '{"loss.tau": 0.1}'}
    searched = known | {"key": "t", "phase": "search", "stage1_key": "s", "epoch": 1}
    start = known | {"key": "s", "phase": "stage1", "epoch": 4, "weights": "raw"}
    runs = p.confirmations({"loss.tau": 0.1})
    confirming = [
        known
        | {"key": run.key, "phase": "confirm", "stage1_key": run.stage1.key}
        | {"seed": run.config.seed, "epoch": epoch, "weights": "ema"}
        for run, epoch in zip(runs, (4, 2, 3), strict=True)
    ]
    stages = [
        start | {"key": run.stage1.key, "epoch": epoch, "weights": "raw"}
        for run, epoch in zip(runs, (7, 8, 9), strict=True)
    ]
    rows = [searched, start, *stages, *confirming]
    final = p.final_of(rows)
    assert (final.config.model.frozen, final.config.loss.tau) == ((), 0.1)
    assert (final.config.seed, final.config.data.holdout) == (p.base.seed, 0)
    # The third one is in the middle by its epochs.
    assert (final.config.stage1.epochs, final.config.stage2.epochs) == (9, 3)
    assert (final.config.optim.report, final.stage1.config.optim.report) == ("ema", "raw")
    assert final.stage1.config.model.frozen == ()
    assert p.final_of(rows[:-1]) is None  # its epochs are not known yet
    assert p.early_stage1(start) is None
    failed = [run | {"status": "failed"} for run in confirming]
    without = p.final_of([searched | {"weights": "raw"}, start, *stages, *failed])
    assert (without.config.model.frozen, without.config.stage2.epochs) == ((), 1)
    assert without.config.stage1.epochs == 4
    one_left = p.final_of([searched, start, *stages, *failed[:2], confirming[2]])
    assert one_left.key == final.key
    lower = p.final_of([searched, start, *stages, *confirming[:2], failed[2]])
    assert (lower.config.stage1.epochs, lower.config.stage2.epochs) == (8, 2)
    equal = [run | {"epoch": 3} for run in confirming]
    assert p.final_of([searched, start, *stages, *equal[::-1]]).config.stage1.epochs == 8
    assert "one final run with the same changes" in " ".join(plan_lines(p))


def ended(p, value=50.0):
    """Rows of a whole search, without its confirmation, with settings that are confirmed."""
    start = p.stage1(p.base)
    known = {"status": "complete", "arm": "tuned", "val_mAP": value, "epoch": 1, "weights": "raw"}
    trials = [
        known
        | {"key": f"t{i}", "phase": "search", "stage1_key": start.key, "val_mAP": 50.0 - i}
        | {"params": f'{{"loss.tau": 0.{i + 1}}}'}
        for i in range(8)
    ]
    others = [(start, "stage1"), *((trial, trial.phase) for trial in p.baselines())]
    return [
        *(known | {"key": t.key, "phase": phase, "params": "{}"} for t, phase in others),
        *trials,
    ]


def rows_of_trials(trials, **more):
    known = {"status": "complete", "arm": "tuned", "val_mAP": 50.0, "epoch": 1, "weights": "raw"}
    return [
        known
        | {"key": run.key, "phase": run.phase, "seed": run.config.seed}
        | {"params": json.dumps(dict(run.params)), "epochs_done": run.epochs}
        | {"stage1_key": run.stage1 and run.stage1.key, **more}
        for run in trials
    ]


@pytest.mark.parametrize("top", [1, 2])
def test_what_is_still_to_run_when_the_search_is_over(top):
    p = plan(confirm_top=top)
    s1, s2 = p.base.stage1.epochs, p.base.stage2.epochs
    rows = ended(p)
    # Three seeds of stage 1, the control and each setting; then the final run and its stage 1.
    whole = (3 + 3 + 3 * top + 2, 3 * s1 + 3 * s2 + 3 * top * s2 + s1 + s2)
    assert p.remaining_work(rows) == whole
    assert p.confirmation_epochs(rows) == whole[1]
    assert not p.is_complete(rows)
    confirmations = [t for t in p.planned_trials(rows) if t.phase in ("confirm", "stage1")]
    last = rows_of_trials(p.confirmations({"loss.tau": 0.1})[:1])[0]
    most = [row for row in rows_of_trials(confirmations) if row["key"] != last["key"]]
    assert p.remaining_work([*rows, *most]) == (1 + 2, last["epochs_done"] + s1 + s2)
    assert p.confirmation_epochs([*rows, *most]) == last["epochs_done"] + s1 + s2
    # The final run and its stage 1 train for one epoch each, as the confirming runs say.
    assert p.remaining_work([*rows, *most, last]) == (2, 2)
    assert p.confirmation_epochs([*rows, *most, last]) == 2
    everything = [*rows, *most, last]
    final = [t for t in p.planned_trials(everything) if t.key not in {r["key"] for r in everything}]
    assert {trial.phase for trial in final} == {"stage1", "final"}
    assert p.confirmation_epochs([*everything, *rows_of_trials(final)]) == 0
    assert p.is_complete([*everything, *rows_of_trials(final)])


def test_epochs_of_it_are_counted():
    p = plan(confirm_with=REAL | {"stage2.epochs": 50}, confirm_top=1)
    s1 = p.base.stage1.epochs
    assert p.confirmation_epochs([]) == 3 * (s1 + 50 + 50) + s1 + 50
    assert p.remaining_work(ended(p))[1] == 3 * (s1 + 50 + 50) + s1 + 50
    alone = plan(confirm_with=REAL | {"stage2.epochs": 0}, confirm_top=1)
    assert alone.confirmation_epochs([]) == 3 * (s1 + s1) + s1


def test_it_is_recorded_and_makes_another_study():
    assert plan().identity()["confirm_with"] == REAL
    assert "confirm_with" not in plan(confirm_with={}).identity()


def test_epochs_of_the_confirmation():
    p = plan()
    stages = p.base.stage1.epochs, p.base.stage2.epochs
    whole = 3 * (5 * stages[1] + stages[0]) + stages[1] + stages[0]
    assert p.confirmation_epochs([]) == whole
    (done,) = rows_of_trials(p.controls()[:1])
    assert p.confirmation_epochs([done]) == whole - stages[1]
    assert p.confirmation_epochs([done | {"status": "running"}]) == whole


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confirm_with": {"loss.tau": 0.1}}, "must not set loss.tau, which is what the search"),
        ({"confirm_with": {"seed": 1}}, "seed, which belongs to confirm_seeds"),
        ({"confirm_with": {"data.holdout": 0.2}}, "data.holdout, which decides"),
        ({"confirm_with": {"model.frozn": ()}}, "confirm_with: .*Did you mean 'model.frozen'"),
        ({"confirm_with": {"optim.backbone_lr": 0.1}}, "'all' and optim.backbone_lr = 0.1 cannot"),
        ({"confirm_seeds": ()}, "confirm_with needs confirm_seeds"),
        ({"confirm_with": "everything"}, "must be a mapping .* such as .*, but got 'everything'"),
    ],
)
def test_what_is_not_possible_is_said(changes, words):
    with pytest.raises(UserError, match=words):
        search(**changes)


def rows(figures):
    """Trials with their figure of the search, and over two seeds of the confirmation."""
    shared = {"status": "complete", "scale": "demo", "arm": "tuned", "stage1_key": None}
    shared |= {"test_mAP": None, "seed": 0, "cause": None}
    for i, (cheap, *real) in enumerate(figures):
        params = f'{{"loss.tau": 0.{i + 1}}}'
        yield {**shared, "key": f"t{i}", "phase": "search", "params": params, "val_mAP": cheap}
        for seed, figure in zip((1001, 1002), real, strict=True):
            row = {"key": f"c{i}-{seed}", "phase": "confirm", "params": params, "seed": seed}
            yield {**shared, **row, "val_mAP": figure}


def test_the_end_says_how_well_the_cheap_ranking_predicted():
    found = [(50, 60, 61), (49, 62, 63), (48, 58, 59), (47, 50, 52), (40, 99, 99)]
    result = search_result(list(rows(found)), search())
    assert (result.agreement.settings, result.agreement.correlation) == (4, pytest.approx(0.8))
    assert any("over the best 4 settings: Spearman's correlation 0.80" in line
               for line in result_sentences(result))  # fmt: skip
    few = search_result(list(rows(found[:1])), search(confirm_top=1))
    assert any("1 setting was confirmed" in line for line in result_sentences(few))
    assert search_result(list(rows(found)), search(confirm_with={})).agreement is None
