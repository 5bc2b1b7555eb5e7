"""The step: what it admits, against plain loops; it waits for no device and compiles whole.

Evaluation: each image once, in the set's order.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl import build, distributed, recipes
from sadcl.data.load import load
from sadcl.data.loader import Batch
from sadcl.model import Output
from sadcl.training import engine, evaluation, first_values, loop
from tests.conftest import TINY, soaked

B, L, D = 16, 20, 16
WAITING = (
    "nonzero",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "masked_select",
    "bincount",
    "_unique2",
    "item",
)
BASE = recipes.demo().override(
    {
        **TINY,
        "bank.epsilon": 0.5,
        "prototypes.epsilon": 0.45,
        "model.encoder_layers": 1,
        "bank.size": 3,
    }
)


class Waits(TorchDispatchMode):
    """Names of the calls that make the host wait for a GPU; a mask as an index is one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, given=(), named=None):
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in given[1]
        )
        if name in WAITING or masks:
            self.found.append(name)
        return function(*given, **(named or {}))


def prepared(changes=None):
    training = loop.prepare(
        2, BASE.override(changes or {}), tuple(map(str, range(L))), torch.device("cpu"), steps=99
    )
    training.network.train()
    return training


def batch(step, looked=True):
    generator = torch.Generator().manual_seed(step)
    targets = (torch.rand(B, L, generator=generator) < 0.05 + 0.1 * (step % 3)).to(torch.int8)
    share = Batch(
        torch.randn(B, 3, 32, 32, generator=generator), targets, torch.ones(B), torch.arange(B), 0
    )
    return engine.with_positive_index(share) if looked else share


def doubled(share):
    return share._replace(images_BCHW=share.images_BCHW.double())


SETTINGS = [
    *(
        {"bank.policy": bank, "prototypes.policy": p}
        for bank, p in itertools.product(("slot", "fifo"), ("mean", "ema", "learned"))
    ),
    {"loss.candidates": "all"},
    {"loss.anchor_mask": "released", "stage2.class_loss.kind": "asymmetric"},
    {"loss.sample_weight": 0.0},
    {
        "optim.precision": "bf16",
        "model.freeze_batchnorm": True,
        "model.checkpointing": True,
        "optim.clip_norm": 1.0,
    },
]


def name_of(settings):
    return "-".join(map(str, settings.values()))


@pytest.mark.parametrize("settings", soaked(SETTINGS, [SETTINGS[0], *SETTINGS[5:]]), ids=name_of)
def test_a_step_waits_for_nothing(settings, monkeypatch):
    monkeypatch.setattr(engine.Training, "padded", True)  # as on a GPU
    monkeypatch.setattr(
        engine, "check_finite", lambda *_: None
    )  # on a GPU it looks at every tenth step
    training, (first, *others) = prepared(settings), map(batch, range(4))
    engine.train_step(training, first)
    with Waits() as waits:
        for share in others:
            engine.train_step(training, share)
    assert waits.found == []
    assert training.bank.count_valid() > 0 or settings.get("loss.sample_weight") == 0.0


def test_what_waits_is_found(monkeypatch):
    monkeypatch.setattr(engine.Training, "padded", True)
    training, looked, unlooked = prepared(), batch(0), batch(1, looked=False)
    with Waits() as waits:
        engine.train_step(training, looked)
    assert (
        waits.found == ["_local_scalar_dense"] * 2
    )  # whether the loss is finite, and how many rows the bank has
    with Waits() as waits:
        engine.train_step(training, unlooked)
    assert sorted(waits.found) == ["_local_scalar_dense", "_local_scalar_dense", "nonzero"]
    with Waits() as waits:
        torch.ones(2)[torch.tensor([True, False])]
    assert waits.found == ["index"]


@pytest.mark.parametrize("step", range(21))
def test_on_a_gpu_only_every_tenth_step_is_looked_at(step):
    training = prepared()
    training.device, training.step = torch.device("cuda"), step
    with Waits() as waits:
        engine.check_finite(training, {"loss": torch.tensor(1.0)})
    assert len(waits.found) == 2 * (step % 10 == 0)


NO_ANCHOR = [{"bank.policy": "none"}, {"loss.anchors": "batch"}]
"""With which a batch without labels has none."""


@pytest.mark.parametrize(
    "settings", soaked([*SETTINGS[:-1], *NO_ANCHOR], [*SETTINGS[4:9], *NO_ANCHOR]), ids=name_of
)
def test_padded_rows_change_nothing(settings, monkeypatch):
    runs = []
    for padded in (False, True):
        monkeypatch.setattr(engine.Training, "padded", padded)
        training = prepared({**settings, "optim.precision": "fp64"})
        terms = []
        for step in range(6):
            share = batch(step)
            if step == 4:
                share = share._replace(
                    targets_BL=torch.zeros_like(share.targets_BL),
                    positive_index_A=torch.zeros(0, dtype=torch.int64),
                    global_positive_index_G=torch.zeros(0, dtype=torch.int64),
                    shares=distributed.Shares([B], [0]),
                )
            values = engine.train_step(training, doubled(share))
            terms.append({name: value.tolist() for name, value in values.items()})
        runs.append((terms, training))
    (plain, one), (padded, other) = runs
    assert [t["admitted_L"] for t in plain] == [t["admitted_L"] for t in padded]
    for mine, theirs in zip(plain, padded, strict=True):
        assert {n: v for n, v in mine.items() if n != "admitted_L"} == pytest.approx(
            {n: v for n, v in theirs.items() if n != "admitted_L"}, rel=1e-9
        )
    for name, tensor in engine.shared_state(one).items():
        torch.testing.assert_close(engine.shared_state(other)[name], tensor, rtol=1e-7, atol=1e-9)
    for mine, theirs in zip(one.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "more",
    [{}, {"optim.precision": "bf16", "model.checkpointing": True, "model.freeze_batchnorm": True}],
)
def test_the_network_compiles_whole_and_not_anew_for_other_numbers_of_rows(more, monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    backend = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiler = torch.compile
    monkeypatch.setattr(loop.torch, "compile", lambda model: compiler(model, backend=backend))
    training = prepared({"optim.compile": True, "bank.epsilon": 0.0, **more})
    sizes = set()
    for step in range(10):
        sizes.add(len(training.read_memory(batch(step)).labels_M))
        engine.train_step(training, batch(step))
    assert len(sizes) >= 3
    assert not counters["graph_break"]
    assert backend.frame_count == 1  # it stands for all numbers of rows


def test_a_compiled_step_trains_what_the_plain_one_does(monkeypatch):
    torch._dynamo.reset()
    compiler = torch.compile
    monkeypatch.setattr(loop.torch, "compile", lambda model: compiler(model, backend="aot_eager"))
    runs = []
    for more in ({}, {"optim.compile": True}, {"optim.compile": True, "model.checkpointing": True}):
        training = prepared({"optim.precision": "fp64", "bank.epsilon": 0.0, **more})
        for step in range(3):
            share = batch(step)
            engine.train_step(training, doubled(share))
        runs.append(training.network.state_dict())
    for state in runs[1:]:
        for name, tensor in runs[0].items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-9, msg=name)


def test_a_loaded_bank_is_looked_at_once(monkeypatch):
    training = prepared()
    engine.train_step(training, batch(0))
    training.bank.load_state_dict(copy.deepcopy(training.bank.state_dict()))
    with Waits() as waits:
        for _ in range(2):
            memory = training.bank.read(padded=True)
    assert waits.found == ["_local_scalar_dense"]
    valid = training.bank.read()
    for padded, exact in zip(memory[:3], valid[:3], strict=True):
        assert torch.equal(padded[: len(exact)], exact)
    assert bool((memory.labels_M[len(valid.labels_M) :] == -1).all())
    assert len(memory.labels_M) > len(valid.labels_M)


@pytest.mark.parametrize("scope", ["cluster", "worker"])
@pytest.mark.parametrize(("bank", "prototypes"), [(0.3, 0.6), (0.6, 0.3), (0.5, 0.5)])
def test_bank_and_prototypes_each_admit_by_their_own_threshold(scope, bank, prototypes):
    config = recipes.demo().override(
        {**TINY, "bank.epsilon": bank, "prototypes.epsilon": prototypes, "bank.scope": scope}
    )
    training = loop.prepare(2, config, tuple(map(str, range(L))), torch.device("cpu"), steps=1)
    logits, features = torch.randn(6, L), torch.randn(6, L, D)
    targets = torch.randint(-1, 2, (6, L)).to(torch.int8)
    weight = torch.tensor([1.0, 1, 1, 1, 1, 0])
    share = Batch(torch.zeros(0), targets, weight, torch.arange(6), 0)
    admitted = engine.update_memory(training, training.bank, Output(logits, features), share)
    score = logits.sigmoid()
    rows = {
        (i, j): features[i, j] for i in range(5) for j in range(L) if targets[i, j] == 1
    }  # the last is padding
    expected = {place: row for place, row in rows.items() if score[place] >= bank}
    memory = training.bank.read()
    places = zip(memory.positions_M.tolist(), memory.labels_M.tolist(), strict=True)
    assert list(places) == sorted(expected)
    assert torch.equal(memory.rows_MD, torch.stack([expected[p] for p in sorted(expected)]))
    assert admitted.tolist() == [sum(j == label for _, j in expected) for label in range(L)]
    training.network.prototypes.end_epoch()
    means, valid = training.network.prototypes.read()
    for label in range(L):
        taken = [row for (i, j), row in rows.items() if j == label and score[i, j] >= prototypes]
        assert bool(valid[label]) == bool(taken)
        if taken:
            torch.testing.assert_close(means[label], torch.stack(taken).double().mean(0).float())


def test_what_no_contrast_reads_is_not_kept():
    config = recipes.demo().override({**TINY, "loss.sample_weight": 0.0})
    training = loop.prepare(2, config, tuple(map(str, range(L))), torch.device("cpu"), steps=1)
    share = Batch(
        torch.zeros(0), torch.ones(B, L, dtype=torch.int8), torch.ones(B), torch.arange(B), 0
    )
    output = Output(torch.full((B, L), 9.0), torch.randn(B, L, D))
    assert engine.update_memory(training, training.bank, output, share).tolist() == [B] * L
    assert training.bank.count_valid() == 0
    assert int(training.network.prototypes.count_L.sum()) == B * L
    training.config = config.override({"loss.sample_weight": 1.0, "loss.prototype_weight": 0.0})
    engine.update_memory(training, training.bank, output, share)
    assert int(training.network.prototypes.count_L.sum()) == B * L


def test_evaluation_orders_images_and_counts_each_once(tmp_path):
    config = recipes.demo().override(TINY)
    data = load(config.data, tmp_path)
    network = build.model(config, len(data.labels)).eval()
    loader = build.loader(config, data.test)
    scores, targets = evaluation.evaluate(network, loader, torch.device("cpu"))
    np.testing.assert_array_equal(targets, data.test.targets)
    assert scores.shape == (24, 20)
    assert scores.dtype == np.float64
    images = torch.cat([batch.images_BCHW for batch in loader.batches(0)])
    with torch.no_grad():
        np.testing.assert_allclose(
            scores, torch.sigmoid(network(images).logits_BL.double()).numpy(), rtol=1e-12
        )


class CountingLoader:
    """A loader that counts how often its images are decoded."""

    def __init__(self, loader):
        self.loader, self.images, self.passes = loader, loader.images, 0

    def batches(self, epoch):
        self.passes += 1
        return self.loader.batches(epoch)


@pytest.mark.parametrize("arch", ["sadcl", "pooled"])
def test_networks_that_are_evaluated_together_score_as_each_alone(arch, tmp_path):
    """To the bit, in one pass over the images; each is then in the mode that it was in."""
    config = recipes.demo().override({**TINY, "model.arch": arch})
    data, device = load(config.data, tmp_path), torch.device("cpu")
    one, other = (build.model(config.override({"seed": seed}), len(data.labels)) for seed in (0, 1))
    loader = CountingLoader(build.loader(config, data.test))
    one.train()
    other.eval()
    together = evaluation.evaluate_each([one, other], loader, device, config=config)
    assert loader.passes == 1
    assert (one.training, other.training) == (True, False)
    for network, scores in zip((one, other), together, strict=True):
        alone, _ = evaluation.evaluate(network, loader, device)  # without any context for precision
        np.testing.assert_array_equal(scores, alone)
    assert not np.array_equal(*together)
    mixed = config.override({"optim.precision": "bf16"})
    rounded, _ = evaluation.evaluate(one, loader, device, config=mixed)
    assert 0 < np.abs(rounded - together[0]).max() < 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_first_prototypes_are_computed_in_the_precision_of_training(precision, tmp_path):
    config = BASE.override({"optim.precision": precision, "prototypes.epsilon": 0.0})
    data = load(config.data, tmp_path)
    training = loop.prepare(2, config, data.labels, torch.device("cpu"), steps=9)
    calls = []
    training.network.register_forward_hook(
        lambda *_: calls.append(torch.is_autocast_enabled("cpu"))
    )
    first_values.first_prototypes(training, build.loader(config, data.train))
    assert set(calls) == {precision == "bf16"}
    assert training.network.prototypes.rows_LD.dtype == torch.float32


def test_gradient_norms_are_those_of_the_terms_at_the_label_features():
    """By autograd through the whole network, of a network that keeps its graph."""
    admits = {"prototypes.policy": "ema", "bank.epsilon": 0.0, "prototypes.epsilon": 0.0}
    training = prepared({"optim.precision": "fp64", **admits})
    for step in range(3):
        engine.train_step(training, doubled(batch(step)))
    share = doubled(batch(3))
    memory = training.read_memory(share)
    features = {}
    training.network.head.classifier.register_forward_pre_hook(
        lambda module, inputs: features.update(last_BLD=inputs[0])
    )
    output = training.network(share.images_BCHW, memory)
    leaf_BLD = features["last_BLD"]
    weighted = training.criterion(output, share, memory).weighted
    expected = {
        f"gradient_{name}": torch.autograd.grad(part, leaf_BLD, retain_graph=True)[0].norm()
        for name, part in weighted.items()
    }
    norms = engine.gradient_norms(training, output, share, memory)
    assert (
        norms.keys()
        == expected.keys()
        == {
            "gradient_class",
            "gradient_sample",
            "gradient_prototype",
        }
    )
    for name, norm in norms.items():
        assert norm > 0
        torch.testing.assert_close(norm, expected[name], rtol=1e-9, atol=0)
        assert not norm.requires_grad


@pytest.mark.parametrize(
    "settings", soaked([{}, {"optim.precision": "bf16"}, {"loss.sample_weight": 0.0}], [{}])
)
def test_measuring_gradients_changes_no_step(settings):
    states = []
    for measure in (False, True):
        training = prepared(settings)
        for step in range(3):
            values = engine.train_step(training, batch(step), measure_gradients=measure)
        assert ("gradient_class" in values) == measure
        assert ("gradient_sample" in values) == (measure and "loss.sample_weight" not in settings)
        states.append(training.network.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("start", ["empty", "prototypes"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_bank_starts_as_configured_and_the_average_with_the_prototypes(start, weight, tmp_path):
    config = BASE.override(
        {
            "data.scene_train": 60,
            "data.scene_test": 10,
            "bank.start": start,
            "prototypes.epsilon": 0.0,
            "loss.prototype_weight": weight,
        }
    )
    data = load(config.data, tmp_path)
    training = loop.prepare(2, config, data.labels, torch.device("cpu"), steps=9)
    first_values.first_prototypes(training, build.loader(config, data.train))
    rows_LD, valid_L = training.network.prototypes.read()
    assert bool(valid_L.any())
    average_LD, average_valid_L = training.ema.module.prototypes.read()
    assert torch.equal(average_LD, rows_LD)
    assert torch.equal(average_valid_L, valid_L)
    if start == "empty":
        assert training.bank.count_valid() == 0
        return
    assert training.bank.count_valid() == config.optim.batch_size * int(valid_L.sum())
    assert torch.equal(training.bank.rows_KLD[0][valid_L], rows_LD[valid_L])
