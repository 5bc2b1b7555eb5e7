"""The weight average against torch's, the learning rate against its formula, and the optimiser."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from sadcl import build, recipes
from sadcl.data.base import ImageSet
from sadcl.data.split import hold_out
from sadcl.training import optim
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
    optimizer = optim.adamw(torch.nn.Linear(2, 1), config.stage1, config.optim)
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
        optim.adamw(layer, config.stage1, config.optim) for layer in (whole, before, after)
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
    optimizer = optim.adamw(torch.nn.Linear(1, 1), config.stage1, config.optim)
    schedule = optim.one_cycle(optimizer, config.stage1, config.optim, steps)
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
    optimizer = optim.adamw(network, config.stage2, config.optim, decay_prototypes=decay)
    weights, prototypes = optimizer.param_groups
    assert prototypes["params"] == [network.prototypes.rows_LD]
    assert prototypes["weight_decay"] == (config.optim.weight_decay if decay else 0)
    assert weights["weight_decay"] == config.optim.weight_decay
