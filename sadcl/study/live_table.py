"""What people see while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live

from sadcl.console import clock_text, console, remaining_text, resumable, settings_text
from sadcl.results import gradients
from sadcl.study.event_text import notice_text
from sadcl.study.live_view import Footer, TrialLine, live_view
from sadcl.study.time_left import TimeLeft
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialEvent, TrialStarted, WorkerBeat

PLAIN_SECONDS = 60
"""Without a terminal, a line reports the progress within a long epoch this often."""


@dataclass
class _Row(TrialLine):
    """What is known of one trial."""

    phase: str = ""
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
        self.is_limit = is_limit
        self.title, self.fetch, self.epochs, self.best = title, fetch, epochs, best
        self.epochs_done, self.began = 0, time.monotonic()
        self._best_row: _Row | None = None
        self._seconds_taken: float | None = None
        self._is_training = False
        self._time_left = TimeLeft()
        self._stopping = contextlib.ExitStack()
        self.rows: dict[str, _Row] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> LiveTable:
        self._stopping.enter_context(resumable(self._stopping_text))
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
        self._stopping.__exit__(kind, error, trace)
        self._stop.set()
        self._thread.join(timeout=5)
        if kind is None:
            self._seconds_taken = time.monotonic() - self.began
            with contextlib.suppress(Exception):  # as in the loop
                self._update()
        if self._live is not None:
            self._live.stop()

    def seconds_left(self) -> float | None:
        """Estimate the time that the rest of the plan takes; None while too little was trained."""
        if not self._is_training:
            return None
        work = self.epochs_done + sum(row.progress for row in self._running())
        return self._time_left.update(time.monotonic(), work, self.epochs - work)

    def _running(self) -> list[_Row]:
        return [row for row in self.rows.values() if row.status == "running"]

    def _stopping_text(self) -> str:
        running = [row.title for row in self._running()]
        names = f": {', '.join(running)}" if running else ""
        return (
            f"Stopping {self.title}{names}. This can take some seconds. Each run resumes after its "
            "last whole epoch."
        )

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
            self._live.update(self._view(), refresh=True)

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
        self._is_training = True
        self.seconds_left()  # its clock starts
        settings = f" with {settings_text(row.params)}" if row.params else ""
        self._print(f"{row.title}: started{settings}")

    def _add_epoch(self, row: _Row, event: EpochEnded) -> None:
        self._enter_stage(row, event.stage)
        row.epoch, row.epochs = event.epoch, event.epochs
        row.metrics, row.progress = event.metrics, 0.0
        self.epochs_done += 1
        value = event.metrics.get("val_mAP")
        if value is not None and row.phase == "search" and (self.best is None or value > self.best):
            self.best, self._best_row = value, row
        self._print(
            f"{row.title}: stage {row.stage} epoch {row.epoch}/{row.epochs}{_held_out_text(value)}"
            f"{_admitted_text(event.metrics)}; {self._state_text()}"
        )

    def _add_beat(self, row: _Row, event: WorkerBeat) -> None:
        if event.progress is None:
            return
        self._enter_stage(row, event.stage)
        row.epoch, row.progress = event.epoch, max(event.progress, 1e-6)
        if time.monotonic() - row.reported > PLAIN_SECONDS:
            row.reported = time.monotonic()
            self._print(
                f"{row.title}: stage {row.stage} epoch {row.epoch}, {event.progress:.0%} of it; "
                f"{self._state_text()}"
            )

    def _enter_stage(self, row: _Row, stage: int) -> None:
        if row.stage != stage:
            self._drop_rest(row)
            row.stage, row.epochs = stage, 0

    def _drop_rest(self, row: _Row) -> None:
        """Take the epochs that a stage did not need from the plan."""
        self.epochs -= max(row.epochs - row.epoch + bool(row.progress), 0)

    def _add_end(self, row: _Row, event: TrialEnded) -> None:
        row.status, row.val_mAP, row.test_mAP = event.status, event.val_mAP, event.test_mAP
        self._drop_rest(row)
        row.progress = 0.0
        if event.status == "failed":
            self._print(f"{row.title}: FAILED: {event.cause}", above_table=True)
        elif event.status == "pruned":
            self._print(f"{row.title}: {event.cause}")
        else:
            test = f", test mAP {event.test_mAP:.2f}" if event.test_mAP else ""
            self._print(f"{row.title}: complete{_held_out_text(event.val_mAP)}{test}")

    def _state_text(self) -> str:
        best = "" if self.best is None else f"best of search {self.best:.2f}, "
        return best + remaining_text(self.seconds_left(), self.is_limit)

    def _print(self, text: str, above_table: bool = False) -> None:
        """Print a line; on a terminal only where it goes above the table."""
        if self._live is None or above_table:
            console.print(
                f"[{clock_text(time.monotonic() - self.began)}] {text}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def _view(self) -> Group:
        best = self._best_row
        footer = Footer(
            best=self.best,
            best_title="" if best is None else best.title,
            best_params={} if best is None else best.params,
            epochs_done=self.epochs_done,
            epochs=max(self.epochs, self.epochs_done),
            seconds_left=self.seconds_left(),
            is_limit=self.is_limit,
            seconds_taken=self._seconds_taken,
        )
        return live_view(
            self.title, list(self.rows.values()), footer, console.width, console.height
        )


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
