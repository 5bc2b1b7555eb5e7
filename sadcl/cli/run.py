"""The command ``sadcl run``: an experiment's file with its flags."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

FLAGS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
"""Settings of the command: all that follows FILE, even ``--help``, reaches the experiment."""


def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The experiment's Python file.")],
) -> None:
    """Run an experiment's file with its flags, as `python FILE [FLAGS]...` does.

    The file calls sadcl.main(...), or it only defines one study: a Search, an
    Ablation, a Comparison, or a list of Searches. `sadcl run FILE --help` lists the flags.
    """
    from sadcl.cli import experiment
    from sadcl.errors import UserError

    if not os.path.isfile(file):
        raise UserError(f"There is no file {file!r}. Give the path of an experiment's Python file.")
    sys.argv = [file, *context.args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(file)))  # as Python does
    calls = experiment.calls
    try:
        variables = runpy.run_path(file, run_name="__main__")
    except SyntaxError as error:
        if error.filename != file:
            raise
        raise UserError(f"{file}, line {error.lineno}: {error.msg}.") from None
    if experiment.calls == calls:
        experiment.main(_study_of(file, variables))


def _study_of(file: str, variables: Mapping[str, Any]) -> Any:
    """The only study among the variables of a file.

    Raises:
        UserError: Where there is none, or more than one.
    """
    from sadcl.errors import UserError
    from sadcl.search import Ablation, Comparison, Search

    def is_study(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return bool(value) and all(isinstance(part, Search) for part in value)
        return isinstance(value, Search | Ablation | Comparison)

    studies = {name: value for name, value in variables.items() if is_study(value)}
    if not studies:
        raise UserError(
            f"{file} defines no study. Let it define a sadcl.Search, a sadcl.Ablation or a "
            "sadcl.Comparison, or call sadcl.main(...)."
        )
    if len({id(value) for value in studies.values()}) > 1:
        raise UserError(
            f"{file} defines several studies: {', '.join(studies)}. Let it call sadcl.main(...) "
            "with the one to run, or with a list of searches."
        )
    return next(iter(studies.values()))
