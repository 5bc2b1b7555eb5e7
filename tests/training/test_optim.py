"""The weight average against torch's, and the optimiser."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from sadcl import recipes
from sadcl.training import optim


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_torchs(warmup):
    spec = recipes.demo().optim.model_copy(update={"ema_decay": 0.9, "ema_warmup": warmup})
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()

    def by_torch(mean, value, count):
        return mean.lerp(
            value, 1 - (min(0.9, (1 + int(count)) / (10 + int(count))) if warmup else 0.9)
        )

    ours = optim.create_average(network, spec)
    theirs = AveragedModel(
        network,
        avg_fn=lambda m, v, n: by_torch(m, v, n) if m.is_floating_point() else v,
        use_buffers=True,
    )
    for step in range(12):
        network(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        optim.update_average(ours, network, spec, step)
        theirs.update_parameters(network)
        if not step:
            assert all(
                map(torch.equal, ours.module.state_dict().values(), network.state_dict().values())
            )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_the_optimiser_is_one_kernel():
    config = recipes.demo()
    optimizer = optim.adamw(torch.nn.Linear(2, 1), config.stage1, config.optim)
    assert optimizer.defaults["fused"]
