"""Peak memory of a training step at 64 images on one GPU, with and without checkpointing.

python experiments/benchmarks/memory.py    # three minutes on one core: computed
python experiments/benchmarks/memory.py    # if there is a GPU: computed and measured

The recipes are those of COCO and VG500. Computed: the real step (both contrasts, EMA, bank,
prototypes) runs on tensors that have shapes and no data, and every storage that is allocated or
freed is counted. So the peak is that of the step's own tensors, without the allocator's rounding
and the workspace of convolutions. It is compared with what a fresh process really grows by, at a
small size on the CPU. Measured: the largest allocation of the GPU's allocator in three steps.

How to read it: "state" is what is kept between two steps (weights, their average, gradients, two
moments of AdamW, bank, prototypes), and "activations" is the rest of the peak. The ratio is the
peak without checkpointing / with it. The time that checkpointing costs is measured: at the real
size on a GPU, else at the small size of the comparison.

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
from rows import REFS, Row, print_lines, resident_bytes, rows_from
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sadcl import recipes
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.training import engine, loop

LABELS = {"coco14": 80, "vg500": 500}
CARDINALITY = {"coco14": 2.9, "vg500": 13.6}
OFFLINE: dict[str, Any] = {
    "model.pretrained": False,
    "bank.epsilon": 0.0,
    "prototypes.epsilon": 0.0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {"optim.precision": "fp32"},
    "fp32, checkpointing": {"optim.precision": "fp32", "model.checkpointing": True},
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


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live storages, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.storages:
                    self.storages.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.remove, storage._cdata, storage.nbytes())
        return result

    def remove(self, storage: int, size: int) -> None:
        """Subtract a storage of ``size`` bytes that was freed."""
        self.storages.remove(storage)
        self.now -= size


def make_step(config: Config, recipe: str, device: torch.device) -> tuple[engine.Training, Batch]:
    """Prepare a training with a full bank, and a batch with the positives of the data set."""
    labels, images, side = LABELS[recipe], config.optim.batch_size, config.data.image_size
    training = loop.prepare(2, config, tuple(map(str, range(labels))), device, steps=1000)
    network, bank = training.network.train(), training.bank
    assert network.prototypes is not None
    assert bank is not None
    bank.valid_KL.fill_(True)
    bank.max_valid = bank.valid_KL.numel()
    network.prototypes.valid_L.fill_(True)
    network.prototypes.needs_rows = False
    place_A = torch.arange(round(images * CARDINALITY[recipe]), device=device) * 7
    targets = torch.zeros(images * labels, dtype=torch.int8, device=device)
    targets.index_fill_(0, place_A, 1)
    pixels = torch.zeros(images, 3, side, side, device=device)
    weight_B = torch.ones(images, device=device)
    return training, Batch(
        pixels,
        targets.view(images, labels),
        weight_B,
        torch.arange(images, device=device),
        0,
        place_A,
    )


@contextlib.contextmanager
def without_data() -> Iterator[LiveBytes]:
    """Make tensors without data in this context, and skip what would read their data."""
    patches: list[Any] = [
        mock.patch.object(
            nn.Module, "to", lambda module, *args, **kwargs: module
        ),  # everything is on the right device
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
        yield stack.enter_context(LiveBytes())


def compute(settings: list[tuple[str, dict[str, Any]]]) -> list[tuple[int, int]]:
    """Compute the peak bytes of a step and the bytes between two steps.

    This runs in a process of its own, because PyTorch 2.14 crashes if the garbage collector frees
    tensors without data.

    Args:
        settings: recipes and the changes to them.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peaks, args=(sender, settings))
    process.start()
    sender.close()
    peaks: list[tuple[int, int]] = receiver.recv()
    process.join()
    return peaks


def _send_peaks(sender: Connection, settings: list[tuple[str, dict[str, Any]]]) -> None:
    gc.disable()
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
    sender.send([_compute(make_config(recipe, changes), recipe) for recipe, changes in settings])
    os._exit(0)  # before anything is collected


def make_config(recipe: str, changes: dict[str, Any]) -> Config:
    """Return a recipe with changes, without pretrained weights and with everything admitted."""
    config: Config = getattr(recipes, recipe)().override({**OFFLINE, **changes})
    return config


def _compute(config: Config, recipe: str) -> tuple[int, int]:
    with without_data() as live:
        training, batch = make_step(config, recipe, torch.device("cpu"))
        for _ in range(2):  # the first one makes AdamW's moments
            live.peak = 0
            engine.train_step(training, batch)
        return live.peak, live.now


def measure_gpu(config: Config, recipe: str) -> tuple[int, int, float]:
    """Measure peak and state in bytes on a GPU, and the seconds of a step."""
    device = torch.device("cuda")
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    training, batch = make_step(config, recipe, device)
    times = []
    for _ in range(4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        engine.train_step(training, batch)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak, state = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    return peak, state, min(times)


def measure_cpu(changes: dict[str, Any], threads: int) -> tuple[float, float]:
    """Measure the growth of this process in bytes, and the seconds of a step.

    Call it in a fresh process on Linux.
    """
    torch.set_num_threads(threads)
    tiny = {
        "model.backbone": "test_resnet",
        "data.image_size": 64,
        "model.hidden": 16,
        "model.feedforward": 16,
    }
    small = make_config("coco14", {**CHECK, **changes})
    training, batch = make_step(small.override(tiny), "coco14", torch.device("cpu"))
    engine.train_step(training, batch)  # loads what is loaded at first use
    del training, batch
    gc.collect()

    before = resident_bytes("VmRSS")
    training, batch = make_step(small, "coco14", torch.device("cpu"))
    times = []
    for _ in range(3):
        REFS.write_text("5")
        start = time.process_time()
        engine.train_step(training, batch)
        times.append(time.process_time() - start)
    return float(resident_bytes("VmHWM") - before), min(times)


def measure_process(changes: dict[str, Any]) -> tuple[float, float]:
    """Run :func:`measure_cpu` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure_cpu, changes, torch.get_num_threads()).result()


def row(name: str, unit: str, ours: float, **more: Any) -> dict[str, Any]:
    """Make a row; columns that ``more`` does not have are None."""
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
    empty: dict[str, Any] = dict.fromkeys(columns)
    return {"name": name, "unit": unit, "ours": ours, **empty, **more}


def measure(repeats: int = 3, threads: int | None = None) -> list[dict[str, Any]]:
    """Return rows of the comparison at the small size, and of each recipe and setting.

    Args:
        repeats: processes that are measured on a CPU.
        threads: of torch on a CPU; None is torch's own.

    Raises:
        ValueError: for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    torch.set_num_threads(threads or torch.get_num_threads())
    rows: list[dict[str, Any]] = []
    if REFS.exists():
        rows += compare_with_process(repeats)
    settings = [(recipe, changes) for recipe in LABELS for changes in SETTINGS.values()]
    peaks = iter(compute(settings))
    for recipe in LABELS:
        rows += measure_recipe(recipe, [next(peaks) for _ in SETTINGS])
    return rows


def measure_recipe(recipe: str, computed: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return rows of each setting of a recipe, with measurements if there is a GPU.

    Args:
        recipe: its name.
        computed: peak and state of each setting, in bytes.
    """
    rows: list[dict[str, Any]] = []
    peaks: dict[str, float] = {}
    for (name, changes), (peak, state) in zip(SETTINGS.items(), computed, strict=True):
        config = make_config(recipe, changes)
        side, images = config.data.image_size, config.optim.batch_size
        what = f"{recipe}, {side} px, {images} images, L={LABELS[recipe]}, {name}"
        more = {} if torch.cuda.is_available() else checkpointing_ratio(peaks, name, peak)
        rows.append(row(what, "GB", peak / 1e9, state=state / 1e9, how="computed", **more))
        if torch.cuda.is_available():
            try:
                peak, state, duration = measure_gpu(config, recipe)
            except torch.OutOfMemoryError:
                continue
            more = checkpointing_ratio(peaks, name, peak)
            rows.append(row(what, "GB", peak / 1e9, state=state / 1e9, how="measured", **more))
            rows.append(row(f"{what}: a step", "ms", 1e3 * duration, how="measured"))
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """Return the rows of :func:`measure`; ``quick`` measures each process once."""
    return rows_from(measure(repeats=1) if quick else measure())


def checkpointing_ratio(peaks: dict[str, float], name: str, peak: float) -> dict[str, float]:
    """Return the peak without checkpointing and the ratio, for a setting with checkpointing.

    Args:
        peaks: of the settings so far, in bytes; this one is added.
        name: of the setting.
        peak: of the setting, in bytes.
    """
    peaks[name] = peak
    plain = peaks.get(name.removesuffix(", checkpointing"), peak)
    return {"reference": plain / 1e9, "ratio": plain / peak} if plain is not peak else {}


def compare_with_process(repeats: int) -> list[dict[str, Any]]:
    """Compare computed peaks with those of processes, and measure the time of checkpointing.

    Both are at the small size.
    """
    rows, times = [], []
    setting = (
        "{model.backbone}, {data.image_size} px, {optim.batch_size} images, L=80, "
        "hidden {model.hidden}"
    )
    for key, value in CHECK.items():
        setting = setting.replace(f"{{{key}}}", str(value))
    names = ("fp32", "fp32, checkpointing")
    computed = compute([("coco14", {**CHECK, **SETTINGS[name]}) for name in names])
    for name, (peak, state) in zip(names, computed, strict=True):
        measured = [measure_process(SETTINGS[name]) for _ in range(repeats)]
        real = statistics.median(peak for peak, _ in measured)
        times.append([seconds for _, seconds in measured])
        how = f"computed; measured is {real / peak:.2f} of it"
        amounts = {"reference": real / 1e9, "state": state / 1e9}
        rows.append(row(f"check: {setting}, {name}", "GB", peak / 1e9, how=how, **amounts))
    ratios = [plain / checkpointed for plain, checkpointed in zip(*times, strict=True)]
    plain, checkpointed = (1e3 * statistics.median(each) for each in times)
    range_ = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    name = f"time of a step with checkpointing, {setting}"
    rows.append(row(name, "ms", checkpointed, reference=plain, how="measured", **range_))
    return rows


def print_measurements(rows: list[dict[str, Any]]) -> None:
    """Print what :func:`measure` returns."""
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
    print_lines(lines, 170)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="processes to measure on a CPU (default: 3)"
    )
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own)")
    print_measurements(measure(**vars(parser.parse_args())))
