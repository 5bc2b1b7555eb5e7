"""How strongly each contrast pulls at the label features, compared with the classification loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sadcl.results import store

CONTRASTS = ("sample", "prototype")
IDLE = 0.02
"""A contrast whose share is below this is switched on but hardly does anything."""


def gradient_shares(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the gradient of each contrast divided by the classification loss's.

    Args:
        metrics: of an epoch, with ``gradient_class`` and so on where they were measured.
    """
    whole = metrics.get("gradient_class")
    if not whole:
        return {}
    values = {term: metrics.get(f"gradient_{term}") for term in CONTRASTS}
    return {term: value / whole for term, value in values.items() if value is not None}


def mean_gradient_shares(root: str, keys: Sequence[str]) -> dict[str, float]:
    """Return the mean of :func:`gradient_shares` over all epochs of some trials.

    Args:
        root: the storage.
        keys: of the trials.
    """
    columns = ["key", *(f"gradient_{term}" for term in ("class", *CONTRASTS))]
    epochs = store.read(root, "epochs", columns, keys=list(keys)).to_pylist()
    shares = [gradient_shares(epoch) for epoch in epochs]
    means = {}
    for term in CONTRASTS:
        values = [share[term] for share in shares if term in share]
        if values:
            means[term] = sum(values) / len(values)
    return means
