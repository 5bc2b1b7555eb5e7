"""The published networks of SADCL and Query2Label in plain PyTorch, with the published keys.

Written from the method's description, so that importing can be tested without golden files: a
torchvision ResNet with frozen BatchNorm, DETR's positions as a buffer, post-norm layers, a decoder
without self-attention whose target is zero, and a group-wise linear classifier.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d


class PublishedOutput(NamedTuple):
    logits: Tensor
    features: Tensor
    attention: Tensor
    """Of the last decoder layer, averaged over the heads."""


class _Encoder(nn.Module):
    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        query = x + position
        x = self.norm1(x + self.self_attn(query, query, x)[0])
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class _Decoder(nn.Module):
    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, heads)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        mixed, attention = self.multihead_attn(x + query, key, value)
        x = self.norm2(x + mixed)
        return self.norm3(x + self.linear2(self.linear1(x).relu())), attention


class _Layers(nn.Module):
    def __init__(self, layers: list[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm


class _Classifier(nn.Module):
    def __init__(self, labels: int, dim: int) -> None:
        super().__init__()
        self.W, self.b = (
            nn.Parameter(torch.randn(1, labels, dim)),
            nn.Parameter(torch.randn(1, labels)),
        )


class _Positions(nn.Module):
    """Sine and cosine in turn of 2 pi y / (H + 1e-6) / 10000^(k / (D / 4)), rows then columns."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        encoding = torch.zeros(1, dim, side, side)
        for channel in range(dim):
            frequency = 10000 ** (-((channel % (dim // 2)) // 2) / (dim // 4))
            wave = math.cos if channel % 2 else math.sin
            for place in range(side):
                value = wave(2 * math.pi * (place + 1) / (side + 1e-6) * frequency)
                if channel < dim // 2:
                    encoding[0, channel, place, :] = value
                else:
                    encoding[0, channel, :, place] = value
        self.register_buffer("pe", encoding)


class _Backbone(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        network = getattr(torchvision.models, name)(norm_layer=FrozenBatchNorm2d)
        self.body = IntermediateLayerGetter(network, {"layer4": "0"})


class PublishedNetwork(nn.Module):
    """SADCL, or Query2Label where ``projection`` is None.

    ``bank`` is the number of its slots.
    """

    def __init__(
        self,
        labels: int,
        *,
        backbone: str = "resnet18",
        hidden: int = 16,
        feedforward: int = 24,
        layers: tuple[int, int] = (1, 2),
        side: int = 64,
        projection: int | None = 12,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(_Backbone(backbone), _Positions(hidden, side // 32))
        channels = 512 if backbone in ("resnet18", "resnet34") else 2048
        if channels != hidden:
            self.input_proj = nn.Conv2d(channels, hidden, 1)
        sizes, heads = (hidden, 4, feedforward), layers
        self.transformer = nn.ModuleDict(
            {
                "encoder": _Layers([_Encoder(*sizes) for _ in range(heads[0])]),
                "decoder": _Layers(
                    [_Decoder(*sizes) for _ in range(heads[1])], nn.LayerNorm(hidden)
                ),
            }
        )
        self.query_embed = nn.Embedding(labels, hidden)
        self.fc = _Classifier(labels, hidden)
        if projection is not None:
            self.proj_head = _Layers([nn.Linear(hidden, hidden), nn.Linear(hidden, projection)])
            self.prototype = nn.Parameter(torch.randn(1, labels, hidden))
            self.memorybank = nn.Parameter(torch.randn(3, labels, hidden), requires_grad=False)
        for name, tensor in self.named_buffers():  # statistics that differ from the identity
            if not name.endswith("pe"):
                nn.init.uniform_(tensor, 0.5, 1.0)
        self.eval()

    def project(self, x: Tensor) -> Tensor:
        first, second = self.proj_head.layers
        return second(first(x).relu())

    def forward(self, images: Tensor) -> PublishedOutput:
        features = self.backbone[0].body(images)["0"]
        if hasattr(self, "input_proj"):
            features = self.input_proj(features)
        x = features.flatten(2).permute(2, 0, 1)  # positions first, as nn.MultiheadAttention has it
        position = self.backbone[1].pe.flatten(2).permute(2, 0, 1)
        for layer in self.transformer["encoder"].layers:
            x = layer(x, position)
        query = self.query_embed.weight[:, None].expand(-1, len(images), -1)
        target, attention = torch.zeros_like(query), torch.empty(0)
        for layer in self.transformer["decoder"].layers:
            target, attention = layer(target, query, x + position, x)
        representations = self.transformer["decoder"].norm(target).transpose(0, 1)
        logits = (representations * self.fc.W).sum(-1) + self.fc.b
        return PublishedOutput(logits, representations, attention)


def checkpoint_of(network: nn.Module, **changes: object) -> dict[str, object]:
    """What the published training script saves of raw weights."""
    return {
        "epoch": 11,
        "arch": "Q2L-R101-448",
        "state_dict": {f"module.{key}": tensor for key, tensor in network.state_dict().items()},
        "best_mAP": np.float64(86.75),
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-5, "params": [0, 1]}]},
        **changes,
    }
