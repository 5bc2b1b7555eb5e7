"""The result of a search as values, and from these as rows of a table and as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sadcl.reports.effect_text import interval_text, pairs_text, plus_minus, verdict_text
from sadcl.reports.rank_agreement import RankAgreement, rank_agreement
from sadcl.reports.statistics import Effect, Verdict, interval, paired_effect, with_holm
from sadcl.results.status import Status
from sadcl.search.plan_text import image_warnings
from sadcl.search.ranking import (
    best_trials,
    final_run,
    is_finite,
    objective,
    pareto_front,
    winning_trial,
)
from sadcl.search.search import Search
from sadcl.search.trial import Phase

TITLE = "Result (mAP in percent, ± half of the 95 % interval over seeds)"
OVERVIEW_TITLE = "Searches (test mAP in percent, ± half of the 95 % interval over seeds)"

Row = Mapping[str, Any]
"""A row of the trials table, with ``admitted`` where it is known
(:meth:`StudyRecord.rows_with_admitted`).
"""


class Spread(NamedTuple):
    """A mean over runs, and half of its 95 % interval; nan for a single run."""

    mean: float
    half: float
    num_runs: int

    def __str__(self) -> str:
        return plus_minus(self.mean, self.half)


class ResultLine(NamedTuple):
    """One line of the table: runs of one kind.

    Attributes:
        name: the name of the line.
        meaning: what the runs are.
        rows: the complete runs.
    """

    name: str
    meaning: str
    rows: Sequence[Row]

    def spread(self, column: str) -> Spread | None:
        """Return the spread of a column over the runs that have it; None if none has."""
        return spread_of(row[column] for row in self.rows)

    @property
    def admitted(self) -> float | None:
        """The mean number of bank rows per label; None where it is not known."""
        counts = [row["admitted"] for row in self.rows if row.get("admitted") is not None]
        return float(np.mean(counts)) if counts else None


class Gain(NamedTuple):
    """The difference in mAP between the tuned setting and the control, over shared seeds.

    Attributes:
        split: ``val`` or ``test``.
        effect: the difference with its interval and its verdict.
        compared: what is compared with what, in words.
    """

    split: str
    effect: Effect
    compared: str

    @property
    def difference(self) -> Spread:
        """The mean difference, and half of its interval."""
        effect = self.effect
        return Spread(effect.difference, effect.difference_half_width, len(effect.pairs))

    @property
    def verdict(self) -> Verdict:
        return self.effect.verdict

    @property
    def is_tested(self) -> bool:
        return not math.isnan(self.effect.p)


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        lines: the lines of the table.
        settings: the values of the best setting; None if no trial is complete.
        confirmed: the test mAP of the best setting over the fresh seeds; None if nothing is
            confirmed.
        gains: the differences to the control on the held-out and on the test images, as far as
            there are pairs.
        final: the row of the final run; None if it is not complete.
        published: the paper's figure; None where the result is not comparable with it.
        nothing_admitted: whether the bank of the best setting stayed empty over all fresh seeds.
        num_pruned: the number of trials that were stopped early.
        failed: the rows of the runs that failed.
        warnings: of data sets with few images.
        agreement: of the search's figures with the confirmed ones, where these are of runs that
            differ (``confirm_with``).
    """

    lines: tuple[ResultLine, ...]
    settings: Mapping[str, Any] | None = None
    confirmed: Spread | None = None
    gains: tuple[Gain, ...] = ()
    final: Row | None = None
    published: float | None = None
    nothing_admitted: bool = False
    num_pruned: int = 0
    failed: tuple[Row, ...] = ()
    warnings: tuple[str, ...] = ()
    agreement: RankAgreement | None = None


def summary(
    rows: Sequence[Row], search: Search, num_images: Mapping[str, Mapping[str, int]] | None = None
) -> tuple[list[dict[str, str]], list[str]]:
    """Return the result of a search as rows of a table (its title is ``TITLE``) and as sentences.

    Args:
        rows: the study's rows of the trials table.
        search: the search.
        num_images: the number of images by data set and split, as far as it is known.
    """
    warnings = tuple(image_warnings(num_images or {}))
    result = replace(search_result(rows, search), warnings=warnings)
    return list(result_rows(result)), list(result_sentences(result))


def search_result(rows: Sequence[Row], search: Search) -> SearchResult:
    """Return what a search has found, from the study's rows of the trials table."""
    complete = [row for row in rows if row["status"] == Status.COMPLETE]
    num_pruned = sum(row["status"] == Status.PRUNED for row in rows)
    failed = tuple(row for row in rows if row["status"] == Status.FAILED)
    winner = winning_trial(complete, search.confirm_top, search.confirm_seeds)
    control = _rows(complete, Phase.CONFIRM, "stage2")
    lines = [
        *_search_lines(complete, search),
        ResultLine("control, confirmed", "over fresh seeds", control),
    ]
    if winner is None:
        return SearchResult(_nonempty(lines), num_pruned=num_pruned, failed=failed)
    params = winner["params"]
    tuned = _rows(complete, Phase.CONFIRM, "tuned", params=params)
    final = final_run(complete, params)
    lines.append(ResultLine("tuned, confirmed", "over the same seeds", tuned))
    lines.append(ResultLine("tuned, final", "all training images", [final] if final else []))
    compared = _compared(search, winner["scale"])
    gains = (_gain(split, tuned, control, compared) for split in ("val", "test"))
    return SearchResult(
        lines=_nonempty(lines),
        settings=winner["settings"],
        confirmed=spread_of(row["test_mAP"] for row in tuned),
        gains=tuple(gain for gain in gains if gain is not None),
        final=final,
        published=search.published if winner["scale"] == "full" else None,
        nothing_admitted=bool(tuned) and all(row.get("admitted") == 0 for row in tuned),
        num_pruned=num_pruned,
        failed=failed,
        agreement=_agreement(complete, search) if search.confirm_with else None,
    )


def _has_contrasts(search: Search, scale: str) -> bool:
    """Whether the base has contrasts at a scale, so that the control is it without them."""
    base = search.config(scale)
    return bool(base.stage2.epochs) and base.loss.contrasts


def _compared(search: Search, scale: str) -> str:
    """Say what tuned runs are compared with; only contrasts may differ for it to be about them."""
    if not _has_contrasts(search, scale):
        return "The best setting compared with the setting of the base"
    of_class = ("loss.class_weight", "loss.class_reduction")
    if all(
        field.startswith(("loss.", "bank.", "prototypes.")) and field not in of_class
        for field in search.space_at(scale)
    ):
        return "Contrasts compared with stage 2 without them"
    return "The best setting compared with stage 2 without contrasts"


def _agreement(complete: Sequence[Row], search: Search) -> RankAgreement:
    """Compare the best trials with their means over the fresh seeds that all of them have."""
    pairs = []
    for trial in best_trials(complete, search.confirm_top):
        runs = _rows(complete, Phase.CONFIRM, "tuned", params=trial["params"])
        figures = {row["seed"]: row["val_mAP"] for row in runs if is_finite(row["val_mAP"])}
        if figures:
            pairs.append((trial["val_mAP"], figures))
    shared = sorted(set(search.confirm_seeds).intersection(*(figures for _, figures in pairs)))
    if not shared:
        pairs = []
    means = [sum(figures[seed] for seed in shared) / len(shared) for _, figures in pairs]
    return rank_agreement([cheap for cheap, _ in pairs], means)


def _search_lines(complete: Sequence[Row], search: Search) -> Iterator[ResultLine]:
    """Yield the lines of the runs before the confirmation."""
    best = next(iter(best_trials(complete, 1)), None)
    key = best["key"] if best is not None else None
    stage1_key = best["stage1_key"] if best is not None else None
    baseline = _rows(complete, Phase.BASELINE, "baseline")
    yield ResultLine("baseline", "pooled, as many epochs", baseline)
    stage1 = _rows(complete, Phase.STAGE1, "stage1", key=stage1_key)
    yield ResultLine("stage 1", "SARL alone, shared", stage1)
    control = _rows(complete, Phase.BASELINE, "stage2")
    scale = control[0]["scale"] if control else "full"
    meaning = "stage 2, no contrasts" if _has_contrasts(search, scale) else "setting of the base"
    yield ResultLine("control", meaning, control)
    trials = _rows(complete, Phase.SEARCH, "tuned", key=key)
    yield ResultLine("best of search", "best, so optimistic", trials)
    if len(search.objectives) > 1:
        for row in pareto_front(complete, search.objectives)[1:]:
            columns = [objective(name)[0] for name in search.objectives[1:]]
            costs = ", ".join(f"{name} {row[name]:.4g}" for name in columns)
            yield ResultLine("Pareto front", f"nothing beats it: {costs}", [row])


def _rows(complete: Sequence[Row], phase: Phase, arm: str, **columns: Any) -> list[Row]:
    return [
        row
        for row in complete
        if (row["phase"], row["arm"]) == (phase, arm)
        and all(row[name] == value for name, value in columns.items())
    ]


def _nonempty(lines: Iterable[ResultLine]) -> tuple[ResultLine, ...]:
    return tuple(line for line in lines if line.rows)


def _gain(split: str, tuned: Sequence[Row], control: Sequence[Row], compared: str) -> Gain | None:
    """Return the difference over paired seeds; None without a pair."""
    column = f"{split}_mAP"
    figures, reference = (
        {row["seed"]: row[column] for row in rows if is_finite(row[column])}
        for rows in (tuned, control)
    )
    (effect,) = with_holm([paired_effect("", "tuned", figures, reference)])
    return Gain(split, effect, compared) if effect.pairs else None


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that are not None; None without any."""
    figures = [value for value in values if value is not None]
    return Spread(*interval(figures), len(figures)) if figures else None


def result_rows(result: SearchResult) -> Iterator[dict[str, str]]:
    """Yield the lines of a result as rows of a table that 80 characters hold."""
    for line in result.lines:
        yield {
            "run": line.name,
            "what it is": line.meaning,
            "seeds": str(len(line.rows)),
            "held-out": str(line.spread("val_mAP") or ""),
            "test": str(line.spread("test_mAP") or ""),
        }


def result_sentences(result: SearchResult) -> Iterator[str]:
    """Yield a result in sentences."""
    paper = "" if result.published is None else f"; the paper reports {result.published:.1f}"
    if result.confirmed is not None:
        count = result.confirmed.num_runs
        seeds = f"{count} fresh seeds" if count > 1 else "one fresh seed"
        yield f"Answer: test mAP {result.confirmed} over {seeds}, confirmed{paper}."
    for gain in result.gains:
        yield _gain_sentence(gain)
    yield from result.warnings
    if result.final is not None and result.final["test_mAP"] is not None:
        yield (
            f"Test mAP of the final run: {result.final['test_mAP']:.2f} "
            f"(one run, seed {result.final['seed']}){paper}."
        )
        yield f"Its checkpoint: {result.final['checkpoint']}"
    if admitted := [line for line in result.lines if line.admitted is not None]:
        counts = "; ".join(f"{line.name} {line.admitted:.1f}" for line in admitted)
        yield f"Rows per label that the bank admitted in the last epoch: {counts}."
    if result.nothing_admitted:
        yield (
            "WARNING: the bank of the best setting admitted nothing: its bank.epsilon is above "
            "the scores."
        )
    if result.settings is not None:
        yield f"Best setting: {', '.join(_setting_text(result.settings))}."
    if result.agreement is not None:
        yield result.agreement.sentence()
    if result.num_pruned:
        trials = "1 trial was" if result.num_pruned == 1 else f"{result.num_pruned} trials were"
        yield f"{trials} stopped early."
    if result.failed:
        first = result.failed[0]
        count = len(result.failed)
        failed = "1 run failed" if count == 1 else f"{count} runs failed; the first"
        yield f"{failed}: {first['key']}: {first['cause']}"
        again = "it" if count == 1 else "them"
        yield f"--retry-failed runs {again} again, with the same settings."


def _gain_sentence(gain: Gain) -> str:
    split = "held-out" if gain.split == "val" else "test"
    interval = f" ({interval_text(gain.effect, '95 % interval ')})" if gain.is_tested else ""
    optimistic = " The setting was chosen on these images, so this figure is optimistic."
    return (
        f"{gain.compared}: {gain.effect.difference:+z.2f} {split} mAP over "
        f"{pairs_text(gain.effect)} of seeds{interval}: {verdict_text(gain.effect)}."
        f"{optimistic if gain.split == 'val' and gain.is_tested else ''}"
    )


def _setting_text(settings: Mapping[str, Any]) -> Iterator[str]:
    for field, value in settings.items():
        yield f"{field} = {value:.4g}" if isinstance(value, float) else f"{field} = {value}"


def overview(rows: Iterable[Row], studies: Mapping[str, Search]) -> list[dict[str, str]]:
    """Return rows of a table of several searches: what each has confirmed, and the paper's figure.

    Its title is ``OVERVIEW_TITLE``.

    Args:
        rows: rows of the trials table, of any study.
        studies: the searches by the names of their studies.
    """
    by_study: dict[str, list[Row]] = {name: [] for name in studies}
    for row in rows:
        if row["study"] in by_study:
            by_study[row["study"]].append(row)
    columns = ("study", "data set", "trials", "confirmed", "final run", "paper")
    return [
        dict(zip(columns, (name, *_overview_cells(by_study[name], search)), strict=True))
        for name, search in studies.items()
    ]


def _overview_cells(rows: Sequence[Row], search: Search) -> Iterator[str]:
    """Yield the cells of one search after its name."""
    yield rows[0]["dataset"] if rows else ""
    yield str(sum(row["phase"] == Phase.SEARCH for row in rows))
    complete = [row for row in rows if row["status"] == Status.COMPLETE]
    winner = winning_trial(complete, search.confirm_top, search.confirm_seeds)
    params = winner["params"] if winner else ""
    tuned, final = (
        _rows(complete, Phase.CONFIRM, "tuned", params=params),
        final_run(complete, params),
    )
    yield str(spread_of(row["test_mAP"] for row in tuned) or "")
    yield str(spread_of([final["test_mAP"]]) or "") if final else ""
    comparable = winner is not None and winner["scale"] == "full" and search.published is not None
    yield f"{search.published:.1f}" if comparable else ""
