"""The flags of every command that prints tables: ``--wide``, ``--raw``, ``--json``, ``--csv``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

_FORMS = {
    "wide": "Show all columns, however wide the table is.",
    "raw": "Print tab-separated text with all columns and all digits.",
    "json": "Print JSON with all columns and all digits.",
    "csv": "Print comma-separated values with all columns and all digits.",
}


def prints_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags that choose the form of its tables.

    Args:
        command: Prints tables with :func:`sadcl.console.show_table`. A flag that it has itself
            stays its own.

    Returns:
        The same command with a keyword argument for each of the flags.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    own = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]
    forms = {form: text for form, text in _FORMS.items() if form not in hints}
    flags = [
        inspect.Parameter(
            form,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(f"--{form}", help=text)],
        )
        for form, text in forms.items()
    ]

    @functools.wraps(command)
    def with_form(**values: Any) -> None:
        from sadcl.console import table_form
        from sadcl.errors import UserError

        chosen = [form for form in forms if values.pop(form)]
        if len(chosen) > 1:
            flags = " and ".join(f"--{form}" for form in chosen)
            raise UserError(f"A table has one form, but got {flags}: choose one of them.")
        with table_form(chosen[0] if chosen else "fit"):
            command(**values)

    with_form.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    with_form.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
    del with_form.__wrapped__
    return with_form
