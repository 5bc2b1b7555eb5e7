"""The command ``sadcl config``: the fields that an experiment can change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sadcl.config import Config
    from sadcl.config.fields import Field, Section

configuration = typer.Typer(no_args_is_help=True, help="Look up what an experiment can change.")


@configuration.callback()
def _group() -> None:
    """Let typer keep `fields` as a command of its own."""


@configuration.command()
def fields(
    section: Annotated[
        str,
        typer.Argument(
            metavar="[SECTION]",
            help="A section such as model or stage1.class_loss, one field, or the import path of "
            "a part such as my_lab.heads:Attention (default: everything).",
        ),
    ] = "",
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show this recipe's values too: coco14, coco14:paper, demo, demo:voc2007 ...",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="json or csv, each with every word."),
    ] = None,
) -> None:
    """List the fields of the configuration: type, default and meaning.

    A field that holds a part, such as model.head, shows that part's arguments too. On
    a terminal, lists show the first sentence; give one field to read its whole text.
    """
    from sadcl import recipes
    from sadcl.config import component
    from sadcl.config.fields import Section, fields_of_part
    from sadcl.errors import UserError

    if form not in (None, "json", "csv"):
        raise UserError(f"--format {form} is not possible: choose json or csv.")
    chosen = None if recipe is None else recipes.by_name(recipe)
    if component.is_path(section):
        found = [Section(section, _about(section), tuple(fields_of_part(section)))]
        recipe = None  # which has no value for a part that no field names
    else:
        found = _found(section, chosen)
    if form is None and _is_terminal():
        _print_text(found, recipe, chosen)
    else:
        _print_rows([_row(one, recipe, chosen) for part in found for one in part.fields], form)


def _found(name: str, chosen: Config | None) -> list[Section]:
    """Return the sections, the field or the argument of a part that a name selects."""
    from sadcl.config import EQ4, PARTS, Config, component
    from sadcl.config.fields import Section, fields_of_part, sections_below, value_of
    from sadcl.errors import UserError, did_you_mean

    holders = {arguments: field for field, arguments in PARTS.items()} | {f: f for f in PARTS}
    above, _, argument = name.rpartition(".")
    is_argument = above in PARTS.values()
    found = sections_below(above if is_argument else name)
    holder = holders.get(above if is_argument else name)
    if holder is None:
        return found
    config = chosen or Config()
    path = value_of(config, holder)
    if not component.is_path(path) or path == EQ4:
        arguments: list[Field] = []  # its own are fields beside it
    else:
        arguments = fields_of_part(path, holder)
    if is_argument:
        matching = [one for one in arguments if one.name.rpartition(".")[2] == argument]
        if not matching:
            names = [one.name.rpartition(".")[2] for one in arguments]
            raise UserError(
                f"{holder} = {path!r} has no argument {argument!r}{did_you_mean(argument, names)}"
            )
        return [Section(path, _about(path), tuple(matching))]
    return [*found, Section(path, _about(path), tuple(arguments))] if arguments else found


def _about(path: str) -> str:
    """Return the first paragraph of a part's docstring."""
    import inspect

    from sadcl.config import component

    text = inspect.getdoc(component.load(path, "SECTION")) or ""
    return " ".join(text.split("\n\n")[0].split())


def _row(field: Field, recipe: str | None, chosen: Config | None) -> dict[str, Any]:
    from sadcl.config.fields import value_of

    row = {"field": field.name, "type": field.kind, "default": field.default}
    if recipe is not None and chosen is not None:
        row[recipe] = value_of(chosen, field.name)
    return row | {"meaning": field.meaning}


def _is_terminal() -> bool:
    from sadcl.console import console

    return console.is_terminal


def _print_rows(rows: list[dict[str, Any]], form: str | None) -> None:
    """Print one table: tab-separated, as CSV or as JSON."""
    import csv
    import json
    import sys

    from sadcl.config.fields import value_text
    from sadcl.console import show_table

    if form == "json":
        typer.echo(json.dumps(rows, indent=1, default=str))
        return
    texts = [{name: value_text(value) for name, value in row.items()} for row in rows]
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(texts)
    else:
        show_table(texts)


def _print_text(found: list[Section], recipe: str | None, chosen: Config | None) -> None:
    """Print paragraphs that are read at 80 columns: one field with its whole text, or a list."""
    from sadcl.config.fields import value_of, value_text
    from sadcl.console import print_text

    is_alone = len(found[0].fields) == 1
    for section in found:
        title = section.name or "configuration"
        print_text(f"{title}: {section.meaning.replace('``', '`')}")
        print_text("")
        for field in section.fields:
            text = f"  {field.name} = {value_text(field.default)}"
            if recipe is not None and chosen is not None:
                value = value_of(chosen, field.name)
                is_same = value == field.default
                text += f", in {recipe} {'too' if is_same else value_text(value)}"
            print_text(f"{text} ({field.kind})")
            meaning = field.meaning if is_alone else _first_sentence(field.meaning)
            print_text(f"      {meaning}")
        print_text("")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", text, maxsplit=1)[0]
