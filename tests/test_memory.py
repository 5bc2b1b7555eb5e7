"""The bank against plain dictionaries and queues."""

from collections import deque

import pytest
import torch

from sadcl.memory import MemoryBank
from tests.conftest import admit

LABELS, DIM = 3, 4


def steps(count=12, images=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        features = torch.randn(images, LABELS, DIM, generator=generator)
        yield features, torch.rand(images, LABELS, generator=generator) < 0.3


def as_pairs(bank):
    memory = bank.read()
    pairs = zip(memory.labels_M, memory.rows_MD, strict=True)
    return sorted((int(label), row.tolist()) for label, row in pairs)


def test_slot_keeps_the_newest_row_of_each_position_and_label():
    bank, expected = MemoryBank(LABELS, DIM, policy="slot", size=8), {}
    for step, (features, admitted) in enumerate(steps()):
        first = 3 * (step % 2)
        bank.update(admit(features, admitted, first), 0.5)
        for i, j in admitted.nonzero().tolist():
            expected[first + i, j] = features[i, j]
        rows, labels, positions, _ = bank.read()
        assert bank.count_valid() == len(expected) == len(rows)
        assert list(zip(positions.tolist(), labels.tolist(), strict=True)) == sorted(expected)
        assert torch.equal(rows, torch.stack([expected[place] for place in sorted(expected)]))
    assert bank.count_valid() > 12


@pytest.mark.parametrize("size", [1, 2, 7])
def test_fifo_keeps_the_newest_rows_of_each_label(size):
    bank = MemoryBank(LABELS, DIM, policy="fifo", size=size)
    queues = [deque(maxlen=size) for _ in range(LABELS)]
    for features, admitted in steps():
        bank.update(admit(features, admitted), 0.5)
        for i, j in admitted.nonzero().tolist():
            queues[j].append(features[i, j].tolist())
        assert as_pairs(bank) == sorted((j, row) for j in range(LABELS) for row in queues[j])
    assert bank.count_valid() == LABELS * size


def test_none_keeps_nothing():
    bank = MemoryBank(LABELS, DIM, policy="none", size=4)
    features, admitted = next(steps())
    bank.update(admit(features, admitted), 0.5)
    rows, labels, positions, _ = bank.read()
    assert rows.shape == (0, DIM)
    assert labels.shape == positions.shape == (0,)
    assert bank.count_valid() == 0


@pytest.mark.parametrize("policy", ["slot", "fifo"])
def test_starts_empty_and_admits_nothing_where_nothing_is_admitted(policy):
    bank = MemoryBank(LABELS, DIM, policy=policy, size=5)
    bank.update(admit(torch.ones(5, LABELS, DIM), torch.zeros(5, LABELS, dtype=torch.bool)), 0.5)
    assert bank.count_valid() == 0
    assert bank.read().rows_MD.shape == (0, DIM)


@pytest.mark.parametrize("policy", ["slot", "fifo"])
def test_a_reloaded_bank_goes_on_as_if_nothing_had_happened(policy):
    bank, other = (MemoryBank(LABELS, DIM, policy=policy, size=5) for _ in range(2))
    for features, admitted in steps(7):
        bank.update(admit(features, admitted), 0.5)
    other.load_state_dict(bank.state_dict())
    for features, admitted in steps(5, seed=1):
        for one in (bank, other):
            one.update(admit(features, admitted), 0.5)
    for mine, theirs in zip(bank.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_rows_are_detached_and_later_updates_do_not_change_what_was_read():
    bank = MemoryBank(LABELS, DIM, policy="slot", size=2)
    everything = torch.ones(2, LABELS, dtype=torch.bool)
    bank.update(admit(torch.ones(2, LABELS, DIM, requires_grad=True), everything), 0.5)
    rows = bank.read().rows_MD
    assert not rows.requires_grad
    bank.update(admit(torch.zeros(2, LABELS, DIM), everything), 0.5)
    assert bool((rows == 1).all())


def test_sizes_and_words_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="but got 'ring'"):
        MemoryBank(LABELS, DIM, policy="ring")
    with pytest.raises(ValueError, match="size >= 1 must hold, but got 0"):
        MemoryBank(LABELS, DIM, size=0)


def activated(admitted, first=0):
    """Positions and labels of the activated rows, ordered by (position, label)."""
    position, label = admitted.nonzero().unbind(1)
    return position + first, label


@pytest.mark.parametrize("padded", [False, True])
def test_matched_rows_of_slot_are_those_at_the_batchs_own_places(padded):
    bank, newest = MemoryBank(LABELS, DIM, policy="slot", size=8), {}
    matches = 0
    for features, admitted in steps():
        positions, labels = activated(torch.rand(5, LABELS) < 0.5)
        memory = bank.read_matched(positions, labels, padded=padded)
        places = list(zip(positions.tolist(), labels.tolist(), strict=True))
        expected = [place for place in places if place in newest]
        real = memory.labels_M >= 0
        assert bool(real.all()) or padded
        assert len(real) >= len(places) or not padded
        kept = list(
            zip(memory.positions_M[real].tolist(), memory.labels_M[real].tolist(), strict=True)
        )
        assert kept == expected
        for row, place in zip(memory.rows_MD[real], expected, strict=True):
            assert torch.equal(row, newest[place])
        matches += len(expected)
        bank.update(admit(features, admitted), 0.5)
        newest |= {(i, j): features[i, j] for i, j in admitted.nonzero().tolist()}
    assert matches > 20


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_matched_rows_of_fifo_are_the_newest_as_many_as_the_batch_has(size, padded):
    bank = MemoryBank(LABELS, DIM, policy="fifo", size=size)
    queues = [deque(maxlen=size) for _ in range(LABELS)]
    for features, admitted in steps():
        positions, labels = activated(torch.rand(5, LABELS) < 0.5)
        memory = bank.read_matched(positions, labels, padded=padded)
        real = memory.labels_M >= 0
        for j in range(LABELS):
            rows = memory.rows_MD[real & (memory.labels_M == j)].tolist()
            count = int((labels == j).sum())
            assert rows == list(queues[j])[::-1][:count]
        bank.update(admit(features, admitted), 0.5)
        for i, j in admitted.nonzero().tolist():
            queues[j].append(features[i, j].tolist())


def test_matched_rows_of_no_bank_and_of_no_label_are_none():
    bank = MemoryBank(LABELS, DIM, policy="none", size=4)
    everything = activated(torch.ones(4, LABELS, dtype=torch.bool))
    nothing = activated(torch.zeros(4, LABELS, dtype=torch.bool))
    for padded in (False, True):
        assert len(bank.read_matched(*everything, padded=padded).rows_MD) == 0
        slots = MemoryBank(LABELS, DIM, policy="slot", size=4)
        memory = slots.read_matched(*nothing, padded=padded)
        assert memory.labels_M.tolist() == memory.positions_M.tolist() == [-1, -1] * padded


@pytest.mark.parametrize("rows", range(6))
def test_padded_rows_are_a_power_of_two_and_at_least_two(rows):
    """torch.compile would specialise on one row or none."""
    bank = MemoryBank(LABELS, DIM, policy="slot", size=4)
    index = torch.zeros(rows, dtype=torch.int64)
    memory = bank.read_matched(index, index, padded=True)
    assert [len(part) for part in memory[:3]] == [[2, 2, 2, 4, 4, 8][rows]] * 3


@pytest.mark.parametrize("policy", ["slot", "fifo", "none"])
def test_a_bank_can_be_filled_with_one_row_of_each_label(policy):
    bank = MemoryBank(LABELS, DIM, policy=policy, size=3)
    rows_LD, valid_L = torch.randn(LABELS, DIM), torch.tensor([True, False, True])
    bank.fill(rows_LD, valid_L)
    memory = bank.read()
    assert memory.labels_M.tolist() == ([] if policy == "none" else [0, 2] * 3)
    assert torch.equal(memory.rows_MD, rows_LD[memory.labels_M])
    features = torch.zeros(2, LABELS, DIM)
    bank.update(admit(features, torch.tensor([[True] * LABELS, [False] * LABELS])), 0.5)
    zero = (bank.read().rows_MD == 0).all(1).sum()
    assert zero == (0 if policy == "none" else LABELS)
