"""The weight average against torch's, and the optimiser."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from sadcl import recipes
from sadcl.training import optim


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
