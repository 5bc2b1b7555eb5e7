r"""TDRG: a transformer over three scales and a graph of labels that it guides.

Two maps of the backbone: x3 (layer 3) and x4 (layer 4).

    u3 = 1x1 of x3,  u4 = 1x1 of x4,  u5 = 3x3 with stride 2 of x4             all to D channels
    m = u3 * u4 * u5 at the largest side;  m is added to each there, then each goes to its own side
    F3, F4, F5 = Encoder of each                                              one for all scales
    logits_trans = Wt [max_p F3; max_p F4; max_p F5] + bt

    M = F x4,  a = sigmoid(M),  logits_sac_l = mean of the 5 % largest M_lp
    V = [(Wg x4 + bg) a^T; Wq (F4 a^T) + bq]                                  nodes, 2D x L
    c = lrelu(BN(Wc [mean_p F3; mean_p F4; mean_p F5] + bc))
    J_(.,l) = sigmoid(Wm [c; V_l] + bm)                                       joint correlation
    G = lrelu(Wf lrelu(V J) + bf) + V,   logits_gcn_l = w_l . G_l + b_l
    score = 0.7 logits_trans + 0.3 logits_gcn

F4 a^T and the means of F pass no gradient on. The loss is the sum of the same loss on the score,
logits_trans, logits_gcn and logits_sac. lrelu has slope 0.2; interpolation is bilinear with aligned
corners; the encoder has post-norm layers with exact gelu, without dropout or positions.

**Axis of attention.** The released code lays its tokens out as (image, position, channel) but its
attention reads the first axis as the sequence: for each position the images of a batch attend to
each other, and positions never do. So an image's scores depend on the images beside it and on how
many there are on a worker, and a prediction cannot be repeated from the image alone. The published
figures were measured so, which is why ``attention="batch"`` remains. The default, "positions", is
what the paper aims at, context within an image, and is not the released code.

Axes: B images of this worker, C channels, H, W height and width of a feature map, P its positions,
L labels, D hidden size, E = 2D size of a node.

Source: Zhao, Yan, Zhao, Guo, Huang, Li, Transformer-based Dual Relation Graph for Multi-label Image
Recognition, ICCV 2021 (arXiv 2110.04722).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sarl import GroupLinear

SLOPE = 0.2
AXES = ("positions", "batch")


class TDRG(nn.Module):
    """Cross-scale transformer, and a graph over label nodes.

    The label-level features are G. In training BN has the statistics of this worker's images; a
    single one, which the released code refuses, is normalised by the running statistics.

    Args:
        task: with the channels of two feature maps.
        dim: D, a multiple of ``heads``.
        layers: number of encoder layers, at least 1.
        heads: number of attention heads.
        feedforward: hidden size of the perceptrons.
        attention: what attends to each other: "positions" of an image, or images of a "batch" as in
            the released code.
        peaks: share of positions, more than 0 and at most 1, whose mean is logits_sac; at least one
            position.
        transformer_weight: weight of logits_trans in the score, from 0 to 1; logits_gcn has the
            rest.

    Raises:
        ValueError: where an argument is out of its range or ``task`` has not two feature maps.
    """

    feature_maps = (-2, -1)

    def __init__(
        self,
        task: Task,
        *,
        dim: int = 512,
        layers: int = 3,
        heads: int = 4,
        feedforward: int = 2048,
        attention: str = "positions",
        peaks: float = 0.05,
        transformer_weight: float = 0.7,
    ) -> None:
        super().__init__()
        if len(task.channels) != 2:
            raise ValueError(f"TDRG takes two feature maps, but got channels {task.channels}")
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(f"dim must be a multiple of heads, but got {dim}, {heads}")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, but got {layers}")
        if attention not in AXES:
            raise ValueError(f"attention must be one of {', '.join(AXES)}, but got {attention!r}")
        if not 0 < peaks <= 1:
            raise ValueError(f"peaks must be more than 0 and at most 1, but got {peaks}")
        if not 0 <= transformer_weight <= 1:
            raise ValueError(
                f"transformer_weight must be from 0 to 1, but got {transformer_weight}"
            )
        (channels3, channels4), num_labels = task.channels, len(task.labels)
        self.peaks, self.transformer_weight = peaks, transformer_weight
        self.reduce3 = nn.Conv2d(channels3, dim, 1)
        self.reduce4 = nn.Conv2d(channels4, dim, 1)
        self.reduce5 = nn.Conv2d(channels4, dim, 3, stride=2)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim,
                heads,
                feedforward,
                dropout=0.0,
                activation="gelu",
                batch_first=attention == "positions",  # of (B, P, D) else the first axis attends
            )
            for _ in range(layers)
        )
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.transformer_classifier = nn.Linear(3 * dim, num_labels)
        self.constraint = nn.Linear(channels4, num_labels, bias=False)
        self.map_nodes = nn.Linear(channels4, dim)
        self.encoded_nodes = nn.Linear(dim, dim)
        self.context = nn.Linear(3 * dim, 3 * dim)
        self.context_norm = nn.BatchNorm1d(3 * dim)
        self.correlation = nn.Linear(5 * dim, num_labels)
        self.graph = nn.Linear(2 * dim, 2 * dim)
        self.feature_size = 2 * dim
        self.graph_classifier = GroupLinear(num_labels, 2 * dim)

    def forward(self, map3_BCHW: Tensor, map4_BCHW: Tensor) -> HeadOutput:
        """Compute the score, logits_trans, logits_gcn and logits_sac as auxiliary logits, and G.

        What follows the encoder is in the precision of the weights, under autocast too.
        """
        encoded = [self.encode(scale) for scale in self.cross_scale(map3_BCHW, map4_BCHW)]
        dtype = self.constraint.weight.dtype
        with torch.autocast(map4_BCHW.device.type, enabled=False):
            return self._scores(map4_BCHW.to(dtype), [each_BPD.to(dtype) for each_BPD in encoded])

    def _scores(self, map4_BCHW: Tensor, encoded: Sequence[Tensor]) -> HeadOutput:
        pooled_BX = torch.cat([encoded_BPD.amax(1) for encoded_BPD in encoded], 1)
        transformer_BL = self.transformer_classifier(pooled_BX)
        activation_BLP = self.activation(map4_BCHW)
        count = max(1, round(self.peaks * activation_BLP.shape[2]))
        constraint_BL = activation_BLP.topk(count, 2).values.mean(2)
        node_BLE = self.nodes(map4_BCHW, encoded[1], activation_BLP.sigmoid())
        feature_BLE = self.propagate(node_BLE, self.joint_correlation(encoded, node_BLE))
        graph_BL = self.graph_classifier(feature_BLE)
        weight = self.transformer_weight
        score_BL = weight * transformer_BL + (1 - weight) * graph_BL
        return HeadOutput(score_BL, feature_BLE, (transformer_BL, graph_BL, constraint_BL))

    def cross_scale(self, map3_BCHW: Tensor, map4_BCHW: Tensor) -> list[Tensor]:
        """Compute the three scales with what they have in common, each (B, D, H, W) of its side.

        A last map of fewer than 3 rows or columns, for which the published 3x3 convolution is not
        defined, is filled up with zeros.
        """
        height, width = map4_BCHW.shape[2:]
        filled_BCHW = F.pad(map4_BCHW, (0, max(0, 3 - width), 0, max(0, 3 - height)))
        reduced = [self.reduce3(map3_BCHW), self.reduce4(map4_BCHW), self.reduce5(filled_BCHW)]
        sides = [scale_BDHW.shape[2:] for scale_BDHW in reduced]
        raised = [_resize(scale_BDHW, sides[0]) for scale_BDHW in reduced]
        common_BDHW = raised[0] * raised[1] * raised[2]
        return [_resize(x + common_BDHW, side) for x, side in zip(raised, sides, strict=True)]

    def encode(self, scale_BDHW: Tensor) -> Tensor:
        """Compute the encoder's output for one scale, (B, P, D)."""
        encoded_BPD = scale_BDHW.flatten(2).transpose(1, 2)
        for layer in self.encoder:
            encoded_BPD = layer(encoded_BPD)
        return encoded_BPD

    def activation(self, map4_BCHW: Tensor) -> Tensor:
        """Compute M, (B, L, P)."""
        return self.constraint.weight @ map4_BCHW.flatten(2)

    def nodes(self, map4_BCHW: Tensor, encoded_BPD: Tensor, a_BLP: Tensor) -> Tensor:
        """Compute V, (B, L, 2D), from the map, F4 and sigmoid(M)."""
        map_BLD = a_BLP @ self.map_nodes(map4_BCHW.flatten(2).transpose(1, 2))
        encoded_BLD = self.encoded_nodes((a_BLP @ encoded_BPD).detach())
        return torch.cat((map_BLD, encoded_BLD), 2)

    def joint_correlation(self, encoded: Sequence[Tensor], node_BLE: Tensor) -> Tensor:
        """Compute J transposed, (B, L, L): a row weighs all nodes for the new node of its label."""
        mean_BX = torch.cat([encoded_BPD.mean(1) for encoded_BPD in encoded], 1).detach()
        context_BX = F.leaky_relu(_normalise(self.context_norm, self.context(mean_BX)), SLOPE)
        context_BLX = context_BX[:, None].expand(-1, node_BLE.shape[1], -1)
        return self.correlation(torch.cat((context_BLX, node_BLE), 2)).sigmoid()

    def propagate(self, node_BLE: Tensor, joint_BLL: Tensor) -> Tensor:
        """Compute G, (B, L, 2D)."""
        mixed_BLE = F.leaky_relu(joint_BLL @ node_BLE, SLOPE)
        return F.leaky_relu(self.graph(mixed_BLE), SLOPE) + node_BLE

    def attention_maps(self, map3_BCHW: Tensor, map4_BCHW: Tensor) -> Tensor:
        """Compute a = sigmoid(M), which pools each label's node, (B, L, H, W) of the last map."""
        with torch.autocast(map4_BCHW.device.type, enabled=False):
            a_BLP = self.activation(map4_BCHW.to(self.constraint.weight.dtype)).sigmoid()
        return a_BLP.unflatten(2, map4_BCHW.shape[2:])


def _resize(map_BDHW: Tensor, side: Sequence[int]) -> Tensor:
    if map_BDHW.shape[2:] == side:
        return map_BDHW
    return F.interpolate(map_BDHW, side, mode="bilinear", align_corners=True)


def _normalise(norm: nn.Module, x_BD: Tensor) -> Tensor:
    """Normalise a batch; a single image in training has no variance and takes the running one."""
    if isinstance(norm, nn.BatchNorm1d) and norm.training and x_BD.shape[0] == 1:
        return F.batch_norm(
            x_BD, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    return norm(x_BD)
