"""The training step: images/s beside a loop as the released code has it, and beside what the device's products allow.

python experiments/benchmarks/step.py                    # two minutes on one core: ResNet-18, 128 px, 8 images, L=80
python experiments/benchmarks/step.py                    # where there is a GPU: ResNet-101, 448 px, 64 images, minutes
python experiments/benchmarks/step.py --backbone resnet50 --side 224 --images 8 --repeats 2      # any other size

Four loops on the same random images with COCO's label frequency, weights in float32: the pooled baseline, SARL (stage 1),
SADCL (stage 2, both contrasts, EMA, bank and prototypes), all as ``sadcl train`` runs them, on a GPU with bf16 autocast,
channels_last and torch.compile; and the reference, which is SADCL's network in a loop as the released code has it (METHOD):
eager, on a GPU with fp16 autocast and a GradScaler, all (2BL)^2 pairs of batch and bank, a bank that is written label by
label with a look at the device for each, AdamW as PyTorch gives it, an average made tensor by tensor, three terms read each
step. Every positive is admitted and every slot of the bank is full, which is the most work for both.

How to read it: the loops run in turn, so that what else the machine does meets all; speeds are medians, a ratio is
ours / reference of one round (memory and waits: reference / ours), so more is better, with its range over the rounds.
"limit" is the speed at which the step's counted products and convolutions alone would run at the rate of one large matrix
product in the same type, measured here; "share" is how much of that is reached. Memory is what a loop and its state take
beyond what was there: of the GPU, or of a fresh process. The share outside forward and backward is optimiser, average,
bank, prototypes and checks, timed where they are called.

Axes: B images, L labels, P embedding size, D hidden size, R = 2BL rows of the dense matrix.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gc
import multiprocessing
import statistics
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple
from unittest import mock

import torch
from rows import REFS, Row, matmul_rate, printed, resident, taken
from rows import seconds as timed
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sadcl import recipes
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.memory import Memory
from sadcl.model import SADCL
from sadcl.training import engine, loop
from sadcl.training.optim import adamw, one_cycle
from sadcl.training.timer import Timer

L, CARDINALITY = 80, 2.9


class Size(NamedTuple):
    backbone: str
    side: int
    images: int
    hidden: int
    compile: bool


SMALL = Size("resnet18", 128, 8, 512, False)
FULL = Size("resnet101", 448, 64, 2048, True)


def config(size: Size, cuda: bool) -> Config:
    return recipes.coco14().override(
        {
            "data.image_size": size.side,
            "model.backbone": size.backbone,
            "model.pretrained": False,
            "model.hidden": size.hidden,
            "model.feedforward": 4 * size.hidden,
            "optim.batch_size": size.images,
            "optim.precision": "bf16" if cuda else "fp32",
            "optim.compile": size.compile,
            "bank.epsilon": 0.0,
            "prototypes.epsilon": 0.0,
        }
    )


def batch(size: Size, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    frequency_L = torch.arange(1, L + 1).pow(-0.7)  # long-tailed, as COCO's labels are
    chance_L = frequency_L * CARDINALITY / frequency_L.sum()
    targets = (torch.rand(size.images, L, generator=generator) < chance_L).to(torch.int8)
    images = torch.randn(size.images, 3, size.side, size.side, generator=generator)
    place_A = (targets == 1).flatten().nonzero()[:, 0]
    parts = (images, targets, torch.ones(size.images), torch.arange(size.images), place_A)
    images, targets, weight_B, index_B, place_A = (part.to(device) for part in parts)
    return Batch(images, targets, weight_B, index_B, 0, place_A)


class Ours:
    """A training as ``sadcl train`` has it."""

    def __init__(self, kind: str, size: Size, device: torch.device) -> None:
        spec = config(size, device.type == "cuda").override(
            {"model.arch": "pooled" if kind == "baseline" else "sadcl"}
        )
        self.training = loop.prepare(
            2 if kind == "SADCL" else 1, spec, tuple(map(str, range(L))), device, steps=1000
        )
        self.training.network.train()
        self.batch = batch(size, device)
        if self.training.bank is not None and isinstance(self.training.network, SADCL):
            fill(self.training)

    def run(self) -> None:
        engine.train_step(self.training, self.batch)


def fill(training: engine.Training) -> None:
    """Rows and prototypes as they are later in an epoch: all of them there."""
    assert training.bank is not None
    assert isinstance(training.network, SADCL)
    torch.nn.init.normal_(training.bank.rows_KLD)
    training.bank.valid_KL.fill_(True)
    training.bank.count_valid()
    torch.nn.init.normal_(training.network.prototypes.rows_LD)
    training.network.prototypes.valid_L.fill_(True)
    training.network.prototypes.end_epoch()


class Released:
    """SADCL's network in a loop as the released code has it."""

    def __init__(self, size: Size, device: torch.device) -> None:
        spec = config(size, False).override({"optim.compile": False})
        training = loop.prepare(2, spec, tuple(map(str, range(L))), device, steps=1000)
        self.network, self.device, self.loss = training.network, device, spec.loss
        self.network.to(memory_format=torch.contiguous_format)
        self.network.train()
        groups = adamw(self.network, spec.stage2, spec.optim).param_groups
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=spec.stage2.lr)
        self.schedule = one_cycle(self.optimizer, spec.stage2, spec.optim, 1000)
        self.average, self.decay = copy.deepcopy(self.network), spec.optim.ema_decay
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.batch = batch(size, device)
        self.bank_BLD = torch.randn(size.images, L, size.hidden, device=device)
        index_M = torch.arange(size.images * L, device=device)
        self.labels_M, self.positions_M = index_M % L, index_M // L

    def run(self) -> None:
        targets_BL = self.batch.targets_BL.float()
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            bank = Memory(self.bank_BLD.flatten(0, 1), self.labels_M, self.positions_M)
            output = self.network(self.batch.images_BCHW, bank)
        logits_BL = output.logits_BL.float()
        terms = [
            F.binary_cross_entropy_with_logits(logits_BL, targets_BL, reduction="sum")
            / len(targets_BL)
        ]
        terms += [self.sample_term(output), self.prototype_term(output)]
        weights = (1.0, self.loss.sample_weight, self.loss.prototype_weight)
        loss = torch.stack(
            [weight * term for weight, term in zip(weights, terms, strict=True)]
        ).sum()
        [term.item() for term in terms]
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        with torch.no_grad():
            for mean, value in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                mean.copy_(self.decay * mean + (1 - self.decay) * value)
            scores_BL = logits_BL.sigmoid()
            for label in range(L):
                admitted_B = (targets_BL[:, label] == 1) & (scores_BL[:, label] > 0)
                if admitted_B.any():
                    self.bank_BLD[admitted_B, label] = output.features_BLD[
                        admitted_B, label
                    ].float()

    def sample_term(self, output: Any) -> Tensor:
        """Eq. 4 over all pairs of batch and bank."""
        rows_RP = F.normalize(
            torch.cat([output.embeddings_BLP.flatten(0, 1), output.bank_MP]).float(), dim=1
        )
        active_BL = self.batch.targets_BL == 1
        active_R = torch.cat([active_BL, torch.ones_like(active_BL)]).flatten()
        labels_R = torch.arange(L, device=self.device).repeat(2 * len(active_BL))
        candidate_RR = active_R & ~torch.eye(len(rows_RP), dtype=torch.bool, device=self.device)
        positive_RR = candidate_RR & (labels_R[:, None] == labels_R)
        similarity_RR, count_R = rows_RP @ rows_RP.T / self.loss.tau, positive_RR.sum(1)
        all_R = similarity_RR.masked_fill(~candidate_RR, -torch.inf).logsumexp(1)
        loss_R = all_R - (similarity_RR * positive_RR).sum(1) / count_R.clamp(min=1)
        return loss_R[active_R & (count_R > 0)].mean()

    def prototype_term(self, output: Any) -> Tensor:
        """Eq. 6."""
        active_BL = self.batch.targets_BL == 1
        cosine_BLP = F.normalize(output.embeddings_BLP.float(), dim=2) * F.normalize(
            output.prototypes_LP.float(), dim=1
        )
        similarity_BL = cosine_BLP.sum(2) / self.loss.tau_of_prototypes
        loss_L = similarity_BL.logsumexp(0) - similarity_BL.masked_fill(
            ~active_BL, -torch.inf
        ).logsumexp(0)
        return loss_L[active_BL.any(0)].mean()


KINDS = ("baseline", "SARL", "SADCL", "released")


def made(kind: str, size: Size, device: torch.device) -> Ours | Released:
    return Released(size, device) if kind == "released" else Ours(kind, size, device)


def seconds(work: Callable[[], object], device: torch.device, runs: int = 1) -> float:
    return timed(work, runs, torch.get_device_module(device).synchronize)


def flops(step: Ours | Released) -> float:
    """Operations of one step's products and convolutions, forward and backward."""
    counter = FlopCounterMode(display=False)
    eager = contextlib.nullcontext()
    if isinstance(step, Ours):  # what is compiled shows no operations
        eager = mock.patch.object(step.training, "model", step.training.network)  # type: ignore[assignment]
    with eager, counter:
        step.run()
    return float(counter.get_total_flops())


def outside(step: Ours, runs: int) -> float:
    """Percent of a step that is neither forward nor backward."""
    training, watch = step.training, Timer(step.training.device)
    parts: list[tuple[Any, str]] = [
        (engine, name) for name in ("seed_step", "check_finite", "average", "remember")
    ]
    parts += [
        (training.optimizer, "zero_grad"),
        (training.optimizer, "step"),
        (training.schedule, "step"),
    ]
    parts += [(training.bank, "read")]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            with watch:
                return function(*given, **named)

        return call

    with contextlib.ExitStack() as patches:
        for owner, name in parts:
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        took = seconds(step.run, training.device, runs)
    return 100 * watch.lap() / runs / took


def waits(step: Ours | Released) -> int:
    """How often the host waits for a GPU in a step."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said)


def gpu_peak(kind: str, size: Size, device: torch.device) -> float:
    """Peak bytes of a loop and its state, beyond what was there."""
    clean()
    before = torch.cuda.memory_allocated(device)
    step = made(kind, size, device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        step.run()
    return float(torch.cuda.max_memory_allocated(device) - before)


def cpu_peak(kind: str, size: Size, threads: int) -> float:
    """The same of a process, which is to be a fresh one."""
    torch.set_num_threads(threads)
    for warm in ("released", "SADCL"):  # load what is loaded at first use
        made(warm, Size("test_resnet", 64, 2, 64, False), torch.device("cpu")).run()
    clean()

    before = resident("VmRSS")
    step = made(kind, size, torch.device("cpu"))
    REFS.write_text("5")
    for _ in range(2):
        step.run()
    return float(resident("VmHWM") - before)


def clean() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak(kind: str, size: Size, device: torch.device) -> float | None:
    if device.type == "cuda":
        return gpu_peak(kind, size, device)
    if not REFS.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(cpu_peak, kind, size, torch.get_num_threads()).result()


def largest(size: Size, device: torch.device) -> tuple[int, float]:
    """The largest batch that a GPU holds, in steps of 8 images, and its speed in images/s; without compiling."""
    size = size._replace(compile=False)
    small, large = (gpu_peak("SADCL", size._replace(images=images), device) for images in (8, 16))
    room = 0.95 * torch.cuda.get_device_properties(device).total_memory
    images = 8 * int(1 + (room - small) / (large - small))
    while True:
        clean()
        try:
            return images, images / seconds_of(size._replace(images=images), device)
        except torch.OutOfMemoryError:
            images -= 8


def seconds_of(size: Size, device: torch.device) -> float:
    """Seconds of a step after a first one, in a scope of its own so that what does not fit is given back."""
    step = made("SADCL", size, device)
    step.run()
    return seconds(step.run, device, 3)


def row(
    name: str, unit: str, ours: list[float], reference: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    """Medians, and the ratio of each round; of bytes and counts less is better."""
    found: dict[str, Any] = dict.fromkeys(
        ("reference", "ratio", "low", "high", "limit", "share", "goal", "at_most")
    )
    found |= {"name": name, "unit": unit, "ours": statistics.median(ours)}
    if reference is not None:
        pairs = [
            (b, a) if unit in ("GB", "waits") else (a, b)
            for a, b in zip(ours, reference, strict=True)
        ]
        ratios = [a / b if b else float("inf") for a, b in pairs]
        found |= {"reference": statistics.median(reference), "ratio": statistics.median(ratios)}
        found |= {"low": min(ratios), "high": max(ratios)}
    if more.get("limit"):
        found["share"] = found["ours"] / more["limit"]
    return found | more


def measure(
    size: Size | None = None, repeats: int = 5, threads: int | None = None
) -> list[dict[str, Any]]:
    """Rows of speed, memory and waits; goals only at the full size on a GPU.

    Args:
        size: None is the full one where there is a GPU, else a small one.
        repeats: rounds.
        threads: of a CPU; None is torch's own.

    Raises:
        ValueError: for less than one round.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads or torch.get_num_threads())
    size = size or (FULL if device.type == "cuda" else SMALL)
    full = device.type == "cuda" and size == FULL
    peaks = {kind: peak(kind, size, device) for kind in KINDS}
    steps = {kind: made(kind, size, device) for kind in KINDS}
    side, dtype = (
        (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    )  # as the step computes
    rate, work = (
        matmul_rate(side, 7, device, dtype),
        {kind: flops(step) for kind, step in steps.items()},
    )
    runs = {
        kind: max(1, int(0.5 / min(seconds(step.run, device) for _ in range(3))))
        for kind, step in steps.items()
    }
    rounds = [
        {k: size.images / seconds(s.run, device, runs[k]) for k, s in steps.items()}
        for _ in range(repeats)
    ]
    speed = {kind: [each[kind] for each in rounds] for kind in KINDS}
    at = f"{size.backbone} {size.side} px, {size.images} images"
    limits = {kind: rate * size.images / work[kind] for kind in KINDS}
    rows = [
        row(f"baseline, {at}", "images/s", speed["baseline"], limit=limits["baseline"]),
        row(f"SARL, {at}", "images/s", speed["SARL"], limit=limits["SARL"]),
        row("SADCL beside SARL", "images/s", speed["SADCL"], speed["SARL"], goal=0.97 if full else None),
        row(
            "SADCL beside a released-style loop", "images/s", speed["SADCL"], speed["released"],
            limit=limits["SADCL"], goal=2.0 if full else None,
        ),
        row("released-style loop", "images/s", speed["released"], limit=limits["released"]),
    ]  # fmt: skip
    ours = steps["SADCL"]
    assert isinstance(ours, Ours)
    share = [outside(ours, 2) for _ in range(repeats)]
    rows.append(
        row("SADCL outside forward and backward", "%", share, at_most=3.0 if full else None)
    )
    if device.type == "cuda":
        ours.training.step = 1  # every tenth looks whether the loss is finite
        rows.append(
            row("the host waits in a step", "waits", [waits(ours)], [waits(steps["released"])])
        )
    steps.clear()
    for kind in KINDS[:-1]:
        if (found := peaks[kind]) is not None:
            reference = (
                [peaks["released"] / 1e9]
                if kind == "SADCL" and peaks["released"] is not None
                else None
            )
            rows.append(row(f"peak memory, {kind}", "GB", [found / 1e9], reference))
    if device.type == "cuda":
        del ours
        images, fastest = largest(size, device)
        rows.append(
            row(
                f"SADCL, not compiled, {images} images: the largest batch that fits",
                "images/s",
                [fastest],
            )
        )
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """The same for the table of all benchmarks; ``quick`` is one round."""
    return taken(measure(repeats=1) if quick else measure())


def show(rows: list[dict[str, Any]]) -> None:
    lines = [("what", "ours", "reference", "ratio (median, min..max)", "limit", "share", "goal")]
    for each in rows:
        amount = {
            n: "" if each[n] is None else f"{each[n]:,.4g} {each['unit']}"
            for n in ("ours", "reference", "limit")
        }
        ratio = (
            ""
            if each["ratio"] is None
            else f"{each['ratio']:.3g}x ({each['low']:.3g}..{each['high']:.3g})"
        )
        goal = "" if each["goal"] is None else f"{each['goal']:.3g}x"
        goal = goal if each["at_most"] is None else f"{each['at_most']:.3g} {each['unit']}"
        share = "" if each["share"] is None else f"{each['share']:.0%}"
        lines.append(
            (each["name"], amount["ours"], amount["reference"], ratio, amount["limit"], share, goal)
        )
    printed(lines, 160)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", help="of timm")
    parser.add_argument("--side", type=int, help="of an image in pixels")
    parser.add_argument("--images", type=int, help="of a batch")
    parser.add_argument(
        "--hidden", type=int, help="size of the transformer; its perceptron is four times as wide"
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="ours through torch.compile"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    options = vars(parser.parse_args())
    given = {name: options.pop(name) for name in Size._fields}
    own = (FULL if torch.cuda.is_available() else SMALL)._replace(
        **{n: v for n, v in given.items() if v is not None}
    )
    show(measure(own, **options))
