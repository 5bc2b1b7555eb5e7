"""The terminal: notices, sentences, questions and progress bars."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sadcl.errors import UserError


def _open_closed_streams() -> None:
    """Let input and output of a process that was started with closed streams go nowhere.

    ``sadcl ... >&-`` starts one. The next file that is opened would get the number of the stream,
    and whatever C libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is free
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", closefd=False)
            setattr(sys, name, stream)


def _escape_other_characters() -> None:
    """Write what the encoding of the output lacks, of a label for example, as its code."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


_open_closed_streams()
_escape_other_characters()
console = Console() if sys.stdout.isatty() else Console(soft_wrap=True, width=120)
_QUIET_SECONDS = 3.0
"""What takes less time is not said where there is no terminal."""
_PLAIN_SECONDS = 60
"""Seconds between two lines about an epoch or a task in progress, where there is no terminal."""


def banner(text: str, title: str) -> None:
    """Print a notice that nobody may overlook."""
    if console.is_terminal:
        console.print(Panel(text, title=title, border_style="bold yellow"))
    else:
        console.print(f"=== {title}: {text} ===", highlight=False)


def print_text(text: str, *, wrap_piped: bool = False) -> None:
    """Print a line; on a terminal it is wrapped between words, with a hanging indent.

    A path stays whole, so that it can be copied: one that is longer than the terminal is wide, and
    one with blanks at the end of the line.

    Args:
        text: The line.
        wrap_piped: Wrap it after 120 characters where there is no terminal: for what people read
            in a file, and no program line by line.
    """
    if (console.is_terminal or wrap_piped) and not re.search(r": (/|~|\w+://)", text):
        indent = " " * (len(text) - len(text.lstrip()))
        text = textwrap.fill(
            text.strip(),
            console.width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_command(label: str, command: Sequence[str]) -> None:
    """Print a command with its quotes, which a terminal wraps by itself so that it can be copied.

    Args:
        label: What it does.
        command: Its words.
    """
    console.print(
        f"  {label}\n    {shlex.join(command)}", highlight=False, markup=False, soft_wrap=True
    )


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
    if not sys.stderr.isatty():
        lines = _PlainLines()
        yield lambda description: functools.partial(lines.update, description)
        lines.finish()
        return
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def update(description: str, done: int, total: int) -> None:
            progress.update(task, description=description, completed=done, total=total or None)

        yield lambda description: functools.partial(update, description)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Say on standard error what is being done while the block runs.

    A terminal shows it until the block ends. Elsewhere a line says it, if that takes long.

    Args:
        what: Such as ``measuring the time of a step``.
    """
    if sys.stderr.isatty():
        with Console(stderr=True).status(what):
            yield
        return
    line = threading.Timer(_QUIET_SECONDS, print, [f"{what} ..."], {"file": sys.stderr})
    line.daemon = True
    line.start()
    try:
        yield
    finally:
        line.cancel()


class _PlainLines:
    """Says once a minute how far a task is, and at its end that it has ended."""

    def __init__(self) -> None:
        self.printed = time.monotonic()
        self.begun: str | None = None
        """Description of the task that a line was printed of."""

    def update(self, description: str, done: int, total: int) -> None:
        if description != self.begun:
            self.finish()
        if time.monotonic() - self.printed > _PLAIN_SECONDS:
            self.printed, self.begun = time.monotonic(), description
            of = f" of {total:,}" if total else ""
            print(f"{description}: {done:,}{of}", file=sys.stderr)

    def finish(self) -> None:
        if self.begun is not None:
            print(f"{self.begun}: done", file=sys.stderr)
        self.begun = None
