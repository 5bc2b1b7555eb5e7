"""What the benchmarks have in common: a row of their table, what this machine can do at most, clocks and memory marks."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

REFS = Path("/proc/self/clear_refs")
"""There on Linux alone."""


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Attributes:
        name: what it is.
        ours: in ``unit``; a median where it was repeated.
        reference: what it stands beside, in ``unit``; None where nothing was run.
        ratio: how many times better ours is; ``low`` and ``high`` are its range over interleaved repeats.
        limit: what this machine cannot pass, in ``unit``.
        share: how much of that ours reaches, 0 to 1.
        goal: the ratio to reach.
        at_most: what ours is to stay within, in ``unit``.
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
        """Whether all that was to be reached is; None where nothing was."""
        asked = [
            self.goal is None or (self.ratio or 0.0) >= self.goal,
            self.at_most is None or self.ours <= self.at_most,
        ]
        return None if self.goal is None and self.at_most is None else all(asked)


def compared(
    name: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float] = (),
    *,
    limit: float | None = None,
    goal: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row of what is better the less it is: seconds or bytes of interleaved repeats, of both in the same order."""
    ratios = [b / a for a, b in zip(ours, reference, strict=True)] if reference else []
    mine = statistics.median(ours)
    return Row(
        name,
        mine,
        unit,
        reference=statistics.median(reference) if reference else None,
        ratio=statistics.median(ratios) if ratios else None,
        low=min(ratios, default=None),
        high=max(ratios, default=None),
        limit=limit,
        share=None if limit is None else limit / mine,
        goal=goal,
        at_most=at_most,
    )


def taken(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of what has a row's columns, and maybe others."""
    known = [field.name for field in fields(Row)]
    return [Row(**{name: each[name] for name in known if name in each}) for each in found]


def show(rows: Sequence[Row], title: str = "") -> None:
    from rich import box
    from rich.table import Table

    from sadcl.console import console

    table = Table(
        "what",
        "ours",
        "reference",
        "ratio (range)",
        "limit",
        "share",
        "goal",
        "",
        box=box.SIMPLE_HEAD,
        title=title,
    )
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


def printed(lines: Sequence[Sequence[str]], width: int) -> None:
    """A table, the first line its head; plain where there is nothing but PyTorch.

    Args:
        width: in characters, where there is no terminal.
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
    """Floating-point operations a second of a product of square matrices, the best of several; torch's threads.

    Args:
        dtype: None is float32.
    """
    import torch

    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    wait = torch.get_device_module(device).synchronize
    return (
        2
        * side**3
        / min(seconds(lambda: torch.mm(a, b, out=out), wait=wait) for _ in range(repeats))
    )


def bandwidth(count: int = 1 << 27, repeats: int = 9) -> float:
    """Bytes a second that memory is read and written with, both counted, where many are copied; the best of several."""
    import torch

    source, target = torch.zeros(count, dtype=torch.uint8), torch.ones(count, dtype=torch.uint8)
    return 2 * count / min(seconds(lambda: target.copy_(source)) for _ in range(repeats))


def seconds(
    work: Callable[[], object], runs: int = 1, wait: Callable[[], object] = lambda: None
) -> float:
    """Of a run, from when ``wait`` has come back to when it has again."""
    wait()
    began = time.perf_counter()
    for _ in range(runs):
        work()
    wait()
    return (time.perf_counter() - began) / runs


def resident(field: str) -> int:
    """Bytes of this process by the kernel: ``VmRSS`` now, or ``VmHWM`` the most since :data:`REFS` was written ``5``."""
    return 1024 * int(re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])
