"""The training step in images/s, against a loop as released and against the device's products.

python experiments/benchmarks/step.py   # on a GPU ResNet-101, 448 px, 64 images; L=80; minutes
python experiments/benchmarks/step.py --backbone resnet50 --side 224 --images 8 --repeats 2

On a CPU the sizes are ResNet-18, 128 px and 8 images.

The loops run on the same random images with COCO's label frequency, with weights in float32: the
pooled baseline, SARL (stage 1) and SADCL (stage 2, both contrasts, EMA, bank and prototypes), all
as sadcl trains them, on a GPU with bf16 autocast, channels_last and torch.compile, SADCL without it
too; and the reference, SADCL's network in a loop like the released code's. That loop is eager, on a
GPU with fp16 autocast and a GradScaler. It projects the whole bank, computes all (2BL)^2 pairs of
batch and bank, of which few are active, writes its bank label by label and reads from the device
for each, has PyTorch's default AdamW, averages tensor by tensor, and reads three terms in each
step. Every positive is admitted and every slot of the bank is full, the most work for both.

How to read it: the loops run in turn, so that other load of the machine affects all. Speeds are
medians. A ratio is ours / reference of one round (reference / ours for memory and waits), so more
is better, with its range over the rounds. "limit" is the speed at which the step's counted products
and convolutions alone would run at the rate of one large matrix product in the same type, measured
here, and "share" is how much of it is reached. Memory is what a loop and its state add: to the GPU,
or to a fresh process. The share outside forward and backward is optimiser, average, bank,
prototypes and checks, timed where they are called.

Axes: B images, L labels, P embedding size, D hidden size, R = 2BL rows of the dense matrix.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from rows import REFS, Row, matmul_rate, resident_bytes, rows_from
from step_measurements import (
    count_waits,
    fill,
    flops,
    free_memory,
    memory_rows,
    outside_share,
    print_measurements,
    row,
    seconds,
)
from torch import Tensor
from torch.nn import functional as F

from sadcl import recipes
from sadcl.config import POOLED, SARL, Config
from sadcl.data.loader import Batch
from sadcl.memory import Memory
from sadcl.training import engine, loop
from sadcl.training.optim import create_optimizer, create_schedule

L, CARDINALITY = 80, 2.9


class Size(NamedTuple):
    """What the loops train.

    Attributes:
        backbone: of timm.
        side: of an image in pixels.
        images: of a batch.
        hidden: size of the transformer.
        compile: whether our loops use torch.compile.
    """

    backbone: str
    side: int
    images: int
    hidden: int
    compile: bool


SMALL = Size("resnet18", 128, 8, 512, False)
FULL = Size("resnet101", 448, 64, 2048, True)


def config(size: Size) -> Config:
    """Return the configuration of SADCL at a size, in the precision that a recipe has."""
    return recipes.coco14().override(
        {
            "data.image_size": size.side,
            "model.backbone": size.backbone,
            "model.pretrained": False,
            "model.hidden": size.hidden,
            "model.feedforward": 4 * size.hidden,
            "optim.batch_size": size.images,
            "optim.compile": size.compile,
            "bank.epsilon": 0.0,
            "prototypes.epsilon": 0.0,
        }
    )


def batch(size: Size, device: torch.device) -> Batch:
    """Draw a batch."""
    generator = torch.Generator().manual_seed(0)
    frequency_L = torch.arange(1, L + 1).pow(-0.7)  # long-tailed, as COCO's labels are
    chance_L = frequency_L * CARDINALITY / frequency_L.sum()
    targets = (torch.rand(size.images, L, generator=generator) < chance_L).to(torch.int8)
    images = torch.randn(size.images, 3, size.side, size.side, generator=generator)
    place_A = (targets == 1).flatten().nonzero()[:, 0]
    parts = (images, targets, torch.ones(size.images), torch.arange(size.images), place_A)
    images, targets, weight_B, index_B, place_A = (part.to(device) for part in parts)
    return Batch(images, targets, weight_B, index_B, 0, place_A, place_A)


class Ours:
    """A loop as sadcl trains; ``kind`` is ``baseline``, ``SARL`` or ``SADCL``."""

    def __init__(self, kind: str, size: Size, device: torch.device) -> None:
        spec = config(size).override({"model.head": POOLED if kind == "baseline" else SARL})
        self.training = loop.prepare(
            2 if kind == "SADCL" else 1, spec, tuple(map(str, range(L))), device, steps=1000
        )
        self.training.network.train()
        self.batch = batch(size, device)
        if self.training.bank is not None and self.training.network.prototypes is not None:
            fill(self.training)

    def run(self) -> None:
        """Train one step."""
        engine.train_step(self.training, self.batch)


class Released:
    """SADCL's network in a loop like the released code's."""

    def __init__(self, size: Size, device: torch.device) -> None:
        spec = config(size).override({"optim.compile": False})
        training = loop.prepare(2, spec, tuple(map(str, range(L))), device, steps=1000)
        self.network, self.device, self.loss = training.network, device, spec.loss
        self.network.to(memory_format=torch.contiguous_format)
        self.network.train()
        groups = create_optimizer(self.network, spec.stage2, spec.optim).param_groups
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=spec.stage2.lr)
        self.schedule = create_schedule(self.optimizer, spec.stage2, spec.optim, 1000)
        self.average, self.decay = copy.deepcopy(self.network), spec.optim.ema_decay
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.batch = batch(size, device)
        self.bank_BLD = torch.randn(size.images, L, size.hidden, device=device)
        index_M = torch.arange(size.images * L, device=device)
        self.labels_M, self.positions_M = index_M % L, index_M // L

    def run(self) -> None:
        """Train one step."""
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
        """Compute Eq. 4 over all pairs of batch and bank; the bank's matched rows are active."""
        rows_RP = F.normalize(
            torch.cat([output.embeddings_BLP.flatten(0, 1), output.bank_MP]).float(), dim=1
        )
        active_BL = self.batch.targets_BL == 1
        active_R = torch.cat([active_BL, active_BL]).flatten()
        labels_R = torch.arange(L, device=self.device).repeat(2 * len(active_BL))
        candidate_RR = active_R & ~torch.eye(len(rows_RP), dtype=torch.bool, device=self.device)
        positive_RR = candidate_RR & (labels_R[:, None] == labels_R)
        similarity_RR, count_R = rows_RP @ rows_RP.T / self.loss.tau, positive_RR.sum(1)
        all_R = similarity_RR.masked_fill(~candidate_RR, -torch.inf).logsumexp(1)
        loss_R = all_R - (similarity_RR * positive_RR).sum(1) / count_R.clamp(min=1)
        return loss_R[active_R & (count_R > 0)].mean()

    def prototype_term(self, output: Any) -> Tensor:
        """Compute Eq. 6, divided by the number of positives."""
        active_BL = self.batch.targets_BL == 1
        cosine_BLP = F.normalize(output.embeddings_BLP.float(), dim=2) * F.normalize(
            output.prototypes_LP.float(), dim=1
        )
        similarity_BL = cosine_BLP.sum(2) / self.loss.tau_of_prototypes
        loss_L = similarity_BL.logsumexp(0) - similarity_BL.masked_fill(
            ~active_BL, -torch.inf
        ).logsumexp(0)
        return loss_L[active_BL.any(0)].sum() / active_BL.sum()


EAGER = "SADCL, not compiled"


def kinds(size: Size) -> tuple[str, ...]:
    """Return the names of the loops."""
    return ("baseline", "SARL", "SADCL", "released", *([EAGER] if size.compile else []))


def make_step(kind: str, size: Size, device: torch.device) -> Ours | Released:
    """Make a loop of one of :func:`kinds`."""
    if kind == "released":
        return Released(size, device)
    if kind == EAGER:
        kind, size = "SADCL", size._replace(compile=False)
    return Ours(kind, size, device)


def gpu_peak(kind: str, size: Size, device: torch.device) -> float:
    """Measure the peak bytes that a loop and its state add to a GPU."""
    free_memory()
    before = torch.cuda.memory_allocated(device)
    step = make_step(kind, size, device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        step.run()
    return float(torch.cuda.max_memory_allocated(device) - before)


def cpu_peak(kind: str, size: Size, threads: int) -> float:
    """Measure the peak bytes that a loop adds to this process; call it in a fresh one."""
    torch.set_num_threads(threads)
    for warm_up in ("released", "SADCL"):  # loads what is loaded at first use
        make_step(warm_up, Size("test_resnet", 64, 2, 64, False), torch.device("cpu")).run()
    free_memory()

    before = resident_bytes("VmRSS")
    step = make_step(kind, size, torch.device("cpu"))
    REFS.write_text("5")
    for _ in range(2):
        step.run()
    return float(resident_bytes("VmHWM") - before)


def peak(kind: str, size: Size, device: torch.device) -> float | None:
    """Measure the peak bytes of a loop; None on a CPU without Linux's counters."""
    if device.type == "cuda":
        return gpu_peak(kind, size, device)
    if not REFS.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(cpu_peak, kind, size, torch.get_num_threads()).result()


def largest_batch(size: Size, device: torch.device) -> tuple[int, float]:
    """Find the largest eager batch that a GPU holds, a multiple of 8, and its images/s."""
    size = size._replace(compile=False)
    small, large = (gpu_peak("SADCL", size._replace(images=images), device) for images in (8, 16))
    room = 0.95 * torch.cuda.get_device_properties(device).total_memory
    images = 8 * int(1 + (room - small) / (large - small))
    while True:
        free_memory()
        try:
            return images, images / step_seconds(size._replace(images=images), device)
        except torch.OutOfMemoryError:
            images -= 8


def step_seconds(size: Size, device: torch.device) -> float:
    """Measure the seconds of a step after a first one; if it does not fit, its memory is freed."""
    step = make_step("SADCL", size, device)
    step.run()
    return seconds(step.run, device, 3)


def measure(
    size: Size | None = None, repeats: int = 5, threads: int | None = None
) -> list[dict[str, Any]]:
    """Return rows of speed, memory and waits; only the full size on a GPU has goals.

    Args:
        size: None is the full one if there is a GPU, else a small one.
        repeats: rounds.
        threads: of torch on a CPU; None is torch's own.

    Raises:
        ValueError: for fewer than one round.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads or torch.get_num_threads())
    size = size or (FULL if device.type == "cuda" else SMALL)
    full = device.type == "cuda" and size == FULL
    peaks = {kind: peak(kind, size, device) for kind in kinds(size)}
    steps = {kind: make_step(kind, size, device) for kind in kinds(size)}
    rows = speed_rows(steps, size, device, repeats, full)
    ours = steps["SADCL"]
    assert isinstance(ours, Ours)
    share = [outside_share(ours.run, ours.training, 2) for _ in range(repeats)]
    rows.append(
        row("SADCL outside forward and backward", "%", share, at_most=3.0 if full else None)
    )
    if device.type == "cuda":
        ours.training.step = 1  # every tenth step checks that the loss is finite
        host_waits = [[float(count_waits(step.run))] for step in (ours, steps["released"])]
        rows.append(row("the host waits in a step", "waits", *host_waits))
    steps.clear()
    rows += memory_rows(peaks)
    if device.type == "cuda":
        del ours
        images, fastest = largest_batch(size, device)
        name = f"SADCL, not compiled, {images} images: the largest batch that fits"
        rows.append(row(name, "images/s", [fastest]))
    return rows


def speed_rows(
    steps: dict[str, Ours | Released], size: Size, device: torch.device, repeats: int, full: bool
) -> list[dict[str, Any]]:
    """Measure the loops in turn for ``repeats`` rounds, and return the rows of their speeds.

    Rows of the ``full`` size have goals.
    """
    # the matrix product has the type that the step computes in
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    rate = matmul_rate(side, 7, device, dtype)
    work = {kind: flops(step.run, getattr(step, "training", None)) for kind, step in steps.items()}
    runs = {
        kind: max(1, int(0.5 / min(seconds(step.run, device) for _ in range(3))))
        for kind, step in steps.items()
    }
    rounds = [
        {k: size.images / seconds(s.run, device, runs[k]) for k, s in steps.items()}
        for _ in range(repeats)
    ]
    speed = {kind: [each[kind] for each in rounds] for kind in steps}
    limits = {kind: rate * size.images / work[kind] for kind in steps}
    sizes = f"{size.backbone} {size.side} px, {size.images} images"
    unit, SADCL_speed = "images/s", speed["SADCL"]
    goals = {"SARL": 0.97, "released": 2.0} if full else {}
    more = {"limit": limits["SADCL"], "goal": goals.get("released")}
    eager = [(speed[EAGER], SADCL_speed, limits[EAGER])] if EAGER in steps else []
    return [
        row(f"baseline, {sizes}", unit, speed["baseline"], limit=limits["baseline"]),
        row(f"SARL, {sizes}", unit, speed["SARL"], limit=limits["SARL"]),
        row("SADCL against SARL", unit, SADCL_speed, speed["SARL"], goal=goals.get("SARL")),
        row("SADCL against a loop as released", unit, SADCL_speed, speed["released"], **more),
        row("loop as released", unit, speed["released"], limit=limits["released"]),
        *(row(f"{EAGER}, against compiled", unit, a, b, limit=c) for a, b, c in eager),
    ]


def benchmark(quick: bool = False) -> list[Row]:
    """Return the rows of :func:`measure`; ``quick`` measures one round."""
    return rows_from(measure(repeats=1) if quick else measure())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", help="name in timm")
    parser.add_argument("--side", type=int, help="side of an image in pixels")
    parser.add_argument("--images", type=int, help="images of a batch")
    parser.add_argument(
        "--hidden", type=int, help="size of the transformer; its perceptron is four times as wide"
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="use torch.compile for our loops"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own)")
    options = vars(parser.parse_args())
    changes = {name: options.pop(name) for name in Size._fields}
    size = (FULL if torch.cuda.is_available() else SMALL)._replace(
        **{name: value for name, value in changes.items() if value is not None}
    )
    print_measurements(measure(size, **options))
