"""Both contrastive losses, forward and backward, beside all (2BL)^2 pairs as the released code builds them.

python experiments/benchmarks/losses.py                 # a minute on two cores
python experiments/benchmarks/losses.py --threads 1     # where others use them: a thread that waits stalls all of ours

The reference is dense: the batch's B*L rows and the bank's B*L slots in one matrix of similarities, masks for "same label",
"both activated" and "not itself", log-sum-exp over the activated; beside it Eq. 6 over (B, L). It computes the same loss and
gradient as ours: checked first, in float64 at a small size, and nothing is timed where they differ. The released code's own
anchor mask is another one (METHOD.md); a looser reference, with that mask or with none, would cost the same.

The goal is 150 times in time (300 at a stretch) and 100 times in memory; below 1 GB at VG500's sizes. The limit of the time
is this machine's: its rate of matrix products, or the bytes that must be moved, whichever takes longer (:func:`limit`).

How to read it: a ratio is reference / ours, so more is better. Times are medians of interleaved pairs, and a ratio's range is
over the pairs. Memory is what a fresh process grows by in one run, beyond inputs and their gradients (Linux only). Settings:
COCO's sizes with as many bank rows as activated rows; the same with every slot filled; VG500's sizes, where the reference
does not fit and is not run.

Axes: B images, L labels, P embedding size, M bank rows, R = 2BL rows of the dense matrix.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from rows import REFS, Row, bandwidth, compared, matmul_rate, resident, show
from torch import Tensor
from torch.nn import functional as F

from sadcl.console import console
from sadcl.losses.contrast import positive_index
from sadcl.losses.prototype_to_sample import prototype_to_sample, similarities
from sadcl.losses.sample_to_sample import gather_candidates, sample_to_sample

TAU, PROTOTYPE_TAU = 0.2, 0.07


class Setting(NamedTuple):
    name: str
    B: int
    L: int
    P: int
    cardinality: float
    full_bank: bool = False
    run: tuple[str, ...] = ("ours", "dense")
    time_goal: float | None = None
    memory_goal: float | None = None
    memory_MB: float | None = None


SETTINGS = (
    Setting("B=32 L=80", 32, 80, 1024, 2.9, time_goal=150, memory_goal=100),
    Setting("B=32 L=80 full bank", 32, 80, 1024, 2.9, full_bank=True),
    Setting("B=64 L=500", 64, 500, 1024, 13.6, run=("ours",), memory_MB=1000),
)
SMALL = Setting("check", 5, 16, 16, 2.0)  # with rows that are alone and labels that are absent


class Contrasts:
    """One setting's inputs and one of the two ways to compute on them."""

    def __init__(self, setting: Setting, which: str, dtype: torch.dtype = torch.float32) -> None:
        generator, (_, B, L, P, cardinality, *_) = torch.Generator().manual_seed(0), setting
        frequency_L = torch.arange(1, L + 1).pow(-0.7)  # long-tailed, as COCO's labels are

        def cells_BL() -> Tensor:
            chosen = torch.multinomial(
                frequency_L.repeat(B), round(B * cardinality), generator=generator
            )
            return torch.zeros(B * L, dtype=torch.bool).index_fill_(0, chosen, True).view(B, L)

        self.which, self.targets_BL, self.valid_BL = (
            which,
            cells_BL().long(),
            cells_BL() | setting.full_bank,
        )
        self.embeddings_BLP, bank_BLP = (
            torch.randn(B, L, P, generator=generator, dtype=dtype) for _ in range(2)
        )
        self.prototypes_LP = torch.randn(L, P, generator=generator, dtype=dtype)
        self.labels_M = self.valid_BL.nonzero()[:, 1]
        self.bank = bank_BLP if which == "dense" else bank_BLP[self.valid_BL]
        self.leaves = [
            leaf.requires_grad_() for leaf in (self.embeddings_BLP, self.bank, self.prototypes_LP)
        ]

    def run(self) -> list[Tensor]:
        """Loss and gradient."""
        loss = self.dense() if self.which == "dense" else self.ours()
        return [loss.detach(), *torch.autograd.grad(loss, self.leaves)]

    def ours(self) -> Tensor:
        """As :class:`sadcl.losses.criterion.Criterion` puts them together."""
        place_A, L = positive_index(self.targets_BL), self.targets_BL.shape[1]
        options: dict[str, Any] = {"temperature": PROTOTYPE_TAU, "normalize": True}
        similarity_BL, own_AP = similarities(
            self.embeddings_BLP, self.prototypes_LP, place_A, **options
        )
        candidates = gather_candidates(own_AP, place_A % L, self.bank, self.labels_M, num_labels=L)
        sample, anchors = sample_to_sample(candidates, temperature=TAU)
        prototype, counted = prototype_to_sample(
            similarity_BL, self.targets_BL, torch.ones(L, dtype=torch.bool)
        )
        return sample / anchors + prototype / counted

    def dense(self) -> Tensor:
        rows_RP = F.normalize(torch.cat([self.embeddings_BLP, self.bank]).flatten(0, 1), dim=1)
        active_BL, (B, L) = self.targets_BL == 1, self.targets_BL.shape
        active_R, labels_R = (
            torch.cat([active_BL, self.valid_BL]).flatten(),
            torch.arange(L).repeat(2 * B),
        )
        candidate_RR = active_R & ~torch.eye(2 * B * L, dtype=torch.bool)
        positive_RR = candidate_RR & (labels_R[:, None] == labels_R)
        similarity_RR, count_R = rows_RP @ rows_RP.T / TAU, positive_RR.sum(1)
        all_R = similarity_RR.masked_fill(~candidate_RR, -torch.inf).logsumexp(1)
        loss_R = all_R - (similarity_RR * positive_RR).sum(1) / count_R.clamp(min=1)
        cosine_BL = (
            F.normalize(self.embeddings_BLP, dim=2) * F.normalize(self.prototypes_LP, dim=1)
        ).sum(2)
        similarity_BL = cosine_BL / PROTOTYPE_TAU
        loss_L = similarity_BL.logsumexp(0) - similarity_BL.masked_fill(
            ~active_BL, -torch.inf
        ).logsumexp(0)
        return loss_R[active_R & (count_R > 0)].mean() + loss_L[active_BL.any(0)].mean()


def difference() -> float:
    """Largest difference between the two, of the loss and of any part of its gradient."""
    ours, dense = (Contrasts(SMALL, which, torch.float64) for which in ("ours", "dense"))
    found, wanted = ours.run(), dense.run()
    slots_BLP = torch.zeros_like(wanted[2])
    slots_BLP[dense.valid_BL] = found[2]  # a slot that is empty has no gradient
    found[2] = slots_BLP
    return float(
        torch.stack([(a - b).abs().max() for a, b in zip(found, wanted, strict=True)]).max()
    )


def milliseconds(contrasts: Contrasts, runs: int = 1) -> float:
    total = 0.0
    for _ in range(runs):
        start = time.perf_counter()
        found = contrasts.run()
        total += time.perf_counter() - start
        del found  # outside the clock
    return 1e3 * total / runs


def times(setting: Setting, repeats: int) -> list[list[float]]:
    """Ours and the reference in turn, so that what else the machine does meets both."""
    each = [Contrasts(setting, which) for which in setting.run]
    for contrasts in each:
        contrasts.run()
    runs = [
        max(1, int(100 / min(milliseconds(each[0]) for _ in range(3)))),
        1,
    ]  # some ms are too short to time alone
    return [[milliseconds(*pair) for pair in zip(each, runs, strict=False)] for _ in range(repeats)]


def growth(setting: Setting, which: str, threads: int) -> float:
    """Peak resident megabytes of one run beyond its inputs and their gradients; call it in a fresh process.

    The kernel's mark also sees what torch's allocator does not count (packed operands of a matrix product, say). It is
    reset because importing torch has raised it. The gradients enter the base by their size: as buffers that lie ready they
    would count twice, since autograd makes them elsewhere and adds. The warm-up is tiny: it loads code and starts threads,
    but leaves no free heap to grow into unseen.
    """
    torch.set_num_threads(threads)
    contrasts = Contrasts(setting, which)
    Contrasts(SMALL, which).run()

    base = resident("VmRSS") + sum(leaf.nbytes for leaf in contrasts.leaves)
    REFS.write_text("5")
    contrasts.run()
    return (resident("VmHWM") - base) / 1e6


def memory(setting: Setting, which: str) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(growth, setting, which, torch.get_num_threads()).result()


def limit(setting: Setting, operations: float, moved: float) -> float:
    """Milliseconds below which no program comes that does ``operations`` and has ``moved`` bytes a second.

    Eq. 4 multiplies each pair of its C candidates once, and one C x C matrix with the candidates for the gradient; both
    losses read their inputs in either direction and write the gradients.
    """
    _, B, L, P, cardinality, full_bank, *_ = setting
    activated = round(B * cardinality)
    bank = B * L if full_bank else activated
    products = 3 * (activated + bank) ** 2 * P + 6 * B * L * P
    return 1e3 * max(products / operations, 3 * 4 * (B * L + bank + L) * P / moved)


def benchmark(quick: bool = False, repeats: int = 5, threads: int | None = None) -> list[Row]:
    """A row for the time and one for the memory of each setting, without reference and ratios where that is not run."""
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    torch.set_num_threads(threads or torch.get_num_threads())
    apart, rows = difference(), []
    console.print(
        f"float64, B=5 L=16 P=16: loss and gradient differ by {apart:.1e}; {torch.get_num_threads()} threads"
    )
    if not apart <= 1e-8:
        raise ValueError(f"the reference must compute the same to 1e-8, but differs by {apart}")
    operations, moved = matmul_rate(), bandwidth()
    console.print(
        f"this machine: {operations / 1e9:.0f} GFLOP/s in products, {moved / 1e9:.1f} GB/s",
        highlight=False,
    )
    for setting in (SMALL,) if quick else SETTINGS:
        ours, *reference = zip(*times(setting, repeats), strict=True)
        bound = limit(setting, operations, moved)
        rows.append(
            compared(
                f"time, {setting.name}", "ms", ours, *reference, limit=bound, goal=setting.time_goal
            )
        )
        if REFS.exists():
            peaks = [[memory(setting, which) for _ in range(3)] for which in setting.run]
            goal, most = setting.memory_goal, setting.memory_MB
            rows.append(compared(f"memory, {setting.name}", "MB", *peaks, goal=goal, at_most=most))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed pairs in a setting (default 5)"
    )
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--quick", action="store_true", help="a small setting, to see that it runs")
    show(benchmark(**vars(parser.parse_args())))
    for name, B, L in (setting[:3] for setting in SETTINGS if "dense" not in setting.run):
        console.print(
            f"{name}: the reference needs several fp32 matrices of {(2 * B * L) ** 2 * 4 / 1e9:.1f} GB each."
        )
