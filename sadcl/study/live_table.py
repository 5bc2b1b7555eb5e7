"""What people see while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sadcl.console import clock_text, console, settings_text, short_names
from sadcl.results import gradients
from sadcl.study.event_text import notice_text
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialEvent, TrialStarted, WorkerBeat

PLAIN_SECONDS = 60
"""Without a terminal, a line reports the progress within a long epoch this often."""
_STYLES = {"failed": "red", "complete": "green", "pruned": "yellow"}


@dataclass
class _Row:
    """What is known of one trial."""

    title: str
    phase: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    status: str = ""
    stage: int = 0
    epoch: int = 0
    epochs: int = 0
    """0 until the first epoch has ended."""
    progress: float = 0.0
    """Share of the epoch that is under way."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Of the last epoch."""
    val_mAP: float | None = None
    """Of the epoch that was selected, once the trial has ended."""
    reported: float = field(default_factory=time.monotonic)
    """When a line last reported its progress."""


class LiveTable:
    """Fetches the events of trials in a thread of its own, and shows them until the block ends.

    Args:
        title: The name of what runs.
        fetch: Gives the events since the last call.
        epochs: The epochs of the whole plan that are still to be trained, for the time left.
        best: The held-out mAP in percent that the search has reached before.
        is_limit: Whether ``epochs`` are the most that there may be; the plan may end sooner.
    """

    def __init__(
        self,
        title: str,
        fetch: Callable[[], Sequence[TrialEvent]],
        epochs: int,
        best: float | None = None,
        *,
        is_limit: bool = False,
    ) -> None:
        self.at_most = "at most" if is_limit else ""
        self.title, self.fetch, self.epochs, self.best = title, fetch, epochs, best
        self.epochs_done, self.began = 0, time.monotonic()
        self._training_since: float | None = None
        self.rows: dict[str, _Row] = {}
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
                self._update()
        if self._live is not None:
            self._live.stop()

    def seconds_left(self) -> float | None:
        """Estimate the time that the rest of the plan takes; None while too little was trained."""
        running = sum(row.progress for row in self.rows.values() if row.status == "running")
        work = self.epochs_done + running
        if self._training_since is None or not work:
            return None
        elapsed = time.monotonic() - self._training_since
        if work < 2 and elapsed < PLAIN_SECONDS:
            return None
        return max(self.epochs - work, 0) * elapsed / work

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._update()
            except Exception as error:
                # the cluster is going away, which the main thread reports, or this alone fails
                if not self._stop.is_set():
                    console.print(
                        f"the progress can no longer be shown: {type(error).__name__}: {error}",
                        markup=False,
                    )
                return

    def _update(self) -> None:
        for event in self.fetch():
            self._add(event)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _add(self, event: TrialEvent) -> None:
        row = self.rows.setdefault(event.key, _Row(event.key))
        if isinstance(event, TrialStarted):
            self._add_start(row, event)
        elif isinstance(event, EpochEnded):
            self._add_epoch(row, event)
        elif isinstance(event, WorkerBeat):
            self._add_beat(row, event)
        elif isinstance(event, TrialEnded):
            self._add_end(row, event)
        else:
            self._print(f"{row.title}: {notice_text(event)}", above_table=True)

    def _add_start(self, row: _Row, event: TrialStarted) -> None:
        row.title, row.phase, row.params = event.title, event.phase, event.params
        row.status, row.metrics = "running", {}
        self._training_since = self._training_since or time.monotonic()
        settings = f" with {settings_text(row.params)}" if row.params else ""
        self._print(f"{row.title}: started{settings}")

    def _add_epoch(self, row: _Row, event: EpochEnded) -> None:
        row.stage, row.epoch, row.epochs = event.stage, event.epoch, event.epochs
        row.metrics, row.progress = event.metrics, 0.0
        self.epochs_done += 1
        value = event.metrics.get("val_mAP")
        if value is not None and row.phase == "search":
            self.best = value if self.best is None else max(self.best, value)
        self._print(
            f"{row.title}: stage {row.stage} epoch {row.epoch}/{row.epochs}{_held_out_text(value)}"
            f"{_admitted_text(event.metrics)}; {self._state_text()}"
        )

    def _add_beat(self, row: _Row, event: WorkerBeat) -> None:
        if event.progress is None:
            return
        row.stage, row.epoch, row.progress = event.stage, event.epoch, event.progress
        if time.monotonic() - row.reported > PLAIN_SECONDS:
            row.reported = time.monotonic()
            self._print(
                f"{row.title}: stage {row.stage} epoch {row.epoch}, {event.progress:.0%} of it; "
                f"{self._state_text()}"
            )

    def _add_end(self, row: _Row, event: TrialEnded) -> None:
        row.status, row.val_mAP = event.status, event.val_mAP
        if event.status == "failed":
            self._print(f"{row.title}: FAILED: {event.cause}")
        elif event.status == "pruned":
            self.epochs -= row.epochs - row.epoch
            self._print(f"{row.title}: {event.cause}")
        else:
            test = f", test mAP {event.test_mAP:.2f}" if event.test_mAP else ""
            self._print(f"{row.title}: complete{_held_out_text(event.val_mAP)}{test}")

    def _state_text(self) -> str:
        best = "" if self.best is None else f"best of search {self.best:.2f}, "
        seconds = self.seconds_left()
        return best + (
            "time left not known yet"
            if seconds is None
            else f"{self.at_most or 'about'} {clock_text(seconds)} left"
        )

    def _print(self, text: str, above_table: bool = False) -> None:
        """Print a line; on a terminal only where it goes above the table."""
        if self._live is None or above_table:
            console.print(
                f"[{clock_text(time.monotonic() - self.began)}] {text}",
                highlight=False,
                markup=False,
            )

    def _table(self) -> Group:
        rows = list(self.rows.values())[-max(console.height - 9, 4) :]
        fields = short_names(sorted({field for row in self.rows.values() for field in row.params}))
        table = Table(
            title=self.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("trial", min_width=11)
        for name in (*fields.values(), "epoch", "held-out mAP", "rows per label"):
            # several words, so that a long name takes more lines instead of more width
            words = name.replace("_", " ").replace(".", " ")
            table.add_column(
                words, justify="right", overflow="fold", min_width=5, no_wrap=name == "epoch"
            )
        table.add_column("state", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row, fields))
        epochs = max(self.epochs, self.epochs_done)
        of = f" of {self.at_most} " if self.at_most else "/"
        foot = f"{self.epochs_done}{of}{epochs} epochs"
        return Group(table, Text(f"{foot}; {self._state_text()}", style="bold"))


def _cells(row: _Row, fields: Mapping[str, str]) -> list[str | Text]:
    """Return the cells of a trial: its title, its settings, and how far it is."""
    state = row.status
    if state == "running" and row.progress:
        state = f"{row.progress:.0%}"
    selected = row.status in ("complete", "pruned")
    value = row.val_mAP if selected else row.metrics.get("val_mAP")
    return [
        row.title,
        *(_setting_text(row.params[field]) if field in row.params else "" for field in fields),
        f"{row.stage}: {row.epoch}/{row.epochs or '?'}" if row.epoch else "",
        "" if value is None else f"{value:.2f}",
        _count_text(row.metrics["admitted"]) if "admitted" in row.metrics else "",
        Text(state, style=_STYLES.get(state, "")),
    ]


def _setting_text(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _count_text(admitted: float) -> str:
    return f"{admitted:.0f}" if admitted >= 10 else f"{admitted:.1f}"


def _held_out_text(value: float | None) -> str:
    return "" if value is None else f", held-out mAP {value:.2f}"


def _admitted_text(metrics: Mapping[str, Any]) -> str:
    """Return the rows that the bank admitted, and warn where a contrast has nothing to compare."""
    if "admitted" not in metrics:
        return ""
    warnings = {
        "admitted": "THE BANK ADMITS NOTHING: lower bank.epsilon",
        "anchors": "THE SAMPLE CONTRAST SEES NOTHING",
        "counted_labels": "THE PROTOTYPE CONTRAST SEES NOTHING: lower prototypes.epsilon",
    }
    texts = [text for name, text in warnings.items() if metrics.get(name) == 0]
    texts += [
        f"THE {term.upper()} CONTRAST HARDLY PULLS, with {100 * share:.1f} % of the classification "
        f"loss's gradient: raise loss.{term}_weight, or look at its divisor "
        f"(loss.{term}_reduction)"
        for term, share in gradients.gradient_shares(metrics).items()
        if 0 < share < gradients.IDLE
    ]
    idle = "; ".join(texts)
    warning = f" ({idle})" if idle else ""
    return f", {_count_text(metrics['admitted'])} rows per label admitted{warning}"
