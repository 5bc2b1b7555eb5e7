"""The command ``sadcl``: puts its commands together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sadcl import __version__
from sadcl.cli import (
    checkpoints,
    configuration,
    data,
    import_checkpoint,
    new,
    reports,
    run,
    studies,
    tables,
    train,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search hyper-parameters and compare arms of SADCL, and query what was found.",
    epilog="Exit codes: 0, everything is done. 1, a run failed, or a check found faults. 2, "
    "something is to be corrected first: a flag, a file, a disk. 130, the command was interrupted.",
)
app.command(context_settings=run.FLAGS)(run.run)
app.command(context_settings=run.FLAGS)(train.train)
_COMMANDS: list[tuple[typer.Typer, Callable[..., None]]] = [
    (tables.results, reports.ablation),
    (tables.results, reports.importance),
    (tables.results, reports.labels),
    (tables.results, reports.report),
    (app, checkpoints.evaluate),
    (app, checkpoints.predict),
    (app, checkpoints.explain),
    (app, checkpoints.export),
]
app.command()(new.new)
app.command("import")(import_checkpoint.import_checkpoint)
for _group, _command in _COMMANDS:
    _group.command()(_command)
app.add_typer(tables.results, name="results")
app.add_typer(studies.studies, name="studies")
app.add_typer(data.app, name="data")
app.add_typer(configuration.configuration, name="config")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sadcl {__version__}")
        raise typer.Exit


@app.callback()
def sadcl(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Search hyper-parameters and compare arms of SADCL, and query what was found."""


def main() -> None:
    """Run the command line of this process."""
    import gc
    import sys

    # Imports create many objects that stay; collecting among them takes a tenth of the time.
    gc.set_threshold(50_000)
    from sadcl.console import guarded
    from sadcl.errors import UserError

    usage_error: Any = typer.BadParameter.__base__
    with guarded():
        _check_working_folder()
        command = typer.main.get_command(app)
        _tidy_help(command)
        _prepare_arrow(command)
        try:
            code = command(standalone_mode=False)
        except typer.Abort:  # the input ended at a question
            sys.exit(130)
        except usage_error as error:
            if "NoArgs" in type(error).__name__ and error.ctx is not None:
                typer.echo(error.ctx.get_help())
                sys.exit(2)
            from sadcl.cli import mistakes

            raise UserError(mistakes.usage_text(error, command, sys.argv[1:])) from None
        sys.exit(int(code or 0))


def _check_working_folder() -> None:
    """Refuse to start in a folder that was removed, which libraries end the process for."""
    import os

    from sadcl.errors import UserError

    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "The working folder was removed, or made anew, after the shell went there. Change to "
            "one that exists (cd), and run the command again."
        ) from None


def _tidy_help(command: Any) -> None:
    """Let the help of a command, and of those below it, be wrapped where the terminal ends.

    It also names no type where a flag has no value.
    """
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
    parameters = command.get_params

    def get_params(context: Any) -> Any:
        found = parameters(context)
        for one in found:
            if getattr(one, "is_flag", False) and one.metavar is None:
                one.metavar = ""
        return found

    command.get_params = get_params
    for below in getattr(command, "commands", {}).values():
        _tidy_help(below)


def _prepare_arrow(command: Any) -> None:
    """Let the commands that query tables import Arrow without pandas, once their flags are read."""
    for name in ("results", "studies"):
        for below in command.commands[name].commands.values():

            def invoke(context: Any, run: Callable[[Any], Any] = below.invoke) -> Any:
                _import_arrow_without_pandas()
                return run(context)

            below.invoke = invoke


class _NoPandas:
    """An import finder that says that pandas is not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _import_arrow_without_pandas() -> None:
    """Let Arrow look for pandas in vain: its import would be half of the time that a query takes.

    Arrow looks for it once, when it makes its first array.
    """
    import sys

    finder: Any = _NoPandas
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([], pa.null())
    finally:
        sys.meta_path.remove(finder)
