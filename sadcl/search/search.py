"""A search as one value: its question, its base, its space and its budget."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from sadcl.config import POOLED, Config
from sadcl.errors import UserError
from sadcl.metrics import metric_name
from sadcl.search.pruning_rules import PruningRule
from sadcl.search.ranking import OBJECTIVES, objective
from sadcl.search.settings import check_setting, setting_of
from sadcl.search.space import Choice, Space, When, boundary_configs, check_space
from sadcl.search.trial import arm_config, check_arguments, check_name

SAMPLERS = ("tpe", "random", "cmaes", "gp", "nsga2")
BASELINES: dict[str, dict[str, Any]] = {
    "baseline": {"model.head": POOLED},
    "stage2": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
}
"""The pooled network trained as long as both stages, and the control: stage 2 without contrasts."""
OLD_NAMES = {"trials": "n_trials", "demo_trials": "n_demo_trials", "stopping": "pruner"}
"""New names of ``Search``'s arguments by the old ones, which are accepted with a warning."""

T = TypeVar("T")


def accept_old_names(names: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Return a decorator for a dataclass that accepts old names of arguments, with a warning.

    It checks the names of keyword arguments too (:func:`check_arguments`).

    Args:
        names: the new name by the old one.
    """

    def warn(kind: type[T], old: str) -> None:
        text = f"{old!r} of a {kind.__name__} is now called {names[old]!r}."
        warnings.warn(text, DeprecationWarning, stacklevel=3)

    def decorate(kind: type[T]) -> type[T]:
        initialise = kind.__init__

        @functools.wraps(initialise)
        def __init__(self: T, *args: Any, **options: Any) -> None:  # noqa: N807
            field_names = {each.name for each in fields(kind) if each.init}  # type: ignore[arg-type]
            replaced = field_names <= options.keys()  # dataclasses.replace gives all fields
            for old in [name for name in options if name in names]:
                warn(kind, old)
                if names[old] in options and not replaced:
                    raise UserError(
                        f"A {kind.__name__} got {names[old]!r} twice: {old!r} is its old name."
                    )
                options[names[old]] = options.pop(old)
            check_arguments(kind, options, kind.__dataclass_fields__)  # type: ignore[attr-defined]
            initialise(self, *args, **options)

        def attribute(old: str) -> property:
            def get(self: T) -> Any:
                warn(kind, old)
                return getattr(self, names[old])

            return property(get)

        kind.__init__ = __init__  # type: ignore[assignment, method-assign]
        for old in names:
            setattr(kind, old, attribute(old))
        return kind

    return decorate


@accept_old_names(OLD_NAMES)
@dataclass(frozen=True)
class Search:
    """A study that searches for the best setting.

    It consists of a shared stage 1, baselines, trials, a confirmation over fresh seeds, and one
    final run.

    Args:
        name: the name of the study; at demo scale ``-demo`` is added.
        question: the question that it answers, in a sentence.
        base: the full-scale configuration.
        demo: the demo-scale configuration.
        space: the fields that the search sets, at full scale.
        demo_space: the same at demo scale; None takes ``space``.
        n_trials: the number of settings to try at full scale, however their trials end.
        n_demo_trials: the same at demo scale.
        max_epochs: once the search's trials have trained so many epochs, no further one starts.
        max_hours: the same for the hours of training, summed over the trials.
        sampler: ``tpe``, ``random``, ``cmaes`` (numbers only), ``gp`` or ``nsga2``.
        pruner: ``ASHA`` or ``Median``, which stop trials early; None trains every trial to its end.
        objectives: ``val_mAP`` first. With ``seconds``, ``memory_mb`` or a metric of your own as
            well the search looks for the Pareto front. The metric is called as in the tables,
            ``val_one_error``, with a minus sign where less is better.
        recipe_first: the first trial is the unchanged base, if the space contains it.
        start_with: settings that are tried next.
        baselines: the overrides of the arms that the tuned setting is compared with. The arm
            ``stage2`` is the control, which is trained over ``confirm_seeds`` too.
        confirm_top: the number of best settings that are trained again over ``confirm_seeds``.
        confirm_seeds: seeds that the search does not use. With none the search ends with its
            trials: nothing is confirmed, and there is no final run.
        confirm_with: values that replace the base's in the runs over ``confirm_seeds``, those of
            the control among them, and in the final run: a search with ``model.frozen = "all"`` is
            confirmed with everything training by ``{"model.frozen": ()}``.
        published: the paper's figure on the test images, for the summary.

    Raises:
        UserError: for an impossible field, value, bound, budget or seed, which the message names.
    """

    name: str
    question: str
    base: Config
    demo: Config
    space: Space
    demo_space: Space | None = None
    n_trials: int = 40
    n_demo_trials: int = 8
    max_epochs: int | None = None
    max_hours: float | None = None
    sampler: str = "tpe"
    pruner: PruningRule | None = None
    objectives: tuple[str, ...] = ("val_mAP",)
    recipe_first: bool = True
    start_with: tuple[Mapping[str, Any], ...] = ()
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: BASELINES)
    confirm_top: int = 1
    confirm_seeds: tuple[int, ...] = (1001, 1002, 1003)
    confirm_with: Mapping[str, Any] = field(default_factory=dict)
    published: float | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_seeds()
        self._check_sampler()
        self._check_objectives()
        for scale in ("full", "demo"):
            self._check_scale(scale)
        self._check_budget()

    def _check_seeds(self) -> None:
        if not isinstance(self.confirm_seeds, Sequence):
            raise UserError(
                f"confirm_seeds must be a tuple of seeds, but got {self.confirm_seeds!r}. Until is "
                "for the seeds of an Ablation or a Comparison."
            )
        if len(set(self.confirm_seeds)) < len(self.confirm_seeds):
            raise UserError(
                f"confirm_seeds must hold each seed once, but got {self.confirm_seeds}."
            )

    def _check_scale(self, scale: str) -> None:
        """Check everything that depends on the base and the space of one scale."""
        base, space = self.config(scale), self.space_at(scale)
        if any("model.start" in fields for fields in (space, *self.baselines.values())):
            raise UserError(
                "model.start belongs to the base of a study, whose runs all start from one "
                "checkpoint."
            )
        check_space(space, base)
        for setting in self.start_at(scale):
            check_setting(space, setting, base)
        for changes in self.baselines.values():
            arm_config(base, changes)
        self._check_confirmation(base, space)
        if base.data.holdout == 0:
            raise UserError(
                "A search needs held-out images to choose by: data.holdout must be above 0."
            )
        if base.seed in self.confirm_seeds:
            raise UserError(
                f"confirm_seeds {self.confirm_seeds} must not hold the search's own seed "
                f"{base.seed}."
            )

    def _check_confirmation(self, base: Config, space: Space) -> None:
        """Check what the confirmation changes; UserError names what is not possible."""
        if not isinstance(self.confirm_with, Mapping):
            raise UserError(
                "confirm_with must be a mapping of fields to values, such as recipes.EVERYTHING, "
                f"but got {self.confirm_with!r}."
            )
        for name, reason in (
            ("seed", "belongs to confirm_seeds"),
            ("model.start", "belongs to the base of a study"),
            ("data.holdout", "decides which images choose the best setting"),
            *((name, "is what the search chooses") for name in space),
        ):
            if name in self.confirm_with:
                raise UserError(f"confirm_with must not set {name}, which {reason}.")
        if self.confirm_with and not self.confirm_seeds:
            raise UserError("confirm_with needs confirm_seeds, whose runs it is for.")
        try:
            base.override(self.confirm_with)
        except UserError as error:
            raise UserError(f"confirm_with: {error}") from None

    def _check_budget(self) -> None:
        trials = self.n_trials, self.n_demo_trials
        if min(trials) < 1 or not 1 <= self.confirm_top <= self.n_demo_trials:
            raise UserError(
                "n_trials >= 1 and 1 <= confirm_top <= n_trials must hold at both scales, but got "
                f"n_trials={self.n_trials}, n_demo_trials={self.n_demo_trials}, "
                f"confirm_top={self.confirm_top}."
            )
        if self.max_epochs is not None and self.max_epochs < 1:
            raise UserError(f"max_epochs >= 1 must hold, but got {self.max_epochs}.")
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError(f"max_hours > 0 must hold, but got {self.max_hours}.")

    def _check_sampler(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserError(
                f"sampler must be one of {', '.join(SAMPLERS)}, but got {self.sampler!r}."
            )
        kinds = {type(d) for space in (self.space, self.demo_space or {}) for d in space.values()}
        if self.sampler == "cmaes" and kinds & {Choice, When}:
            raise UserError(
                "sampler = 'cmaes' searches numbers only, but the space has a Choice or a When: "
                "take 'tpe'."
            )
        if self.sampler == "gp" and When in kinds:
            raise UserError(
                "sampler = 'gp' cannot search conditional fields, but the space has a When: "
                "take 'tpe'."
            )

    def _check_objectives(self) -> None:
        names = self.objectives
        columns = [objective(name)[0] for name in names]
        own = [set(_figures(self.config(scale))) for scale in ("full", "demo")]
        possible = [*OBJECTIVES, *sorted(own[0] & own[1])]
        signed = [name for name in names if name.startswith("-") and name[1:] in OBJECTIVES]
        unknown = [name for name in columns if name not in possible]
        if unknown or signed or names[:1] != ("val_mAP",) or len(set(columns)) < len(names):
            raise UserError(
                f"objectives must be val_mAP first, then any of {', '.join(possible[1:])}, each "
                "once; of metrics of your own (metrics of both base and demo) with a minus sign "
                f"where less is better, but got {names}."
            )
        if len(names) > 1 and (self.pruner is not None or self.sampler == "cmaes"):
            raise UserError(
                f"{self.pruner or 'cmaes'} goes by one objective, but there are {names}."
            )

    def config(self, scale: str) -> Config:
        """Return the base configuration at a scale."""
        return self.base if scale == "full" else self.demo

    def trials_at(self, scale: str) -> int:
        """Return the number of settings to try at a scale."""
        return self.n_trials if scale == "full" else self.n_demo_trials

    def variants(self, scale: str, base: Config) -> list[Config]:
        """Return configurations that have all parts of its runs: each bound, and the baselines."""
        baselines = [arm_config(base, changes) for changes in self.baselines.values()]
        confirmed = [base.override(self.confirm_with)] if self.confirm_with else []
        return [*boundary_configs(self.space_at(scale), base), *baselines, *confirmed]

    def space_at(self, scale: str) -> Space:
        """Return the space at a scale."""
        return self.space if scale == "full" or self.demo_space is None else self.demo_space

    def start_at(self, scale: str) -> tuple[Mapping[str, Any], ...]:
        """Return the settings to try first at a scale.

        ``start_with`` counts only for the space that it was written for.
        """
        recipe = setting_of(self.config(scale), self.space_at(scale)) if self.recipe_first else {}
        others = self.start_with if scale == "full" or self.demo_space is None else ()
        return tuple(setting for setting in (recipe, *others) if setting)


def _figures(config: Config) -> list[str]:
    """Return the columns that metrics of the user's have."""
    return [f"val_{metric_name(path)}" for path in config.metrics]
