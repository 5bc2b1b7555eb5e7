"""The configuration of a run: what to compute, as one frozen and typed value.

Where to compute it (machines, folders, workers) is never part of it. A recipe
(:mod:`sadcl.recipes`) builds a configuration, and a study changes it field by field:

    base.override({"loss.tau": 0.1, "seed": 1})

The digest of a run is a hash over field names and values: renaming a field or changing a default
changes it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from sadcl.config.frozen import Frozen
from sadcl.config.older import as_today
from sadcl.config.sections import (
    Augmentation,
    Bank,
    ClassLoss,
    Data,
    Loss,
    Model,
    Optim,
    PrototypeConfig,
    Stage,
)
from sadcl.errors import UserError

__all__ = [
    "Augmentation",
    "Bank",
    "ClassLoss",
    "Config",
    "Data",
    "Loss",
    "Model",
    "Optim",
    "PrototypeConfig",
    "Stage",
]

_NOT_IN_DIGEST: dict[str, Any] = {"model": {"checkpointing"}, "optim": {"compile"}}
"""Fields that change how the numbers are computed but not which: a run may be resumed with other
values of them."""


class Config(Frozen):
    """Everything that decides the numbers of a run, and the few fields of ``_NOT_IN_DIGEST``."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of weights, order, augmentation and dropout, 0 to 2^31 - 1."""
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    bank: Bank = Bank()
    prototypes: PrototypeConfig = PrototypeConfig()
    stage1: Stage = Stage()
    stage2: Stage = Stage()
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _stages(self) -> Config:
        resized = [stage.augmentation.resize or 0 for stage in (self.stage1, self.stage2)]
        needed = max([self.data.image_size, *resized])
        if self.data.prepared is not None and self.data.prepared < needed:
            raise ValueError(
                "data.prepared >= data.image_size and augmentation.resize must hold, but got "
                f"{self.data.prepared} < {needed}: prepare larger copies"
            )
        if not self.stage1.epochs and (self.model.start is None or not self.stage2.epochs):
            raise ValueError(
                "stage1.epochs >= 1 must hold, because stage 2 starts from what stage 1 has "
                "learned; or set model.start to a checkpoint that stage 2 starts from"
            )
        return self

    @model_validator(mode="after")
    def _masked(self) -> Config:
        values = (self.bank.policy, self.bank.scope, self.loss.anchors_of_eq4)
        if self.loss.anchor_mask != "activated" and values != ("slot", "cluster", "batch+bank"):
            raise ValueError(
                f"loss.anchor_mask = {self.loss.anchor_mask!r} needs bank.policy = 'slot', "
                "bank.scope = 'cluster' and loss.anchors = 'batch+bank', but got "
                f"{values[0]!r}, {values[1]!r} and {values[2]!r}"
            )
        return self

    @property
    def prototype_epsilon(self) -> float:
        """Admission threshold of Eq. 5."""
        return self.bank.epsilon if self.prototypes.epsilon is None else self.prototypes.epsilon

    def override(self, changes: Mapping[str, Any]) -> Config:
        """Return a new configuration with some fields replaced.

        Args:
            changes: new values by dotted field name, such as ``loss.tau``.

        Raises:
            UserError: for an unknown field (with the nearest name) or a value out of range (with
                field, value and range).
        """
        tree = self.model_dump()
        fields = self.flat()
        for name, value in changes.items():
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Fields: {', '.join(fields)}."
                raise UserError(f"There is no configuration field {name!r}. {hint}")
            *path, leaf = name.split(".")
            node = functools.reduce(dict.__getitem__, path, tree)
            node[leaf] = value
        return Config.parse(tree)

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> Config:
        """Build a configuration from nested plain values; raises as :meth:`override` does."""
        return cls(**tree)

    @classmethod
    def stored(cls, text: str) -> Config:
        """Read :meth:`json_text` of this version or an older one; raises as :meth:`override` does.

        A field that the older version did not have gets the value of what that version did.
        """
        return cls.parse(as_today(json.loads(text)))

    def flat(self) -> dict[str, Any]:
        """Return the plain value of each field by its dotted name."""
        return _flatten(self.model_dump(mode="json"))

    def json_text(self) -> str:
        """Return the fields of the digest as JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json", exclude=_NOT_IN_DIGEST), sort_keys=True)

    def digest(self) -> str:
        """Return twelve hexadecimal digits that are the same for equal configurations."""
        return _digest(self.model_dump(mode="json", exclude=_NOT_IN_DIGEST))

    def stage1_digest(self) -> str:
        """Return a digest of what stage 1 depends on; settings with the same one can share it."""
        tree = self.model_dump(mode="json", exclude=_NOT_IN_DIGEST)
        loss = {name: tree["loss"][name] for name in ("class_weight", "class_reduction")}
        keep = {k: tree[k] for k in ("seed", "data", "model", "stage1", "optim")}
        del keep["model"]["projection"]  # the projection head only trains in stage 2
        return _digest({**keep, "loss": loss})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
