"""Those of the commands ``sadcl results`` that conclude: importance, label gains, the report of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sadcl.cli.options import Storage


def importance(
    study: Annotated[str, typer.Option(help="A search.")],
    storage: Storage = "runs",
    evaluator: Annotated[str, typer.Option(help="ped-anova or fanova.")] = "ped-anova",
    seed: Annotated[int, typer.Option(help="Of resampling.")] = 0,
) -> None:
    """Which fields of a search matter for the held-out mAP: shares with intervals, and whether they are more than chance."""
    from sadcl.console import progress_bar, show_table
    from sadcl.reports import importance as importances
    from sadcl.reports import importance_text

    with progress_bar("reading the trials") as show:
        found = importances.field_importances(
            storage, study, evaluator, seed=seed, progress=show("resampling the trials")
        )
    if rows := importance_text.importance_table(found):
        show_table(rows, list(rows[0]), title=f"{study}: {evaluator}")
    for text in importance_text.importance_sentences(found):
        typer.echo(text)


def labels(
    study: Annotated[
        str, typer.Option(help="An ablation, or a search that has confirmed its setting.")
    ],
    storage: Storage = "runs",
    arm: Annotated[str | None, typer.Option(help="The arm to look at; tuned of a search.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The arm to compare with; the study's own.")
    ] = None,
    split: Annotated[str, typer.Option(help="test or val (held-out training images).")] = "test",
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw the differences there: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Which labels an arm helps, over the seeds that it shares with the baseline: by frequency and by size of the objects."""
    from sadcl.console import show_table
    from sadcl.errors import UserError
    from sadcl.reports import label_gains, label_plot, plot_style
    from sadcl.reports import label_gains_text as words

    if plot is not None:
        plot_style.check_ending(plot)
    found = label_gains.label_gains(storage, study, arm, baseline, split, dataset)
    if plot is not None and len(found) > 1:
        raise UserError(
            f"A plot is of one data set: give --dataset as one of {', '.join(one.dataset for one in found)}."
        )
    for one in found:
        for rows, title in (
            (words.gains_table(one), one.dataset),
            (words.thirds_table(one), f"{one.dataset}, thirds of the labels"),
        ):
            if rows:
                show_table(rows, list(rows[0]), title=title)
    for text in dict.fromkeys(
        [
            *words.gains_notes(found[0]),
            *(text for one in found for text in words.gains_sentences(one)),
        ]
    ):
        typer.echo(text)
    if plot is not None:
        label_plot.draw_labels(found[0], plot)
        typer.echo(f"the differences are drawn in {plot}", err=True)


def add_to(app: typer.Typer) -> None:
    """Put both beside the other questions."""
    for command in (importance, labels):
        app.command()(command)


def report(
    study: Annotated[str, typer.Argument(help="Its name, as `studies` prints it.")],
    out: Annotated[
        str, typer.Option("-o", "--out", help="The HTML file: a path, s3://... or gs://...")
    ] = "report.html",
    storage: Storage = "runs",
) -> None:
    """A study as one HTML file that opens without a network: the question, the answer, and what it stands on."""
    from sadcl import storage as files
    from sadcl.console import bytes_text, progress_bar
    from sadcl.errors import UserError
    from sadcl.reports.page import html

    if not out.lower().endswith((".html", ".htm")):
        raise UserError(f"The report {out!r} cannot be written: its name must end in .html.")
    files.check_new(out)
    with progress_bar("reading the tables") as show:
        content = html.study_page(
            storage, study, recipe=_recipe, progress=show("resampling the trials")
        ).encode()
    files.write(out, content)
    typer.echo(f"{out}: {bytes_text(len(content))}")


def _recipe(row: Mapping[str, Any]) -> str:
    """A run's setting as Python to paste; the whole configuration where this version's recipes do not give it."""
    import json

    from sadcl import recipes
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.reports.page import provenance

    try:
        return recipes.code(Config.parse(json.loads(row["config"])))
    except (UserError, TypeError):
        return provenance.config_code(row)
