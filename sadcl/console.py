"""The terminal: tables, progress bars, banners, numbers as text, and how a command ends."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sadcl.errors import DISK_FULL, DISK_UNAVAILABLE, TrialFailed, UserError, print_error

console = Console() if sys.stdout.isatty() else Console(soft_wrap=True, width=120)
_PLAIN_SECONDS = 60
"""Without a terminal an epoch that is under way is mentioned this often."""


def banner(text: str, title: str) -> None:
    """Something that nobody may overlook."""
    if console.is_terminal:
        console.print(Panel(text, title=title, border_style="bold yellow"))
    else:
        console.print(f"=== {title}: {text} ===", highlight=False)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """One paragraph for a user's mistake (exit 2) or a failed run (exit 1), a hint after Ctrl-C (exit 130)."""

    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGTERM, stop)  # what `ray job stop` sends
        if (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):  # not where Ctrl-C is ignored
            signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if stopped or isinstance(
            error, KeyboardInterrupt
        ):  # libraries make errors of their own of an interruption
            print(
                "\nstopped; nothing is lost: the same command goes on from here.", file=sys.stderr
            )
            sys.exit(130)
        if isinstance(error, OSError) and error.errno in (*DISK_FULL, *DISK_UNAVAILABLE):
            error = UserError(
                f"A disk fails: {error}. Nothing that was saved is lost: the same command goes on from here."
            )
        if isinstance(error, UserError | TrialFailed):
            sys.exit(print_error(error))
        raise


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A bar with the time that is left, or a line now and then where there is no terminal; on standard error.

    Returns:
        What gives for a task what takes how much of it is done, and how much there is.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    plain = not sys.stderr.isatty()
    said = time.monotonic()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=plain
    ) as progress:
        task = progress.add_task(what, total=None)

        def show(what: str, done: int, of: int) -> None:
            nonlocal said
            progress.update(task, description=what, completed=done, total=of or None)
            if plain and time.monotonic() - said > _PLAIN_SECONDS:
                said = time.monotonic()
                print(f"{what}: {done:,} of {of:,}", file=sys.stderr)

        yield lambda what: functools.partial(show, what)


def show_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None
) -> None:
    """Aligned on a terminal; tab-separated and uncut elsewhere, for the next program."""
    if not console.is_terminal:
        lines = [f"# {title}"] * bool(title) + ["\t".join(columns)]
        print(
            "\n".join(
                lines + ["\t".join(_cell(row[name], full=True) for name in columns) for row in rows]
            )
        )
        return
    table = Table(title=title, title_justify="left")
    for name in columns:
        number = any(isinstance(row[name], (int, float)) for row in rows)
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    console.print(table)


def _cell(value: Any, full: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if full else f"{value:.4f}"
    return str(value)


def short_names(fields: Iterable[str]) -> dict[str, str]:
    """The last part of each field's name where that tells them apart, else the whole."""
    fields = list(fields)
    last = [name.split(".")[-1] for name in fields]
    return {
        full: short if last.count(short) == 1 else full
        for full, short in zip(fields, last, strict=True)
    }


def settings_text(params: Mapping[str, Any]) -> str:
    """A trial's settings in a few characters."""
    names = short_names(params)
    return " ".join(f"{names[field]}={_value(value)}" for field, value in params.items())


def _value(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def clock_text(seconds: float | None) -> str:
    """1:05:09, or ? where that is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bytes_text(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"
