"""The importance of the fields of a search in words."""

from __future__ import annotations

from collections.abc import Iterator

from sadcl.reports.importance import (
    MIN_TRIALS,
    ImportanceVerdict,
    StudyImportances,
)
from sadcl.reports.statistics import ALPHA


def importance_table(result: StudyImportances) -> list[dict[str, str]]:
    """Format the fields, one row each, the most important first."""
    return [
        {
            "field": one.field,
            "share": f"{one.share:.2f}",
            "95 %, that field alone": f"{one.low:.2f} to {one.high:.2f}",
            "trials": str(one.trials),
            "p (Holm)": f"{one.p_corrected:.3f}",
            "verdict": one.verdict.value,
        }
        for one in result.fields
    ]


def importance_sentences(result: StudyImportances) -> Iterator[str]:
    """State which fields are significant, how the figures were computed, and what was left out."""
    if result.complete < MIN_TRIALS:
        yield (
            f"There are too few complete trials to rank fields: {result.complete}; at least "
            f"{MIN_TRIALS} are needed."
        )
        return
    if result.fields:
        yield from _findings(result)
    else:
        yield (
            f"The {result.complete} complete trials do not differ in any field, so importance "
            "cannot be evaluated."
        )
    if result.pruned:
        effect = (
            "count as not among the best"
            if result.evaluator == "ped-anova"
            else "are left out, and with them the evidence against their settings"
        )
        yield f"{result.pruned} trials that were stopped early {effect}."
    if result.failed:
        yield (
            f"{result.failed} trials without a figure are left out: if a field makes runs fail, "
            "this analysis does not show it."
        )
    if result.omitted:
        yield (
            "Left out, because their value is the same in all trials or not all trials set them: "
            f"{', '.join(result.omitted)}."
        )


def _findings(result: StudyImportances) -> Iterator[str]:
    significant = [
        one.field for one in result.fields if one.verdict == ImportanceVerdict.SIGNIFICANT
    ]
    finding = (
        f"more important than chance explains: {', '.join(significant)}"
        if significant
        else "no field is significantly more important than chance explains"
    )
    yield (
        f"Over {result.complete} complete trials, {finding} (permutation test with "
        f"{result.permutations} permutations, p < {ALPHA:g}, corrected by Holm)."
    )
    yield (
        f"Shares add up to 1: if none of the {len(result.fields)} fields had an effect, each would "
        f"have about {1 / len(result.fields):.2f}. Intervals are 95 % of "
        f"{result.resamples} bootstrap resamples of the trials, each for that field alone."
    )
    if result.evaluator == "ped-anova":
        yield (
            f"PED-ANOVA compares the best {result.num_best} trials with all "
            f"{result.complete + result.pruned}."
        )
