"""The command ``sadcl``: puts its commands together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

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
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search hyper-parameters and compare arms of SADCL, and query what was found.",
)
app.command(context_settings=run.FLAGS)(run.run)
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


def main() -> None:
    """Run the command line of this process."""
    import gc
    import sys

    # Imports create many objects that stay; collecting among them takes a tenth of the time.
    gc.set_threshold(50_000)
    from sadcl.console import guarded

    with guarded():
        if sys.argv[1:2] in (["results"], ["studies"]):
            _import_arrow_without_pandas()
        app()


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
