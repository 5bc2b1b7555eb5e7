"""C-Tran against plain loops, and its label mask training."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sadcl.model.heads.c_tran import CTran
from tests.model.heads import plain_attention as plain
from tests.model.heads.making import filled, maps, task

LABELS, CHANNELS, HEADS = 5, 8, 2


def small(**changes) -> CTran:
    arguments = {"layers": 2, "heads": HEADS, "feedforward": 6, "dropout": 0.0, **changes}
    return filled(CTran(task(LABELS, CHANNELS), **arguments))


def reference(head, map_CHW, state_L):
    """Label tokens, logits and attention of each layer for one image."""
    state = head.state_dict()
    tokens = [map_CHW[:, y, x] for y in range(map_CHW.shape[1]) for x in range(map_CHW.shape[2])]
    for label, known in enumerate(state_L):
        tokens.append(state["label.weight"][label] + state["state.weight"][known])
    x_TC, weights = plain.layer_norm(torch.stack(tokens), plain.part(state, "norm")), []
    for layer in range(len(head.layers)):
        one = plain.part(state, f"layers.{layer}")
        x_TC, weight_TT = plain.post_norm_layer(x_TC, one, HEADS, torch.relu)
        weights.append(weight_TT)
    y_LC = x_TC[-LABELS:]
    logits = [
        y_LC[n] @ state["classifier.weight_LD"][n] + state["classifier.bias_L"][n]
        for n in range(LABELS)
    ]
    return y_LC, torch.stack(logits), weights


@torch.no_grad()
def test_equals_plain_loops():
    head = small().eval()
    (map_BCHW,) = maps(2, (CHANNELS, 2, 3))
    states = torch.tensor([[0, 1, 2, 0, 2], [1, 0, 0, 0, 1]])
    output, attention = head(map_BCHW), head.attention(map_BCHW)
    partial_BLC = head.label_features(map_BCHW, states)
    for image in range(2):
        features, logits, weights = reference(head, map_BCHW[image], [0] * LABELS)
        torch.testing.assert_close(output.features_BLD[image], features)
        torch.testing.assert_close(output.logits_BL[image], logits)
        for ours, theirs in zip(attention, weights, strict=True):
            torch.testing.assert_close(ours[image], theirs)
        from_labels = weights[-1][-LABELS:, :-LABELS].reshape(LABELS, 2, 3)
        torch.testing.assert_close(head.attention_maps(map_BCHW)[image], from_labels)
        features, logits, _ = reference(head, map_BCHW[image], states[image].tolist())
        torch.testing.assert_close(partial_BLC[image], features)
        torch.testing.assert_close(head.classify(partial_BLC)[image], logits)
    assert output.auxiliary_BL == ()


def test_drawn_states_follow_the_targets():
    """Each number of known labels from 0 to floor(0.75 L) is as likely, and each label too."""
    torch.manual_seed(0)
    head = CTran(task(9, 8), heads=2)
    targets = torch.randint(2, (7000, 9), dtype=torch.int8)
    states = head.draw_states(targets)
    known = states > 0
    assert torch.equal(states[known], targets[known].long() + 1)
    counts = known.sum(1).bincount(minlength=10)
    assert counts[7:].sum() == 0
    torch.testing.assert_close(counts[:7] / 7000, torch.full((7,), 1 / 7), atol=0.02, rtol=0)
    torch.testing.assert_close(known.float().mean(0), torch.full((9,), 1 / 3), atol=0.02, rtol=0)


def test_ignored_labels_are_never_known():
    targets = torch.tensor([1, -1, 0, -1, -1], dtype=torch.int8).expand(500, -1)
    states = small(known=1.0).draw_states(targets)
    assert (states[:, [1, 3, 4]] == 0).all()
    assert set(states[:, 0].tolist()) == {0, 2}
    assert set(states[:, 2].tolist()) == {0, 1}


def test_a_loss_over_all_labels_has_the_gradient_of_that_over_the_unknown_ones():
    head = small().train()
    (map_BCHW,) = maps(6, (CHANNELS, 2, 2))
    targets = torch.arange(30).reshape(6, LABELS) % 3 % 2
    torch.manual_seed(3)
    logits_BL = head(map_BCHW, targets).logits_BL
    loss = F.binary_cross_entropy_with_logits(logits_BL, targets.double(), reduction="sum")
    ours = torch.autograd.grad(loss, tuple(head.parameters()))
    torch.manual_seed(3)
    states = head.draw_states(targets)
    plain_BL = head.classify(head.label_features(map_BCHW, states))
    assert 0 < int((states == 0).sum()) < states.numel()
    terms = F.binary_cross_entropy_with_logits(plain_BL, targets.double(), reduction="none")
    theirs = torch.autograd.grad(terms[states == 0].sum(), tuple(head.parameters()))
    torch.testing.assert_close(logits_BL, plain_BL)
    torch.testing.assert_close(ours, theirs)
    index = [name for name, _ in head.named_parameters()].index("state.weight")
    assert not ours[index][0].any()
    assert ours[index][1:].any(1).all()


def test_what_is_known_is_read_in_training_only():
    (map_BCHW,) = maps(4, (CHANNELS, 2, 2))
    targets = torch.ones(4, LABELS, dtype=torch.int8)
    head = small()
    assert head.needs_targets
    unknown = head.eval()(map_BCHW).logits_BL
    assert torch.equal(head(map_BCHW, targets).logits_BL, unknown)
    torch.manual_seed(0)
    assert not torch.allclose(head.train()(map_BCHW, targets).logits_BL, unknown)
    torch.testing.assert_close(head(map_BCHW).logits_BL, unknown)
    without = small(known=0.0).train()
    assert not without.needs_targets
    torch.testing.assert_close(without(map_BCHW, targets).logits_BL, unknown)
    assert not small(known=0.1).needs_targets  # of 5 labels, half a label is none


def test_start_values():
    head = CTran(task(40, 64), layers=1)
    for tensor in (head.label.weight, head.state.weight, head.layers[0].self_attn.out_proj.bias):
        assert 0.1 < float(tensor.detach().abs().max()) <= 1 / 8
    assert head.state.weight[0].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, "channels must be a multiple of heads, but got 8, 3"),
        ({"layers": 0}, "layers must be at least 1, but got 0"),
        ({"known": 1.5}, "known must be from 0 to 1, but got 1.5"),
        ({"feedforward": 0}, "feedforward must be at least 1, but got 0"),
        ({"dropout": 1.5}, "dropout .*but got 1.5"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
