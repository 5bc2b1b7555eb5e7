"""The commands of ``sadcl results`` that draw conclusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sadcl.cli.shared_options import Baseline, Plot, Storage, StudyFlag, StudyName, study_of
from sadcl.cli.table_options import prints_tables


@prints_tables
def ablation(
    name: StudyName = None,
    study: StudyFlag = None,
    storage: Storage = "runs",
    baseline: Baseline = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="Compare this column of the trials table, which is in percent."
        ),
    ] = "test_mAP",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a document in Markdown instead.")
    ] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print a LaTeX table for a paper instead.")
    ] = False,
    plot: Plot = None,
) -> None:
    """Compare each arm of an ablation with the baseline, paired by seed."""
    from sadcl.console import print_note, show_table
    from sadcl.errors import UserError
    from sadcl.reports import ablation as ablation_reports
    from sadcl.reports import ablation_documents, ablation_text, forest_plot, plot_style

    if markdown and latex:
        raise UserError("--markdown and --latex cannot both be printed: choose one of them.")
    if plot is not None:
        plot_style.check_ending(plot)
    study = study_of(name, study, "ablation")
    report = ablation_reports.ablation_report(storage, study, baseline, metric)
    if markdown:
        typer.echo(ablation_documents.markdown(report), nl=False)
    elif latex:
        typer.echo(ablation_documents.latex(report), nl=False)
    else:
        print_note(report.title)
        for dataset in report.datasets:
            rows = ablation_text.ablation_table(report, dataset)
            show_table(rows, title=dataset, spare=report.components)
        sentences = ablation_text.ablation_sentences(report)
        for sentence in (*ablation_text.ablation_notes(report), *sentences):
            print_note(sentence)
        show_table(ablation_text.runs_without_figure(report), title="runs without a figure")
    if plot is not None:
        forest_plot.draw_forest(report, plot)
        typer.echo(f"The differences are drawn in {plot}.", err=True)


@prints_tables
def importance(
    name: StudyName = None,
    study: StudyFlag = None,
    storage: Storage = "runs",
    evaluator: Annotated[
        str, typer.Option(metavar="NAME", help="Estimate with ped-anova or fanova.")
    ] = "ped-anova",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of the resampling.")] = 0,
) -> None:
    """Estimate which fields of a search matter for the held-out mAP, beyond chance."""
    from sadcl.console import print_note, progress_bar, show_table
    from sadcl.reports import importance as importances
    from sadcl.reports import importance_text

    study = study_of(name, study, "importance")
    with progress_bar("reading the trials") as show:
        result = importances.field_importances(
            storage, study, evaluator, seed=seed, progress=show("resampling the trials")
        )
    if rows := importance_text.importance_table(result):
        show_table(rows, title=f"{study}: {evaluator}")
    for sentence in importance_text.importance_sentences(result):
        print_note(sentence)


@prints_tables
def labels(
    name: StudyName = None,
    study: StudyFlag = None,
    storage: Storage = "runs",
    arm: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="The arm to look at (default for a search: tuned)."),
    ] = None,
    baseline: Baseline = None,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="test, or val: held-out training images.")
    ] = "test",
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Look only at this data set.")
    ] = None,
    plot: Plot = None,
) -> None:
    """Find out which labels an arm helps, paired by seed: by label frequency and by object size.

    The study is an ablation, or a search that has confirmed its setting.
    """
    from sadcl.console import print_note, show_table
    from sadcl.errors import UserError
    from sadcl.reports import label_gains, label_gains_text, label_plot, plot_style

    if plot is not None:
        plot_style.check_ending(plot)
    study = study_of(name, study, "labels")
    gains = label_gains.label_gains(storage, study, arm, baseline, split, dataset)
    if plot is not None and len(gains) > 1:
        names = ", ".join(part.dataset for part in gains)
        raise UserError(f"A plot shows one data set: give --dataset as one of {names}.")
    sentences = list(label_gains_text.gains_notes(gains[0]))
    for part in gains:
        show_table(label_gains_text.gains_table(part), title=part.dataset)
        thirds = f"{part.dataset}, thirds of the labels"
        show_table(label_gains_text.thirds_table(part), title=thirds)
        sentences += label_gains_text.gains_sentences(part)
    for sentence in dict.fromkeys(sentences):
        print_note(sentence)
    if plot is not None:
        label_plot.draw_labels(gains[0], plot)
        typer.echo(f"The differences are drawn in {plot}.", err=True)


def report(
    study: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY [OTHER]",
            help="The name of the study, as `studies list` prints it, or of two of one question.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The HTML file: a path, s3://... or gs://..."
        ),
    ] = "report.html",
    storage: Storage = "runs",
) -> None:
    """Write a study as one HTML file that opens without a network: question, answer, evidence.

    With two studies, the file has them side by side: what was set differently, how their figures
    compare seed by seed, and each section of both.
    """
    from sadcl import storage as files
    from sadcl.console import bytes_text, progress_bar
    from sadcl.errors import UserError
    from sadcl.reports.page import html

    if not out.lower().endswith((".html", ".htm")):
        raise UserError(f"The report {out!r} cannot be written: its name must end in .html.")
    files.check_new(out)
    with progress_bar("reading the tables") as show:
        text = html.study_page(
            storage, *study, recipe=_recipe, progress=show("resampling the trials")
        )
    content = text.encode()
    files.write(out, content)
    typer.echo(f"{out}: {bytes_text(len(content))}")


def _recipe(row: Mapping[str, Any]) -> str:
    """A run's setting as Python, or its whole configuration where no recipe can express it."""

    from sadcl import recipes
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.reports.page import provenance

    try:
        return recipes.code(Config.stored(row["config"]))
    except (UserError, TypeError):
        return provenance.config_code(row)
