"""The weight average against torch's, the learning rate against its formula, and the optimiser."""

import copy
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.swa_utils import AveragedModel

from sadcl import build, recipes
from sadcl.data.base import ImageSet
from sadcl.data.load import load
from sadcl.data.split import hold_out
from sadcl.errors import UserError
from sadcl.model import Backbone
from sadcl.training import engine, fit, loop, optim
from tests.conftest import TINY
from tests.training.published_run import one_cycle


@pytest.mark.parametrize("start", ["initial", "first_step"])
@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_torchs(warmup, start):
    spec = recipes.demo().optim.model_copy(
        update={"ema_decay": 0.9, "ema_warmup": warmup, "ema_start": start}
    )
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()

    def steps(count):
        return int(count - steps_before)

    def by_torch(mean, value, count):
        return mean.lerp(
            value, 1 - (min(0.9, (1 + steps(count)) / (10 + steps(count))) if warmup else 0.9)
        )

    ours = optim.create_average(network, spec)
    theirs = AveragedModel(
        network,
        avg_fn=lambda m, v, n: by_torch(m, v, n) if m.is_floating_point() else v,
        use_buffers=True,
    )
    if start == "initial":  # torch's first update replaces the copy; it need not, after one
        theirs.n_averaged.fill_(1)
    steps_before = theirs.n_averaged.clone()
    for step in range(12):
        network(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        optim.update_average(ours, network, spec, step)
        theirs.update_parameters(network)
        if not step and start == "first_step":
            assert all(
                map(torch.equal, ours.module.state_dict().values(), network.state_dict().values())
            )
    theirs.n_averaged -= steps_before
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_the_optimiser_is_one_kernel():
    config = recipes.demo()
    optimizer = optim.create_optimizer(torch.nn.Linear(2, 1), config.stage1, config.optim)
    assert optimizer.defaults["fused"]


def convolution(memory_format):
    """A convolution whose weights, of different sizes, follow from no random numbers."""
    layer = torch.nn.Conv2d(3, 4, (2, 5))
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 120).view(4, 3, 2, 5))
        layer.bias.zero_()
    return layer.to(memory_format=memory_format)


def steps(layer, optimizer, numbers):
    for number in numbers:
        for parameter in layer.parameters():
            order = torch.arange(parameter.numel()).view(parameter.shape)
            gradient = torch.sin(order * (number + 1.0)) * 10.0 ** (order % 5 - 2)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


@pytest.mark.parametrize("turned", [False, True])
def test_a_state_of_another_memory_format_resumes_as_if_uninterrupted(turned, tmp_path):
    """From a CPU to a GPU, whose convolutions are channels last, and back; to the bit."""
    formats = [torch.contiguous_format, torch.channels_last][:: -1 if turned else 1]
    config = recipes.demo().override({"stage1.lr": 0.1})
    whole, before, after = (convolution(kind) for kind in (formats[0], *formats))
    first, second, third = (
        optim.create_optimizer(layer, config.stage1, config.optim)
        for layer in (whole, before, after)
    )
    steps(whole, first, range(6))
    steps(before, second, range(3))
    torch.save(second.state_dict(), tmp_path / "state.pt")
    after.load_state_dict(before.state_dict())
    third.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    moments = third.state[after.weight]
    assert after.weight.stride() != before.weight.stride()
    for name in ("exp_avg", "exp_avg_sq"):
        assert moments[name].stride() == after.weight.stride()
        assert torch.equal(moments[name], second.state[before.weight][name])
    steps(after, third, range(3, 6))
    assert torch.equal(after.weight, whole.weight)
    assert not torch.equal(after.weight, before.weight)


def learning_rates(config, steps, count):
    """Learning rate of the first ``count`` steps, with ``steps`` of them in an epoch."""
    optimizer = optim.create_optimizer(torch.nn.Linear(1, 1), config.stage1, config.optim)
    schedule = optim.create_schedule(optimizer, config.stage1, config.optim, steps)
    optimizer.step()  # once, which torch asks for before the schedule's steps
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return rates


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_the_learning_rate_of_the_published_run_is_its_formula_to_the_last_bit(holdout):
    config = recipes.coco14()
    targets = np.zeros((82_783, 5), np.int8)
    targets[np.random.default_rng(0).random(targets.shape) < 0.036] = 1
    files = pa.array(["image.jpg"] * len(targets))
    images = ImageSet("train", "", files, targets, tuple("abcde"))
    held_out = hold_out(targets, holdout, config.data.split_seed)
    images = images.subset(np.flatnonzero(~held_out), "train")
    steps = build.loader(config, images, training=True).steps
    assert steps == (1164 if holdout else 1293)  # of 64 images, the incomplete one left out
    total = 80 * steps
    expected = [one_cycle(step, total, 5e-5, pct_start=0.2) for step in range(total)]
    assert learning_rates(config, steps, total) == expected
    assert max(expected) == 5e-5
    assert expected[0] == pytest.approx(5e-5 / 25)
    assert expected[-1] == 5e-5 / 25 / 1e4


@pytest.mark.parametrize("pct_start", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 10])
def test_a_schedule_of_few_steps_rises_and_falls(total, pct_start):
    config = recipes.coco14().override(
        {"stage1.epochs": 1, "stage1.lr": 1.0, "optim.pct_start": pct_start}
    )
    rise = max(pct_start, 1.5 / total)  # more than one step
    expected = [one_cycle(step, total, 1.0, pct_start=rise) for step in range(total)]
    rates = learning_rates(config, total, total)
    assert rates == (expected if total > 1 else [1 / 25 / 1e4])
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[-1] == 1 / 25 / 1e4


@pytest.mark.parametrize("decay", [False, True])
def test_learned_prototypes_decay_only_where_the_configuration_says_so(decay):
    config = recipes.demo().override({"prototypes.policy": "learned"})
    network = build.model(config, 3)
    optimizer = optim.create_optimizer(network, config.stage2, config.optim, decay_prototypes=decay)
    decays = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    rows_LD = network.prototypes.rows_LD
    assert decays.pop(id(rows_LD)) == (config.optim.weight_decay if decay else 0)
    assert set(decays.values()) == {config.optim.weight_decay}


class Small(torch.nn.Module):
    """A backbone and a head with a norm, under the names that the groups go by."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(3, 4)
        self.head = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))

    def forward(self, x):
        return self.head(self.backbone(x))


def settings(**changes):
    return recipes.demo().override({f"optim.{name}": value for name, value in changes.items()})


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_each_group_takes_the_step_of_its_own_rate_and_decay(kind):
    """Against torch's plain optimisers, one for each combination."""
    config = settings(kind=kind, backbone_lr=0.1, decay_biases=False, weight_decay=0.1)
    torch.manual_seed(0)
    network = Small()
    twin = copy.deepcopy(network)
    optimizer = optim.create_optimizer(network, config.stage1, config.optim)
    lr, plain = config.stage1.lr, {"sgd": SGD, "adam": Adam, "adamw": AdamW}[kind]
    more = {"momentum": 0.9} if kind == "sgd" else {}
    others = [
        plain(
            [parameter],
            lr=lr * (0.1 if name.startswith("backbone") else 1.0),
            weight_decay=0.0 if parameter.dim() == 1 else 0.1,
            **more,
        )
        for name, parameter in twin.named_parameters()
    ]
    for _ in range(3):
        x = torch.randn(5, 3)
        for net in (network, twin):
            net.zero_grad()
            net(x).square().sum().backward()
        optimizer.step()
        for other in others:
            other.step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), msg=name)


@pytest.mark.parametrize(
    ("name", "layers"),
    [  # what lies in each layer, from the images on
        (
            "tf_efficientnet_lite0",
            [["conv_stem", "bn1"], *([f"blocks.{i}"] for i in range(7))],
        ),
        (
            "resnet18",
            [["conv1", "bn1"], *([f"layer{i}.{j}"] for i in range(1, 5) for j in range(2))],
        ),
        (
            "vit_tiny_patch16_224",
            [
                ["model.cls_token", "model.pos_embed", "model.patch_embed"],
                *([f"model.blocks.{i}."] for i in range(12)),
            ],
        ),
    ],
)
def test_the_rate_decays_from_the_last_layer_of_a_backbone_to_the_first(name, layers):
    config = settings(backbone_lr=0.5, layer_decay=0.8)
    network = torch.nn.Module()
    network.backbone = Backbone(name, freeze_batchnorm=False)
    network.head = torch.nn.Linear(3, 2)
    optimizer = optim.create_optimizer(network, config.stage1, config.optim)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    body = dict(network.backbone.body.named_parameters())
    assert len(rate_of) == len(body) + 2
    assert {rate_of[id(p)] for p in network.head.parameters()} == {config.stage1.lr}
    seen = set()
    for depth, prefixes in enumerate(layers):
        for key in (key for key in body if key.startswith(tuple(prefixes))):
            seen.add(key)
            share = rate_of[id(body[key])] / config.stage1.lr
            assert share == pytest.approx(0.5 * 0.8 ** (len(layers) - 1 - depth)), key
    assert seen == {key for key in body if not key.startswith("model.norm")}


@pytest.mark.parametrize("head_epochs", [0, 1])
def test_in_the_first_epochs_the_head_learns_alone(head_epochs, tmp_path):
    """Nor does weight decay touch the backbone."""
    config = recipes.demo().override(
        TINY
        | {"stage1.epochs": 2, "stage2.epochs": 0, "stage1.head_epochs": head_epochs}
        | {"optim.weight_decay": 0.1}
    )
    data = load(config.data, tmp_path / "data")
    seen = []
    step = engine.train_step

    def record(training, *arguments, **options):
        values = step(training, *arguments, **options)
        parts = training.network.backbone.body, training.network.head
        seen.append([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in parts])
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", record)
        fit(config, data, str(tmp_path / "run"), device="cpu")
    steps = len(seen) // 2
    backbones, heads = zip(*seen, strict=True)
    first = build.model(config, len(data.labels), labels=data.labels).backbone.body
    start = torch.cat([p.detach().flatten() for p in first.parameters()])
    assert torch.equal(backbones[steps - 1], start) == bool(head_epochs)
    assert not torch.equal(backbones[steps], start)
    assert not torch.equal(heads[0], heads[steps - 1])


def rates(config, steps=4, epochs=6):
    stage = config.stage1.model_copy(update={"epochs": epochs, "lr": 1.0, "planned_epochs": None})
    optimizer = optim.create_optimizer(Small(), stage, config.optim)
    schedule = optim.create_schedule(optimizer, stage, config.optim, steps)
    seen = []
    for _ in range(steps * epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return seen


def test_the_schedules_are_what_their_formulas_say():
    both = {"backbone_lr": 0.1, "decay_biases": True}
    step = rates(settings(schedule="step", step_epochs=[2, 3], step_factor=0.5, **both))
    factors = [1.0] * 8 + [0.5] * 4 + [0.25] * 12
    cosine = [(1 + math.cos(math.pi * i / 24)) / 2 for i in range(24)]
    for found, expected in (
        (step, factors),
        (rates(settings(schedule="cosine", **both)), cosine),
        (rates(settings(schedule="constant", **both)), [1.0] * 24),
    ):
        assert found == [pytest.approx([0.1 * f, f]) for f in expected]
    one_cycle_rates = rates(settings(**both))
    assert all(a == pytest.approx(b / 10) for a, b in one_cycle_rates)
    assert max(b for _, b in one_cycle_rates) == pytest.approx(1.0, rel=0.05)


def test_a_step_schedule_needs_its_epochs():
    with pytest.raises(UserError, match="schedule = 'step' and step_epochs go together"):
        settings(schedule="step")
    with pytest.raises(UserError, match="schedule = 'onecycle' and step_epochs"):
        settings(step_epochs=[3])
