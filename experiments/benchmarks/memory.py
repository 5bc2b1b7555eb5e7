"""Peak memory of a training step for the recipes of COCO and VG500 at 64 images on one GPU, with and without checkpointing.

python experiments/benchmarks/memory.py                     # three minutes on one core: computed
python experiments/benchmarks/memory.py                     # where there is a GPU: measured, and computed beside it

Computed: the real step (both contrasts, EMA, bank, prototypes) runs on tensors that have shapes and no data, and every
storage that is made or freed is counted; so the peak is that of the step's own tensors, without the allocator's rounding and
the convolutions' workspace. It is checked here against what a fresh process really grows by, at a small size on the CPU.
Measured: what the GPU's allocator gave at most, in three steps.

How to read it: "state" is what lies between two steps (weights, their average, gradients, two moments of AdamW, bank,
prototypes), "activations" the rest of the peak; the ratio is the peak without checkpointing / with it. What checkpointing
costs in time is measured: at the real size on a GPU, else at the small size of the check.

Axes: B images, L labels.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import statistics
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import torch
from rows import REFS, Row, printed, resident, taken
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sadcl import recipes
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.model import SADCL
from sadcl.training import engine, loop

LABELS = {"coco14": 80, "vg500": 500}
CARDINALITY = {"coco14": 2.9, "vg500": 13.6}
OFFLINE: dict[str, Any] = {
    "model.pretrained": False,
    "bank.epsilon": 0.0,
    "prototypes.epsilon": 0.0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, checkpointing": {"model.checkpointing": True},
    "bf16": {"optim.precision": "bf16"},
    "bf16, checkpointing": {"optim.precision": "bf16", "model.checkpointing": True},
}
CHECK: dict[str, Any] = {
    "model.backbone": "resnet50",
    "data.image_size": 224,
    "model.hidden": 512,
    "model.feedforward": 2048,
    "optim.batch_size": 8,
}


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that are there, and the most that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        found = function(*given, **(named or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.storages:
                    self.storages.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return found

    def gone(self, storage: int, size: int) -> None:
        self.storages.remove(storage)
        self.now -= size


def prepared(config: Config, recipe: str, device: torch.device) -> tuple[engine.Training, Batch]:
    """A training with a full bank, and images with as many positives as the data set has."""
    labels, images, side = LABELS[recipe], config.optim.batch_size, config.data.image_size
    training = loop.prepare(2, config, tuple(map(str, range(labels))), device, steps=1000)
    network, bank = training.network.train(), training.bank
    assert isinstance(network, SADCL)
    assert bank is not None
    bank.valid_KL.fill_(True)
    bank.max_valid = bank.valid_KL.numel()
    network.prototypes.valid_L.fill_(True)
    network.prototypes.needs_rows = False
    place_A = torch.arange(round(images * CARDINALITY[recipe]), device=device) * 7
    targets = torch.zeros(images * labels, dtype=torch.int8, device=device).index_fill_(
        0, place_A, 1
    )
    pixels, weight_B = (
        torch.zeros(images, 3, side, side, device=device),
        torch.ones(images, device=device),
    )
    return training, Batch(
        pixels,
        targets.view(images, labels),
        weight_B,
        torch.arange(images, device=device),
        0,
        place_A,
    )


@contextlib.contextmanager
def without_data() -> Iterator[Live]:
    """Tensors made in here have no data; what would look at it is left out."""
    patches: list[Any] = [
        mock.patch.object(
            nn.Module, "to", lambda module, *given, **named: module
        ),  # they are where they should be
        mock.patch.object(engine, "check_finite"),
        mock.patch.object(engine.Training, "padded", True),
        *(
            mock.patch.object(place, f"{verb}_rng_state")
            for place in (torch, torch.random)
            for verb in ("get", "set")
        ),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Live())


def computed(wanted: list[tuple[str, dict[str, Any]]]) -> list[tuple[int, int]]:
    """Bytes of the peak of a step, and of what lies between two steps, for each recipe and its changes.

    In a process of its own: PyTorch 2.14 crashes where the garbage collector frees tensors without data.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send_computed, args=(there, wanted))
    process.start()
    there.close()
    found: list[tuple[int, int]] = here.recv()
    process.join()
    return found


def _send_computed(to: Connection, wanted: list[tuple[str, dict[str, Any]]]) -> None:
    gc.disable()
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
    to.send([_computed(config_of(recipe, changes), recipe) for recipe, changes in wanted])
    os._exit(0)  # before anything is collected


def config_of(recipe: str, changes: dict[str, Any]) -> Config:
    config: Config = getattr(recipes, recipe)().override({**OFFLINE, **changes})
    return config


def _computed(config: Config, recipe: str) -> tuple[int, int]:
    with without_data() as live:
        training, batch = prepared(config, recipe, torch.device("cpu"))
        for _ in range(2):  # the first one makes AdamW's moments
            live.peak = 0
            engine.train_step(training, batch)
        return live.peak, live.now


def on_gpu(config: Config, recipe: str) -> tuple[int, int, float]:
    """The same measured on a GPU, and the seconds of a step."""
    device = torch.device("cuda")
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    training, batch = prepared(config, recipe, device)
    took = []
    for _ in range(4):
        torch.cuda.synchronize()
        began = time.perf_counter()
        engine.train_step(training, batch)
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    peak, state = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    return peak, state, min(took)


def on_cpu(changes: dict[str, Any], threads: int) -> tuple[float, float]:
    """Bytes that a process grows by, which is to be a fresh one, and the seconds of a step; Linux only."""
    torch.set_num_threads(threads)
    tiny = {
        "model.backbone": "test_resnet",
        "data.image_size": 64,
        "model.hidden": 16,
        "model.feedforward": 16,
    }
    small = config_of("coco14", {**CHECK, **changes})
    training, batch = prepared(small.override(tiny), "coco14", torch.device("cpu"))
    engine.train_step(training, batch)  # loads what is loaded at first use
    del training, batch
    gc.collect()

    before = resident("VmRSS")
    training, batch = prepared(small, "coco14", torch.device("cpu"))
    took = []
    for _ in range(3):
        REFS.write_text("5")
        began = time.process_time()
        engine.train_step(training, batch)
        took.append(time.process_time() - began)
    return float(resident("VmHWM") - before), min(took)


def fresh(changes: dict[str, Any]) -> tuple[float, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(on_cpu, changes, torch.get_num_threads()).result()


def row(name: str, unit: str, ours: float, **more: Any) -> dict[str, Any]:
    columns = (
        "reference",
        "ratio",
        "low",
        "high",
        "limit",
        "share",
        "goal",
        "at_most",
        "state",
        "how",
    )
    found: dict[str, Any] = {
        "name": name,
        "unit": unit,
        "ours": ours,
        **dict.fromkeys(columns),
        **more,
    }
    return found


def measure(repeats: int = 3, threads: int | None = None) -> list[dict[str, Any]]:
    """Rows of the check, of what checkpointing costs in time, and of each recipe and setting.

    Args:
        repeats: of the processes that are measured on a CPU.
        threads: of a CPU; None is torch's own.

    Raises:
        ValueError: for less than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    torch.set_num_threads(threads or torch.get_num_threads())
    rows: list[dict[str, Any]] = []
    if REFS.exists():
        rows += checked(repeats)
    figures = iter(
        computed([(recipe, changes) for recipe in LABELS for changes in SETTINGS.values()])
    )
    for recipe in LABELS:
        peaks: dict[str, float] = {}
        for name, changes in SETTINGS.items():
            config = config_of(recipe, changes)
            what = f"{recipe}, {config.data.image_size} px, {config.optim.batch_size} images, L={LABELS[recipe]}, {name}"
            peak, state = next(figures)
            more = {} if torch.cuda.is_available() else beside(peaks, name, peak)
            rows.append(row(what, "GB", peak / 1e9, state=state / 1e9, how="computed", **more))
            if torch.cuda.is_available():
                try:
                    peak, state, took = on_gpu(config, recipe)
                except torch.OutOfMemoryError:
                    continue
                rows.append(
                    row(
                        what,
                        "GB",
                        peak / 1e9,
                        state=state / 1e9,
                        how="measured",
                        **beside(peaks, name, peak),
                    )
                )
                rows.append(row(f"{what}: a step", "ms", 1e3 * took, how="measured"))
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """The same for the table of all benchmarks; ``quick`` measures each process once."""
    return taken(measure(repeats=1) if quick else measure())


def beside(peaks: dict[str, float], name: str, peak: float) -> dict[str, float]:
    """The peak without checkpointing, and the ratio, where this one is with it."""
    peaks[name] = peak
    plain = peaks.get(name.removesuffix(", checkpointing"), peak)
    return {"reference": plain / 1e9, "ratio": plain / peak} if plain is not peak else {}


def checked(repeats: int) -> list[dict[str, Any]]:
    """The computed peak beside that of a process at the small size, and what checkpointing costs in time there."""
    rows, took = [], []
    setting = "{model.backbone}, {data.image_size} px, {optim.batch_size} images, L=80, hidden {model.hidden}"
    for key, value in CHECK.items():
        setting = setting.replace(f"{{{key}}}", str(value))
    names = ("fp32", "fp32, checkpointing")
    figures = computed([("coco14", {**CHECK, **SETTINGS[name]}) for name in names])
    for name, (peak, state) in zip(names, figures, strict=True):
        found = [fresh(SETTINGS[name]) for _ in range(repeats)]
        real = statistics.median(peak for peak, _ in found)
        took.append([seconds for _, seconds in found])
        rows.append(row(f"check: {setting}, {name}", "GB", peak / 1e9, reference=real / 1e9,
                        state=state / 1e9, how=f"computed; measured is {real / peak:.2f} of it"))  # fmt: skip
    ratios = [plain / again for plain, again in zip(*took, strict=True)]
    plain, again = (1e3 * statistics.median(each) for each in took)
    rows.append(row(f"time of a step with checkpointing, {setting}", "ms", again, reference=plain,
                    ratio=statistics.median(ratios), low=min(ratios), high=max(ratios), how="measured"))  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    lines = [("what", "peak", "of it state", "activations", "reference", "ratio (min..max)", "how")]
    for each in rows:
        state = each["state"]
        cells = [
            each["ours"],
            state,
            None if state is None else each["ours"] - state,
            each["reference"],
        ]
        amounts = ["" if value is None else f"{value:,.2f} {each['unit']}" for value in cells]
        ratio = "" if each["ratio"] is None else f"{each['ratio']:.2f}x"
        ratio += "" if each["low"] is None else f" ({each['low']:.2f}..{each['high']:.2f})"
        lines.append((each["name"], *amounts, ratio, each["how"]))
    printed(lines, 170)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="processes that are measured on a CPU (default 3)"
    )
    parser.add_argument("--threads", type=int, help="default: torch's own")
    show(measure(**vars(parser.parse_args())))
