"""ML-Decoder and its zero-shot variant against plain loops."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.heads.ml_decoder import MLDecoder, ZeroShotMLDecoder
from tests.model.heads import plain_attention as plain
from tests.model.heads.making import filled, maps, task

CHANNELS, SIZES = 6, {"dim": 8, "heads": 2, "feedforward": 5, "dropout": 0.0}


def decode(query_KD, map_CHW, state):
    """Features of the queries and their attention for one image."""
    x = torch.stack(
        [map_CHW[:, y, x] for y in range(map_CHW.shape[1]) for x in range(map_CHW.shape[2])]
    )
    y = (x @ state["embed.weight"].T + state["embed.bias"]).clamp(min=0)
    t = plain.layer_norm(2 * query_KD, plain.part(state, "norm1"))
    mixed, weights = plain.attention(t, y, plain.part(state, "attention"), SIZES["heads"])
    t = plain.layer_norm(t + mixed, plain.part(state, "norm2"))
    t = t + plain.perceptron(t, "expand", "contract", state, torch.relu)
    return plain.layer_norm(t, plain.part(state, "norm3")), weights


@pytest.mark.parametrize(("num_labels", "groups"), [(4, None), (7, 3), (6, 3), (5, 4), (9, 1)])
@torch.no_grad()
def test_equals_plain_loops(num_labels, groups):
    head = filled(MLDecoder(task(num_labels, CHANNELS), groups=groups, **SIZES))
    state = head.state_dict()
    (map_BCHW,) = maps(2, (CHANNELS, 2, 3))
    output, shown = head(map_BCHW), head.attention_maps(map_BCHW)
    size = -(-num_labels // (groups or num_labels))
    for image in range(2):
        t, weights = decode(state["query_KD"], map_BCHW[image], plain.part(state, "decoder"))
        for label in range(num_labels):
            query, place = divmod(label, size)
            logit = state["bias_L"][label]
            for channel in range(SIZES["dim"]):
                logit = logit + t[query, channel] * state["weight_KDG"][query, channel, place]
            torch.testing.assert_close(output.logits_BL[image, label], logit)
            torch.testing.assert_close(shown[image, label], weights[query].reshape(2, 3))
        if groups is None:
            torch.testing.assert_close(output.features_BLD[image], t)
    assert (output.features_BLD is None) == (groups is not None)


@pytest.mark.parametrize("word_dim", [5, SIZES["dim"]])
@torch.no_grad()
def test_zero_shot_equals_plain_loops(word_dim):
    head = filled(ZeroShotMLDecoder(task(4, CHANNELS), word_dim=word_dim, **SIZES))
    state = head.state_dict()
    (map_BCHW,) = maps(2, (CHANNELS, 2, 3))
    output, shown = head(map_BCHW), head.attention_maps(map_BCHW)
    queries = state["word_vectors_LE"]
    if word_dim != SIZES["dim"]:
        queries = queries @ state["project.weight"].T + state["project.bias"]
        queries = queries.clamp(min=0)
    for image in range(2):
        t, weights = decode(queries, map_BCHW[image], plain.part(state, "decoder"))
        logits = t @ state["classifier.weight"][0] + state["classifier.bias"]
        torch.testing.assert_close(output.logits_BL[image], logits)
        torch.testing.assert_close(output.features_BLD[image], t)
        torch.testing.assert_close(shown[image], weights.reshape(4, 2, 3))


@torch.no_grad()
def test_zero_shot_scores_labels_that_it_was_not_built_for():
    """Nothing of the head but the vectors depends on the labels."""
    head = filled(ZeroShotMLDecoder(task(4, CHANNELS), word_dim=5, **SIZES))
    (map_BCHW,) = maps(2, (CHANNELS, 2, 3))
    before = head(map_BCHW).logits_BL
    order = torch.tensor([2, 0, 3, 1, 2, 0])
    other = ZeroShotMLDecoder(task(6, CHANNELS), word_dim=5, **SIZES).double()
    state = head.state_dict()
    other.load_state_dict({**state, "word_vectors_LE": state["word_vectors_LE"][order]})
    torch.testing.assert_close(other(map_BCHW).logits_BL, before[:, order])


def test_zero_shot_reads_word_vectors(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("label 1 0\n0 3 4\n1 5 6\n")
    head = ZeroShotMLDecoder(task(2, CHANNELS), word_vectors=str(file), word_dim=2, **SIZES)
    assert head.word_vectors_LE.tolist() == [[2.0, 2.0], [3.0, 3.0]]
    drawn = [
        ZeroShotMLDecoder(task(2, CHANNELS), word_dim=2, word_vectors_seed=seed, **SIZES)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0].word_vectors_LE, drawn[1].word_vectors_LE)
    assert not torch.equal(drawn[0].word_vectors_LE, drawn[2].word_vectors_LE)


@torch.no_grad()
def test_queries_are_not_trained_and_at_most_a_hundred():
    head = MLDecoder(task(130, CHANNELS), **SIZES)
    assert head.query_KD.shape == (100, 8)
    assert head.weight_KDG.shape == (100, 8, 2)
    assert "query_KD" not in dict(head.named_parameters())
    assert "query_KD" in head.state_dict()
    few = MLDecoder(task(130, CHANNELS), groups=130, **SIZES)
    assert few.weight_KDG.shape == (130, 8, 1)
    assert not head.bias_L.any()
    assert float(head.weight_KDG.std()) == pytest.approx((2 / (2 * 8 + 2 * 100)) ** 0.5, rel=0.1)


def test_dropout_differs_between_images():
    head = filled(MLDecoder(task(4, CHANNELS), **{**SIZES, "dropout": 0.5})).train()
    (map_BCHW,) = maps(1, (CHANNELS, 2, 3))
    same = map_BCHW.expand(3, -1, -1, -1)
    torch.manual_seed(0)
    t_BKD, _ = head.decoder._targets_and_positions(head.query_KD, same)
    assert not torch.allclose(t_BKD[0], t_BKD[1])
    t_BKD, _ = head.eval().decoder._targets_and_positions(head.query_KD, same)
    assert torch.equal(t_BKD[0], t_BKD[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, "dim must be a multiple of heads, but got 8, 3"),
        ({"groups": 5}, "groups must be from 1 to the 4 labels, but got 5"),
        ({"groups": 0}, "groups must be from 1 to the 4 labels, but got 0"),
        ({"feedforward": 0}, "feedforward must be at least 1, but got 0"),
        ({"dropout": -0.5}, "dropout .*but got -0.5"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLDecoder(task(4, CHANNELS), **{**SIZES, **arguments})


def test_a_word_vector_has_numbers():
    with pytest.raises(ValueError, match="word_dim must be at least 1, but got 0"):
        ZeroShotMLDecoder(task(4, CHANNELS), word_dim=0)
