"""What people see while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sadcl.console import _PLAIN_SECONDS, _value, clock_text, console, settings_text, short_names


class LiveTable:
    """Fetches the trials' events in a thread of its own and shows them until the block ends.

    Args:
        title: of what runs.
        fetch: gives the events since the last call; an event has a trial's ``key`` and what is new of ``what, params,
            status, cause, val_mAP, test_mAP, stage, epoch, epochs, metrics``, ``part``, the share of an epoch that is done,
            and ``late`` or ``error``, words about one of its workers.
        epochs: epochs of the whole plan that are still to be trained, for the time that is left.
        best: held-out mAP that the search has reached before.
    """

    def __init__(
        self,
        title: str,
        fetch: Callable[[], list[dict[str, Any]]],
        epochs: int,
        best: float | None = None,
    ) -> None:
        self.title, self.fetch, self.epochs, self.best = title, fetch, epochs, best
        self.done, self.began = 0, time.monotonic()
        self._trains: float | None = None
        self.rows: dict[str, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if kind is None:
            with contextlib.suppress(Exception):  # as in the loop
                self._take()
        if self._live is not None:
            self._live.stop()

    def left(self) -> float | None:
        """Seconds that the rest of the plan will take, by what was trained so far."""
        under_way = sum(
            row.get("part", 0.0) for row in self.rows.values() if row.get("status") == "running"
        )
        work = self.done + under_way
        if self._trains is None or not work:
            return None
        took = time.monotonic() - self._trains
        if work < 2 and took < _PLAIN_SECONDS:  # too little to tell by
            return None
        return max(self.epochs - work, 0) * took / work

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._take()
            except Exception as error:  # the cluster is going away, and the main thread says why; or only this does
                if not self._stop.is_set():
                    console.print(
                        f"nothing more is shown of what runs: {type(error).__name__}: {error}",
                        markup=False,
                    )
                return

    def _take(self) -> None:
        for event in self.fetch():
            self._event(event)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _event(self, event: Mapping[str, Any]) -> None:
        row = self.rows.setdefault(
            event["key"], {"what": event["key"], "params": {}, "said": time.monotonic()}
        )
        row.update({"metrics": {}} if event.get("status") == "running" else {})
        row.update(event)
        what = row["what"]
        if "metrics" in event:  # an epoch has ended
            self.done += 1
            row["part"] = 0.0
            value = event["metrics"].get("val_mAP")
            if value is not None and what.startswith("search"):
                self.best = value if self.best is None else max(self.best, value)
            self._line(
                f"{what}: stage {row['stage']} epoch {row['epoch']}/{row['epochs']}{_held_out(value)}"
                f"{_active(event['metrics'])}; {self._state()}"
            )
        elif "late" in event or "error" in event:
            self._line(f"{what}: {event.get('late') or event['error']}", always=True)
        elif "part" in event:
            if time.monotonic() - row["said"] > _PLAIN_SECONDS:
                row["said"] = time.monotonic()
                self._line(
                    f"{what}: stage {row['stage']} epoch {row['epoch']}, {event['part']:.0%} of it; {self._state()}"
                )
        elif event.get("status") == "running":
            self._trains = self._trains or time.monotonic()
            self._line(
                f"{what}: started{' with ' if row['params'] else ''}{settings_text(row['params'])}"
            )
        elif event.get("status") == "failed":
            self._line(f"{what}: FAILED: {event['cause']}")
        elif event.get("status") == "pruned":
            self.epochs -= row.get("epochs", 0) - row.get("epoch", 0)
            self._line(f"{what}: {event['cause']}")
        elif event.get("status") == "complete":
            tested = event.get("test_mAP")
            self._line(
                f"{what}: complete{_held_out(event.get('val_mAP'))}{f', test mAP {tested:.2f}' if tested else ''}"
            )

    def _state(self) -> str:
        best = "" if self.best is None else f"best of search {self.best:.2f}, "
        left = self.left()
        return best + (
            "time left not known yet" if left is None else f"about {clock_text(left)} left"
        )

    def _line(self, text: str, always: bool = False) -> None:
        if self._live is None or always:  # above the table
            console.print(
                f"[{clock_text(time.monotonic() - self.began)}] {text}",
                highlight=False,
                markup=False,
            )

    def _table(self) -> Group:
        shown = list(self.rows.values())[-max(console.height - 9, 4) :]
        fields = short_names(
            sorted({field for row in self.rows.values() for field in row["params"]})
        )
        table = Table(
            title=self.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("trial", min_width=11)
        for name in (*fields.values(), "epoch", "held-out mAP", "rows a label"):
            # several words, so that a long name takes several lines and not the width
            words = name.replace("_", " ").replace(".", " ")
            table.add_column(
                words, justify="right", overflow="fold", min_width=5, no_wrap=name == "epoch"
            )
        table.add_column("state", no_wrap=True)
        for row in shown:
            metrics, state = row.get("metrics", {}), row.get("status", "")
            if state == "running" and row.get("part"):
                state = f"{row['part']:.0%}"
            value = row.get("val_mAP", metrics.get("val_mAP"))
            table.add_row(
                row["what"],
                *(
                    _value(row["params"][field], 2) if field in row["params"] else ""
                    for field in fields
                ),
                f"{row['stage']}: {row['epoch']}/{row.get('epochs', '?')}"
                if "epoch" in row
                else "",
                "" if value is None else f"{value:.2f}",
                _rows_text(metrics["admitted"]) if "admitted" in metrics else "",
                Text(
                    state,
                    style={"failed": "red", "complete": "green", "pruned": "yellow"}.get(state, ""),
                ),
            )
        foot = f"{self.done}/{max(self.epochs, self.done)} epochs; {self._state()}"
        return Group(table, Text(foot, style="bold"))


def _rows_text(admitted: float) -> str:
    return f"{admitted:.0f}" if admitted >= 10 else f"{admitted:.1f}"


def _held_out(value: float | None) -> str:
    return "" if value is None else f", held-out mAP {value:.2f}"


def _active(metrics: Mapping[str, Any]) -> str:
    """Whether the contrasts see anything."""
    if "admitted" not in metrics:
        return ""
    warnings = {
        "admitted": "THE BANK ADMITS NOTHING: lower bank.epsilon",
        "anchors": "THE SAMPLE CONTRAST SEES NOTHING",
        "counted_labels": "THE PROTOTYPE CONTRAST SEES NOTHING: lower prototypes.epsilon",
    }
    idle = "; ".join(text for name, text in warnings.items() if metrics.get(name) == 0)
    return (
        f", {_rows_text(metrics['admitted'])} rows a label admitted{f' ({idle})' if idle else ''}"
    )
