"""Attention in plain loops, as the reference of heads that use PyTorch's.

Every function takes the tensors of one image: rows are tokens. ``state`` has the parameters under
PyTorch's names.

Axes: T, S tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one module."""
    return {key[len(name) + 1 :]: t for key, t in state.items() if key.startswith(f"{name}.")}


def layer_norm(x_TD: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    rows = []
    for x_D in x_TD:
        centred_D = x_D - x_D.sum() / len(x_D)
        deviation = ((centred_D**2).sum() / len(x_D) + 1e-5).sqrt()
        rows.append(centred_D / deviation * state["weight"] + state["bias"])
    return torch.stack(rows)


def softmax_rows(x_TS: Tensor) -> Tensor:
    return x_TS.exp() / x_TS.exp().sum(1, keepdim=True)


def attention(
    query_TD: Tensor, key_SD: Tensor, state: Mapping[str, Tensor], heads: int
) -> tuple[Tensor, Tensor]:
    """Multi-head attention and its weights averaged over the heads."""
    weights, biases = state["in_proj_weight"].chunk(3), state["in_proj_bias"].chunk(3)
    inputs = (query_TD, key_SD, key_SD)
    q, k, v = (x @ w.T + b for x, w, b in zip(inputs, weights, biases, strict=True))
    width, mixed, mean = q.shape[1] // heads, [], torch.zeros(len(q), len(k), dtype=q.dtype)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        weight_TS = softmax_rows(q[:, own] @ k[:, own].T / width**0.5)
        mixed.append(weight_TS @ v[:, own])
        mean = mean + weight_TS / heads
    out = torch.cat(mixed, 1) @ state["out_proj.weight"].T + state["out_proj.bias"]
    return out, mean


def perceptron(x_TD: Tensor, first: str, last: str, state: Mapping[str, Tensor], phi) -> Tensor:
    hidden = phi(x_TD @ state[f"{first}.weight"].T + state[f"{first}.bias"])
    return hidden @ state[f"{last}.weight"].T + state[f"{last}.bias"]


def post_norm_layer(
    x_TD: Tensor, state: Mapping[str, Tensor], heads: int, phi
) -> tuple[Tensor, Tensor]:
    """One encoder layer, and the attention weights averaged over the heads."""
    mixed, weights = attention(x_TD, x_TD, part(state, "self_attn"), heads)
    x_TD = layer_norm(x_TD + mixed, part(state, "norm1"))
    x_TD = x_TD + perceptron(x_TD, "linear1", "linear2", state, phi)
    return layer_norm(x_TD, part(state, "norm2")), weights
