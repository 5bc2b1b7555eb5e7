r"""The terms of Eq. 9, their weights, and the one division by global counts.

The paper adds the three losses:

    L = L_S2S + L_P2S + L_BCE                                                                (Eq. 9)

Here each term has a weight w and a divisor n, which is 1 with the reduction ``sum``:

    L = w_sample L_S2S / n_sample + w_prototype L_P2S / n_prototype + w_class L_BCE / n_class

L_BCE     Eq. 8, or the asymmetric loss (losses/classification.py); n counts the images
L_S2S     Eq. 4 (losses/sample_to_sample.py), or another contrast (losses/contrast.py); n counts the
          anchors that have a positive (``mean``), or those of them that are of the batch
          (``batch``)
L_P2S     Eq. 6 (losses/prototype_to_sample.py); n counts the labels with a positive and a prototype
          (``mean``), or the targets that are 1 (``positives``)

Worker r of W has its share L_r of the sums, divided by the global counts, and back-propagates
W L_r: DDP averages the gradients over the workers, and (1 / W) \sum_r W L_r = L.

Axes: B images of this worker, L labels, P projection size, M bank rows, A activated rows of this
worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.losses.classification import ClassLoss
from sadcl.losses.classification import class_loss as built_in_class_loss
from sadcl.losses.contrast import Contrast, ContrastView, check_word, positive_index
from sadcl.losses.prototype_to_sample import prototype_to_sample, similarities
from sadcl.losses.sample_contrast import sample_contrast as eq4
from sadcl.memory import Memory

COUNT_NAMES = {"sample": "anchors", "prototype": "counted_labels"}
"""The names under which the divisors of the contrasts are reported."""


class Output(Protocol):
    """The part of the network's output that the losses compare.

    Embeddings, bank rows and prototypes that only a contrast of weight 0 needs may be None. A head
    with further logits has them in ``auxiliary_BL``.
    """

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


class LabelledBatch(Protocol):
    """The part of a batch that the losses compare; :class:`sadcl.data.loader.Batch` is one."""

    @property
    def targets_BL(self) -> Tensor:
        """1, 0 or -1 (ignored)."""

    @property
    def weight_B(self) -> Tensor:
        """1 for a real image, 0 for a padding image."""

    @property
    def positive_index_A(self) -> Tensor | None:
        """Indices of the positives of real images into the flattened (B, L) axes, where known."""

    @property
    def global_positive_index_G(self) -> Tensor | None:
        """The same of the global batch, where known."""

    @property
    def shares(self) -> distributed.Shares | None:
        """Sizes of all workers' shares, where known."""


class Terms(NamedTuple):
    """The loss of a step and its parts."""

    loss: Tensor
    """What this worker back-propagates: W times its share of the global loss."""
    values: dict[str, Tensor]
    """Global ``loss``, ``loss_class``, ``loss_sample``, ``loss_prototype`` and counts, detached."""
    weighted: dict[str, Tensor]
    """What ``loss`` adds up: the weighted ``class``, ``sample`` and ``prototype`` parts."""


class _Part(NamedTuple):
    """One term on this worker."""

    total: Tensor
    counted: Tensor
    """What is reported under ``COUNT_NAMES``."""
    divisor: Tensor


class Criterion:
    """Eq. 9 with weights; a contrast of weight 0 is neither computed nor gathered.

    The class loss is computed at any weight, so that the classifier takes part in every backward
    pass.

    Args: the fields of :class:`sadcl.config.Loss`, the bank's scope, the class loss with its
        options, and ``sample_contrast``, the contrast that takes the place of Eq. 4, its own
        arguments bound by :func:`functools.partial`; None is Eq. 4. Another one is not told
        ``normalize``, ``anchors``, ``anchor_mask`` and ``bank_scope``.

    Raises:
        ValueError: for an unknown word, a temperature that is not positive, or a negative weight.
    """

    def __init__(
        self,
        *,
        class_loss: Mapping[str, Any] | None = None,
        class_loss_function: ClassLoss = built_in_class_loss,
        class_weight: float = 1.0,
        class_reduction: str = "image",
        sample_weight: float = 8.0,
        prototype_weight: float = 4.0,
        tau: float = 0.2,
        prototype_tau: float = 0.2,
        sample_reduction: str = "mean",
        prototype_reduction: str = "mean",
        absent_labels: str = "skip",
        normalize: bool = True,
        anchors: str = "batch+bank",
        anchor_mask: str = "activated",
        bank_scope: str = "cluster",
        sample_contrast: Contrast | None = None,
    ) -> None:
        for name, value, choices in (
            ("class_reduction", class_reduction, ("image", "sum")),
            ("sample_reduction", sample_reduction, ("mean", "batch", "sum")),
            ("prototype_reduction", prototype_reduction, ("mean", "positives", "sum")),
            ("absent_labels", absent_labels, ("skip", "push")),
            ("anchors", anchors, ("batch+bank", "batch")),
            ("anchor_mask", anchor_mask, ("activated", "targets", "released")),
            ("bank_scope", bank_scope, ("cluster", "worker")),
        ):
            check_word(name, value, choices)
        if not (tau > 0 and prototype_tau > 0):
            raise ValueError(
                f"temperatures > 0 must hold, but got tau = {tau}, prototype_tau = {prototype_tau}"
            )
        if min(class_weight, sample_weight, prototype_weight) < 0:
            raise ValueError(
                f"weights >= 0 must hold, but got class_weight = {class_weight}, "
                f"sample_weight = {sample_weight}, prototype_weight = {prototype_weight}"
            )
        self.class_options, self.class_loss = dict(class_loss or {}), class_loss_function
        self.weights = {
            "class": class_weight,
            "sample": sample_weight,
            "prototype": prototype_weight,
        }
        self.reductions = {
            "class": class_reduction,
            "sample": sample_reduction,
            "prototype": prototype_reduction,
        }
        self.push_absent = absent_labels == "push"
        self.tau, self.prototype_tau, self.normalize = tau, prototype_tau, normalize
        self.sample_contrast: Contrast = sample_contrast or partial(
            eq4,
            normalize=normalize,
            anchors=anchors,
            anchor_mask=anchor_mask,
            bank_scope=bank_scope,
        )

    def __call__(self, output: Output, batch: LabelledBatch, memory: Memory | None = None) -> Terms:
        """Compute the loss of this worker's share of the global batch. This is a collective call.

        Padding images (weight 0) take part in nothing.

        Args:
            output: the network's output for the batch and the memory.
            batch: the batch; for each field that it lacks the host waits for the device.
            memory: the bank's rows that the network projected; may be None where the
                sample-to-sample contrast has weight 0.
        """
        targets_BL = torch.where((batch.weight_B > 0)[:, None], batch.targets_BL, -1)
        sums = [
            self.class_loss(logits_BL, targets_BL, batch.weight_B, **self.class_options)
            for logits_BL in (output.logits_BL, *getattr(output, "auxiliary_BL", ()))
        ]
        total, images = sum((part for part, _ in sums[1:]), sums[0][0]), sums[0][1]
        parts = {"class": _Part(total, images, images)}
        if self.weights["sample"] > 0 or self.weights["prototype"] > 0:
            index_A = batch.positive_index_A
            index_A = positive_index(targets_BL) if index_A is None else index_A
            parts |= self._contrasts(output, targets_BL, batch, index_A, memory)
        return self._weighted(parts)

    def _contrasts(
        self,
        output: Output,
        targets_BL: Tensor,
        batch: LabelledBatch,
        index_A: Tensor,
        memory: Memory | None,
    ) -> dict[str, _Part]:
        """Compute each contrast that has a weight, on this worker."""
        assert output.embeddings_BLP is not None
        parts = {}
        if self.weights["prototype"] > 0:
            assert output.prototypes_LP is not None
            assert output.prototype_valid_L is not None
            similarity_BL, local_AP = similarities(
                output.embeddings_BLP,
                output.prototypes_LP,
                index_A,
                temperature=self.prototype_tau,
                normalize=self.normalize,
            )
            total, count = prototype_to_sample(
                similarity_BL,
                targets_BL,
                output.prototype_valid_L,
                sizes=batch.shares.images if batch.shares is not None else None,
                push_absent=self.push_absent,
            )
            divisor = count
            if self.reductions["prototype"] == "positives":
                divisor = count.new_full((), len(index_A))
            parts["prototype"] = _Part(total, count, divisor)
        else:
            local_AP = output.embeddings_BLP.flatten(0, 1).index_select(0, index_A)
        if self.weights["sample"] > 0:
            assert output.bank_MP is not None
            assert memory is not None
            view = ContrastView(
                output.embeddings_BLP,
                local_AP,
                targets_BL,
                batch.weight_B,
                index_A,
                output.bank_MP,
                memory,
                batch.global_positive_index_G,
                batch.shares,
            )
            total, count, batch_count = self.sample_contrast(view, temperature=self.tau)
            divisor = count
            if self.reductions["sample"] == "batch" and batch_count is not None:
                divisor = batch_count
            parts["sample"] = _Part(total, count, divisor)
        return parts

    def _weighted(self, parts: dict[str, _Part]) -> Terms:
        """Divide each sum by its global count and add up the weighted terms (Eq. 9)."""
        global_parts = distributed.global_sum(
            torch.stack([torch.stack(part).detach().double() for part in parts.values()])
        )
        weighted = {}
        values = {"loss": torch.zeros_like(global_parts[0, 0])}
        for (name, part), (total, counted, divisor) in zip(
            parts.items(), global_parts, strict=True
        ):
            divisor = 1 if self.reductions[name] == "sum" else divisor.clamp(min=1)
            share = self.weights[name] * part.total / divisor
            weighted[name] = distributed.world_size() * share
            values[f"loss_{name}"] = total / divisor
            values["loss"] += self.weights[name] * values[f"loss_{name}"]
            if name in COUNT_NAMES:
                values[COUNT_NAMES[name]] = counted
        return Terms(sum(weighted.values(), torch.zeros_like(values["loss"])), values, weighted)
