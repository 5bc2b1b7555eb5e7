"""The step waits for no device, compiles whole, and computes the same however its rows are laid out."""

import copy
import itertools

import pytest
import torch
import torch._dynamo.testing
from torch._dynamo.utils import counters
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl import recipes
from sadcl.data.loader import Batch
from sadcl.training import engine, loop, optim
from tests.conftest import TINY

B, L = 16, 20
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
    """Names of the calls that make the host wait for what a GPU has computed; a mask as an index is one."""

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
    return share._replace(place=engine.batch_positives(share)) if looked else share


SETTINGS = [
    *(
        {"bank.policy": bank, "prototypes.policy": p}
        for bank, p in itertools.product(("slot", "fifo"), ("mean", "ema", "learned"))
    ),
    {"loss.anchor_mask": "released", "loss.class_loss": "asymmetric"},
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


@pytest.mark.parametrize("settings", SETTINGS, ids=name_of)
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
    assert training.bank.fill() > 0 or settings.get("loss.sample_weight") == 0.0


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


@pytest.mark.parametrize("settings", [*SETTINGS[:-1], *NO_ANCHOR], ids=name_of)
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
                    targets=torch.zeros_like(share.targets), place=torch.zeros(0, dtype=torch.int64)
                )
            values = engine.train_step(training, share._replace(images=share.images.double()))
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
        sizes.add(len(training.bank.read(padded=training.padded)[1]))
        engine.train_step(training, batch(step))
    assert len(sizes) >= 3
    assert not counters["graph_break"]
    assert backend.frame_count == 2  # the second stands for all numbers of rows


def test_a_compiled_step_trains_what_the_plain_one_does(monkeypatch):
    torch._dynamo.reset()
    compiler = torch.compile
    monkeypatch.setattr(loop.torch, "compile", lambda model: compiler(model, backend="aot_eager"))
    runs = []
    for more in ({}, {"optim.compile": True}, {"optim.compile": True, "model.checkpointing": True}):
        training = prepared({"optim.precision": "fp64", "bank.epsilon": 0.0, **more})
        for step in range(3):
            share = batch(step)
            engine.train_step(training, share._replace(images=share.images.double()))
        runs.append(training.network.state_dict())
    for state in runs[1:]:
        for name, tensor in runs[0].items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_torchs(warmup):
    spec = BASE.optim.model_copy(update={"ema_decay": 0.9, "ema_warmup": warmup})
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()

    def by_torch(mean, value, count):
        return mean.lerp(
            value, 1 - (min(0.9, (1 + int(count)) / (10 + int(count))) if warmup else 0.9)
        )

    ours = optim.averaged(network, spec)
    theirs = AveragedModel(
        network,
        avg_fn=lambda m, v, n: by_torch(m, v, n) if m.is_floating_point() else v,
        use_buffers=True,
    )
    for step in range(12):
        network(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        optim.average(ours, network, spec, step)
        theirs.update_parameters(network)
        if not step:
            assert all(
                map(torch.equal, ours.module.state_dict().values(), network.state_dict().values())
            )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_the_optimiser_is_one_kernel():
    assert prepared().optimizer.defaults["fused"]


def test_a_loaded_bank_is_looked_at_once(monkeypatch):
    training = prepared()
    engine.train_step(training, batch(0))
    training.bank.load_state_dict(copy.deepcopy(training.bank.state_dict()))
    with Waits() as waits:
        for _ in range(2):
            rows, labels, positions = training.bank.read(padded=True)
    assert waits.found == ["_local_scalar_dense"]
    valid = training.bank.read()
    assert all(
        torch.equal(a[: len(b)], b) for a, b in zip((rows, labels, positions), valid, strict=True)
    )
    assert bool((labels[len(valid[1]) :] == -1).all())
    assert len(labels) > len(valid[1])
