"""Mistakes on a command line as one plain paragraph, in the same words for every command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def mistake_text(message: str, command: str = "") -> str:
    """Make one paragraph of what typer or argparse says about a command line.

    Args:
        message: Theirs.
        command: What ``--help`` belongs to, such as ``sadcl results top``.
    """
    text = " ".join(message.split())
    end = "" if text.endswith((".", "?")) else "."
    help_text = f"`{command} --help` lists what there is." if command else "See --help."
    return f"{text}{end} {help_text}"


def usage_text(error: Any, command: Any, words: Sequence[str]) -> str:
    """Say what typer's error of usage says.

    Args:
        error: Typer's.
        command: The one that was started, with those below it.
        words: The command line behind its name.
    """
    path = "sadcl"
    for word in words:  # an error in reading the words does not know its own command
        if (command := getattr(command, "commands", {}).get(word)) is None:
            break
        path += f" {word}"
    return mistake_text(error.format_message(), path)
