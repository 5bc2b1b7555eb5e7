"""What workers average: to the bit what DDP's defaults do, and rounded where a field says so.

Two and three processes over gloo. With two, neither order nor buckets of a sum matter.
"""

from __future__ import annotations

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sadcl.training import ddp

CPU = torch.device("cpu")


def network():
    """3 MB of weights, more than DDP's first bucket; a convolution in channels last."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 512)]
    layers += [nn.ReLU(), nn.Linear(512, 1024), nn.Linear(1024, 5)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def gradients(model, plain, rank):
    """The gradient of the second of two steps; DDP forms its final buckets after the first."""
    for step in (1, 2):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(10 * rank + step))
        plain.zero_grad(set_to_none=True)
        model(images).square().mean().backward()
    return [parameter.grad.clone() for parameter in plain.parameters()]


def averages(rank):
    """The gradient of this worker alone, and each average."""
    yield "own", gradients(own := network(), own, rank)
    for compression in ("none", "bf16"):
        model = ddp.wrap(plain := network(), CPU, compression)
        yield compression, gradients(model, plain, rank)
    for name, options in {"default": {}, "larger": {"bucket_cap_mb": ddp.GPU_BUCKET_MB}}.items():
        model = DistributedDataParallel(plain := network(), **options)
        yield name, gradients(model, plain, rank)


def worker(rank, folder):
    torch.set_num_threads(1)
    for world in (3, 2):
        if rank < world:
            init = f"file://{folder}/meet{world}"
            dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world)
            torch.save(dict(averages(rank)), f"{folder}/{world}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where three processes have written what they hold, and then two of them."""
    folder = tmp_path_factory.mktemp("ddp")
    mp.spawn(worker, args=(str(folder),), nprocs=3)
    return folder


@pytest.fixture(params=[2, 3])
def workers(request, folder):
    """The averages that each of so many workers holds."""
    return [torch.load(folder / f"{request.param}-{rank}.pt") for rank in range(request.param)]


def all_equal(mine, other):
    return all(torch.equal(one, two) for one, two in zip(mine, other, strict=True))


def test_gradients_are_those_of_the_defaults_to_the_bit(workers):
    for one in workers:
        assert all_equal(one["none"], one["default"])
        assert all_equal(one["larger"], one["default"]) or len(workers) > 2
        assert not all_equal(one["own"], one["none"])


def test_all_workers_hold_the_same_bits(workers):
    for one in workers[1:]:
        for name in ("none", "bf16"):
            assert all_equal(one[name], workers[0][name])


def test_compressed_gradients_are_sums_in_bfloat16(workers):
    """Of two workers exactly that; of three up to the roundings of part, third and two sums."""
    for number, mean in enumerate(workers[0]["bf16"]):
        assert torch.equal(mean, mean.bfloat16().float())
        parts = [one["own"][number].bfloat16() / len(workers) for one in workers]
        if len(workers) == 2:
            assert torch.equal(mean, (parts[0] + parts[1]).float())
        size = torch.stack([part.float().abs() for part in parts]).sum(0)
        assert ((mean - workers[0]["none"][number]).abs() <= 4.1 * 2**-8 * size).all()
    assert not all_equal(workers[0]["bf16"], workers[0]["none"])


def test_one_worker_sends_nothing():
    plain = network()
    assert ddp.wrap(plain, CPU, "bf16") is plain


def test_on_a_gpu_the_buckets_are_larger(monkeypatch):
    made = []
    monkeypatch.setattr(ddp.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(
        ddp, "DistributedDataParallel", lambda network, **options: made.append(options)
    )
    for name in ("cpu", "cuda"):
        ddp.wrap(network(), torch.device(name))
    assert [options.get("bucket_cap_mb") for options in made] == [None, 100]
    assert all(options["gradient_as_bucket_view"] for options in made)
