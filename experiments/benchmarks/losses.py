"""Both contrastive losses, forward and backward, against all (2BL)^2 pairs as in the released code.

python experiments/benchmarks/losses.py                # a minute on two cores
python experiments/benchmarks/losses.py --threads 1    # on a busy machine: one thread waits for all

The reference is dense: the batch's B*L rows and the bank's B*L slots in one matrix of similarities,
masks for "same label", "both activated" and "not itself", and log-sum-exp over the activated; and
Eq. 6 over (B, L). It computes the same loss and gradient as ours. This is checked first, in float64
at a small size, and nothing is timed if they differ. The released code has another anchor mask
(``loss.anchor_mask``); a reference with that mask, or with none, would cost the same.

The goal is 150 times in time (better 300) and 100 times in memory, and less than 1 GB at VG500's
sizes. The limit of the time is this machine's rate of matrix products, or the bytes that must be
moved, whichever takes longer (:func:`time_limit`).

How to read it: a ratio is reference / ours, so more is better. Times are medians of interleaved
pairs, and the range of a ratio is over the pairs. Memory is the growth of a fresh process in one
run, beyond inputs and their gradients (Linux only). The settings are COCO's sizes with as many bank
rows as activated rows; the same with every slot filled; and VG500's sizes, where the reference does
not fit and is not run.

Axes: B images, L labels, P embedding size, M bank rows, R = 2BL rows of the dense matrix.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from rows import REFS, Row, bandwidth, compare, matmul_rate, print_rows, resident_bytes
from torch import Tensor
from torch.nn import functional as F

from sadcl.console import console
from sadcl.losses.contrast import positive_index
from sadcl.losses.prototype_to_sample import prototype_to_sample, similarities
from sadcl.losses.sample_to_sample import gather_candidates, gather_labels, sample_to_sample

TAU, PROTOTYPE_TAU = 0.2, 0.07


class Setting(NamedTuple):
    """Sizes of one comparison.

    Attributes:
        name: for the table.
        B: images.
        L: labels.
        P: embedding size.
        cardinality: mean number of labels of an image.
        full_bank: whether every slot of the bank has a row; else as many as the batch has activated
            rows.
        run: the ways to compute: ``ours``, ``dense``.
        time_goal: ratio of the times to reach.
        memory_goal: ratio of the memory to reach.
        memory_MB: the memory that ours must not exceed.
    """

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
SMALL = Setting("check", 5, 16, 16, 2.0)
"""A setting that has rows without a positive, and labels without a row."""


class Contrasts:
    """The inputs of a setting, and one of the two ways to compute on them."""

    def __init__(self, setting: Setting, which: str, dtype: torch.dtype = torch.float32) -> None:
        generator, (_, B, L, P, cardinality, *_) = torch.Generator().manual_seed(0), setting
        frequency_L = torch.arange(1, L + 1).pow(-0.7)  # long-tailed, as COCO's labels are

        def draw_cells_BL() -> Tensor:
            count = round(B * cardinality)
            cells = torch.multinomial(frequency_L.repeat(B), count, generator=generator)
            return torch.zeros(B * L, dtype=torch.bool).index_fill_(0, cells, True).view(B, L)

        self.which = which
        self.targets_BL = draw_cells_BL().long()
        self.valid_BL = draw_cells_BL() | setting.full_bank
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
        """Compute the loss and its gradients."""
        loss = self.dense() if self.which == "dense" else self.ours()
        return [loss.detach(), *torch.autograd.grad(loss, self.leaves)]

    def ours(self) -> Tensor:
        """Compute both losses as :class:`sadcl.losses.criterion.Criterion` does."""
        place_A, L = positive_index(self.targets_BL), self.targets_BL.shape[1]
        options: dict[str, Any] = {"temperature": PROTOTYPE_TAU, "normalize": True}
        similarity_BL, own_AP = similarities(
            self.embeddings_BLP, self.prototypes_LP, place_A, **options
        )
        rows = gather_labels(own_AP, place_A % L)
        candidates = gather_candidates(rows, self.bank, self.labels_M, num_labels=L)
        sample, anchors = sample_to_sample(candidates, temperature=TAU)
        prototype, counted = prototype_to_sample(
            similarity_BL, self.targets_BL, torch.ones(L, dtype=torch.bool)
        )
        return sample / anchors + prototype / counted

    def dense(self) -> Tensor:
        """Compute both losses over all pairs."""
        rows_RP = F.normalize(torch.cat([self.embeddings_BLP, self.bank]).flatten(0, 1), dim=1)
        active_BL, (B, L) = self.targets_BL == 1, self.targets_BL.shape
        active_R = torch.cat([active_BL, self.valid_BL]).flatten()
        labels_R = torch.arange(L).repeat(2 * B)
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


def largest_difference() -> float:
    """Return the largest difference of the two ways in the loss and any gradient element."""
    ours, dense = (Contrasts(SMALL, which, torch.float64) for which in ("ours", "dense"))
    our_results, dense_results = ours.run(), dense.run()
    slots_BLP = torch.zeros_like(dense_results[2])
    slots_BLP[dense.valid_BL] = our_results[2]  # an empty slot has no gradient
    our_results[2] = slots_BLP
    pairs = zip(our_results, dense_results, strict=True)
    return float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())


def milliseconds(contrasts: Contrasts, runs: int = 1) -> float:
    """Measure the mean time of a run, without the time to free its results."""
    total = 0.0
    for _ in range(runs):
        start = time.perf_counter()
        results = contrasts.run()
        total += time.perf_counter() - start
        del results  # outside the clock
    return 1e3 * total / runs


def times(setting: Setting, repeats: int) -> list[list[float]]:
    """Measure ours and the reference in turn, so that other load of the machine affects both."""
    each = [Contrasts(setting, which) for which in setting.run]
    for contrasts in each:
        contrasts.run()
    fastest = min(milliseconds(each[0]) for _ in range(3))
    runs = [max(1, int(100 / fastest)), 1]  # a few ms are too short to time alone
    return [[milliseconds(*pair) for pair in zip(each, runs, strict=False)] for _ in range(repeats)]


def memory_growth(setting: Setting, which: str, threads: int) -> float:
    """Measure the peak resident MB of one run beyond its inputs and their gradients.

    Call it in a fresh process. The kernel's peak also covers what torch's allocator does not count,
    such as packed operands of a matrix product. The peak is reset because the import of torch
    raised it. The gradients are added to the base by their size: if they were allocated before,
    they would count twice, because autograd makes them elsewhere and adds. The warm-up is tiny: it
    loads code and starts threads, but leaves no free heap in which growth would be invisible.
    """
    torch.set_num_threads(threads)
    contrasts = Contrasts(setting, which)
    Contrasts(SMALL, which).run()

    base = resident_bytes("VmRSS") + sum(leaf.nbytes for leaf in contrasts.leaves)
    REFS.write_text("5")
    contrasts.run()
    return (resident_bytes("VmHWM") - base) / 1e6


def memory(setting: Setting, which: str) -> float:
    """Measure :func:`memory_growth` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        threads = torch.get_num_threads()
        return process.submit(memory_growth, setting, which, threads).result()


def time_limit(setting: Setting, operations: float, moved: float) -> float:
    """Return the ms that any program needs.

    Eq. 4 multiplies each pair of its C candidates once, and one C x C matrix with the candidates
    for the gradient. Both losses read their inputs in the forward and in the backward pass, and
    write the gradients.

    Args:
        setting: the sizes.
        operations: that the machine computes in a second.
        moved: bytes that it reads and writes in a second.
    """
    _, B, L, P, cardinality, full_bank, *_ = setting
    activated = round(B * cardinality)
    bank = B * L if full_bank else activated
    products = 3 * (activated + bank) ** 2 * P + 6 * B * L * P
    return 1e3 * max(products / operations, 3 * 4 * (B * L + bank + L) * P / moved)


def benchmark(quick: bool = False, repeats: int = 5, threads: int | None = None) -> list[Row]:
    """Return a row for the time and one for the memory of each setting.

    Args:
        quick: run the small setting only.
        repeats: timed pairs of each setting.
        threads: of torch; None is torch's own.

    Raises:
        ValueError: for fewer than one repeat, or if ours and the reference differ.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    torch.set_num_threads(threads or torch.get_num_threads())
    difference, rows = largest_difference(), []
    console.print(
        f"float64, B=5 L=16 P=16: loss and gradient differ by {difference:.1e}; "
        f"{torch.get_num_threads()} threads"
    )
    if not difference <= 1e-8:
        raise ValueError(f"the reference must agree to 1e-8, but differs by {difference}")
    operations, moved = matmul_rate(), bandwidth()
    console.print(
        f"this machine: {operations / 1e9:.0f} GFLOP/s in products, {moved / 1e9:.1f} GB/s",
        highlight=False,
    )
    for setting in (SMALL,) if quick else SETTINGS:
        ours, *reference = zip(*times(setting, repeats), strict=True)
        bound = time_limit(setting, operations, moved)
        rows.append(
            compare(
                f"time, {setting.name}", "ms", ours, *reference, limit=bound, goal=setting.time_goal
            )
        )
        if REFS.exists():
            peaks = [[memory(setting, which) for _ in range(3)] for which in setting.run]
            goal, most = setting.memory_goal, setting.memory_MB
            rows.append(compare(f"memory, {setting.name}", "MB", *peaks, goal=goal, at_most=most))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed pairs of a setting (default: 5)"
    )
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own)")
    parser.add_argument(
        "--quick", action="store_true", help="use a small setting, to see that it runs"
    )
    print_rows(benchmark(**vars(parser.parse_args())))
    for name, B, L in (setting[:3] for setting in SETTINGS if "dense" not in setting.run):
        gigabytes = (2 * B * L) ** 2 * 4 / 1e9
        console.print(f"{name}: the reference needs several matrices of {gigabytes:.1f} GB each.")
