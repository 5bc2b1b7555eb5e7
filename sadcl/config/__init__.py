"""The configuration of a run: what to compute, as one frozen and typed value.

Where to compute it (machines, folders, workers) is never part of it. A recipe
(:mod:`sadcl.recipes`) builds a configuration, and a study changes it field by field:

    base.override({"loss.tau": 0.1, "seed": 1})

The digest of a run is a hash over field names and values: renaming a field or changing a default
changes it.
"""

from __future__ import annotations

import copy
import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from sadcl.config import component
from sadcl.config.frozen import Frozen
from sadcl.config.older import as_today, renamed
from sadcl.config.sections import (
    EQ4,
    POOLED,
    SARL,
    Augmentation,
    Bank,
    ClassLoss,
    Data,
    Loss,
    Model,
    PrototypeConfig,
)
from sadcl.config.sources import OURS, sources_of
from sadcl.config.stages import Optim, Stage
from sadcl.errors import UserError

__all__ = [
    "EQ4",
    "POOLED",
    "SARL",
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

PARTS = {
    "model.head": "model.head_arguments",
    "loss.contrast": "loss.contrast_arguments",
    "data.name": "data.arguments",
    "data.sampler": "data.sampler_arguments",
    **{
        f"{stage}.{part}": f"{stage}.{arguments}"
        for stage in ("stage1", "stage2")
        for part, arguments in (
            ("class_loss.kind", "class_loss.arguments"),
            ("augmentation.own", "augmentation.own_arguments"),
        )
    },
}
"""Fields that may hold an import path, and the field with the arguments of that part."""
_NOT_IN_DIGEST: dict[str, Any] = {
    "data": {"max_pixels"},
    "model": {"checkpointing"},
    "optim": {"compile"},
}
"""Fields that change how the numbers are computed but not which: a run may be resumed with other
values of them."""
_NOT_AT_DEFAULT: dict[str, dict[str, Any]] = {
    "data": {"feature_views": 1, "feature_dtype": "fp16", "scene_kind": "even"},
    "model": {"standardize": False},
    "stage1": {"head_epochs": 0},
    "stage2": {"head_epochs": 0},
    "optim": {"layer_decay": 1.0},
}
"""Fields that the digest leaves out at these values, because older digests are without them."""


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
    metrics: tuple[component.ImportPath, ...] = ()
    """Import paths of further metrics of yours (``sadcl.metrics.Metric``)."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Hash of the source of each module of yours that the configuration names. It is filled in, and
    a changed source makes another run."""

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
    def _frozen_backbone(self) -> Config:
        if self.model.frozen != "all":
            return self
        at_once: dict[str, tuple[bool, str]] = {
            "model.freeze_batchnorm = false": (
                not self.model.freeze_batchnorm,
                "its BatchNorm layers cannot go on learning",
            ),
            "model.checkpointing = true": (
                self.model.checkpointing,
                "it has no backward pass for which activations are computed again",
            ),
            **{
                f"{name} = {value}": (value != default, "it does not learn at any rate")
                for name, value, default in (
                    ("optim.backbone_lr", self.optim.backbone_lr, 1.0),
                    ("optim.layer_decay", self.optim.layer_decay, 1.0),
                    ("stage1.head_epochs", self.stage1.head_epochs, 0),
                    ("stage2.head_epochs", self.stage2.head_epochs, 0),
                )
            },
            "optim.compile = true": (
                self.stores_features and self.optim.compile,
                "its stored feature maps do not pass through the compiled network; or set "
                "data.feature_views = 0, which stores none",
            ),
            "optim.precision = 'fp64'": (
                self.stores_features and self.optim.precision == "fp64",
                "its feature maps are stored in float32 at most; or set data.feature_views = 0, "
                "which stores none",
            ),
        }
        for field, (is_wrong, reason) in at_once.items():
            if is_wrong:
                raise ValueError(
                    f"model.frozen = 'all' and {field} cannot be combined: the whole backbone is "
                    f"frozen, so {reason}. Leave out one of the two"
                )
        if self.data.feature_views > 1 and not any(map(self.views_of, self._augmentations)):
            raise ValueError(
                f"data.feature_views = {self.data.feature_views} needs an augmentation that the "
                "views are drawn from (stage1.augmentation, stage2.augmentation): without one they "
                "are all the same. Set data.feature_views = 1"
            )
        return self

    @property
    def _augmentations(self) -> tuple[Augmentation, Augmentation]:
        return self.stage1.augmentation, self.stage2.augmentation

    @property
    def stores_features(self) -> bool:
        """Whether the backbone's feature maps are computed once and stored."""
        return self.model.frozen == "all" and self.data.feature_views > 0

    @property
    def features_text(self) -> str | None:
        """What is stored of a frozen backbone, in words; None where nothing is."""
        if not self.stores_features:
            return None
        views, dtype = self.data.feature_views, self.data.feature_dtype
        if views > 1:
            return f"{views} augmented views of each training image in {dtype}"
        plain = Augmentation()
        replaced = [
            f"stage{i}.augmentation"
            for i, (stage, spec) in enumerate(
                zip((self.stage1, self.stage2), self._augmentations, strict=True), start=1
            )
            if stage.epochs and spec != plain
        ]
        without = f", without {' and '.join(replaced)}" if replaced else ""
        return f"the plain view of each image in {dtype}{without}"

    def views_of(self, augmentation: Augmentation) -> int:
        """Return how many augmented views of each training image a stage takes from the store; 0
        where it takes the plain image.
        """
        views = self.data.feature_views if self.stores_features else 0
        return views if views > 1 and augmentation != Augmentation() else 0

    @model_validator(mode="after")
    def _with_sources(self) -> Config:
        paths = self.own_parts()
        modules = {path.partition(":")[0] for path in paths.values()}
        if not modules.issubset(self.sources):
            object.__setattr__(self, "sources", sources_of(paths))
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

    def own_parts(self) -> dict[str, str]:
        """Return the import path of each part that is not this package's own, by field."""
        flat = self.flat()
        values = {name: flat[name] for name in PARTS} | {"model.backbone": self.model.backbone}
        values |= {f"metrics[{i}]": path for i, path in enumerate(self.metrics)}
        return {
            name: path
            for name, path in values.items()
            if component.is_path(path) and not path.startswith(f"{OURS}.")
        }

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
        tree, fields, changes = self.model_dump(), self.flat(), renamed(changes)
        tree["sources"] = {}  # of today's modules
        for name, arguments in PARTS.items():
            if name in changes and changes[name] != fields[name]:  # the former part's go with it
                _parent(tree, arguments)[arguments.rpartition(".")[2]] = {}
        for name, value in changes.items():
            of_part = name in PARTS.values() or name.rpartition(".")[0] in PARTS.values()
            if name not in fields and not of_part:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Fields: {', '.join(fields)}."
                raise UserError(f"There is no configuration field {name!r}. {hint}")
            _parent(tree, name)[name.rpartition(".")[2]] = copy.deepcopy(value)
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
        return json.dumps(self._digested(), sort_keys=True)

    def digest(self) -> str:
        """Return twelve hexadecimal digits that are the same for equal configurations."""
        return _digest(self._digested())

    def stage1_digest(self) -> str:
        """Return a digest of what stage 1 depends on; settings with the same one can share it."""
        tree = self._digested()
        loss = {name: tree["loss"][name] for name in ("class_weight", "class_reduction")}
        keep = {k: tree[k] for k in ("seed", "data", "model", "stage1", "optim", "sources")}
        if self.metrics:  # stage 1 has figures of them too
            keep["metrics"] = tree["metrics"]
        del keep["model"]["projection"]  # the projection head only trains in stage 2
        return _digest({**keep, "loss": loss})

    def _digested(self) -> dict[str, Any]:
        """Return the plain values of the fields that are part of the digest."""
        tree: dict[str, Any] = self.model_dump(mode="json", exclude=_NOT_IN_DIGEST)
        for section, defaults in _NOT_AT_DEFAULT.items():
            for name, value in defaults.items():
                if tree[section][name] == value:
                    del tree[section][name]
        return tree


def _parent(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the part of a tree that holds a dotted name."""
    node: dict[str, Any] = functools.reduce(dict.__getitem__, name.split(".")[:-1], tree)
    return node


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
