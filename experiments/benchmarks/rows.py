"""What the benchmarks share: a row of their table, the limits of this machine, clocks and memory.

The file imports nothing of sadcl at the top, so that benchmarks of PyTorch alone can use it.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as sadcl.study.process.large_pages in a run
REFS = Path("/proc/self/clear_refs")
"""Writing ``5`` here resets the peak of this process's resident memory. It exists on Linux only."""


@dataclass(frozen=True)
class Row:
    """One measured quantity.

    Attributes:
        name: what was measured.
        ours: our value in ``unit``; a median if it was repeated.
        reference: the value to compare with, in ``unit``; None if there is none.
        ratio: how many times better ours is; ``low`` and ``high`` are its range over interleaved
            repeats.
        limit: the value in ``unit`` that this machine cannot pass.
        share: how much of ``limit`` ours reaches, from 0 to 1.
        goal: the ratio to reach.
        at_most: the value in ``unit`` that ours must not exceed.
    """

    name: str
    ours: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    share: float | None = None
    goal: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether every goal is reached; None if the row has no goal."""
        if self.goal is None and self.at_most is None:
            return None
        ratio_reached = self.goal is None or (self.ratio or 0.0) >= self.goal
        return ratio_reached and (self.at_most is None or self.ours <= self.at_most)


def compare(
    name: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float] = (),
    *,
    limit: float | None = None,
    goal: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Make a row of a quantity where less is better, such as seconds or bytes.

    Args:
        name: what was measured.
        unit: of all values.
        ours: our values of interleaved repeats.
        reference: the reference's values of the same repeats, in the same order; empty if there is
            no reference.
        limit: see :class:`Row`, as ``goal`` and ``at_most``.
        goal: see :class:`Row`.
        at_most: see :class:`Row`.

    Returns:
        A row with medians, and with the median and the range of the ratios of the repeats.
    """
    ratios = [b / a for a, b in zip(ours, reference, strict=True)] if reference else []
    median = statistics.median(ours)
    return Row(
        name,
        median,
        unit,
        reference=statistics.median(reference) if reference else None,
        ratio=statistics.median(ratios) if ratios else None,
        low=min(ratios, default=None),
        high=max(ratios, default=None),
        limit=limit,
        share=None if limit is None else limit / median,
        goal=goal,
        at_most=at_most,
    )


def rows_from(measurements: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Make rows of mappings that have a row's fields, and perhaps others."""
    names = [field.name for field in fields(Row)]
    return [Row(**{name: each[name] for name in names if name in each}) for each in measurements]


def print_rows(rows: Sequence[Row], title: str = "") -> None:
    """Print rows as a table."""
    from rich import box
    from rich.table import Table

    from sadcl.console import console

    columns = ("what", "ours", "reference", "ratio (range)", "limit", "share", "goal", "")
    table = Table(*columns, box=box.SIMPLE_HEAD, title=title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}x"
        if row.low is not None and row.high is not None and row.low < row.high:
            ratio += f" ({row.low:.3g}..{row.high:.3g})"
        goals = ["" if row.goal is None else f"{row.goal:.3g}x", _quantity(row.at_most, row.unit)]
        table.add_row(
            row.name,
            _quantity(row.ours, row.unit),
            _quantity(row.reference, row.unit),
            ratio,
            _quantity(row.limit, row.unit),
            "" if row.share is None else f"{row.share:.0%}",
            ", ".join(filter(None, goals)),
            {True: "reached", False: "missed", None: ""}[row.reached],
        )
    console.print(table)


def print_lines(lines: Sequence[Sequence[str]], width: int) -> None:
    """Print a table of texts, as plain text where rich is not installed.

    Args:
        lines: the cells of each line; the first line is the head.
        width: in characters, used if there is no terminal.
    """
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print("\n".join("  ".join(line) for line in lines))
        return
    table = Table(*lines[0], box=box.SIMPLE_HEAD)
    for line in lines[1:]:
        table.add_row(*line)
    Console(width=None if Console().is_terminal else width).print(table)


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def matmul_rate(
    side: int = 1024, repeats: int = 9, device: Any = "cpu", dtype: Any = None
) -> float:
    """Measure floating-point operations a second of a product of two square matrices.

    Args:
        side: of the matrices.
        repeats: of which the best counts.
        device: of torch; on a CPU, torch's own number of threads is used.
        dtype: of torch; None is float32.
    """
    import torch

    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    wait = torch.get_device_module(device).synchronize
    best = min(seconds(lambda: torch.mm(a, b, out=out), wait=wait) for _ in range(repeats))
    return 2 * side**3 / best


def bandwidth(count: int = 1 << 27, repeats: int = 9) -> float:
    """Measure bytes a second of a copy of ``count`` bytes, with reads and writes counted.

    The best of ``repeats`` counts.
    """
    import torch

    source, target = torch.zeros(count, dtype=torch.uint8), torch.ones(count, dtype=torch.uint8)
    return 2 * count / min(seconds(lambda: target.copy_(source)) for _ in range(repeats))


def seconds(
    work: Callable[[], object], runs: int = 1, wait: Callable[[], object] = lambda: None
) -> float:
    """Measure the seconds of one run of ``work``, as the mean of ``runs``.

    Args:
        work: what to run.
        runs: how often.
        wait: is called before the clock starts and before it stops, for instance to wait for a
            device.
    """
    wait()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    wait()
    return (time.perf_counter() - start) / runs


def resident_bytes(field: str) -> int:
    """Read resident bytes of this process from the kernel.

    Args:
        field: ``VmRSS`` for the bytes now, ``VmHWM`` for the peak since ``5`` was written to
            :data:`REFS`.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(rf"{field}:\s+(\d+) kB", status)[0])
