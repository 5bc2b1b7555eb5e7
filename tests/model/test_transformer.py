"""Eq. 2 against explicit arithmetic."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.transformer import DecoderLayer, LabelTransformer


def test_decoder_layer_adds_positions_to_keys_and_queries_only():
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, 0.0).double()
    target, query, value = (
        torch.randn(1, 3, 8).double(),
        torch.randn(3, 8).double(),
        torch.randn(1, 5, 8).double(),
    )
    position = torch.randn(5, 8).double()
    weights, biases = layer.attention.in_proj_weight.chunk(3), layer.attention.in_proj_bias.chunk(3)
    q = (target[0] + query) @ weights[0].T + biases[0]
    k = (value[0] + position) @ weights[1].T + biases[1]
    v = value[0] @ weights[2].T + biases[2]
    heads = [
        torch.softmax(q[:, part] @ k[:, part].T / 2.0, dim=1) @ v[:, part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    attended = (
        torch.cat(heads, 1) @ layer.attention.out_proj.weight.T + layer.attention.out_proj.bias
    )
    x = layer.norm(target[0] + attended)
    y = layer.feedforward
    expected = y.norm(
        x
        + torch.relu(x @ y.expand.weight.T + y.expand.bias) @ y.contract.weight.T
        + y.contract.bias
    )
    torch.testing.assert_close(layer(target, query, value + position, value)[0], expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_target_that_all_images_share_is_as_good_as_one_for_each(dropout):
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, dropout).double()
    query, key, value = (torch.randn(*shape).double() for shape in ((3, 8), (4, 5, 8), (4, 5, 8)))
    results = []
    for target in (torch.zeros(3, 8).double(), torch.zeros(4, 3, 8).double()):
        torch.manual_seed(1)
        features = layer(target, query, key, value)
        gradients = torch.autograd.grad(features.pow(3).sum(), list(layer.parameters()))
        results.append([features, *gradients])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_that_of_torch(training):
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, 0.3).train(training)
    for dropout in (layer.dropout, layer.feedforward.dropout):
        dropout.p = 0.0
    # One image, because masks are drawn in the order of memory, which differs for several.
    query, key, value = torch.randn(3, 8), torch.randn(1, 6, 8), torch.randn(1, 6, 8)
    torch.manual_seed(1)
    mixed, _ = layer.attention(query[None], key, value, need_weights=False)
    torch.manual_seed(1)
    theirs, ours = layer.feedforward(layer.norm(mixed)), layer(torch.zeros(3, 8), query, key, value)
    torch.testing.assert_close(ours, theirs)
    again = layer(torch.zeros(3, 8), query, key, value)
    assert torch.equal(again, ours) != training


def test_labels_do_not_attend_to_each_other():
    """The decoder has no self-attention: a label's features do not depend on another's query."""
    torch.manual_seed(0)
    transformer = LabelTransformer(4, 8, heads=2, feedforward=16, dropout=0.0)
    memory, position = torch.randn(2, 6, 8), torch.randn(6, 8)
    before = transformer(memory, position)
    with torch.no_grad():
        transformer.query_LD[1] += 1
    after = transformer(memory, position)
    torch.testing.assert_close(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert not torch.allclose(after[:, 1], before[:, 1])
