"""Every collective on three and on two processes against one process: value and gradient.

Each worker first computes what one process gets for the whole batch (there is no process group
yet), then its share.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import distributed
from sadcl.losses import prototype_to_sample_loss, sample_to_sample_loss
from sadcl.losses.criterion import Criterion
from sadcl.losses.mulsupcon import mulsupcon
from sadcl.losses.probmcl import probmcl
from sadcl.losses.same_label import label_wise, same_label
from sadcl.losses.similarity_dissimilarity import similarity_dissimilarity
from sadcl.memory import Memory, MemoryBank, activated_rows, gather
from sadcl.model.prototypes import Prototypes
from tests.conftest import prototype_sum, sample_sum

N, L, P, M = 8, 5, 4, 7


def test_without_a_group_everything_is_the_one_workers_own():
    rows = torch.randn(3, 2, requires_grad=True)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.all_gather_rows(rows) is rows
    assert distributed.all_gather_sizes(3, rows.device) == [3]
    assert torch.equal(distributed.global_sum(rows), rows)
    assert not distributed.global_sum(rows).requires_grad
    assert distributed.collectives_begun() == 0
    assert not distributed.is_broken()


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 20])
def test_shares_are_contiguous_and_differ_by_at_most_one(count, workers):
    shares = [distributed.split(count, worker, workers) for worker in range(workers)]
    assert [i for start, stop in shares for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


def test_two_and_three_processes_do_what_one_does(tmp_path: Path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=3)  # a failed check in a worker is raised here


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for world in (3, 2):
        if rank >= world:
            return
        checks = [check(world, rank) for check in CHECKS]  # the one-process half of each
        by_all_to_all = distributed._GatherRows
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world
        )
        for shared_half in checks:
            shared_half()
        distributed._GatherRows = distributed._GatherPaddedRows  # what a GPU does, over gloo
        for shared_half in checks[1:]:
            shared_half()
        padded_rows(world, rank)
        distributed._GatherRows = by_all_to_all
        dist.destroy_process_group()


def make(seed: int = 0, empty: slice | None = None) -> SimpleNamespace:
    """A global batch of which the images ``empty`` have no activated label."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    targets = torch.randint(-1, 2, (N, L), generator=generator).to(torch.int8)
    if empty is not None:
        targets[empty] = targets[empty].clamp(max=0)
    labels = torch.randint(L, (M,), generator=generator)
    slots = torch.randint(N, (M,), generator=generator)
    valid = torch.tensor([True, True, False, True, True])
    rows = {"x": normal(N, L, P), "bank": normal(M, P), "c": normal(L, P)}
    return SimpleNamespace(**rows, targets=targets, labels=labels, slots=slots, valid=valid)


def batches(world: int) -> list[SimpleNamespace]:
    """Batches with activated rows on all workers, not on the second, on none, on the last ones."""
    second = slice(*distributed.split(N, 1, world))
    first = distributed.split(N, 0, world)[1]
    return [make(), make(1, second), make(2, slice(0, N)), make(3, slice(first, N))]


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def rows_gathered(world: int, rank: int) -> Callable[[], None]:
    sizes = [3, 0, 2][:world]
    everyone = torch.arange(sum(sizes) * 4, dtype=torch.float64).reshape(-1, 2, 2)
    start = sum(sizes[:rank])

    def shared() -> None:
        sent: list[int] = []
        to_all = dist.all_to_all_single

        def counted(output: Tensor, given: Tensor, *parts: list[int]) -> None:
            sent.append(given.numel())
            to_all(output, given, *parts)

        dist.all_to_all_single = counted
        own = everyone[start : start + sizes[rank]].clone().requires_grad_()
        assert distributed.all_gather_sizes(len(own), own.device) == sizes
        gathered = distributed.all_gather_rows(own)
        assert torch.equal(gathered, everyone)
        ((rank + 1) * gathered.square()).sum().backward()
        assert own.grad is not None
        close(own.grad, 2 * own.detach() * sum(w + 1 for w in range(world)))
        dist.all_to_all_single = to_all
        # Each row travels to each worker once, and a gradient for each gathered row travels back.
        assert sent == [own.numel() * world, everyone.numel()]
        flags = distributed.all_gather_rows(torch.full((sizes[rank],), rank, dtype=torch.int8))
        assert flags.tolist() == [w for w in range(world) for _ in range(sizes[w])]
        nothing = torch.zeros(0, 3, requires_grad=True)
        none = distributed.all_gather_rows(nothing)
        assert none.shape == (0, 3)
        none.sum().backward()
        assert distributed.global_sum(torch.tensor(float(rank))) == world * (world - 1) / 2

    return shared


def padded_rows(world: int, rank: int) -> None:
    """A GPU's way to gather: any sizes and types, and each row sent once."""
    sent: list[int] = []
    calls = {name: getattr(distributed, name) for name in ("_all_gather", "_reduce_scatter")}
    for name, call in calls.items():

        def counted(output: Tensor, given: Tensor, call: Callable[..., None] = call) -> None:
            sent.append(len(given))
            call(output, given)

        setattr(distributed, name, counted)
    for sizes in ([3, 0, 2], [2, 2, 2], [0, 0, 0], [0, 1, 4]):
        sizes = sizes[:world]
        for dtype in (torch.float64, torch.float32, torch.int64, torch.int8, torch.bool):
            everyone = (torch.arange(sum(sizes) * 6).reshape(-1, 2, 3) % 5).to(dtype)
            own = everyone.split(sizes)[rank].clone().requires_grad_(dtype.is_floating_point)
            sent.clear()
            gathered = distributed.all_gather_rows(own, sizes)
            assert gathered.dtype == dtype
            assert torch.equal(gathered, everyone)
            if dtype.is_floating_point:
                ((rank + 1) * gathered.square()).sum().backward()
                factor = 2 * sum(w + 1 for w in range(world))
                assert torch.equal(own.grad, factor * own.detach())
                assert sent == ([max(sizes), world * max(sizes)] if max(sizes) else [])
    transposed = torch.arange(6.0).reshape(3, 2).t().requires_grad_()
    distributed.all_gather_rows(transposed, [2] * world).sum().backward()
    assert torch.equal(transposed.grad, torch.full((2, 3), float(world)))
    for name, call in calls.items():
        setattr(distributed, name, call)


def sums_of(
    batch: SimpleNamespace, start: int, stop: int
) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
    """Sum, count and gradients (images, bank, prototypes) of the contrasts for a share."""
    results = []
    for normalize in (True, False):
        for name in ("batch+bank", "batch", "prototype"):
            x, bank, c = (
                t.detach()[s].requires_grad_()
                for t, s in zip(
                    (batch.x, batch.bank, batch.c),
                    (slice(start, stop), slice(None), slice(None)),
                    strict=True,
                )
            )
            targets, options = (
                batch.targets[start:stop],
                {"temperature": 0.3, "normalize": normalize},
            )
            if name == "prototype":
                total, count = prototype_sum(x, targets, c, batch.valid, **options)
            else:
                total, count = sample_sum(x, targets, bank, batch.labels, anchors=name, **options)
            total.backward()
            grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in (x, bank, c)]
            results.append((total.detach(), count, grads))
    return results


def contrasts(world: int, rank: int) -> Callable[[], None]:
    """Over the workers sums, counts and gradients add up to those of one process."""
    expected = [sums_of(batch, 0, N) for batch in batches(world)]
    start, stop = distributed.split(N, rank, world)

    def shared() -> None:
        for batch, known in zip(batches(world), expected, strict=True):
            for (total, count, mine), (all_total, all_count, theirs) in zip(
                sums_of(batch, start, stop), known, strict=True
            ):
                close(distributed.global_sum(total), all_total)
                assert distributed.global_sum(count) == all_count
                close(mine[0], theirs[0][start:stop])
                close(distributed.global_sum(mine[1]), theirs[1])
                close(distributed.global_sum(mine[2]), theirs[2])

    return shared


def public_losses(world: int, rank: int) -> Callable[[], None]:
    """The mean over workers, of value and of gradient, is that of one process."""
    start, stop = distributed.split(N, rank, world)

    def losses(
        batch: SimpleNamespace, first: int, last: int, reduction: str
    ) -> tuple[Tensor, Tensor]:
        options = {"temperature": 0.2, "reduction": reduction}
        x, targets = batch.x.detach()[first:last].requires_grad_(), batch.targets[first:last]
        loss = sample_to_sample_loss(x, targets, batch.bank, batch.labels, **options)
        loss = loss + 3 * prototype_to_sample_loss(
            x, targets, batch.c, valid=batch.valid, **options
        )
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    cases = [(batch, reduction) for batch in batches(world) for reduction in ("mean", "sum")]
    expected = [losses(batch, 0, N, reduction) for batch, reduction in cases]

    def shared() -> None:
        for (batch, reduction), (value, gradient) in zip(cases, expected, strict=True):
            mine, my_gradient = losses(batch, start, stop, reduction)
            close(distributed.global_sum(mine) / world, value)
            close(my_gradient / world, gradient[start:stop])

    return shared


def whole_criterion(world: int, rank: int) -> Callable[[], None]:
    """A head's gradient, averaged as DDP does, and all values; also with too few images."""
    settings = [
        {},
        {"anchors": "batch", "normalize": False, "prototype_tau": 0.5},
        {
            "class_reduction": "sum",
            "sample_reduction": "sum",
            "prototype_reduction": "sum",
            "class_loss": {"kind": "asymmetric"},
        },
        {
            "sample_reduction": "batch",
            "prototype_reduction": "positives",
            "absent_labels": "push",
            "class_loss": {"kind": "asymmetric", "focus_gradient": False, "floor": 1e-5},
        },
        {"sample_weight": 0.0},
        {"anchor_mask": "released"},
        {"anchor_mask": "targets", "sample_reduction": "sum"},
        {"sample_contrast": mulsupcon},
        {"sample_contrast": similarity_dissimilarity, "sample_reduction": "sum"},
        {"sample_contrast": partial(probmcl, alpha=0.3)},
        {"sample_contrast": partial(same_label, anchors="batch"), "sample_reduction": "batch"},
        {"sample_contrast": same_label, "prototype_weight": 0.0},
        {"sample_contrast": label_wise, "prototype_weight": 0.0},
    ]

    def run(
        batch: SimpleNamespace, first: int, last: int, setting: dict, known: Any = (None, None)
    ) -> tuple[dict[str, Tensor], Tensor]:
        weight = torch.ones(last - first)
        if first == last:  # an empty share runs one image with weight 0
            first, last, weight = 0, 1, torch.zeros(1)
        torch.manual_seed(0)
        head = torch.nn.Linear(P, P).double()
        x = head(batch.x.detach()[first:last])
        output = SimpleNamespace(
            logits_BL=x.sum(2),
            embeddings_BLP=x,
            bank_MP=head(batch.bank.detach()),
            prototypes_LP=head(batch.c.detach()),
            prototype_valid_L=batch.valid,
        )
        share = SimpleNamespace(
            targets_BL=batch.targets[first:last],
            weight_B=weight,
            positive_index_A=None,
            global_positive_index_G=known[0],
            shares=known[1],
        )
        memory = Memory(batch.bank.detach(), batch.labels, batch.slots)
        terms = Criterion(**setting)(output, share, memory)
        terms.loss.backward()
        return terms.values, torch.cat([p.grad.flatten() for p in head.parameters()])

    cases = [
        (batch, images, setting)
        for batch in batches(world)
        for images in (N, 1)
        for setting in settings
    ]
    expected = [run(batch, 0, images, setting) for batch, images, setting in cases]

    def shared() -> None:
        for (batch, images, setting), (values, gradient) in zip(cases, expected, strict=True):
            for known in ((None, None), known_sizes(batch.targets[:images], world)):
                own = distributed.split(images, rank, world)
                mine, my_gradient = run(batch, *own, setting, known)
                assert mine.keys() == values.keys()
                for name, value in values.items():
                    close(mine[name], value)
                close(distributed.global_sum(my_gradient) / world, gradient)

    return shared


def known_sizes(targets: Tensor, world: int) -> tuple[Tensor, distributed.Shares]:
    """The positives of a global batch and the sizes of all shares, as a loader knows them."""
    parts = [targets[slice(*distributed.split(len(targets), w, world))] for w in range(world)]
    return (targets == 1).flatten().nonzero()[:, 0], distributed.Shares(
        [max(len(part), 1) for part in parts], [int((part == 1).sum()) for part in parts]
    )


def own_banks(world: int, rank: int) -> Callable[[], None]:
    """With ``bank_scope="worker"`` anchors see the global batch and the worker's own bank.

    All rows of that bank are anchors.
    """
    start, stop = distributed.split(N, rank, world)
    mine, everyone = make(10 + rank), make()
    rows = torch.cat([everyone.x.detach()[everyone.targets == 1], mine.bank.detach()[rank:]])
    labels = torch.cat([(everyone.targets == 1).nonzero()[:, 1], mine.labels[rank:]])
    image = torch.cat([(everyone.targets == 1).nonzero()[:, 0], torch.full((M - rank,), -1)])
    rows, expected, counted = rows / rows.norm(dim=1, keepdim=True), 0.0, 0
    for a in range(len(rows)):
        others = [c for c in range(len(rows)) if c != a]
        positives = [c for c in others if labels[c] == labels[a]]
        if positives and (start <= image[a] < stop or image[a] < 0):
            mass = torch.logsumexp(torch.stack([rows[a] @ rows[c] / 0.3 for c in others]), 0)
            expected += mass - sum(rows[a] @ rows[c] / 0.3 for c in positives) / len(positives)
            counted += 1

    def shared() -> None:
        total, count = sample_sum(
            everyone.x[start:stop],
            everyone.targets[start:stop],
            mine.bank[rank:],
            mine.labels[rank:],
            temperature=0.3,
            bank_scope="worker",
        )
        close(total, torch.as_tensor(expected))
        assert count == counted

    return shared


def remembered(start_of: Callable[[int], tuple[int, int]]) -> dict[str, Tensor]:
    """State of banks and prototypes after some steps, and what they said they admitted."""
    state: dict[str, Tensor] = {}
    kinds: dict[str, MemoryBank | Prototypes] = {
        p: MemoryBank(L, P, policy=p, size=N) for p in ("slot", "none")
    }
    kinds["fifo"] = MemoryBank(L, P, policy="fifo", size=3)
    kinds |= {p: Prototypes(L, P, policy=p, momentum=0.7) for p in ("mean", "ema", "learned")}
    for step in range(5):
        batch = make(step, None if step != 2 else slice(0, N))
        first, last = start_of(N)
        features = batch.x.detach()[first:last].float() * 10 ** (step - 2)
        admitted = (batch.targets[first:last] == 1) & (batch.x[first:last, :, 0] > -0.5)
        for name, kind in kinds.items():
            rows = gather(
                activated_rows(
                    features, batch.x[first:last, :, 0], admitted.flatten().nonzero()[:, 0], first
                )
            )
            said = kind.update(rows, -0.5)
            state |= {f"{name}/{step}": said} if said is not None else {}
    for name, kind in kinds.items():
        if isinstance(kind, Prototypes):
            kind.end_epoch()
        state |= {f"{name}.{key}": value.clone() for key, value in kind.state_dict().items()}
    return state


def bank_and_prototypes(world: int, rank: int) -> Callable[[], None]:
    """Equal to the bit on all workers and to one process."""
    expected = remembered(lambda count: (0, count))
    assert all(
        bool(expected[f"{p}.valid_{axes}"].any())
        for p, axes in (("slot", "KL"), ("fifo", "KL"), ("mean", "L"))
    )

    def shared() -> None:
        state = remembered(lambda count: distributed.split(count, rank, world))
        assert state.keys() == expected.keys()
        for name, tensor in state.items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name

    return shared


CHECKS = (rows_gathered, contrasts, public_losses, whole_criterion, own_banks, bank_and_prototypes)
