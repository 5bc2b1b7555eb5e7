"""The commands ``sadcl results importance`` and ``sadcl results labels``."""

from __future__ import annotations

from typing import Annotated

import typer

from sadcl.cli_results import Storage


def importance(
    study: Annotated[str, typer.Option(help="A search.")],
    storage: Storage = "runs",
    evaluator: Annotated[str, typer.Option(help="ped-anova or fanova.")] = "ped-anova",
    seed: Annotated[int, typer.Option(help="Of resampling.")] = 0,
) -> None:
    """Which fields of a search matter for the held-out mAP: shares with intervals, and whether they are more than chance."""
    from sadcl.console import bar, show_table
    from sadcl.results import importance as importances

    with bar("reading the trials") as show:
        found = importances.load(storage, study, evaluator, seed=seed, progress=show("resampling the trials"))
    rows = [
        {
            "field": one.field,
            "share": f"{one.share:.2f}",
            "95 % interval": f"{one.low:.2f} to {one.high:.2f}",
            "trials": str(one.trials),
            "p (Holm)": f"{one.corrected:.3f}",
            "verdict": one.verdict,
        }
        for one in found.fields
    ]
    if rows:
        show_table(rows, list(rows[0]), title=f"{study}: {evaluator}")
    for text in importances.sentences(found):
        typer.echo(text)


def labels(
    study: Annotated[str, typer.Option(help="An ablation, or a search that has confirmed its setting.")],
    storage: Storage = "runs",
    arm: Annotated[str | None, typer.Option(help="The arm to look at; tuned of a search.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The arm to compare with; the study's own.")] = None,
    split: Annotated[str, typer.Option(help="test or val (held-out training images).")] = "test",
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw the differences there: .png, .svg or .pdf.")] = None,
) -> None:
    """Which labels an arm helps, over the seeds that it shares with the baseline: by frequency and by size of the objects."""
    from sadcl.console import show_table
    from sadcl.errors import UserError
    from sadcl.results import dots, forest, gains
    from sadcl.results import gains_words as words

    if plot is not None:
        forest.check(plot)
    found = gains.load(storage, study, arm, baseline, split, dataset)
    if plot is not None and len(found) > 1:
        raise UserError(f"A plot is of one data set: give --dataset as one of {', '.join(one.dataset for one in found)}.")
    for one in found:
        for rows, title in ((words.table(one), one.dataset), (words.thirds(one), f"{one.dataset}, thirds of the labels")):
            if rows:
                show_table(rows, list(rows[0]), title=title)
    for text in dict.fromkeys([*words.notes(found[0]), *(text for one in found for text in words.sentences(one))]):
        typer.echo(text)
    if plot is not None:
        dots.draw(found[0], plot)
        typer.echo(f"the differences are drawn in {plot}", err=True)


def add_to(app: typer.Typer) -> None:
    """Put both beside the other questions."""
    for command in (importance, labels):
        app.command()(command)
