"""ML-GCN against plain loops."""

from __future__ import annotations

import torch

from sadcl.model.heads.head import Task
from sadcl.model.heads.ml_gcn import MLGCN, correlation, normalised
from tests.model.heads import plain
from tests.published_heads import ml_gcn

SIZES = {"labels": 5, "words": 4, "hidden": 7, "channels": 3}


def reference_matrices(cooccurrence, counts, threshold):
    """A and Â from the counts, one element at a time."""
    size = len(counts)
    binary = [
        [float(i != j and cooccurrence[i][j] / counts[i] >= threshold) for j in range(size)]
        for i in range(size)
    ]
    a = [
        [
            0.25 * binary[i][j] / (sum(row[j] for row in binary) + 1e-6) + float(i == j)
            for j in range(size)
        ]
        for i in range(size)
    ]
    d = [sum(row) for row in a]
    adjacency = [[a[j][i] / (d[i] * d[j]) ** 0.5 for j in range(size)] for i in range(size)]
    return torch.tensor(a, dtype=torch.float64), torch.tensor(adjacency, dtype=torch.float64)


def test_equals_plain_loops():
    labels, words, hidden, channels = SIZES.values()
    counts = torch.tensor([10, 7, 12, 3, 9])
    cooccurrence = torch.tensor(
        [[0, 5, 4, 0, 1], [5, 0, 6, 1, 0], [4, 6, 0, 3, 9], [0, 1, 3, 0, 2], [1, 0, 9, 2, 0]]
    )
    tensors = {
        "features": plain.normal(2, channels, 2, 3, seed=1),
        "word_vectors": plain.normal(labels, words, seed=2),
        "cooccurrence": cooccurrence,
        "label_counts": counts,
    }
    shapes = {
        "A": (labels, labels),
        "gc1.weight": (words, hidden),
        "gc2.weight": (hidden, channels),
    }
    spec = plain.described(
        shapes, not_filled={"A": "computed"}, hyper_parameters={"threshold": 0.5}
    )
    a, adjacency = reference_matrices(cooccurrence.tolist(), counts.tolist(), 0.5)
    assert len(set(a.flatten().tolist())) > 3, "the case is too simple"
    state = plain.filled(spec, {"A": a})
    vectors = tensors["word_vectors"].double()
    first = plain.lrelu(adjacency @ vectors @ state["gc1.weight"])
    classifiers = adjacency @ first @ state["gc2.weight"]
    logits = torch.tensor(
        [
            [sum(float(w[c]) * float(x[c].max()) for c in range(channels)) for w in classifiers]
            for x in tensors["features"].double()
        ],
        dtype=torch.float64,
    )
    expected = {
        "correlation": a,
        "adjacency": adjacency,
        "label_classifiers": classifiers,
        "logits": logits,
        "pooled": tensors["features"].double().flatten(2).max(2).values,
    }
    plain.compare(ml_gcn.outputs(spec, tensors), expected)


def test_labels_that_no_image_has_have_no_neighbours():
    zeros = torch.zeros(3, 3).double()
    assert torch.equal(correlation(zeros, 0.4, 0.25), torch.eye(3).double())
    assert torch.equal(normalised(correlation(zeros, 0.4, 0.25)), torch.eye(3).double())
    counts = torch.tensor([[4.0, 3, 0], [3, 5, 0], [0, 0, 0]]).double()
    a = correlation(counts, 0.4, 0.25)
    assert a[2].tolist() == a[:, 2].tolist() == [0, 0, 1]
    assert a[0, 1] > 0.24


def test_vectors_and_graph_are_no_parameters():
    counts = torch.tensor([[4.0, 3], [3, 5]]).double()
    task = Task((6,), ("a", "b"), counts)
    head = MLGCN(task, hidden=3, word_dim=4)
    assert {name for name, _ in head.named_parameters()} == {"weight_ED", "weight_DC"}
    assert head.adjacency_LL.dtype == head.word_vectors_LE.dtype == torch.float32
    torch.testing.assert_close(
        head.adjacency_LL.double(), normalised(correlation(counts, 0.4, 0.25))
    )
    again, other = (MLGCN(task, hidden=3, word_dim=4, word_vectors_seed=seed) for seed in (0, 1))
    assert torch.equal(head.word_vectors_LE, again.word_vectors_LE)
    assert not torch.equal(head.word_vectors_LE, other.word_vectors_LE)
