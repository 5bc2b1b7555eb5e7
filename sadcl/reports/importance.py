"""Which fields of a search matter, how far that is known, and whether it is more than chance.

Optuna's PED-ANOVA compares where the best trials lie with where all lie, field by field, so that trials that were stopped
early count too: as not among the best, which is what stopping them says. fANOVA (shares of the variance that a forest
explains) uses the figures of the complete trials themselves and leaves the others out.

Source: Watanabe, Bansal, Hutter, PED-ANOVA, 2023; Hutter, Hoos, Leyton-Brown, An Efficient Approach for Assessing
Hyperparameter Importance, 2014 (fANOVA).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import ALPHA, holm
from sadcl.results import store
from sadcl.search.space import Choice, Distribution, Float, Int, plain
from sadcl.search.study_file import read_space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


EVALUATORS = ("ped-anova", "fanova")
ENOUGH = 10
"""Complete trials below which nothing is said: of six fields that do nothing one always comes out first."""
TOP = 0.25
"""Share of the trials that count as the best; at least five, as Optuna advises, and no more than are complete."""
RESAMPLED, SHUFFLED = 100, 300
"""How often the trials are drawn again for the interval, and their figures dealt anew for p; of many fields more often, for p
cannot be smaller than one in so many, and is multiplied by their number."""


@dataclass(frozen=True)
class Importance:
    """One field.

    Attributes:
        share: 0 to 1; those of all fields add up to 1, so that of fields that do nothing is not 0.
        low, high: 95 % of what resampled trials give (bootstrap), widened to hold ``share``.
        trials: that set the field.
        p: how often figures dealt anew over the same settings make the field as important; ``corrected`` by Holm for all
            fields. That a sampler looked closer where it had found good settings is not in it.
        verdict: ``matters`` or ``not shown``, by the corrected p.
    """

    field: str
    share: float
    low: float
    high: float
    trials: int
    p: float
    corrected: float
    verdict: str


@dataclass(frozen=True)
class Importances:
    """All fields of a study, the most important first; none where there is nothing to say.

    Attributes:
        complete, pruned, failed: trials of the search by how they ended.
        constant: fields that all trials have alike, or too few have.
    """

    study: str
    evaluator: str
    complete: int
    pruned: int
    failed: int
    fields: tuple[Importance, ...] = ()
    constant: tuple[str, ...] = ()


def field_importances(
    root: str,
    study: str,
    evaluator: str = "ped-anova",
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Importances:
    """Importance for the held-out mAP of the fields that a search has set.

    Args:
        evaluator: ``ped-anova`` or ``fanova``.
        seed: of resampling.
        progress: called with evaluations done, and how many there are.

    Raises:
        UserError: for an unknown study or evaluator, and for a study that is no search.
    """
    if evaluator not in EVALUATORS:
        raise UserError(f"There is no evaluator {evaluator!r}{did_you_mean(evaluator, EVALUATORS)}")
    there = store.read(root, "trials")
    known = sorted(set(there["study"].drop_null().to_pylist()))
    if study not in known:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, known)}")
    searched = there.filter((pc.field("study") == study) & (pc.field("phase") == "search"))
    trials = searched.sort_by("key").to_pylist()
    about = store.study_record(root, study)
    if not trials and about.get("kind") == "ablation":
        raise UserError(
            f"The study {study!r} is an ablation, which searches nothing: `sadcl results ablation` asks it."
        )
    return importances(study, trials, read_space(about), evaluator, seed=seed, progress=progress)


def importances(
    study: str,
    rows: Sequence[Mapping[str, Any]],
    space: Mapping[str, Distribution],
    evaluator: str = "ped-anova",
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Importances:
    """The same from rows of the trials table, and the space of the study.

    A field that the space does not describe goes from its smallest to its largest value.
    """
    scored = [row for row in rows if row["status"] == "complete" and row["val_mAP"] is not None]
    scored = [row for row in scored if math.isfinite(row["val_mAP"])]
    pruned = [row for row in rows if row["status"] == "pruned"]
    failed = sum(row["status"] not in ("running", "pruned") for row in rows) - len(scored)
    nothing = Importances(study, evaluator, len(scored), len(pruned), failed)
    if len(scored) < ENOUGH:
        return nothing
    used = scored + pruned if evaluator == "ped-anova" else scored
    settings = [json.loads(row["params"] or "{}") for row in used]
    fields = sorted({field for setting in settings for field in setting})
    told = {
        field: _distribution([s[field] for s in settings if field in s], space.get(field))
        for field in fields
    }
    several = {field: d for field, d in told.items() if d is not None}
    if evaluator == "fanova":  # it knows no conditional fields
        several = {
            field: d
            for field, d in several.items()
            if all(field in setting for setting in settings)
        }
    constant = tuple(field for field in fields if field not in several)
    if not several:
        return Importances(study, evaluator, len(scored), len(pruned), failed, constant=constant)
    figures_N = np.array([row["val_mAP"] for row in scored], dtype=float)
    lowest = figures_N.min() - 1  # whatever is below all that are complete
    figures_N = np.concatenate([figures_N, np.full(len(used) - len(scored), lowest)])
    judge = _Evaluator(settings, several, evaluator, _best(len(scored), len(used)))

    shuffled = max(SHUFFLED, 40 * len(several))
    rng, steps = np.random.default_rng(seed), RESAMPLED + shuffled
    own_F = judge(figures_N)
    drawn_BF, dealt_BF = [], []
    parts = [range(len(scored)), range(len(scored), len(used))]
    for step in range(steps):
        if step < RESAMPLED:  # as many complete ones each time
            places_N = np.concatenate([rng.choice(part, len(part)) for part in parts if part])
            drawn_BF.append(_shares(judge(figures_N, places_N)))
        else:
            dealt_BF.append(judge(rng.permutation(figures_N)))
        if progress is not None:
            progress(step + 1, steps)
    p_F = (1 + (np.array(dealt_BF) >= own_F - 1e-12).sum(axis=0)) / (shuffled + 1)
    low_F, high_F = np.quantile(drawn_BF, [0.025, 0.975], axis=0)
    found = [
        Importance(
            field=field,
            share=float(share),
            low=float(min(low, share)),
            high=float(max(high, share)),
            trials=sum(field in setting for setting in settings),
            p=float(p),
            corrected=corrected,
            verdict="matters" if corrected < ALPHA else "not shown",
        )
        for field, share, low, high, p, corrected in zip(
            several, _shares(own_F), low_F, high_F, p_F, holm([float(p) for p in p_F]), strict=True
        )
    ]
    ranked = tuple(sorted(found, key=lambda one: -one.share))
    return Importances(study, evaluator, len(scored), len(pruned), failed, ranked, constant)


class _Evaluator:
    """Optuna's evaluator on trials in memory."""

    def __init__(
        self,
        settings: Sequence[Mapping[str, Any]],
        several: Mapping[str, BaseDistribution],
        evaluator: str,
        best: int,
    ) -> None:
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
        from optuna.trial import create_trial

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.fields = list(several)
        self.evaluator = (
            PedAnovaImportanceEvaluator(target_quantile=(best - 0.5) / len(settings))
            if evaluator == "ped-anova"
            else FanovaImportanceEvaluator(n_trees=16, max_depth=3, seed=0)
        )
        self.trials = []
        for setting in settings:
            distributions = {field: several[field] for field in self.fields if field in setting}
            params = {
                field: json.dumps(setting[field])
                if isinstance(d, optuna.distributions.CategoricalDistribution)
                else setting[field]
                for field, d in distributions.items()
            }
            self.trials.append(create_trial(params=params, distributions=distributions, value=0.0))
        self.study = self._study(range(len(settings)))

    def _study(self, places: Sequence[int] | NDArray[np.int64]) -> Any:
        import optuna

        study = optuna.create_study(direction="maximize")
        study.add_trials([self.trials[i] for i in places])
        return study

    def __call__(
        self, figures_N: NDArray[np.float64], places_N: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Importance of each field in the evaluator's own unit, (F,); of the trials at these places."""
        study = self.study if places_N is None else self._study(places_N)
        value_N = figures_N if places_N is None else figures_N[places_N]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that PED-ANOVA takes a target for something to minimise, as here
            found = self.evaluator.evaluate(study, target=lambda trial: -value_N[trial.number])
        return np.array([max(float(found.get(field, 0.0)), 0.0) for field in self.fields])


def _distribution(
    values: Sequence[Any], distribution: Distribution | None
) -> BaseDistribution | None:
    """Where a field's values lie; None for fewer than two different ones."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if len({json.dumps(value) for value in values}) < 2:
        return None
    domain = None if distribution is None else plain(distribution)
    if isinstance(domain, Choice) or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    ):
        return CategoricalDistribution(sorted({json.dumps(value) for value in values}))
    low, high, log = min(values), max(values), False
    if domain is not None:  # bounds of an old storage have six digits
        low, high, log = min(low, domain.low), max(high, domain.high), domain.log
    steps = domain is not None and all(domain.contains(value) for value in values)
    whole = all(isinstance(value, int) for value in values) and not isinstance(domain, Float)
    if whole:
        step = domain.step if isinstance(domain, Int) and steps else 1
        return IntDistribution(int(low), int(high), log=log, step=step)
    step_size = domain.step if isinstance(domain, Float) and steps else None
    return FloatDistribution(low, high, log=log, step=step_size)


def _best(complete: int, all_: int) -> int:
    return min(max(5, math.ceil(TOP * all_)), complete)


def _shares(own_F: NDArray[np.float64]) -> NDArray[np.float64]:
    total = own_F.sum()
    return own_F / total if total > 0 else np.full(len(own_F), 1 / len(own_F))


def importance_sentences(found: Importances) -> Iterator[str]:
    """What is shown, what is not, and which trials it rests on."""
    if found.complete < ENOUGH:
        yield f"Too few trials are complete to show which field matters: {found.complete}; at least {ENOUGH} are needed."
        return
    shown = [one.field for one in found.fields if one.verdict == "matters"]
    if found.fields:
        what = f"{', '.join(shown)}: more than chance" if shown else "no field is shown to matter"
        how = f"p < {ALPHA:g}, figures dealt anew {max(SHUFFLED, 40 * len(found.fields))} times, corrected by Holm"
        yield f"Of {found.complete} complete trials, {what} ({how})."
        yield (
            f"Shares add up to 1, so that each of {len(found.fields)} fields that do nothing has about "
            f"{1 / len(found.fields):.2f}; intervals are 95 % of {RESAMPLED} resamplings of the trials."
        )
    else:
        yield f"The {found.complete} complete trials differ in no field, so nothing can be told."
    if found.evaluator == "ped-anova" and found.fields:
        best = _best(found.complete, found.complete + found.pruned)
        yield f"PED-ANOVA: what tells the best {best} trials from all {found.complete + found.pruned}."
    if found.pruned:
        how = (
            "count as not among the best"
            if found.evaluator == "ped-anova"
            else "are left out, and with them what was bad about their settings"
        )
        yield f"{found.pruned} trials that were stopped early {how}."
    if found.failed:
        yield f"{found.failed} trials without a figure are left out: where a field makes runs fail, this does not show it."
    if found.constant:
        yield f"Left out, because the trials do not differ in them or not all have them: {', '.join(found.constant)}."
