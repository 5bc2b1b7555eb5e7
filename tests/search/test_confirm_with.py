"""A search whose best settings are confirmed in another configuration."""

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
    own = p.final_of([searched | {"weights": "raw"}, start, *stages, *failed])
    assert (own.config.model.frozen, own.config.stage2.epochs) == ("all", 1)
    one_left = p.final_of([searched, start, *stages, *failed[:2], confirming[2]])
    assert one_left.key == final.key
    assert "one final run like these" in " ".join(plan_lines(p))


def test_it_is_recorded_and_makes_another_study():
    assert plan().identity()["confirm_with"] == REAL
    assert "confirm_with" not in plan(confirm_with={}).identity()


def test_epochs_of_the_confirmation():
    p = plan()
    stages = p.base.stage1.epochs, p.base.stage2.epochs
    whole = 3 * (5 * stages[1] + stages[0]) + stages[1] + stages[0]
    assert p.confirmation_epochs([]) == whole
    row = {"phase": "confirm", "status": "complete", "epochs_done": stages[1]}
    assert p.confirmation_epochs([row]) == whole - stages[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confirm_with": {"loss.tau": 0.1}}, "must not set loss.tau, which is what the search"),
        ({"confirm_with": {"seed": 1}}, "seed, which belongs to confirm_seeds"),
        ({"confirm_with": {"data.holdout": 0.2}}, "data.holdout, which decides"),
        ({"confirm_with": {"model.frozn": ()}}, "confirm_with: .*Did you mean 'model.frozen'"),
        ({"confirm_with": {"optim.backbone_lr": 0.1}}, "'all' and optim.backbone_lr = 0.1 cannot"),
        ({"confirm_seeds": ()}, "confirm_with needs confirm_seeds"),
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
