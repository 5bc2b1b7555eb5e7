"""Eq. 4 as the contrast of a step: the one that a configuration has if it names no other.

The equation is in losses/sample_to_sample.py, the masks of the two ablation arms are in
losses/released_mask.py.

Axes: A activated rows of this worker, L labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sadcl.losses.contrast import ContrastSum, ContrastView, check_word
from sadcl.losses.released_mask import mask_entries, masked_sample_to_sample
from sadcl.losses.sample_to_sample import (
    BatchRows,
    Candidates,
    gather_candidates,
    gather_labels,
    sample_to_sample,
)


def sample_contrast(
    view: ContrastView,
    *,
    temperature: float,
    normalize: bool = True,
    anchors: str = "batch+bank",
    anchor_mask: str = "activated",
    bank_scope: str = "cluster",
) -> ContrastSum:
    """Compute Eq. 4 from this worker's activated rows and the bank's. This is a collective call.

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.
        anchors: ``batch+bank``, or ``batch`` for the rows of the batch alone.
        anchor_mask: ``activated``, or the mask of the released code: ``released`` as it is read
            there, ``targets`` in its right order.
        bank_scope: ``cluster`` where all workers hold the same bank, ``worker`` where each holds
            its own.

    Raises:
        ValueError: for an unknown word.

    Source: Ma et al., ECAI 2023, Eq. 4.
    """
    check_word("anchor_mask", anchor_mask, ("activated", "targets", "released"))
    candidates = candidates_of(view, anchors=anchors, bank_scope=bank_scope)
    options: dict[str, Any] = {"temperature": temperature, "normalize": normalize}
    if anchor_mask == "activated":
        total, count = sample_to_sample(candidates, **options)
    else:
        mask = mask_entries(
            view.positive_index_A,
            view.weight_B,
            view.memory.positions_M,
            num_labels=view.targets_BL.shape[1],
            misread=anchor_mask == "released",
        )
        total, count = masked_sample_to_sample(candidates, mask, **options)
    return ContrastSum(total, count, batch_anchors(view, candidates).to(count.dtype))


def candidates_of(view: ContrastView, *, anchors: str, bank_scope: str) -> Candidates:
    """Gather the candidates of Eq. 4. This is a collective call.

    Raises:
        ValueError: for an unknown word.
    """
    check_word("anchors", anchors, ("batch+bank", "batch"))
    check_word("bank_scope", bank_scope, ("cluster", "worker"))
    num_labels = view.targets_BL.shape[1]
    index_G, shares = view.global_positive_index_G, view.shares
    return gather_candidates(
        gather_labels(view.rows_AP, view.positive_index_A % num_labels)
        if index_G is None or shares is None
        else BatchRows(view.rows_AP, index_G % num_labels, shares.positives),
        view.bank_MP,
        view.memory.labels_M,
        num_labels=num_labels,
        anchors=anchors,
        bank_scope=bank_scope,
        padded=view.memory.padded,
    )


def batch_anchors(view: ContrastView, candidates: Candidates) -> Tensor:
    """Count this worker's rows of the batch that have a positive; they are the first anchors."""
    return candidates.has_positive_Q[: len(view.positive_index_A)].sum()
