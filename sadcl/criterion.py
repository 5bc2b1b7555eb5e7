"""The terms of Eq. 9, their weights, and the one division by global counts.

Axes: B images of this worker, L labels, D hidden size, P projection size, M bank rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.losses.classification import class_loss
from sadcl.losses.prototype_to_sample import prototype_to_sample
from sadcl.losses.sample_to_sample import sample_to_sample


class Output(Protocol):
    """The part of the network's output that is compared."""

    @property
    def logits_BL(self) -> Tensor: ...
    @property
    def embeddings_BLP(self) -> Tensor | None: ...
    @property
    def bank_MP(self) -> Tensor | None: ...
    @property
    def prototypes_LP(self) -> Tensor | None: ...
    @property
    def prototype_valid_L(self) -> Tensor | None: ...


class Terms(NamedTuple):
    loss: Tensor
    """What this worker back-propagates: W times its share of the global loss; DDP's mean makes the gradient of it."""
    values: dict[str, Tensor]
    """Global terms (``loss``, ``loss_class``, ``loss_sample``, ``loss_prototype``) and counts, detached."""


class Criterion:
    """Eq. 9 with weights; a term of weight 0 is neither computed nor gathered.

    Arguments are the fields of :class:`sadcl.config.Loss`.
    """

    def __init__(
        self,
        *,
        class_loss: str = "bce",
        gamma_negative: float = 4.0,
        gamma_positive: float = 0.0,
        clip: float = 0.05,
        class_weight: float = 1.0,
        class_reduction: str = "image",
        sample_weight: float = 8.0,
        prototype_weight: float = 4.0,
        tau: float = 0.2,
        prototype_tau: float = 0.2,
        contrast_reduction: str = "mean",
        normalize: bool = True,
        anchors: str = "batch+bank",
        bank_scope: str = "cluster",
    ) -> None:
        self.class_options: dict[str, Any] = {
            "kind": class_loss,
            "gamma_negative": gamma_negative,
            "gamma_positive": gamma_positive,
            "clip": clip,
        }
        self.weights = {"class": class_weight, "sample": sample_weight, "prototype": prototype_weight}
        self.means = {
            "class": class_reduction == "image",
            "sample": contrast_reduction == "mean",
            "prototype": contrast_reduction == "mean",
        }
        self.tau, self.prototype_tau, self.normalize = tau, prototype_tau, normalize
        self.anchors, self.bank_scope = anchors, bank_scope

    def __call__(
        self, output: Output, targets_BL: Tensor, weight_B: Tensor, bank_labels_M: Tensor | None = None
    ) -> Terms:
        """Loss of this worker's share of the global batch; padding images (weight 0) take part in nothing."""
        targets_BL = torch.where((weight_B > 0)[:, None], targets_BL, -1)
        parts = {"class": class_loss(output.logits_BL, targets_BL, weight_B, **self.class_options)}
        if self.weights["sample"] > 0:
            assert output.embeddings_BLP is not None
            assert output.bank_MP is not None
            assert bank_labels_M is not None
            parts["sample"] = sample_to_sample(
                output.embeddings_BLP,
                targets_BL,
                output.bank_MP,
                bank_labels_M,
                temperature=self.tau,
                normalize=self.normalize,
                anchors=self.anchors,
                bank_scope=self.bank_scope,
            )
        if self.weights["prototype"] > 0:
            assert output.embeddings_BLP is not None
            assert output.prototypes_LP is not None
            assert output.prototype_valid_L is not None
            parts["prototype"] = prototype_to_sample(
                output.embeddings_BLP,
                targets_BL,
                output.prototypes_LP,
                output.prototype_valid_L,
                temperature=self.prototype_tau,
                normalize=self.normalize,
            )
        sums = torch.stack([total.double() for total, _ in parts.values()])
        counts = torch.stack([count.double() for _, count in parts.values()])
        everywhere = distributed.global_sum(torch.stack([sums.detach(), counts]))
        weights = sums.new_tensor([self.weights[name] for name in parts])
        means = torch.tensor([self.means[name] for name in parts], device=sums.device)
        divisors = torch.where(means, everywhere[1].clamp(min=1), torch.ones_like(everywhere[1]))
        loss = distributed.world_size() * (weights * sums / divisors).sum()
        terms = everywhere[0] / divisors
        values = {f"loss_{name}": terms[i] for i, name in enumerate(parts)}
        values["loss"] = (weights * terms).sum()
        names = {"sample": "anchors", "prototype": "counted_labels"}
        values.update({names[name]: everywhere[1][i] for i, name in enumerate(parts) if name in names})
        return Terms(loss, values)
