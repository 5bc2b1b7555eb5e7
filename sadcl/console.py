"""What people watch while a study runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

console = Console(soft_wrap=True)


def shout(text: str, title: str) -> None:
    """Something that nobody may overlook."""
    if console.is_terminal:
        console.print(Panel(text, title=title, border_style="bold yellow"))
    else:
        console.print(f"=== {title}: {text} ===", highlight=False)


def settings(params: Mapping[str, Any]) -> str:
    """A trial's settings in a few characters: the last part of each field's name, three digits."""
    parts = [f"{k.split('.')[-1]}={v:.3g}" if isinstance(v, float) else f"{k.split('.')[-1]}={v}" for k, v in params.items()]
    return " ".join(parts)


class Watch:
    """Fetches the trials' events in a thread of its own and shows them until the block ends.

    Args:
        title: of the study.
        fetch: gives the events since the last call.
        epochs: epochs of the whole plan that are still to be trained, for the time that is left.
        best: held-out mAP that the search has reached before.
    """

    def __init__(self, title: str, fetch: Callable[[], list[dict[str, Any]]], epochs: int, best: float | None = None) -> None:
        self.title, self.fetch, self.epochs, self.best = title, fetch, epochs, best
        self.done, self.began = 0, time.monotonic()
        self.names: dict[str, tuple[str, str]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Watch:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if kind is None:
            self._take()
        if self._live is not None:
            self._live.stop()

    def name(self, key: str, what: str, params: Mapping[str, Any]) -> None:
        """Say what a trial is called."""
        self.names[key] = (what, settings(params))

    def skip(self, epochs: int) -> None:
        """Some epochs of the plan will not be trained after all."""
        self.epochs -= epochs

    def say(self, text: str) -> None:
        console.print(text, highlight=False)

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._take()
            except Exception:  # the cluster is going away: the study says why
                return

    def _take(self) -> None:
        for event in self.fetch():
            self._event(event)
        if self._live is not None:
            self._live.update(self._render(), refresh=True)

    def _event(self, event: dict[str, Any]) -> None:
        key = event["key"]
        if key not in self.names and "what" in event:
            self.name(key, event["what"], json.loads(event["params"]))
        row = self.rows.setdefault(key, {"since": time.monotonic()})
        row.update(event)
        what, setting = self.names.get(key, (key, ""))
        if "epoch" in event and "epochs" in event:
            self.done += 1
            value = event.get("val_mAP")
            if value is not None and what.startswith("search"):
                self.best = value if self.best is None else max(self.best, value)
            self._line(
                f"{what} {setting} | stage {event['stage']} epoch {event['epoch']}/{event['epochs']} | {_held_out(value)}"
                f"{_active(event)} | best {_figure(self.best)} | left {_clock(self.left())}"
            )
        elif event.get("status") in ("failed", "complete"):
            reason = f": {event['cause']}" if event.get("cause") else f" | {_held_out(event.get('val_mAP'))}"
            self._line(f"{what} {setting} | {event['status']}{reason}")

    def _line(self, text: str) -> None:
        if self._live is None:
            console.print(f"[{_clock(time.monotonic() - self.began)}] {text}", highlight=False, markup=False)

    def left(self) -> float | None:
        """Seconds that the rest of the plan will take, by what was trained so far."""
        if not self.done:
            return None
        return max(self.epochs - self.done, 0) * (time.monotonic() - self.began) / self.done

    def _render(self) -> Group:
        table = Table(title=self.title, title_justify="left", expand=False)
        for column in ("trial", "settings", "epoch", "mAP", "rows/label", "state"):
            table.add_column(column, justify="right" if column in ("epoch", "mAP", "rows/label") else "left")
        for key, row in list(self.rows.items())[-24:]:
            what, setting = self.names.get(key, (key, ""))
            epoch = f"{row['stage']}: {row['epoch']}/{row['epochs']}" if "epochs" in row else ""
            state = row.get("status", "running")
            style = {"failed": "red", "complete": "green"}.get(state, "")
            admitted = f"{row['admitted']:.0f}" if "admitted" in row else ""
            table.add_row(what, setting, epoch, _figure(row.get("val_mAP")), admitted, Text(state, style=style))
        foot = f"best {_figure(self.best)}   {self.done}/{self.epochs} epochs   left {_clock(self.left())}"
        return Group(table, Text(foot, style="bold"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _held_out(value: float | None) -> str:
    return "all training images" if value is None else f"held-out mAP {value:.2f}"


def _active(event: Mapping[str, Any]) -> str:
    """Whether the contrasts see anything."""
    if "admitted" not in event:
        return ""
    warning = " NO CONTRAST IS ACTIVE: lower epsilon" if not event["admitted"] and not event.get("anchors") else ""
    return f" | {event['admitted']:.0f} rows a label admitted{warning}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
