"""A comparison of methods as one value: a search of each method's settings, then an ablation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.ablation import Ablation, Arms
from sadcl.search.search import Search
from sadcl.search.space import Space
from sadcl.search.trial import check_arguments, check_name
from sadcl.search.until import Until


@dataclass(frozen=True)
class Comparison:
    """A comparison of methods under one protocol, each with settings of its own choice.

    Each method first has a search of its own with as many trials as every other, over the seed of
    the base; the held-out images choose. Then all methods with their best settings are the arms of
    an ablation over other seeds. The searches are studies of their own, named after the comparison
    and the method, and the ablation has the name of the comparison.

    Args:
        name: the name of the ablation; at demo scale ``-demo`` is added.
        base: the protocol: the full-scale configuration that the methods share.
        demo: the same at demo scale.
        methods: what each method changes in the base, by the method's name and by field. They are
            in the order of the table.
        spaces: the fields that the search of each method sets: its learning rate, and one or two
            constants of its own.
        baseline: the method that the others are compared with.
        demo_methods, demo_spaces: the same at demo scale; None takes ``methods`` and ``spaces``.
        n_trials: the number of settings to try for each method at full scale.
        n_demo_trials: the same at demo scale.
        sampler: as for :class:`~sadcl.search.search.Search`.
        seeds: the seeds of the ablation, without that of the searches; or
            :class:`~sadcl.search.until.Until`.
        question: the question that it answers, in a sentence.
        published: the figure of each method's paper, by data set.

    Raises:
        UserError: for a method without a space, a space without a method, a seed of the searches
            among ``seeds``, and for what a search or an ablation refuses.
    """

    name: str
    base: Config
    demo: Config
    methods: Arms
    spaces: Mapping[str, Space]
    baseline: str
    demo_methods: Arms | None = None
    demo_spaces: Mapping[str, Space] | None = None
    n_trials: int = 8
    n_demo_trials: int = 4
    sampler: str = "tpe"
    seeds: tuple[int, ...] | Until = (1, 2, 3)
    question: str = ""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __new__(cls, *args: Any, **options: Any) -> Comparison:
        """Refuse a mistyped argument before ``__init__`` raises its TypeError."""
        check_arguments(cls, options, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_name(self.name)
        for argument in ("spaces", "demo_methods", "demo_spaces"):
            value = getattr(self, argument)
            if value is not None and (odd := sorted({*self.methods} ^ {*value})):
                raise UserError(
                    f"methods and {argument} must name the same methods, but only one of them has "
                    f"{odd[0]!r}."
                )
        names = {self._search_name(method): method for method in self.methods}
        if len(names) < len(self.methods):
            raise UserError(
                "The names of methods must differ in more than signs, because their searches are "
                f"named after them, but got {', '.join(self.methods)}."
            )
        for scale in ("full", "demo"):
            ablation = self.ablation(scale, {})
            if (seed := self.config(scale).seed) in ablation.seed_numbers:
                raise UserError(
                    f"seeds {self.seeds} must not hold the seed {seed}, with which the settings "
                    "are searched."
                )
        self.searches()

    def config(self, scale: str) -> Config:
        """Return the protocol at a scale."""
        return self.base if scale == "full" else self.demo

    def methods_at(self, scale: str) -> Arms:
        """Return what each method changes at a scale."""
        small = self.methods if self.demo_methods is None else self.demo_methods
        return self.methods if scale == "full" else {name: small[name] for name in self.methods}

    def searches(self) -> dict[str, Search]:
        """Return the search of each method, which ends with its trials."""
        small, demo_spaces = self.methods_at("demo"), self.demo_spaces or {}
        return {
            method: Search(
                name=self._search_name(method),
                question=f"Which settings serve {method} best under the protocol of {self.name}?",
                base=self.base.override(changes),
                demo=self.demo.override(small[method]),
                space=self.spaces[method],
                demo_space=demo_spaces.get(method),
                n_trials=self.n_trials,
                n_demo_trials=self.n_demo_trials,
                sampler=self.sampler,
                baselines={},
                confirm_seeds=(),
            )
            for method, changes in self.methods.items()
        }

    def ablation(self, scale: str, settings: Arms) -> Ablation:
        """Return the ablation of the methods with their settings.

        Args:
            scale: ``demo`` or ``full``; the arms are those of this scale.
            settings: the values that the search of each method has chosen, by field.
        """
        protocol = self.config(scale)
        methods = self.methods_at(scale)
        return Ablation(
            name=self.name,
            base={self.base.data.name: protocol},
            demo=protocol,
            arms={method: {**methods[method], **settings.get(method, {})} for method in methods},
            baseline=self.baseline,
            seeds=self.seeds,
            question=self.question,
            published=self.published,
            costs=True,
        )

    def _search_name(self, method: str) -> str:
        return f"{self.name}-{re.sub(r'[^A-Za-z0-9.+=]+', '-', method).strip('-')}"
