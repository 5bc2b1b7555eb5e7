"""Mistakes on a command line as one plain paragraph, in the same words for every command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_WORDS = (
    (r"No such command '(.+?)'\. Did you mean '(.+?)'.*",
     r"There is no command \1; did you mean \2?"),
    (r"No such command '(.+?)'\.?", r"There is no command \1."),
    (r"Missing argument '(.+?)'\.?", r"\1 is missing."),
    (r"Missing option '(.+?)'\.?", r"The flag \1 is missing."),
    (r"Option '(.+?)' requires an argument\.?", r"The flag \1 needs a value."),
    (r"argument (\S+?)(/\S+)?: expected one argument", r"The flag \1 needs a value."),
    (r"Got unexpected extra arguments?(?:\(s\))? \((\S+).*\)", r"'\1' belongs to no flag."),
    (r"Invalid value for '?(.+?)'?: (?:Input should be|.* is not) (?:a valid|in the) (\w+).*",
     r"The value of \1 is not possible: it must be \2."),
    (r"Invalid value for '?(.+?)'?: Input should be (.+)",
     r"The value of \1 is not possible: it must be \2."),
    (r"argument (\S+?)(?:/\S+)?: invalid (\w+) value: (.+)",
     r"\1 \3 is not possible: it must be \2."),
    (r"argument (\S+?)(?:/\S+)?: invalid choice: (.+?) \(choose from (.+)\)",
     r"\1 \2 is not possible: it must be one of \3."),
    (r"argument (\S+?)(?:/\S+)?: (.+)", r"\1: \2."),
)  # fmt: skip
_KINDS = {"must be int": "must be a whole number", "must be integer": "must be a whole number",
          "must be float": "must be a number", "must be number": "must be a number"}  # fmt: skip


def mistake_text(message: str, command: str = "") -> str:
    """Say in plain words what typer or argparse says about a command line.

    What neither is known to say keeps its words.

    Args:
        message: Theirs.
        command: What ``--help`` belongs to, such as ``sadcl results top``.
    """
    text = " ".join(message.split())
    for pattern, plain in _WORDS:
        if match := re.fullmatch(pattern, text):
            text = match.expand(plain)
            break
    for technical, plain in _KINDS.items():
        text = re.sub(rf"{technical}\b", plain, text)
    end = "" if text.endswith((".", "?")) else "."
    help_text = f"`{command} --help` lists what there is." if command else "See --help."
    return f"{text}{end} {help_text}"


def no_flag_text(name: str, nearest: str | None) -> str:
    """Say that there is no such flag."""
    return f"There is no flag {name}" + (f"; did you mean {nearest}?" if nearest else ".")


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
    if (name := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        nearest = next(iter(error.possibilities or ()), None)
        return mistake_text(no_flag_text(name, nearest), path)
    return mistake_text(error.format_message(), path)
