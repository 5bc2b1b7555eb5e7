"""The loop on real files: both stages, resume to the bit, the checkpoint reproduces its figure."""

from functools import cache

import pytest
import torch

from sadcl import inference, recipes
from sadcl.data.load import load
from sadcl.errors import UserError
from sadcl.training import Callbacks, Diverged, checkpoint, engine, fit, loop
from tests.conftest import soaked

TINY = {
    "data.scene_train": 60,
    "data.scene_test": 24,
    "data.image_size": 32,
    "data.holdout": 0.25,
    "model.feature": -2,
    "model.hidden": 16,
    "model.feedforward": 16,
    "model.projection": 8,
    "model.encoder_layers": 0,
    "model.decoder_layers": 1,
    "model.heads": 2,
    "optim.batch_size": 16,
    "stage1.epochs": 2,
    "stage2.epochs": 3,
    "bank.epsilon": 0.02,
}


@pytest.fixture(scope="module")
def config():
    return recipes.demo().override(TINY)


@pytest.fixture(scope="module")
def data(config, tmp_path_factory):
    return load(config.data, tmp_path_factory.mktemp("scenes"))


class Stop(Exception):
    """Stands for a kill."""


def trace(config, data, folder, stop_after=None, **options):
    """Train, and stop after a report, before its state is saved.

    Returns:
        The outcome, or None where it stopped, and the reports.
    """
    seen = []

    def report(epoch):
        seen.append((epoch.stage, epoch.epoch, epoch.metrics))
        if stop_after == (epoch.stage, epoch.epoch):
            raise Stop

    try:
        callbacks = Callbacks(report=report)
        run = fit(config, data, str(folder), callbacks=callbacks, device="cpu", **options)
        return run, seen
    except Stop:
        return None, seen


def test_both_stages_report_and_the_contrasts_are_active(config, data, tmp_path):
    outcome, seen = trace(config, data, tmp_path, test=True)
    assert [(s, e) for s, e, _ in seen] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    last = seen[-1][2]
    assert {"loss_class", "loss_sample", "loss_prototype"} <= last.keys()
    assert last["admitted"] > 0
    assert last["anchors"] > 0
    assert "loss_sample" not in seen[0][2] or seen[0][2]["loss_sample"] == 0
    assert outcome.stage == 2
    assert outcome.metrics["val_mAP"] == max(m["val_mAP"] for s, _, m in seen if s == 2)
    assert 0 < outcome.metrics["test_mAP"] < 100
    assert {(r["split"], r["label"]) for r in outcome.labels} == {
        (s, name) for s in ("val", "test") for name in data.labels
    }


POLICIES = {
    "mean": {"bank.policy": "slot"},
    "ema": {"bank.policy": "fifo", "bank.size": 3},
    "learned": {
        "bank.policy": "slot",
        "model.dropout": 0.1,
        "stage2.class_loss.kind": "asymmetric",
    },
}


@pytest.fixture(scope="module")
def uninterrupted(config, data, tmp_path_factory):
    """Configuration, outcome, reports and last state for each policy of the prototypes."""

    @cache
    def train(policy):
        changed = config.override({"prototypes.policy": policy, **POLICIES[policy]})
        folder = tmp_path_factory.mktemp(policy)
        outcome, seen = trace(changed, data, folder)
        return changed, outcome, seen, checkpoint.load_checkpoint(str(folder / "state.pt"))

    return train


def same(one, other):
    """Equal to the bit, tensors in nested values too."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def assert_same(resumed, seen, folder, known):
    _, whole, losses, last = known
    figures = {(s, e): {n: m[n] for n in m if n not in WATCH} for s, e, m in seen}
    assert same(figures, {(s, e): {n: m[n] for n in m if n not in WATCH} for s, e, m in losses})
    assert same(resumed.metrics, whole.metrics)
    state = checkpoint.load_checkpoint(str(folder / "state.pt"))
    for content in (state, last):
        content["progress"] |= {"seconds": 0, "before": 0}
    assert same(state, last)


WATCH = ("seconds", "images_per_second", "memory_mb")


STOPS = [("mean", step) for step in range(15)]
STOPS += [(p, step) for p in ("ema", "learned") for step in (4, 7, 10)]


@pytest.mark.parametrize(
    ("policy", "stop"), soaked(STOPS, [("mean", 1), ("mean", 6), ("mean", 11), ("learned", 10)])
)
def test_stopped_before_any_step_and_resumed_is_the_same_to_the_bit(
    uninterrupted, data, tmp_path, monkeypatch, policy, stop
):
    """Both stages have 3 steps an epoch, the last one incomplete; each step saves the state."""
    monkeypatch.setattr(loop, "MAX_STEPS_BETWEEN_SYNCS", 1)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    config, done = uninterrupted(policy)[0], []

    def step(training, batch, **options):
        if len(done) == stop:
            raise Stop
        done.append((training.stage, training.step))
        return engine.train_step(training, batch, **options)

    monkeypatch.setattr(loop, "train_step", step)
    _, first = trace(config, data, tmp_path)
    before = list(done)
    monkeypatch.setattr(
        loop,
        "train_step",
        lambda *given, **options: (
            done.append(given[0].step) or engine.train_step(*given, **options)
        ),
    )
    resumed, second = trace(config, data, tmp_path)
    assert len(before) == stop
    assert len(done) == 15  # no step was lost and none was done twice
    assert_same(resumed, first + second, tmp_path, uninterrupted(policy))


@pytest.mark.parametrize("stop_after", [(1, 1), (2, 2)])
def test_an_epoch_that_was_reported_but_not_saved_is_trained_again_to_the_same_figures(
    uninterrupted, data, tmp_path, stop_after
):
    config = uninterrupted("mean")[0]
    _, first = trace(config, data, tmp_path, stop_after=stop_after)
    resumed, second = trace(config, data, tmp_path)
    assert second[0][:2] == stop_after
    assert_same(resumed, first + second, tmp_path, uninterrupted("mean"))


def test_a_finished_run_is_not_trained_again(config, data, tmp_path):
    first, _ = trace(config, data, tmp_path)
    again, seen = trace(config, data, tmp_path)
    assert seen == []
    assert again.metrics == first.metrics


def test_shared_stage1_and_the_control_without_contrast(config, data, tmp_path):
    alone = config.override({"stage2.epochs": 0})
    shared = fit(alone, data, str(tmp_path / "stage1"), device="cpu")
    assert shared.stage == 1
    control = config.override({"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0})
    outcome, seen = trace(control, data, tmp_path / "control", stage1=shared.checkpoint)
    assert [(s, e) for s, e, _ in seen] == [(2, 1), (2, 2), (2, 3)]
    assert "admitted" not in seen[0][2]
    assert outcome.stage == 2


def test_pooled_baseline_trains_in_stage_1_alone(config, data, tmp_path):
    pooled = config.override({"model.arch": "pooled", "stage2.epochs": 0})
    outcome, seen = trace(pooled, data, tmp_path)
    assert [s for s, _, _ in seen] == [1, 1]
    assert outcome.stage == 1


def test_all_training_images_and_a_fixed_number_of_epochs(config, data, tmp_path):
    final = config.override(
        {"data.holdout": 0.0, "optim.report": "raw", "stage2.epochs": 2, "stage2.planned_epochs": 3}
    )
    everything = load(final.data, data.train.path(0).rsplit("/scenes-", 1)[0])
    assert len(everything.train) == 60
    outcome, _ = trace(final, everything, tmp_path, test=True)
    assert (outcome.epoch, outcome.weights) == (2, "raw")
    assert "val_mAP" not in outcome.metrics
    assert "test_mAP" in outcome.metrics


def test_patience_stops(config, data, tmp_path):
    stuck = config.override(
        {"stage1.lr": 1e-12, "stage1.epochs": 6, "stage1.patience": 2, "stage2.epochs": 0}
    )
    stuck = stuck.override({"optim.ema_decay": 0.0, "model.freeze_batchnorm": True})
    outcome, seen = trace(stuck, data, tmp_path)
    assert len(seen) < 6
    assert seen[-1][1] - outcome.epoch == 2


RAW = [50, 60, 59, 58, 61, 57, 56, 55, 54, 53]
AVERAGED = [10, 20, 30, 40, 50, 60, 59, 58, 57, 56]


@pytest.mark.parametrize(("counts", "last"), [("selected", 5 + 3), ("any", 6 + 3)])
def test_patience_counts_what_it_is_told_to(config, data, tmp_path, monkeypatch, counts, last):
    """The averaged weights still get better in epoch 6, where the raw ones no longer do."""
    best = {}

    def select(training, data, _, epoch, *more):
        raw, averaged = RAW[epoch - 1], AVERAGED[epoch - 1]
        if not best or max(raw, averaged) > best["metrics"]["val_mAP"]:
            figures = {"val_mAP": max(raw, averaged)}
            best.update(epoch=epoch, weights="raw", metrics=figures, rows=[], logits={})
        figures = {"val_mAP_raw": raw, "val_mAP_ema": averaged}
        return {"val_mAP": max(raw, averaged), **figures}, dict(best)

    monkeypatch.setattr(loop.selection, "select", select)
    short = config.override(
        {
            "stage1.epochs": 10,
            "stage1.patience": 3,
            "stage1.patience_counts": counts,
            "stage2.epochs": 0,
        }
    )
    outcome, seen = trace(short, data, tmp_path)
    assert outcome.epoch == 5
    assert [epoch for _, epoch, _ in seen] == list(range(1, last + 1))


def test_too_few_images_for_a_batch_are_named_before_anything_is_trained(config, data, tmp_path):
    large = config.override({"optim.drop_last": True, "optim.batch_size": 64})
    with pytest.raises(UserError, match=r"all 46 training images .* optim\.batch_size = 64"):
        fit(large, data, str(tmp_path), device="cpu")


def test_a_loss_that_is_not_finite_is_named(config, data, tmp_path):
    wild = config.override({"stage1.lr": 1e30})
    with pytest.raises(Diverged, match=r"stage 1, step \d+: .*loss_class"):
        fit(wild, data, str(tmp_path), device="cpu")


def test_what_is_not_finite_is_not_saved_over_what_was_good(config, data, tmp_path, monkeypatch):
    """As on a GPU, where not every step is looked at."""
    monkeypatch.setattr(loop, "MAX_STEPS_BETWEEN_SYNCS", 1)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(engine, "check_finite", lambda *given: None)

    def step(training, batch, **options):
        if training.step == 4:
            next(training.network.parameters()).data.fill_(torch.nan)
        return engine.train_step(training, batch, **options)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(Diverged, match="stage 1, epoch 2"):
        fit(config, data, str(tmp_path), device="cpu")
    state = checkpoint.load_checkpoint(str(tmp_path / "stage1" / "state.pt"))
    assert state["step"] == 4
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())


def test_the_checkpoint_reproduces_its_figures(config, data, tmp_path):
    outcome, _ = trace(config, data, tmp_path, test=True)
    root = data.train.path(0).rsplit("/scenes-", 1)[0]
    for split in ("val", "test"):
        result = inference.evaluate(outcome.checkpoint, data_root=root, split=split, device="cpu")
        assert result.metrics["mAP"] == outcome.metrics[f"{split}_mAP"]
        assert result.recorded["CF1"] == result.metrics["CF1"]
    predictor = inference.load(outcome.checkpoint, device="cpu")
    named = predictor.predict(data.test.path(0))[0]
    assert len(named) == 20
    assert [s for _, s in named] == sorted((s for _, s in named), reverse=True)


def test_a_gpu_that_is_not_there(config, data, tmp_path):
    with pytest.raises(UserError, match="cuda:99.*visible"):
        fit(config, data, str(tmp_path), device="cuda:99")


def test_images_that_no_batch_has_are_not_counted(config, data, tmp_path):
    """46 training images, 16 in a batch."""
    whole, dropped = (
        trace(
            config.override({"optim.drop_last": drop, "stage2.epochs": 0}),
            data,
            tmp_path / str(drop),
        )[0].images
        for drop in (False, True)
    )
    assert (whole, dropped) == (2 * 46, 2 * 32)


def test_gradients_are_means_over_steps_that_are_spread_over_the_epoch(
    config, data, tmp_path, monkeypatch
):
    measured, norms = [], []

    def step(training, batch, *, measure_gradients):
        values = engine.train_step(training, batch, measure_gradients=measure_gradients)
        if measure_gradients and "gradient_class" in values:
            measured.append(training.step)
            norms.append(float(values["gradient_class"]))
        return values

    monkeypatch.setattr(loop, "train_step", step)
    short = config.override({"optim.batch_size": 4, "stage1.epochs": 1, "stage2.epochs": 1})
    _, seen = trace(short, data, tmp_path)
    assert measured == [2, 5, 8, 11]  # of 12 steps, counted from 1
    assert seen[-1][2]["gradient_class"] == pytest.approx(sum(norms) / 4)


def test_a_head_without_maps_is_evaluated_without_localisation(config, data, tmp_path):
    assert data.boxes is not None
    changes = {"stage1.epochs": 1, "stage2.epochs": 0}
    for head, has_maps in (("MLGCN", False), ("Pooled", True)):
        changes["model.head"] = f"sadcl.model.heads:{head}"
        outcome = fit(config.override(changes), data, str(tmp_path / head), test=True)
        assert "test_mAP" in outcome.metrics
        assert ("test_pointing" in outcome.metrics) == has_maps
