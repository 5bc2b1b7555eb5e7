r"""Query2Label: learnable label queries pool the feature map by cross-attention.

    F = Encoder(X, PE)                                     (X: the feature map, 1x1-convolved to D)
    Q = Decoder(F, queries, PE)                            (a representation for each label)
    logit_l = sum(W_l * Q_l) + b_l

Encoder and decoder are :class:`~sadcl.model.transformer.LabelTransformer`, with sine position
encodings PE and a decoder without self-attention between labels, as in the released code. SADCL is
this head with contrasts.

Axes: B images, C channels, H, W height and width of the feature map, S = H * W positions, L labels,
D hidden size.

Source: Liu, Zhang, Yang, Su, Zhu, Query2Label: A Simple Transformer Way to Multi-Label
Classification, 2021, arXiv 2107.10834, and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sadcl import GroupLinear
from sadcl.model.position import ORDERS, sine_position
from sadcl.model.transformer import LabelTransformer


class Query2Label(nn.Module):
    """A transformer whose decoder has one query for each label, and one classifier for each.

    Args:
        task: what the head is built for.
        hidden: D, a multiple of ``heads`` and of 4; where it differs from C, a 1x1 convolution
            comes first.
        position: order of the channels of the position encoding, see
            :func:`~sadcl.model.position.sine_position`.
        encoder_layers, decoder_layers, heads, feedforward, dropout, checkpointing: see
            :class:`~sadcl.model.transformer.LabelTransformer`.

    Raises:
        ValueError: for an argument out of its range, or sizes that do not fit each other.
    """

    def __init__(
        self,
        task: Task,
        *,
        hidden: int = 2048,
        position: str = "interleaved",
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 8192,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"hidden": hidden, "heads": heads, "feedforward": feedforward}
        for name, number in {**sizes, "decoder_layers": decoder_layers}.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, but got {number}")
        if encoder_layers < 0:
            raise ValueError(f"encoder_layers must be at least 0, but got {encoder_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, but got {dropout}")
        if position not in ORDERS:
            raise ValueError(f"position must be one of {', '.join(ORDERS)}, but got {position!r}")
        self.position = position
        channels, num_labels = task.channels[-1], len(task.labels)
        same = hidden == channels
        self.reduce = nn.Identity() if same else nn.Conv2d(channels, hidden, kernel_size=1)
        self.transformer = LabelTransformer(
            num_labels,
            hidden,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.classifier = GroupLinear(num_labels, hidden)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map (B, C, H, W) into (B, L) logits and (B, L, D) features Q.

        Under autocast the logits stay in the precision of the weights: in bfloat16 many would be
        equal.
        """
        features_BLD = self.transformer(*self._tokens(map_BCHW))
        with torch.autocast(map_BCHW.device.type, enabled=False):
            features_BLD = features_BLD.to(self.classifier.weight_LD.dtype)
            return HeadOutput(self.classifier(features_BLD), features_BLD)

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute each label's attention in the last decoder layer, (B, L, H, W).

        It is averaged over the heads, sums to 1 unless dropout acts, and is in the precision of the
        weights.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            tokens = self._tokens(map_BCHW.to(self.classifier.weight_LD.dtype))
            return self.transformer.attention(*tokens).unflatten(2, map_BCHW.shape[2:])

    def _tokens(self, map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the positions' features, (B, S, D), and their encodings, (S, D)."""
        map_BDHW = self.reduce(map_BCHW)
        _, dim, height, width = map_BDHW.shape
        position_SD = sine_position(
            height,
            width,
            dim,
            order=self.position,
            device=map_BDHW.device,
            dtype=map_BDHW.dtype,
        )
        return map_BDHW.flatten(2).transpose(1, 2), position_SD
