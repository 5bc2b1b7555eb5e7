"""The terms of Eq. 9, their weights, and the one division by global counts.

Axes: B images of this worker, L labels, D hidden size, P projection size, M bank rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.losses.classification import class_loss
from sadcl.losses.prototype_to_sample import prototype_to_sample, similarities
from sadcl.losses.released_mask import mask_entries
from sadcl.losses.sample_to_sample import positive_index, sample_to_sample

COUNTED = {"sample": "anchors", "prototype": "counted_labels"}


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
    """Eq. 9 with weights; a contrast of weight 0 is neither computed nor gathered.

    The class loss is computed at any weight, so that the classifier takes part in every backward pass.

    Arguments are the fields of :class:`sadcl.config.Loss`, and the bank's scope.

    Raises:
        ValueError: for an unknown word, a temperature that is not positive, or a negative weight.
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
        anchor_mask: str = "activated",
        bank_scope: str = "cluster",
    ) -> None:
        for name, value, known in (
            ("class_loss", class_loss, ("bce", "asymmetric")),
            ("class_reduction", class_reduction, ("image", "sum")),
            ("contrast_reduction", contrast_reduction, ("mean", "sum")),
            ("anchors", anchors, ("batch+bank", "batch")),
            ("anchor_mask", anchor_mask, ("activated", "targets", "released")),
            ("bank_scope", bank_scope, ("cluster", "worker")),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, known))}, but got {value!r}"
                )
        if not (tau > 0 and prototype_tau > 0):
            raise ValueError(
                f"temperatures > 0 must hold, but got tau = {tau}, prototype_tau = {prototype_tau}"
            )
        if min(class_weight, sample_weight, prototype_weight) < 0:
            raise ValueError(
                f"weights >= 0 must hold, but got class_weight = {class_weight}, sample_weight = {sample_weight}, "
                f"prototype_weight = {prototype_weight}"
            )
        self.class_options: dict[str, Any] = {
            "kind": class_loss,
            "gamma_negative": gamma_negative,
            "gamma_positive": gamma_positive,
            "clip": clip,
        }
        self.weights = {
            "class": class_weight,
            "sample": sample_weight,
            "prototype": prototype_weight,
        }
        self.means = {
            "class": class_reduction == "image",
            "sample": contrast_reduction == "mean",
            "prototype": contrast_reduction == "mean",
        }
        self.tau, self.prototype_tau, self.normalize = tau, prototype_tau, normalize
        self.anchors, self.anchor_mask, self.bank_scope = anchors, anchor_mask, bank_scope

    def __call__(
        self,
        output: Output,
        targets_BL: Tensor,
        weight_B: Tensor,
        bank_labels_M: Tensor | None = None,
        bank_slots_M: Tensor | None = None,
        place_A: Tensor | None = None,
        *,
        padded: bool = False,
    ) -> Terms:
        """Loss of this worker's share of the global batch; padding images (weight 0) take part in nothing.

        Args:
            output: of the network; the embeddings and rows that a contrast of weight 0 would need may be None.
            targets_BL: 1, 0 or -1 (ignored).
            weight_B: 1 for a real image, 0 for padding.
            bank_labels_M: label index of each row of ``output.bank_MP``.
            bank_slots_M: its position in the bank; asked for by another ``anchor_mask`` than ``activated`` only.
            place_A: where the targets of real images are 1, flattened; None looks, and waits for the device.
            padded: rows of the bank may have the label -1 and are none then; nothing waits for the device.
        """
        targets_BL = torch.where((weight_B > 0)[:, None], targets_BL, -1)
        parts = {"class": class_loss(output.logits_BL, targets_BL, weight_B, **self.class_options)}
        if self.weights["sample"] > 0 or self.weights["prototype"] > 0:
            place_A = positive_index(targets_BL) if place_A is None else place_A
            parts |= self._contrasts(
                output, targets_BL, weight_B, bank_labels_M, bank_slots_M, place_A, padded
            )
        everywhere = distributed.global_sum(
            torch.stack([torch.stack(part).detach().double() for part in parts.values()])
        )
        loss = torch.zeros_like(everywhere[0, 0])
        values = {"loss": torch.zeros_like(loss)}
        for (name, (own_sum, _)), (global_sum, global_count) in zip(
            parts.items(), everywhere, strict=True
        ):
            divisor = global_count.clamp(min=1) if self.means[name] else 1
            loss = loss + self.weights[name] * own_sum / divisor
            values[f"loss_{name}"] = global_sum / divisor
            values["loss"] += self.weights[name] * values[f"loss_{name}"]
            if name in COUNTED:
                values[COUNTED[name]] = global_count
        return Terms(distributed.world_size() * loss, values)

    def _contrasts(
        self,
        output: Output,
        targets_BL: Tensor,
        weight_B: Tensor,
        bank_labels_M: Tensor | None,
        bank_slots_M: Tensor | None,
        place_A: Tensor,
        padded: bool,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        assert output.embeddings_BLP is not None
        parts, labels = {}, targets_BL.shape[1]
        if self.weights["prototype"] > 0:
            assert output.prototypes_LP is not None
            assert output.prototype_valid_L is not None
            similarity_BL, own_AP = similarities(
                output.embeddings_BLP,
                output.prototypes_LP,
                place_A,
                temperature=self.prototype_tau,
                normalize=self.normalize,
            )
            parts["prototype"] = prototype_to_sample(
                similarity_BL, targets_BL, output.prototype_valid_L
            )
        else:
            own_AP = output.embeddings_BLP.flatten(0, 1).index_select(0, place_A)
        if self.weights["sample"] > 0:
            assert output.bank_MP is not None
            assert bank_labels_M is not None
            mask = None
            if self.anchor_mask != "activated":
                assert bank_slots_M is not None
                misread = self.anchor_mask == "released"
                mask = mask_entries(place_A, weight_B, bank_slots_M, labels=labels, misread=misread)
            parts["sample"] = sample_to_sample(
                own_AP,
                place_A % labels,
                output.bank_MP,
                bank_labels_M,
                labels=labels,
                temperature=self.tau,
                normalize=self.normalize,
                anchors=self.anchors,
                bank_scope=self.bank_scope,
                padded=padded,
                mask=mask,
            )
        return parts
