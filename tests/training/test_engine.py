"""What a step admits, against plain loops."""

import pytest
import torch

from sadcl import recipes
from sadcl.data.loader import Batch
from sadcl.model import Output
from sadcl.training import engine, loop
from tests.conftest import TINY

B, L, D = 6, 20, 16


@pytest.mark.parametrize("scope", ["cluster", "worker"])
@pytest.mark.parametrize(("bank", "prototypes"), [(0.3, 0.6), (0.6, 0.3), (0.5, 0.5)])
def test_bank_and_prototypes_each_admit_by_their_own_threshold(scope, bank, prototypes):
    config = recipes.demo().override(
        {**TINY, "bank.epsilon": bank, "prototypes.epsilon": prototypes, "bank.scope": scope}
    )
    training = loop.prepare(2, config, tuple(map(str, range(L))), torch.device("cpu"), steps=1)
    logits, features = torch.randn(B, L), torch.randn(B, L, D)
    targets, weight = (
        torch.randint(-1, 2, (B, L)).to(torch.int8),
        torch.tensor([1.0, 1, 1, 1, 1, 0]),
    )
    batch = Batch(torch.zeros(0), targets, weight, torch.arange(B), 0)
    admitted = engine.update_memory(training, training.bank, Output(logits, features), batch)
    score = logits.sigmoid()
    rows = {
        (i, j): features[i, j] for i in range(5) for j in range(L) if targets[i, j] == 1
    }  # the last is padding
    kept = {place: row for place, row in rows.items() if score[place] >= bank}
    found, labels, positions = training.bank.read()
    assert list(zip(positions.tolist(), labels.tolist(), strict=True)) == sorted(kept)
    assert torch.equal(found, torch.stack([kept[place] for place in sorted(kept)]))
    assert admitted.tolist() == [sum(j == label for _, j in kept) for label in range(L)]
    training.network.prototypes.end_epoch()
    means, valid = training.network.prototypes.read()
    for label in range(L):
        mine = [row for (i, j), row in rows.items() if j == label and score[i, j] >= prototypes]
        assert bool(valid[label]) == bool(mine)
        if mine:
            torch.testing.assert_close(means[label], torch.stack(mine).double().mean(0).float())


def test_what_no_contrast_reads_is_not_kept():
    config = recipes.demo().override({**TINY, "loss.sample_weight": 0.0})
    training = loop.prepare(2, config, tuple(map(str, range(L))), torch.device("cpu"), steps=1)
    batch = Batch(
        torch.zeros(0), torch.ones(B, L, dtype=torch.int8), torch.ones(B), torch.arange(B), 0
    )
    output = Output(torch.full((B, L), 9.0), torch.randn(B, L, D))
    assert engine.update_memory(training, training.bank, output, batch).tolist() == [B] * L
    assert training.bank.fill() == 0
    assert int(training.network.prototypes.count_L.sum()) == B * L
    training.config = config.override({"loss.sample_weight": 1.0, "loss.prototype_weight": 0.0})
    engine.update_memory(training, training.bank, output, batch)
    assert int(training.network.prototypes.count_L.sum()) == B * L
