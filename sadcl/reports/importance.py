"""The importance of the fields of a search: shares, intervals, and tests against chance.

PED-ANOVA compares, field by field, the distribution of the best trials with that of all trials, so
that trials that were stopped early count too: as not among the best, which is why they were
stopped. fANOVA (shares of the variance that a random forest explains) uses the figures of complete
trials and leaves the others out.

Sources: Watanabe, Bansal, Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces, 2023; Hutter, Hoos, Leyton-Brown, An Efficient Approach for Assessing
Hyperparameter Importance, 2014 (fANOVA).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import ALPHA, holm
from sadcl.results import store
from sadcl.search.space import Distribution as SpaceDistribution
from sadcl.search.study_file import read_space

if TYPE_CHECKING:
    from sadcl.reports.importance_evaluator import Distribution, Evaluator

Row = Mapping[str, Any]
Progress = Callable[[int, int], None]
EVALUATORS = ("ped-anova", "fanova")
MIN_TRIALS = 10
"""With fewer complete trials nothing is reported: one of six useless fields always comes first."""
BEST_SHARE, MIN_BEST = 0.25, 5
"""The share of trials that count as the best, and their smallest number, as Optuna advises."""
RESAMPLES, PERMUTATIONS = 100, 300
"""How often the trials are resampled for the intervals, and their figures permuted for p."""
PERMUTATIONS_PER_FIELD = 40
"""The smallest number of permutations for each field: p cannot be smaller than 1 / (permutations +
1), and Holm multiplies it by the number of fields."""


class ImportanceVerdict(StrEnum):
    """Whether a field is more important than chance explains."""

    SIGNIFICANT = "significant"
    NOT_SIGNIFICANT = "not significant"


@dataclass(frozen=True)
class FieldImportance:
    """The importance of one field.

    Attributes:
        share: 0 to 1. The shares of all fields add up to 1, so a field without effect has not 0.
        low, high: the 95 % interval of ``share`` over resampled trials (bootstrap), widened to
            include ``share``.
        trials: the number of trials that set the field.
        p: of a permutation test: how often permuted figures make the field as important. It does
            not account for a sampler that explores good regions more densely.
        p_corrected: ``p``, corrected by Holm over all fields.
    """

    field: str
    share: float
    low: float
    high: float
    trials: int
    p: float
    p_corrected: float

    @property
    def verdict(self) -> ImportanceVerdict:
        if self.p_corrected < ALPHA:
            return ImportanceVerdict.SIGNIFICANT
        return ImportanceVerdict.NOT_SIGNIFICANT


@dataclass(frozen=True)
class StudyImportances:
    """The importance of all fields of a study.

    Attributes:
        complete, pruned, failed: numbers of trials of the search by how they ended.
        fields: the most important first; empty with fewer than ``MIN_TRIALS`` complete trials.
        omitted: fields that all trials have the same value of, or that (for fANOVA) not all set.
        num_best: for PED-ANOVA, how many trials count as the best.
        resamples, permutations: how often the trials were resampled, and their figures permuted.
    """

    study: str
    evaluator: str
    complete: int
    pruned: int
    failed: int
    fields: tuple[FieldImportance, ...] = ()
    omitted: tuple[str, ...] = ()
    num_best: int = 0
    resamples: int = 0
    permutations: int = 0


def field_importances(
    root: str,
    study: str,
    evaluator: str = "ped-anova",
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> StudyImportances:
    """Read a search from a storage and evaluate its fields' importance for the held-out mAP.

    Args:
        root: the storage.
        study: a search.
        evaluator: ``ped-anova`` or ``fanova``.
        seed: of the resamples and permutations.
        progress: called with the number of evaluations done and their total.

    Raises:
        UserError: for an unknown study or evaluator, and for a study that is not a search.
    """
    if evaluator not in EVALUATORS:
        raise UserError(f"There is no evaluator {evaluator!r}{did_you_mean(evaluator, EVALUATORS)}")
    trials = store.read(root, "trials")
    names = sorted(set(trials["study"].drop_null().to_pylist()))
    if study not in names:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, names)}")
    searched = trials.filter((pc.field("study") == study) & (pc.field("phase") == "search"))
    rows = searched.sort_by("key").to_pylist()
    description = store.study_record(root, study)
    if not rows and description.get("kind") == "ablation":
        raise UserError(
            f"The study {study!r} is an ablation, which searches nothing: use "
            f"`sadcl results ablation {study}`."
        )
    space = read_space(description)
    return importances(study, rows, space, evaluator, seed=seed, progress=progress)


def importances(
    study: str,
    rows: Sequence[Row],
    space: Mapping[str, SpaceDistribution],
    evaluator: str = "ped-anova",
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> StudyImportances:
    """Evaluate importance from rows of the trials table.

    Args:
        study: its name.
        rows: the trials of the search.
        space: of the study; a field that it does not have ranges over its values.
        evaluator, seed, progress: as in :func:`field_importances`.
    """
    scored = [row for row in rows if row["status"] == "complete" and row["val_mAP"] is not None]
    scored = [row for row in scored if math.isfinite(row["val_mAP"])]
    pruned = [row for row in rows if row["status"] == "pruned"]
    failed = sum(row["status"] not in ("running", "pruned") for row in rows) - len(scored)
    result = StudyImportances(study, evaluator, len(scored), len(pruned), failed)
    if len(scored) < MIN_TRIALS:
        return result
    trials = scored + pruned if evaluator == "ped-anova" else scored
    settings = [json.loads(row["params"] or "{}") for row in trials]
    distributions, omitted = _distributions(settings, space, evaluator)
    if not distributions:
        return replace(result, omitted=omitted)
    from sadcl.reports.importance_evaluator import Evaluator

    num_best = min(max(MIN_BEST, math.ceil(BEST_SHARE * len(trials))), len(scored))
    permutations = max(PERMUTATIONS, PERMUTATIONS_PER_FIELD * len(distributions))
    resampling = _resample(
        Evaluator(settings, distributions, evaluator, num_best),
        _figures(scored, len(trials)),
        num_complete=len(scored),
        permutations=permutations,
        seed=seed,
        progress=progress,
    )
    counts = {field: sum(field in setting for setting in settings) for field in distributions}
    return replace(
        result,
        fields=_field_importances(resampling, counts),
        omitted=omitted,
        num_best=num_best,
        resamples=RESAMPLES,
        permutations=permutations,
    )


def _distributions(
    settings: Sequence[Mapping[str, Any]], space: Mapping[str, SpaceDistribution], evaluator: str
) -> tuple[dict[str, Distribution], tuple[str, ...]]:
    """Return the distributions of the fields that can be evaluated, and the other fields."""
    from sadcl.reports.importance_evaluator import distribution_of

    fields = sorted({field for setting in settings for field in setting})
    distributions: dict[str, Distribution] = {}
    for field in fields:
        values = [setting[field] for setting in settings if field in setting]
        distribution = distribution_of(values, space.get(field))
        if evaluator == "fanova" and len(values) < len(settings):
            continue  # fANOVA does not support conditional fields
        if distribution is not None:
            distributions[field] = distribution
    return distributions, tuple(field for field in fields if field not in distributions)


def _figures(scored: Sequence[Row], num_trials: int) -> NDArray[np.float64]:
    """Return the held-out mAP of each trial; pruned ones come last, below all complete ones."""
    mAP_N = np.array([row["val_mAP"] for row in scored], dtype=float)
    lowest = mAP_N.min() - 1
    return np.concatenate([mAP_N, np.full(num_trials - len(scored), lowest)])


@dataclass(frozen=True)
class _Resampling:
    """Importances of F fields: of the trials, of R resamples and of permuted figures."""

    observed_F: NDArray[np.float64]
    resampled_share_RF: NDArray[np.float64]
    p_F: NDArray[np.float64]


def _resample(
    evaluator: Evaluator,
    mAP_N: NDArray[np.float64],
    *,
    num_complete: int,
    permutations: int,
    seed: int,
    progress: Progress | None,
) -> _Resampling:
    """Evaluate the trials, then resamples of them, then permutations of their figures.

    Each resample has as many complete trials as there are, and as many pruned ones.
    """
    rng, total = np.random.default_rng(seed), RESAMPLES + permutations
    observed_F = evaluator(mAP_N)
    shares, permuted = [], []
    parts = [range(num_complete), range(num_complete, len(mAP_N))]
    for step in range(total):
        if step < RESAMPLES:
            index_N = np.concatenate([rng.choice(part, len(part)) for part in parts if part])
            shares.append(_shares(evaluator(mAP_N, index_N)))
        else:
            permuted.append(evaluator(rng.permutation(mAP_N)))
        if progress is not None:
            progress(step + 1, total)
    as_important_F = (np.array(permuted) >= observed_F - 1e-12).sum(axis=0)
    return _Resampling(observed_F, np.array(shares), (1 + as_important_F) / (permutations + 1))


def _field_importances(
    resampling: _Resampling, counts: Mapping[str, int]
) -> tuple[FieldImportance, ...]:
    """Join shares, intervals and p-values, the most important field first.

    Args:
        resampling: of the fields, in the order of ``counts``.
        counts: the number of trials that set each field.
    """
    low_F, high_F = np.quantile(resampling.resampled_share_RF, [0.025, 0.975], axis=0)
    p_values = [float(p) for p in resampling.p_F]
    columns = (_shares(resampling.observed_F), low_F, high_F, p_values, holm(p_values))
    fields = [
        FieldImportance(
            field=field,
            share=float(share),
            low=float(min(low, share)),
            high=float(max(high, share)),
            trials=counts[field],
            p=p,
            p_corrected=p_corrected,
        )
        for field, share, low, high, p, p_corrected in zip(counts, *columns, strict=True)
    ]
    return tuple(sorted(fields, key=lambda one: -one.share))


def _shares(importance_F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale importances to add up to 1; equal shares where all are 0."""
    total = importance_F.sum()
    if total > 0:
        return importance_F / total
    return np.full(len(importance_F), 1 / len(importance_F))
