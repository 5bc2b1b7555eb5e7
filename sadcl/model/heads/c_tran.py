r"""C-Tran: one transformer over the image's positions and a token for each label.

    t_l = e_l + k_(state of l)                      the state is unknown, absent or present
    (.., y_1 .. y_L) = Layers(LN(x_1 .. x_P, t_1 .. t_L))       attention among all P + L tokens
    logit_l = w_l . y_l + b_l

x_p is the feature map's column at position p, without projection or position encoding, e_l the
learned embedding of label l, and k the learned embedding of a state. The layers are post-norm with
ReLU. In evaluation all states are unknown.

Label mask training: for each image of a training step, the number of labels whose state is known is
drawn uniformly from the integers 0 to floor(0.75 L), and which ones they are at random. The
published loss is a sum over the unknown labels. Here the logits of known labels are returned
without a gradient, so that a class loss over all labels has the gradient of the published one,
except for a constant factor where it is a mean. Its value, and whatever else reads the scores and
features of a training step, includes labels that the network was told.

Axes: B images of this worker, C channels, H, W height and width of the feature map, P = H * W its
positions, L labels, T = P + L tokens.

Source: Lanchantin, Wang, Ordonez, Qi, General Multi-label Image Classification with Transformers,
CVPR 2021 (arXiv 2011.14027).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sarl import GroupLinear


class CTran(nn.Module):
    """The classification transformer, which can be told the state of some labels.

    Args:
        task: with one feature map, whose channels are the width of the tokens.
        layers: number of transformer layers, at least 1.
        heads: number of attention heads; the channels are a multiple of it.
        feedforward: hidden size of the perceptrons; None is the channels, as published.
        dropout: probability of dropout on attention weights, after attention and twice in the
            perceptrons, at least 0 and less than 1.
        known: greatest share of labels, 0 to 1, whose state an image is told in training. With 0
            there is no label mask training. Choose 0 where a contrast uses the features too: the
            token of a known label contains the answer that the contrast asks for.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        task: Task,
        *,
        layers: int = 3,
        heads: int = 4,
        feedforward: int | None = None,
        dropout: float = 0.1,
        known: float = 0.75,
    ) -> None:
        super().__init__()
        channels, self.num_labels = task.channels[-1], len(task.labels)
        if heads < 1 or channels % heads:
            raise ValueError(f"channels must be a multiple of heads, but got {channels}, {heads}")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, but got {layers}")
        if feedforward is not None and feedforward < 1:
            raise ValueError(f"feedforward must be at least 1, but got {feedforward}")
        if not 0 <= known <= 1:
            raise ValueError(f"known must be from 0 to 1, but got {known}")
        self.max_known = int(known * self.num_labels)
        self.needs_targets = self.max_known > 0
        self.label = nn.Embedding(self.num_labels, channels)
        self.state = nn.Embedding(3, channels, padding_idx=0)  # "unknown" never gets a gradient
        self.norm = nn.LayerNorm(channels)
        stack = [
            nn.TransformerEncoderLayer(
                channels, heads, feedforward or channels, dropout, batch_first=True
            )
            for _ in range(layers)
        ]
        self.layers = nn.ModuleList(stack)
        self.feature_size = channels
        self.classifier = GroupLinear(self.num_labels, channels)
        for embedding in (self.label, self.state):  # of "unknown" too: its row is not zero
            nn.init.uniform_(embedding.weight, -(channels**-0.5), channels**-0.5)
        for layer in stack:
            layer.self_attn.out_proj.reset_parameters()  # uniform, where PyTorch sets its bias to 0

    def forward(self, map_BCHW: Tensor, targets_BL: Tensor | None = None) -> HeadOutput:
        """Compute logits and label tokens.

        Args:
            map_BCHW: the feature map.
            targets_BL: 1, 0 or -1 (ignored, which is never told). They are used in training only;
                without them all states are unknown.
        """
        if targets_BL is None or not (self.training and self.needs_targets):
            features_BLC = self.label_features(map_BCHW)
            return HeadOutput(self.classify(features_BLC), features_BLC)
        state_BL = self.draw_states(targets_BL)
        features_BLC = self.label_features(map_BCHW, state_BL)
        logits_BL = self.classify(features_BLC)
        return HeadOutput(torch.where(state_BL > 0, logits_BL.detach(), logits_BL), features_BLC)

    def draw_states(self, targets_BL: Tensor) -> Tensor:
        """Draw which labels are known: (B, L) of 0 unknown, 1 known absent, 2 known present."""
        rank_BL = torch.rand(targets_BL.shape, device=targets_BL.device).argsort(1).argsort(1)
        count_B1 = torch.randint(
            self.max_known + 1, (targets_BL.shape[0], 1), device=targets_BL.device
        )
        known_BL = (rank_BL < count_B1) & (targets_BL >= 0)
        return torch.where(known_BL, targets_BL.long() + 1, 0)

    def label_features(self, map_BCHW: Tensor, state_BL: Tensor | None = None) -> Tensor:
        """Compute the label tokens after the last layer, (B, L, C), in the weights' precision.

        Args:
            map_BCHW: the feature map.
            state_BL: as :meth:`draw_states` returns it; None where every label is unknown.
        """
        token_BTC = self.tokens(map_BCHW, state_BL)
        for layer in self.layers:
            token_BTC = layer(token_BTC)
        return token_BTC[:, -self.num_labels :].to(self.label.weight.dtype)

    def classify(self, features_BLC: Tensor) -> Tensor:
        """Compute the logits (B, L) of label tokens, in the tokens' precision."""
        with torch.autocast(features_BLC.device.type, enabled=False):
            return self.classifier(features_BLC)

    def tokens(self, map_BCHW: Tensor, state_BL: Tensor | None = None) -> Tensor:
        """Compute what the first layer reads, (B, T, C): positions in row order, then labels."""
        position_BPC = map_BCHW.flatten(2).transpose(1, 2)
        if state_BL is None:
            shape = (map_BCHW.shape[0], self.num_labels)
            state_BL = torch.zeros(shape, dtype=torch.long, device=map_BCHW.device)
        label_BLC = self.label.weight + self.state(state_BL)
        return self.norm(torch.cat((position_BPC, label_BLC), 1))

    def attention(self, map_BCHW: Tensor) -> list[Tensor]:
        """Compute for each layer the attention of every token, averaged over heads, (B, T, T)."""
        token_BTC, weights = self.tokens(map_BCHW), []
        layer: Any
        for layer in self.layers:
            weights.append(layer.self_attn(token_BTC, token_BTC, token_BTC)[1])
            token_BTC = layer(token_BTC)
        return weights

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute (B, L, H, W): what each label pays to each position in the last layer.

        It sums to at most 1 over the positions: the rest goes to the labels.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            weight_BTT = self.attention(map_BCHW.to(self.label.weight.dtype))[-1]
        weight_BLP = weight_BTT[:, -self.num_labels :, : -self.num_labels]
        return weight_BLP.unflatten(2, map_BCHW.shape[2:])
