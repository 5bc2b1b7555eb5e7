"""The terminal: tables, progress bars, notices, numbers as text, and how a command ends."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import textwrap
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
"""Seconds between two lines about an epoch or a task in progress, where there is no terminal."""


def banner(text: str, title: str) -> None:
    """Print a notice that nobody may overlook."""
    if console.is_terminal:
        console.print(Panel(text, title=title, border_style="bold yellow"))
    else:
        console.print(f"=== {title}: {text} ===", highlight=False)


def print_text(text: str) -> None:
    """Print a line; on a terminal it is wrapped between words, with a hanging indent."""
    if console.is_terminal:
        indent = " " * (len(text) - len(text.lstrip()))
        text = textwrap.fill(
            text.strip(),
            console.width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print(text, highlight=False, markup=False)


def confirm(question: str, yes: bool) -> None:
    """Ask whether to continue.

    Args:
        question: One or more sentences that say what would happen.
        yes: Continue without a question.

    Raises:
        UserError: If the answer is no, or if there is no terminal to answer at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Pass --yes to continue without being asked.")
    print_text(question)
    if console.input("Continue? \\[y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was changed.")


_interrupted = False
"""Whether a signal has interrupted a :func:`guarded` block; nested blocks share it."""
_depth = 0
"""Nested :func:`guarded` blocks."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """End the process with one paragraph instead of a traceback where a paragraph says everything.

    The exit code is 2 after a :class:`UserError` or a disk that fails, 1 after a
    :class:`TrialFailed`, and 130 after Ctrl-C or SIGTERM, which ``ray job stop`` sends. The signal
    handlers of before are put back when the block ends.
    """

    def interrupt(*_: object) -> None:
        global _interrupted
        _interrupted = True
        raise KeyboardInterrupt

    global _depth, _interrupted
    _depth += 1
    previous: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # only the main thread may set signal handlers
        previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
            previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # Libraries turn an interruption into errors of their own.
        if _interrupted or isinstance(error, KeyboardInterrupt):
            text = "\nStopped. Nothing is lost; run the same command to resume."
            print(text, file=sys.stderr)
            sys.exit(130)
        if isinstance(error, OSError) and error.errno in (*DISK_FULL, *DISK_UNAVAILABLE):
            error = UserError(
                f"A disk failed: {error}. Nothing that was saved is lost; run the same command to "
                "resume once the disk works."
            )
        if isinstance(error, UserError | TrialFailed):
            sys.exit(print_error(error))
        raise
    finally:
        _depth -= 1
        if not _depth:
            _interrupted = False
        for number, handler in previous.items():
            if handler is not None:  # a handler that was not set from Python cannot be put back
                signal.signal(number, handler)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show on standard error how far a task is: a bar on a terminal, elsewhere a line a minute.

    Args:
        description: The task to show first.

    Yields:
        A function that takes the description of the task now in progress and returns a callback for
        it, which takes how many parts are done and how many there are (0 where that is unknown).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    plain = not sys.stderr.isatty()
    printed = time.monotonic()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=plain
    ) as progress:
        task = progress.add_task(description, total=None)

        def update(description: str, done: int, total: int) -> None:
            nonlocal printed
            progress.update(task, description=description, completed=done, total=total or None)
            if plain and time.monotonic() - printed > _PLAIN_SECONDS:
                printed = time.monotonic()
                print(f"{description}: {done:,} of {total:,}", file=sys.stderr)

        yield lambda description: functools.partial(update, description)


def show_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Print a table: aligned on a terminal, elsewhere tab-separated with every digit.

    Args:
        rows: One mapping a row, which has all columns.
        columns: Their order; None takes that of the first row, and prints nothing where there is no
            row.
        title: A line above the table.
    """
    if columns is None:
        if not rows:
            return
        columns = list(rows[0])
    if not console.is_terminal:
        lines = [f"# {title}"] * bool(title) + ["\t".join(columns)]
        lines += ["\t".join(_cell(row[name], exact=True) for name in columns) for row in rows]
        print("\n".join(lines))
        return
    table = Table(title=title, title_justify="left")
    for name in columns:
        is_number = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    console.print(table)


def _cell(value: Any, exact: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.4f}"
    return str(value)


def short_names(fields: Iterable[str]) -> dict[str, str]:
    """Map each field's dotted name to its last part where that is unique, else to itself."""
    fields = list(fields)
    last = [name.split(".")[-1] for name in fields]
    return {
        full: short if last.count(short) == 1 else full
        for full, short in zip(fields, last, strict=True)
    }


def settings_text(params: Mapping[str, Any]) -> str:
    """Write a trial's settings in a few characters, such as ``tau=0.12 policy=slot``."""
    names = short_names(params)
    return " ".join(f"{names[field]}={_value(value)}" for field, value in params.items())


def _value(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def clock_text(seconds: float | None) -> str:
    """Write a duration as 1:05:09 or 5:09; ``?`` where it is unknown (None)."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bytes_text(count: float) -> str:
    """Write a number of bytes with a decimal unit, such as 29.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun: 1 run, 2,000 runs.

    Args:
        count: The number.
        noun: In the singular.
        plural: Where it is not the singular with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
