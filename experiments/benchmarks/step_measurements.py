"""What :mod:`step` measures of a training step, and the rows that it prints."""

from __future__ import annotations

import contextlib
import functools
import gc
import statistics
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from rows import print_lines
from rows import seconds as clock_seconds
from torch.utils.flop_counter import FlopCounterMode

from sadcl.training import engine
from sadcl.training.timer import Timer

Work = Callable[[], object]
LESS_IS_BETTER = ("GB", "waits")
"""Units of which less is better."""


def fill(training: engine.Training) -> None:
    """Fill bank and prototypes, as later in an epoch."""
    assert training.bank is not None
    assert training.network.prototypes is not None
    torch.nn.init.normal_(training.bank.rows_KLD)
    training.bank.valid_KL.fill_(True)
    training.bank.count_valid()
    torch.nn.init.normal_(training.network.prototypes.rows_LD)
    training.network.prototypes.valid_L.fill_(True)
    training.network.prototypes.end_epoch()


def seconds(work: Work, device: torch.device, runs: int = 1) -> float:
    """Measure the mean seconds of ``work``, and wait for the device before and after."""
    return clock_seconds(work, runs, torch.get_device_module(device).synchronize)


def flops(run: Work, training: engine.Training | None) -> float:
    """Count the operations of one step's products and convolutions, forward and backward.

    Args:
        run: the step.
        training: whose compiled model is replaced by the eager one, because a compiled model hides
            its operations; None if there is none.
    """
    counter = FlopCounterMode(display=False)
    with contextlib.ExitStack() as stack:
        if training is not None:
            stack.enter_context(mock.patch.object(training, "model", training.network))
        stack.enter_context(counter)
        run()
    return float(counter.get_total_flops())


def outside_share(run: Work, training: engine.Training, runs: int) -> float:
    """Measure the percentage of a step that is neither forward nor backward."""
    watch = Timer(training.device)
    parts: list[tuple[Any, str]] = [
        (engine, name) for name in ("seed_step", "check_finite", "update_average", "update_memory")
    ]
    parts += [
        (training.optimizer, "zero_grad"),
        (training.optimizer, "step"),
        (training.schedule, "step"),
    ]
    parts += [(training.bank, "read")]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with watch:
                return function(*args, **kwargs)

        return call

    with contextlib.ExitStack() as patches:
        for owner, name in parts:
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        duration = seconds(run, training.device, runs)
    return 100 * watch.lap() / runs / duration


def count_waits(run: Work) -> int:
    """Count how often the host waits for a GPU in a step.

    PyTorch reports each wait as a plain ``UserWarning``, which only its text tells from others.
    """
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(message.message) for message in messages)


def free_memory() -> None:
    """Free what is no longer used, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def row(
    name: str, unit: str, ours: list[float], reference: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    """Make a row of medians, with the ratio of each round.

    Args:
        name: what was measured.
        unit: of all values; see :data:`LESS_IS_BETTER`.
        ours: our value of each round.
        reference: the reference's value of each round.
        more: further columns, such as ``limit`` and ``goal``.
    """
    columns: dict[str, Any] = dict.fromkeys(
        ("reference", "ratio", "low", "high", "limit", "share", "goal", "at_most")
    )
    columns |= {"name": name, "unit": unit, "ours": statistics.median(ours)}
    if reference is not None:
        pairs = [
            (b, a) if unit in LESS_IS_BETTER else (a, b)
            for a, b in zip(ours, reference, strict=True)
        ]
        ratios = [a / b if b else float("inf") for a, b in pairs]
        columns |= {"reference": statistics.median(reference), "ratio": statistics.median(ratios)}
        columns |= {"low": min(ratios), "high": max(ratios)}
    if more.get("limit"):
        columns["share"] = columns["ours"] / more["limit"]
    return columns | more


def memory_rows(peaks: dict[str, float | None]) -> list[dict[str, Any]]:
    """Return a row for the peak of each of our loops that was measured."""
    rows, released = [], peaks["released"]
    for kind, value in peaks.items():
        if kind != "released" and value is not None:
            reference = [released / 1e9] if kind == "SADCL" and released is not None else None
            rows.append(row(f"peak memory, {kind}", "GB", [value / 1e9], reference))
    return rows


def print_measurements(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
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
    print_lines(lines, 160)
