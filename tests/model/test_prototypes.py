"""The prototypes' three policies against plain loops."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.prototypes import Prototypes
from tests.conftest import admit

LABELS, DIM = 4, 3
NEVER = 3
"""A label that nothing is admitted for."""


def steps(count=6, images=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        features = torch.randn(images, LABELS, DIM, generator=generator)
        admitted = torch.rand(images, LABELS, generator=generator) < 0.3
        admitted[:, NEVER] = False
        yield features, admitted


def rows_of(batches, label):
    return [f[i, label].double() for f, a in batches for i in range(len(f)) if a[i, label]]


def mean_of(batches, label):
    rows = rows_of(batches, label)
    return (sum(rows) / len(rows)).float()


@pytest.mark.parametrize("policy", ["mean", "ema", "learned"])
def test_starts_without_any_and_takes_the_means_of_a_pass(policy):
    prototypes = Prototypes(LABELS, DIM, policy=policy)
    assert not bool(prototypes.read()[1].any())
    batches = list(steps())
    for features, admitted in batches:
        prototypes.accumulate(admit(features, admitted), 0.5)
    assert not bool(prototypes.read()[1].any())
    prototypes.start_from_accumulated()
    rows, valid = prototypes.read()
    assert valid.tolist() == [True, True, True, False]
    for label in range(NEVER):
        assert torch.equal(rows[label].detach(), mean_of(batches, label))
    assert rows.requires_grad == (policy == "learned")


def test_mean_is_swapped_in_at_the_end_of_an_epoch_and_former_ones_are_kept():
    prototypes = Prototypes(LABELS, DIM, policy="mean")
    first, second = list(steps()), list(steps(seed=1))
    for _, admitted in second:
        admitted[:, 0] = False
    for features, admitted in first:
        assert not bool(prototypes.update(admit(features, admitted), 0.5).any())
    assert not bool(prototypes.read()[1].any())
    prototypes.end_epoch()
    for features, admitted in second:
        before = prototypes.read()[0].clone()
        prototypes.update(admit(features, admitted), 0.5)
        assert torch.equal(prototypes.read()[0], before)
    prototypes.end_epoch()
    rows, valid = prototypes.read()
    assert valid.tolist() == [True, True, True, False]
    assert torch.equal(rows[0], mean_of(first, 0))
    assert torch.equal(rows[1], mean_of(second, 1))
    assert torch.equal(rows[NEVER], torch.zeros(DIM))


def test_ema_moves_to_each_steps_mean_and_starts_at_the_first():
    prototypes = Prototypes(LABELS, DIM, policy="ema", momentum=0.9)
    expected = [None] * LABELS
    for features, admitted in steps():
        new = prototypes.update(admit(features, admitted), 0.5)
        for label in range(LABELS):
            rows = rows_of([(features, admitted)], label)
            was = expected[label]
            assert bool(new[label]) == (was is None and bool(rows))
            if rows:
                mean = sum(rows) / len(rows)
                expected[label] = mean if was is None else 0.9 * was + 0.1 * mean
    prototypes.end_epoch()
    rows, valid = prototypes.read()
    assert valid.tolist() == [e is not None for e in expected] == [True, True, True, False]
    torch.testing.assert_close(
        rows[:NEVER].double(), torch.stack(expected[:NEVER]), rtol=1e-6, atol=1e-6
    )


def test_learned_fills_what_is_masked_once_and_forgets_only_its_moments():
    prototypes = Prototypes(LABELS, DIM, policy="learned")
    features = torch.randn(5, LABELS, DIM)
    admitted = torch.zeros(5, LABELS, dtype=torch.bool)
    admitted[:, :2] = True
    prototypes.accumulate(admit(features, admitted), 0.5)
    prototypes.start_from_accumulated()
    optimizer = torch.optim.AdamW([prototypes.rows_LD], lr=0.1, weight_decay=0.0, amsgrad=True)
    prototypes.zero_moments(
        optimizer, torch.ones(LABELS, dtype=torch.bool)
    )  # no state yet: nothing to do
    (prototypes.rows_LD * torch.randn(LABELS, DIM)).sum().backward()
    optimizer.step()
    trained, state = prototypes.rows_LD.detach().clone(), optimizer.state[prototypes.rows_LD]
    moments = {name: state[name].clone() for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")}
    admitted[:, 2] = True
    new = prototypes.update(admit(features, admitted), 0.5)
    prototypes.zero_moments(optimizer, new)
    assert new.tolist() == [False, False, True, False]
    assert torch.equal(prototypes.rows_LD[[0, 1, 3]].detach(), trained[[0, 1, 3]])
    assert torch.equal(prototypes.rows_LD[2].detach(), features[:, 2].double().mean(0).float())
    for name, before in moments.items():
        assert bool((state[name][2] == 0).all())
        assert torch.equal(state[name][[0, 1, 3]], before[[0, 1, 3]])
    assert not bool(prototypes.update(admit(features, admitted), 0.5).any())


@pytest.mark.parametrize("policy", ["mean", "ema"])
def test_zero_moments_leaves_an_optimizer_of_other_parameters_alone(policy):
    other = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([other])
    Prototypes(LABELS, DIM, policy=policy).zero_moments(
        optimizer, torch.ones(LABELS, dtype=torch.bool)
    )
    assert not optimizer.state


@pytest.mark.parametrize("policy", ["mean", "ema", "learned"])
def test_reloaded_in_mid_epoch_they_go_on_as_if_nothing_had_happened(policy):
    one, other = (Prototypes(LABELS, DIM, policy=policy) for _ in range(2))
    for features, admitted in steps(3):
        one.update(admit(features, admitted), 0.5)
    other.load_state_dict(one.state_dict())
    for features, admitted in steps(3, seed=1):
        for prototypes in (one, other):
            prototypes.update(admit(features, admitted), 0.5)
    for prototypes in (one, other):
        prototypes.end_epoch()
    assert bool(one.read()[1][:NEVER].all())
    for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_low_precision_features_are_summed_without_loss():
    prototypes = Prototypes(1, 1, policy="mean")
    admitted = torch.ones(4096, 1, dtype=torch.bool)
    prototypes.update(admit(torch.full((4096, 1, 1), 0.1, dtype=torch.bfloat16), admitted), 0.5)
    prototypes.end_epoch()
    assert prototypes.read()[0].item() == torch.tensor(0.1, dtype=torch.bfloat16).item()


def test_another_policy_or_momentum_is_refused():
    with pytest.raises(ValueError, match="but got 'median'"):
        Prototypes(LABELS, DIM, policy="median")
    with pytest.raises(ValueError, match=r"0 <= momentum < 1 must hold, but got 1\.0"):
        Prototypes(LABELS, DIM, momentum=1.0)
