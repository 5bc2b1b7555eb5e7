"""One model for any number of workers: training over gloo and DDP on 1 to 4 processes, float64.

Four processes are started once and train everything that the tests below compare. Two runs are
equal where the gradients differ by at most 1e-9 of their length, and bank and prototypes by at most
1e-9.
"""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import build, distributed, recipes
from sadcl.data.load import load
from sadcl.metrics import multilabel_metrics
from sadcl.training import Disagreement, engine, evaluation, fit, loop
from sadcl.training.localiser import Localiser
from tests.conftest import soaked

WORLDS = (1, 2, 3, 4)
COMBINATIONS = list(
    itertools.product(("slot", "fifo"), ("batch+bank", "batch"), ("mean", "ema", "learned"))
)
MOVED = ("slot", "batch+bank", "mean")
GATE = [MOVED, ("slot", "batch+bank", "ema"), ("fifo", "batch+bank", "mean")]
GATE.append(("fifo", "batch", "learned"))
"""What is compared in the gate, on three workers; the rest is for ``pytest -m soak``."""
STOPS = ("14", "20", "27", "23", "29")
"""The stage, and the step of it before which a run is stopped."""
BASE = recipes.demo().override(
    {
        "data.scene_train": 50,
        "data.scene_test": 70,
        "data.image_size": 32,
        "data.holdout": 0.0,  # nothing is selected: the last epoch is what is compared
        "model.hidden": 16,
        "model.feedforward": 16,
        "model.projection": 8,
        "model.heads": 2,
        "model.freeze_batchnorm": True,
        "model.standardize": True,
        "optim.batch_size": 8,  # 7 steps, the last of 2 images: with 3 and 4 workers some have none
        "optim.precision": "fp64",
        "optim.report": "ema",
        "stage1.epochs": 3,
        "stage2.epochs": 3,
        "bank.epsilon": 0.25,
        "bank.size": 2,
        "prototypes.epsilon": 0.35,
        "prototypes.momentum": 0.8,
    }
)
EXACT = BASE.override(
    {
        "optim.precision": "fp32",
        "model.freeze_batchnorm": False,
        "model.dropout": 0.1,
        "bank.scope": "worker",
        "stage1.epochs": 1,
        "stage2.epochs": 2,
    }
)
"""Everything that a worker has for itself: live BatchNorm, dropout, a bank of its own."""


class Stop(Exception):
    """Stands for a kill before a step."""


class Record:
    """``fit``, and what the tests compare: terms of each step, last gradients, the final state."""

    def __init__(self, config, data, folder, stop=None, spoil=None, **options):
        self.trace, self.gradient, self.rows = [], {}, []
        self.stop, self.spoil = stop, spoil
        loop.train_step = self.step
        try:
            self.outcome = fit(config, data, str(folder), device="cpu", **options)
        except Stop:
            pass
        finally:
            loop.train_step = engine.train_step

    def step(self, training, batch, **options):
        if self.stop == (training.stage, training.step):
            raise Stop
        values = engine.train_step(training, batch, **options)
        if self.spoil is not None:
            self.spoil(training)
        self.trace.append(
            (training.stage, training.step, {n: v.tolist() for n, v in values.items()})
        )
        self.rows.append(int(((batch.targets_BL == 1) & (batch.weight_B > 0)[:, None]).sum()))
        grads = [p.grad for p in training.network.parameters() if p.requires_grad]
        assert all(g is not None for g in grads)  # no parameter goes unused on any worker
        self.gradient[training.stage] = torch.cat([g.flatten() for g in grads])
        self.training = training
        return values

    def content(self):
        state = {n: t.clone() for n, t in engine.shared_state(self.training).items()}
        state |= {f"model.{n}": t.clone() for n, t in self.training.network.state_dict().items()}
        return {"trace": self.trace, "gradient": self.gradient, "rows": self.rows, "state": state}


def name_of(combination):
    return "-".join(combination)


def settings(combination):
    policy, anchors, prototypes = combination
    more = {"prototypes.epsilon": 0.15} if prototypes == "ema" else {}
    if prototypes == "mean":
        more |= {"loss.candidates": "all", "loss.sample_reduction": "batch", "bank.start": "empty"}
    if prototypes == "learned":
        more["loss.absent_labels"] = "push"
    if combination == (
        "slot",
        "batch+bank",
        "ema",
    ):  # as strict a test, and the other two of this kind have none
        more["loss.anchor_mask"] = "released"
    return BASE.override(
        {"bank.policy": policy, "loss.anchors": anchors, "prototypes.policy": prototypes, **more}
    )


def worker(rank, folder, root, worlds, combinations, stops):
    torch.set_num_threads(1)
    data = load(BASE.data, root)
    for world in worlds[::-1]:
        if rank >= world:
            return
        if world > 1:
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
            )
        for name, content in everything(world, data, Path(folder), combinations, stops):
            torch.save(content, f"{folder}/{name}-{world}-{rank}.pt")
        if world > 1:
            dist.destroy_process_group()


def everything(world, data, folder, combinations, stops):
    """Name and content of all that one number of workers trains."""
    runs = folder / f"runs{world}"
    start = Record(BASE.override({"stage2.epochs": 0}), data, runs / "stage1")
    yield "stage1", start.content()
    for combination in combinations:
        found = Record(
            settings(combination),
            data,
            runs / name_of(combination),
            stage1=start.outcome.checkpoint,
        )
        yield name_of(combination), found.content()
    yield "evaluation", evaluated(data)
    if world == 3:  # the fewest whose order of summing matters
        yield from resumed(data, runs, stops)
        yield "disagreement", disagreements(data, runs)
        loop.MAX_STEPS_BETWEEN_SYNCS = 50
    # This resumes what three workers wrote before they were killed; 1 comes after 3.
    if world == 1:
        moved = Record(settings(MOVED), data, folder / "runs3" / "moved")
        yield "moved", moved.content()


def evaluated(data):
    """The scores and figures of one network, which the workers share between them."""
    network = build.model(EXACT, len(data.labels))
    share = build.Worker(distributed.rank(), distributed.world_size())
    loader = build.loader(EXACT, data.test, share)
    localiser = Localiser(data.boxes(data.test))
    scores, targets = evaluation.evaluate(network, loader, torch.device("cpu"), localiser)
    metrics = multilabel_metrics(scores, targets) | localiser.means(
        len(data.labels), torch.device("cpu")
    )
    return {"scores": scores, "metrics": metrics, "own": len(list(loader.batches(0)))}


def resumed(data, runs, stops):
    """Uninterrupted, and stopped before a step of either stage and gone on from what was saved."""
    loop.MAX_STEPS_BETWEEN_SYNCS, loop.SAVE_SECONDS = 1, 0.0
    yield "whole", Record(EXACT, data, runs / "whole").content()
    for stop in stops:
        folder = runs / f"stopped{stop}"
        first = Record(EXACT, data, folder, stop=(int(stop[0]), int(stop[1])))
        second = Record(EXACT, data, folder)
        yield (
            f"stopped{stop}",
            {**second.content(), "trace": first.trace + second.trace},
        )
    Record(settings(MOVED), data, runs / "moved", stop=(2, 10))
    loop.SAVE_SECONDS = 600.0


def disagreements(data, runs):
    """What each worker says where one bit of the second worker's state changes."""
    loop.MAX_STEPS_BETWEEN_SYNCS = 1
    said = []
    for target in ("bank.rows_KLD", "prototypes.rows_LD", "prototypes.count_L"):

        def spoil(training, target=target):
            if training.stage == 2 and training.step == 3 and distributed.rank() == 1:
                tensor = engine.shared_state(training)[target]
                place = tuple(tensor.nonzero()[-1]) if tensor.is_floating_point() else (0,)
                tensor[place] += 1e-15 if tensor.is_floating_point() else 1

        try:
            Record(BASE, data, runs / f"spoilt-{target}", spoil=spoil)
        except Disagreement as error:
            said.append(str(error))
    return {"said": said}


@pytest.fixture(scope="module")
def asked(request):
    """Numbers of workers, combinations and stops that the tests of this session ask for."""
    parameters = [
        item.callspec.params
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    worlds = {1, 3} | {each["world"] for each in parameters if "world" in each}
    names = {name_of(MOVED)} | {each["run"] for each in parameters if "run" in each}
    combinations = [each for each in COMBINATIONS if name_of(each) in names]
    return sorted(worlds), combinations, [each["stop"] for each in parameters if "stop" in each]


@pytest.fixture(scope="module")
def results(tmp_path_factory, asked):
    """Loads what a number of workers recorded: (name, world, rank) -> content."""
    folder, root = tmp_path_factory.mktemp("workers"), tmp_path_factory.mktemp("scenes")
    load(BASE.data, root)
    mp.spawn(worker, args=(str(folder), str(root), *asked), nprocs=max(asked[0]))
    return cache(
        lambda name, world, rank=0: torch.load(
            f"{folder}/{name}-{world}-{rank}.pt", weights_only=False
        )
    )


def assert_equal(mine, theirs):
    """Equality as in the module's docstring."""
    assert [(s, k) for s, k, _ in mine["trace"]] == [(s, k) for s, k, _ in theirs["trace"]]
    for (_, _, values), (_, _, others) in zip(mine["trace"], theirs["trace"], strict=True):
        assert values.keys() == others.keys()
        for term in values:
            np.testing.assert_allclose(values[term], others[term], rtol=1e-9, atol=1e-12)
    for stage, gradient in theirs["gradient"].items():
        assert (mine["gradient"][stage] - gradient).norm() <= 1e-9 * gradient.norm()
        assert gradient.norm() > 0
    for tensor, other in theirs["state"].items():
        torch.testing.assert_close(mine["state"][tensor], other, rtol=1e-9, atol=1e-9)


def assert_same_bits(mine, theirs):
    assert mine["trace"] == theirs["trace"]
    assert mine["state"].keys() == theirs["state"].keys()
    for tensor, other in theirs["state"].items():
        assert torch.equal(mine["state"][tensor], other), tensor


MANY = soaked(WORLDS[1:], (3,))
NAMES = soaked(map(name_of, COMBINATIONS), map(name_of, GATE))


@pytest.mark.parametrize("world", MANY)
@pytest.mark.parametrize("run", ["stage1", *NAMES])
def test_workers_train_the_model_that_one_trains(results, run, world):
    one, many = results(run, 1), results(run, world)
    assert len(one["trace"]) == 21
    assert_equal(many, one)


@pytest.mark.parametrize("world", MANY)
@pytest.mark.parametrize("run", NAMES)
def test_all_workers_hold_the_same_bits(results, run, world):
    for rank in range(1, world):
        assert_same_bits(results(run, world, rank), results(run, world))


def test_the_comparison_has_something_to_compare(results, asked):
    """There are workers without activated rows, rows refused, a bank and prototypes that fill."""
    worlds, combinations, _ = asked
    for world in worlds[1:]:
        rows = np.array(
            [results("slot-batch+bank-mean", world, rank)["rows"] for rank in range(world)]
        )
        assert (rows.max(0) > rows.min(0)).any()
        assert world == 2 or (rows.min(0) == 0).any()
    for run in map(name_of, combinations):
        content = results(run, 1)
        admitted = sum(sum(values["admitted_L"]) for _, _, values in content["trace"])
        assert 0 < admitted < sum(content["rows"])
        assert content["trace"][-1][2]["anchors"] > 0
        assert bool(content["state"]["bank.valid_KL"].any())
        assert bool(content["state"]["prototypes.valid_L"].any())
        assert not torch.equal(
            content["gradient"][2], results("slot-batch+bank-mean", 1)["gradient"][2]
        ) or (run == "slot-batch+bank-mean")


@pytest.mark.parametrize("world", MANY)
def test_evaluation_over_workers_is_that_of_one_process_to_the_bit(results, world):
    one = results("evaluation", 1)
    assert (
        sum(results("evaluation", world, rank)["own"] for rank in range(world)) == one["own"] == 3
    )
    for rank in range(world):
        many = results("evaluation", world, rank)
        np.testing.assert_array_equal(many["scores"], one["scores"])
        for name, value in one["metrics"].items():
            np.testing.assert_array_equal(many["metrics"][name], value)


@pytest.mark.parametrize("stop", soaked(STOPS, STOPS[::2]))
def test_stopped_before_any_step_and_resumed_on_as_many_workers_is_the_same_to_the_bit(
    results, stop
):
    for rank in range(3):
        assert_same_bits(results(f"stopped{stop}", 3, rank), results("whole", 3, rank))


def test_stopped_on_three_workers_and_resumed_on_one_is_what_one_trains(results):
    moved, one = results("moved", 1), results(name_of(MOVED), 1)
    assert moved["trace"][0][:2] == (2, 11)
    moved = {
        **moved,
        "trace": one["trace"][:10] + moved["trace"],
        "gradient": {2: moved["gradient"][2]},
    }
    assert_equal(moved, {**one, "gradient": {2: one["gradient"][2]}})


def test_a_worker_whose_state_differs_in_one_bit_stops_all_and_is_named(results):
    for rank in range(3):
        said = results("disagreement", 3, rank)["said"]
        assert len(said) == 3
        for text, tensor in zip(
            said, ("bank.rows_KLD", "prototypes.rows_LD", "prototypes.count_L"), strict=True
        ):
            assert f"worker 1 holds another {tensor!r} than worker 0" in text
