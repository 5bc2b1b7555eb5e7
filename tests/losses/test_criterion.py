"""Eq. 9: weights, divisors, padding, and what is left out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sadcl.losses import class_loss, prototype_to_sample_loss, sample_to_sample_loss
from sadcl.losses.criterion import Criterion
from sadcl.memory import Memory, MemoryBank

B, L, P, M = 6, 4, 5, 7


def make(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "logits_BL": (B, L),
        "embeddings_BLP": (B, L, P),
        "bank_MP": (M, P),
        "prototypes_LP": (L, P),
    }
    tensors = {
        name: torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    output = SimpleNamespace(**tensors, prototype_valid_L=torch.tensor([True, True, True, False]))
    targets = (torch.rand(B, L, generator=generator) < 0.5).to(torch.int8)
    return output, targets, torch.ones(B), torch.randint(L, (M,), generator=generator)


def labelled(targets, weight):
    return SimpleNamespace(
        targets_BL=targets,
        weight_B=weight,
        positive_index_A=None,
        global_positive_index_G=None,
        shares=None,
    )


def memory_of(bank_labels, positions=None):
    """The memory whose projected rows are in the output; its own rows are not looked at."""
    positions = torch.arange(len(bank_labels)) if positions is None else positions
    return Memory(torch.zeros(len(bank_labels), 1), bank_labels, positions)


def gradients(loss, output):
    leaves = (output.logits_BL, output.embeddings_BLP, output.bank_MP, output.prototypes_LP)
    return torch.autograd.grad(loss, leaves, allow_unused=True)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("contrast", ["mean", "own", "sum"])
@pytest.mark.parametrize("by_class", ["image", "sum"])
def test_is_the_weighted_sum_of_its_terms(normalize, contrast, by_class):
    output, targets, weight, bank_labels = make()
    targets[0, 0] = -1
    bank_labels[:L] = torch.arange(L)
    criterion = Criterion(
        class_weight=0.5,
        sample_weight=8,
        prototype_weight=4,
        tau=0.3,
        prototype_tau=0.7,
        class_reduction=by_class,
        sample_reduction="batch" if contrast == "own" else contrast,
        prototype_reduction="positives" if contrast == "own" else contrast,
        normalize=normalize,
    )
    terms = criterion(output, labelled(targets, weight), memory_of(bank_labels))
    by_label = class_loss(output.logits_BL, targets)[0] / (B if by_class == "image" else 1)
    options = {"normalize": normalize, "reduction": "sum" if contrast == "own" else contrast}
    sample = sample_to_sample_loss(
        output.embeddings_BLP, targets, output.bank_MP, bank_labels, temperature=0.3, **options
    )
    prototype = prototype_to_sample_loss(
        output.embeddings_BLP,
        targets,
        output.prototypes_LP,
        temperature=0.7,
        valid=output.prototype_valid_L,
        **options,
    )
    if contrast == "own":  # every label has a row in the bank, so each positive is counted
        sample, prototype = (loss / (targets == 1).sum() for loss in (sample, prototype))
    expected = 0.5 * by_label + 8 * sample + 4 * prototype
    torch.testing.assert_close(terms.loss, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        gradients(terms.loss, output), gradients(expected, output), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    values = {
        "loss": expected,
        "loss_class": by_label,
        "loss_sample": sample,
        "loss_prototype": prototype,
    }
    for name, value in values.items():
        torch.testing.assert_close(terms.values[name], value.detach(), rtol=1e-12, atol=1e-12)
        assert not terms.values[name].requires_grad
    assert terms.weighted.keys() == {"class", "sample", "prototype"}
    torch.testing.assert_close(sum(terms.weighted.values()), terms.loss, rtol=1e-12, atol=1e-12)
    assert terms.values["counted_labels"] == 3
    assert 0 < terms.values["anchors"] <= (targets == 1).sum() + M


@pytest.mark.parametrize("mask", ["activated", "targets", "released"])
def test_padding_images_take_part_in_nothing(mask):
    output, targets, weight, bank_labels = make()
    memory = memory_of(bank_labels, torch.arange(M) % B)
    criterion = Criterion(anchor_mask=mask)
    weight[2] = 0
    real = weight > 0
    less = SimpleNamespace(**vars(output))
    less.logits_BL, less.embeddings_BLP = output.logits_BL[real], output.embeddings_BLP[real]
    with_padding, without = (
        criterion(output, labelled(targets, weight), memory),
        criterion(less, labelled(targets[real], weight[real]), memory),
    )
    torch.testing.assert_close(with_padding.loss, without.loss, rtol=1e-12, atol=1e-12)
    assert with_padding.values["anchors"] == without.values["anchors"]
    to_logits, to_embeddings, *_ = gradients(with_padding.loss, output)
    assert bool((to_logits[2] == 0).all())
    assert bool((to_embeddings[2] == 0).all())


def test_a_contrast_of_weight_zero_is_not_computed():
    output, targets, weight, bank_labels = make()
    plain = SimpleNamespace(
        logits_BL=output.logits_BL,
        embeddings_BLP=None,
        bank_MP=None,
        prototypes_LP=None,
        prototype_valid_L=None,
    )
    terms = Criterion(sample_weight=0, prototype_weight=0)(plain, labelled(targets, weight))
    assert set(terms.values) == {"loss", "loss_class"}
    assert terms.loss == terms.values["loss"] == terms.values["loss_class"] > 0
    without = SimpleNamespace(**{**vars(output), "prototypes_LP": None, "prototype_valid_L": None})
    sample = Criterion(prototype_weight=0)(
        without, labelled(targets, weight), memory_of(bank_labels)
    )
    assert set(sample.values) == {"loss", "loss_class", "loss_sample", "anchors"}
    prototype = Criterion(sample_weight=0)(output, labelled(targets, weight))
    assert set(prototype.values) == {"loss", "loss_class", "loss_prototype", "counted_labels"}


def test_nothing_to_contrast_is_zero_and_still_reaches_every_input():
    output, targets, weight, bank_labels = make()
    output.bank_MP = output.bank_MP[:0].detach().requires_grad_()
    terms = Criterion()(output, labelled(targets * 0, weight), memory_of(bank_labels[:0]))
    assert terms.values["anchors"] == terms.values["counted_labels"] == 0
    assert terms.values["loss_sample"] == terms.values["loss_prototype"] == 0
    assert all(gradient is not None for gradient in gradients(terms.loss, output))


def matched_by_loops(x_NLP, targets_NL, slots_NLP, valid_NL, tau):
    """Eq. 4 over the batch and the slots whose image has their label now: (sum, counted)."""
    places = [(i, j) for i in range(len(x_NLP)) for j in range(L) if targets_NL[i, j] == 1]
    rows = [(j, x_NLP[i, j]) for i, j in places]
    rows += [(j, slots_NLP[i, j]) for i, j in places if valid_NL[i, j]]
    rows = [(j, row / row.norm()) for j, row in rows]
    total, counted = x_NLP.sum() * 0, 0
    for a, (label, anchor) in enumerate(rows):
        others = [row for c, row in enumerate(rows) if c != a]
        positives = [row for j, row in others if j == label]
        if positives:
            denominator = sum(torch.exp(anchor @ row / tau) for _, row in others)
            logs = [torch.log(torch.exp(anchor @ row / tau) / denominator) for row in positives]
            total, counted = total - sum(logs) / len(positives), counted + 1
    return total, counted


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0])
def test_matched_candidates_equal_plain_loops_however_full_the_bank_is(fill, padded):
    output, targets, weight, _ = make()
    targets[1] = -targets[1]  # ignored
    bank = MemoryBank(L, P, size=B + 2).double()
    torch.nn.init.normal_(bank.rows_KLD)
    bank.valid_KL.copy_(torch.rand(B + 2, L, generator=torch.Generator().manual_seed(1)) < fill)
    index_G = (targets == 1).flatten().nonzero()[:, 0]
    memory = bank.read_matched(index_G // L, index_G % L, padded=padded)
    slots = bank.rows_KLD.clone().requires_grad_()
    output.bank_MP = slots[memory.positions_M, memory.labels_M]
    terms = Criterion(prototype_weight=0, tau=0.3)(output, labelled(targets, weight), memory)
    x = output.embeddings_BLP
    total, counted = matched_by_loops(x, targets, slots, bank.valid_KL, 0.3)
    assert terms.values["anchors"] == counted > 0
    expected = 8 * total / counted
    torch.testing.assert_close(terms.weighted["sample"], expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        torch.autograd.grad(terms.weighted["sample"], (x, slots)),
        torch.autograd.grad(expected, (x, slots), allow_unused=True),
        strict=True,
    ):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        assert (mine - theirs).norm() <= 1e-12 * max(1.0, float(theirs.norm()))


def test_an_anchor_of_the_batch_without_a_positive_is_not_in_its_divisor():
    output, targets, weight, _ = make()
    targets[:] = 0
    targets[0, 0] = targets[1, 0] = targets[2, 1] = 1  # of label 1 there is one row only
    terms = Criterion(sample_reduction="batch")(
        output, labelled(targets, weight), memory_of(torch.tensor([0] * M))
    )
    everything = Criterion(sample_reduction="sum")(
        output, labelled(targets, weight), memory_of(torch.tensor([0] * M))
    )
    assert terms.values["anchors"] == M + 2
    torch.testing.assert_close(
        terms.values["loss_sample"], everything.values["loss_sample"] / 2, rtol=1e-12, atol=0
    )


def test_labels_without_a_positive_push_as_in_the_published_run_and_are_not_counted():
    output, targets, weight, bank_labels = make()
    targets[:, 0] = 0
    targets[2, 0] = -1
    targets[:, 3] = 0  # has no prototype
    skip, push = (
        Criterion(prototype_tau=0.5, absent_labels=word, prototype_reduction="positives")(
            output, labelled(targets, weight), memory_of(bank_labels)
        )
        for word in ("skip", "push")
    )
    row_BP = torch.nn.functional.normalize(output.embeddings_BLP[:, 0], dim=1)
    prototype_P = torch.nn.functional.normalize(output.prototypes_LP[0], dim=0)
    similarity = (row_BP @ prototype_P)[weight.bool() & (targets[:, 0] == 0)] / 0.5
    pushed = similarity.logsumexp(0) - similarity.max().detach()
    expected = skip.weighted["prototype"] + 4 * pushed / (targets == 1).sum()
    torch.testing.assert_close(push.weighted["prototype"], expected, rtol=1e-12, atol=0)
    assert push.values["counted_labels"] == skip.values["counted_labels"] == 2
    for mine, theirs in zip(
        gradients(push.weighted["prototype"], output), gradients(expected, output), strict=True
    ):
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_anchors_of_the_batch_alone_are_fewer_but_see_the_bank():
    output, targets, weight, bank_labels = make()
    every, batch = (
        Criterion(anchors=a)(output, labelled(targets, weight), memory_of(bank_labels))
        for a in ("batch+bank", "batch")
    )
    assert every.values["anchors"] - batch.values["anchors"] == M
    assert float(gradients(batch.loss, output)[2].abs().sum()) > 0


@pytest.mark.parametrize("tau", [0.01, 0.2])
def test_bfloat16_outputs_are_compared_in_float32(tau):
    output, targets, weight, bank_labels = make(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = Criterion(tau=tau, prototype_tau=tau)(
            output, labelled(targets, weight), memory_of(bank_labels)
        )
    exact = SimpleNamespace(
        **{n: t.detach().double() if t.is_floating_point() else t for n, t in vars(output).items()}
    )
    reference = Criterion(tau=tau, prototype_tau=tau)(
        exact, labelled(targets, weight), memory_of(bank_labels)
    )
    torch.testing.assert_close(terms.loss.double(), reference.loss, rtol=1e-5, atol=1e-5)
    assert all(bool(g.isfinite().all()) for g in gradients(terms.loss, output))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_reduction": "anchors"}, "'mean' or 'batch' or 'sum', but got 'anchors'"),
        ({"prototype_reduction": "batch"}, "'mean' or 'positives' or 'sum', but got 'batch'"),
        ({"absent_labels": "pull"}, "absent_labels must be 'skip' or 'push', but got 'pull'"),
        ({"anchors": "bank"}, "but got 'bank'"),
        (
            {"anchor_mask": "wrong"},
            "anchor_mask must be 'activated' or 'targets' or 'released', but got 'wrong'",
        ),
        ({"class_reduction": "mean"}, "class_reduction must be 'image' or 'sum', but got 'mean'"),
        ({"prototype_tau": 0.0}, r"tau = 0\.2, prototype_tau = 0\.0"),
        ({"sample_weight": -1.0}, r"sample_weight = -1\.0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_values(change, message):
    with pytest.raises(ValueError, match=message):
        Criterion(**change)
