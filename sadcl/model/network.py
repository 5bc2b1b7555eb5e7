r"""A network: a backbone, a head, and what both contrasts compare.

    x_i = Proj(Q_i),  Q_i the (L, D) label-level features of image i                 (Eq. 3)

Any head with label-level features can have both contrasts, the bank and the prototypes.

Axes: B images of this worker, L labels, D size of a label-level feature, P projection size, M rows
of the memory bank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sadcl.errors import UserError
from sadcl.memory import Memory
from sadcl.model.backbone import Backbone
from sadcl.model.heads.head import Task
from sadcl.model.prototypes import Prototypes
from sadcl.model.standardization import Standardization


class Output(NamedTuple):
    """What a forward pass returns; without a memory the embeddings and what follows are None."""

    logits_BL: Tensor
    """Scores before the sigmoid."""
    features_BLD: Tensor | None = None
    """Label-level features Q, un-projected; None for a head that has none."""
    embeddings_BLP: Tensor | None = None
    """Projected label-level features x."""
    bank_MP: Tensor | None = None
    """Projected bank rows."""
    prototypes_LP: Tensor | None = None
    """Projected prototypes."""
    prototype_valid_L: Tensor | None = None
    """Whether each label has a prototype."""
    auxiliary_BL: tuple[Tensor, ...] = ()
    """Further logits of the head, each with a class loss of its own."""


class Network(nn.Module):
    """Backbone and head, and for label-level features the projection head and the prototypes.

    Args:
        backbone: gives the feature maps that the head is called with.
        head: turns them into logits and perhaps label-level features.
        num_labels: L.
        projection: P.
        prototypes: returns the prototypes for a size D; the network owns them so that learned ones
            are its parameters.
        create_head: builds another head of the same kind for a task, from which the axes that are
            labels are known.
        head_path: import path of the head; None where no configuration describes it.
        head_arguments: its keyword arguments.
        standardize: standardise the channels of the feature maps before the head.
    """

    projection: nn.Module | None
    prototypes: Prototypes | None

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        num_labels: int,
        projection: int,
        prototypes: Callable[[int], Prototypes],
        create_head: Callable[[Task], nn.Module] | None = None,
        head_path: str | None = None,
        head_arguments: Mapping[str, Any] | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardizations = nn.ModuleList(
            map(Standardization, backbone.map_channels if standardize else ())
        )
        """One for each feature map, or none."""
        self.head, self.num_labels = head, num_labels
        self.create_head = create_head
        self.head_path, self.head_arguments = head_path, dict(head_arguments or {})
        self.needs_targets = bool(getattr(head, "needs_targets", False))
        self.has_maps = hasattr(head, "attention_maps")
        dim = getattr(head, "feature_size", None)
        self.feature_size: int | None = dim
        """D; None for a head without label-level features."""
        if dim is None:
            self.projection = self.prototypes = None
        else:
            self.projection = nn.Sequential(
                nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, projection)
            )
            self.prototypes = prototypes(dim)

    def forward(
        self,
        images: Tensor | tuple[Tensor, ...],
        memory: Memory | None = None,
        targets_BL: Tensor | None = None,
    ) -> Output:
        """Compute logits and label-level features of images (B, 3, H', W').

        In place of images it takes the backbone's feature maps of them, as a tuple.

        With a memory (it may have no rows) the features, the bank's rows and the prototypes also go
        through the projection head (Eq. 3). That happens in one call, so that DDP sees every use of
        the head. ``targets_BL`` is for a head that needs the targets in training.
        """
        targets = {} if targets_BL is None else {"targets_BL": targets_BL}
        maps = self.maps(images)
        if self.standardizations:
            maps = tuple(f(part) for f, part in zip(self.standardizations, maps, strict=True))
        head = self.head(*maps, **targets)
        output = Output(head.logits_BL, head.features_BLD, auxiliary_BL=head.auxiliary_BL)
        return output if memory is None else self.compare(output, memory)

    def maps(self, images: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the backbone's feature maps of images; maps themselves come back as they are."""
        return images if isinstance(images, tuple) else self.backbone.maps(images)

    @property
    def must_be_measured(self) -> bool:
        """Whether the channels of the feature maps are to be standardised and are not measured."""
        return any(not part.is_measured for part in self.standardizations)

    def compare(self, output: Output, memory: Memory) -> Output:
        """Add to the label-level features what the contrasts compare."""
        features_BLD = output.features_BLD
        assert features_BLD is not None
        assert self.prototypes is not None
        assert self.projection is not None
        prototypes_LD, valid_L = self.prototypes.read()
        rows = [
            features_BLD.flatten(0, 1),
            memory.rows_MD.to(features_BLD.dtype),
            prototypes_LD.to(features_BLD.dtype),
        ]
        projected = self.projection(torch.cat(rows)).split([len(part) for part in rows])
        return output._replace(
            embeddings_BLP=projected[0].unflatten(0, features_BLD.shape[:2]),
            bank_MP=projected[1],
            prototypes_LP=projected[2],
            prototype_valid_L=valid_L,
        )

    def label_axes(self, labels: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
        """Return which axes are the labels, of each tensor of the state that has such an axis.

        They are found by comparison with a head for other labels.

        Args:
            labels: of the network.

        Returns:
            One axis or several for each tensor; None where the state cannot be taken apart by
            label: the head says so (``label_wise = False``), or has tensors that depend on the
            labels in another way.
        """
        axes: dict[str, tuple[int, ...]] = {}
        if self.prototypes is not None:
            axes = dict.fromkeys(self._prototype_names(), (0,))
        if self.create_head is None:
            return axes
        others = [*labels, *labels]
        try:
            with torch.random.fork_rng(devices=[]):
                other = self.create_head(self._task(others)).state_dict()
        except UserError:
            return None
        current = self.head.state_dict()
        if not getattr(self.head, "label_wise", True) or other.keys() != current.keys():
            return None
        for name, tensor in current.items():
            sizes = zip(tensor.shape, other[name].shape, strict=True)
            changed = {i: pair for i, pair in enumerate(sizes) if pair[0] != pair[1]}
            if any(pair != (len(labels), len(others)) for pair in changed.values()):
                return None
            if changed:
                axes[f"head.{name}"] = tuple(changed)
        return axes

    def _prototype_names(self) -> list[str]:
        assert self.prototypes is not None
        return [f"prototypes.{name}" for name in self.prototypes.state_dict()]

    def _task(self, labels: Sequence[str]) -> Task:
        count = len(labels)
        zeros_LL = torch.zeros(count, count, dtype=torch.float64)
        return Task(self.backbone.map_channels, tuple(labels), zeros_LL, is_restored=True)
