"""The command ``sadcl``: its commands put together."""

from __future__ import annotations

from typing import Any

import typer

from sadcl.cli import checkpoints, data, reports, studies, tables

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
reports.add_to(tables.results)
tables.results.command("report")(reports.report)
app.add_typer(tables.results, name="results")
app.add_typer(studies.studies, name="studies")
app.add_typer(data.app, name="data")
for command in (checkpoints.evaluate, checkpoints.predict, checkpoints.explain):
    app.command()(command)


def main() -> None:
    """The command ``sadcl``."""
    import gc
    import sys

    gc.set_threshold(
        50_000
    )  # importing makes much that lives on, and looking through it again and again takes a tenth
    from sadcl.console import guarded

    with guarded():
        if sys.argv[1:2] in (["results"], ["studies"]):
            _leave_pandas_out()
        app()


def _leave_pandas_out() -> None:
    """Arrow looks for pandas with the first array that it makes, and its import is half of the time that a question takes."""
    import sys

    class Nowhere:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    finder: Any = Nowhere
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([], pa.null())
    finally:
        sys.meta_path.remove(finder)
