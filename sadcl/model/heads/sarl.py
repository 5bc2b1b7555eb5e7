r"""The paper's head: semantic-aware representation learning (SARL, Fig. 3).

    s_l = sigmoid(sum(W_l * Q_l) + b_l)                                              (Eq. 7)

Q_l is the label-level feature of label l (Eq. 2), W_l and b_l are the weight vector and the bias
of the label, * is element-wise, s_l is the score.

Axes: B images of this worker, L labels, D hidden size, H, W the feature map's height and width,
S = H * W its positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.position import ORDERS, sine_position
from sadcl.model.transformer import LabelTransformer


class GroupLinear(nn.Module):
    """The classifier of Eq. 7 before the sigmoid: one weight vector and one bias for each label.

    The bias is added once, after the sum over D.
    """

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight_LD = nn.Parameter(torch.empty(num_labels, dim).uniform_(-bound, bound))
        self.bias_L = nn.Parameter(torch.empty(num_labels).uniform_(-bound, bound))

    def forward(self, features_BLD: Tensor) -> Tensor:
        return (features_BLD * self.weight_LD).sum(-1) + self.bias_L


class SARL(nn.Module):
    """An encoder over positions, a decoder over label queries, and a classifier for each label.

    Args:
        task: labels, and channels of the feature map.
        hidden: D; where it differs from the channels, a 1x1 convolution comes first. None is the
            number of channels.
        position: order of the channels of the position encoding, see :func:`sine_position`.
        encoder_layers, decoder_layers, heads, feedforward, dropout, checkpointing: see
            :class:`LabelTransformer`.

    Raises:
        ValueError: for an unknown order, or sizes that do not fit each other.

    Source: Ma et al., ECAI 2023, section 3.2.
    """

    def __init__(
        self,
        task: Task,
        *,
        hidden: int | None = None,
        position: str = "interleaved",
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 8192,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if position not in ORDERS:
            raise ValueError(f"position must be one of {', '.join(ORDERS)}, but got {position!r}")
        sizes = {"heads": heads, "feedforward": feedforward, "decoder_layers": decoder_layers}
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, but got {number}")
        if encoder_layers < 0:
            raise ValueError(f"encoder_layers must be at least 0, but got {encoder_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, but got {dropout}")
        channels, num_labels = task.channels[-1], len(task.labels)
        hidden = hidden or channels
        self.position = position
        self.feature_size = hidden
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
        features_BLD = self.transformer(*self._tokens(map_BCHW))
        return HeadOutput(self.classify(features_BLD), features_BLD)

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

    def classify(self, features_BLD: Tensor) -> Tensor:
        """Compute the logits (B, L) from the label-level features (Eq. 7)."""
        logits_BL: Tensor = self.classifier(features_BLD)
        return logits_BL

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Return the attention of each label's query in the last decoder layer (Fig. 5).

        It is averaged over the attention heads, and sums to 1 over the positions.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            tokens = self._tokens(map_BCHW.to(self.classifier.weight_LD.dtype))
            return self.transformer.attention(*tokens).unflatten(2, map_BCHW.shape[2:])
