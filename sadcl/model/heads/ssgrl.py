r"""SSGRL: word vectors guide attention to each label's feature, and a gated graph relates them.

    x_p: the feature map, average-pooled 2x2 with stride 2
    z_pl = tanh(W1 x_p * W2 w_l)                                   (w_l: the label's word vector)
    f_l = sum_p softmax_p(wa . W3 z_pl) x_p                        (semantic decoupling)
    o_l = tanh(Wo [h_l; f_l] + bo),   logit_l = v_l . o_l + beta_l

h starts as f and is updated for some steps, for all labels together (semantic interaction):

    a_l = [sum_m A_lm h_m; sum_m A_ml h_m]
    z_l = s(W3' a_l + U3 h_l),   r_l = s(W4' a_l + U3 h_l),   c_l = tanh(W5' a_l + U5 (r_l * h_l))
    h_l <- (1 - z_l) * h_l + z_l * c_l

A_lm is the share of the training images with label l that also have label m, A_ll = 0; s is the
sigmoid, * is element-wise, [;] concatenates. All W', U, with their biases, and Wo act on the
channels of each label. As in the released code, both gates have the same U3. The biases that it has
at W3 and wa are left out: they shift the scores of a label at all positions alike, and the softmax
removes that.

Axes: B images, C channels, H, W height and width of the feature map, P positions of the pooled map,
L labels, E numbers of a word vector, I size of z, D size of a label's feature.

Source: Chen, Xu, Hui, Wu, Lin, Learning Semantic-Specific Graph Representation for Multi-Label
Image Recognition, ICCV 2019, and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sarl import GroupLinear
from sadcl.model.heads.word_vectors import label_vectors


class SemanticAttention(nn.Module):
    """Weights over the positions for each label, from its word vector.

    Args:
        channels: C.
        word_dim: E.
        joint: I.
    """

    def __init__(self, channels: int, word_dim: int, joint: int) -> None:
        super().__init__()
        self.visual = nn.Linear(channels, joint, bias=False)
        self.semantic = nn.Linear(word_dim, joint, bias=False)
        self.transform = nn.Linear(joint, joint, bias=False)
        self.score = nn.Linear(joint, 1, bias=False)

    def forward(self, positions_BPC: Tensor, word_vectors_LE: Tensor) -> Tensor:
        """Compute the weights, (B, L, P); those of a label sum to 1.

        wa . (W3 z) is computed as (wa W3) . z: nothing is between them, and I times fewer products
        are needed for each position and label.
        """
        visual_B1PI = self.visual(positions_BPC)[:, None]
        semantic_L1I = self.semantic(word_vectors_LE)[:, None]
        joint_BLPI = (visual_B1PI * semantic_L1I).tanh()
        score_I = (self.score.weight @ self.transform.weight)[0]
        return (joint_BLPI @ score_I).softmax(2)


class GatedGraph(nn.Module):
    """The gated update of the labels' states.

    Args:
        channels: C.
        steps: number of updates.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.update_message = nn.Linear(2 * channels, channels)
        self.reset_message = nn.Linear(2 * channels, channels)
        self.candidate_message = nn.Linear(2 * channels, channels)
        self.gate_state = nn.Linear(channels, channels)
        self.candidate_state = nn.Linear(channels, channels)

    def forward(self, states_BLC: Tensor, adjacency_LL: Tensor) -> Tensor:
        """Turn the labels' features f into their states after the last step, (B, L, C)."""
        both_RL = torch.cat([adjacency_LL, adjacency_LL.T])  # R = 2 L: along A, then against it
        for _ in range(self.steps):
            outgoing_BLC, incoming_BLC = (both_RL @ states_BLC).chunk(2, 1)
            message_BLX = torch.cat([outgoing_BLC, incoming_BLC], 2)  # X = 2 C
            gate_BLC = self.gate_state(states_BLC)
            update_BLC = (self.update_message(message_BLX) + gate_BLC).sigmoid()
            reset_BLC = (self.reset_message(message_BLX) + gate_BLC).sigmoid()
            candidate_BLC = self.candidate_state(reset_BLC * states_BLC)
            candidate_BLC = (self.candidate_message(message_BLX) + candidate_BLC).tanh()
            states_BLC = (1 - update_BLC) * states_BLC + update_BLC * candidate_BLC
        return states_BLC


class SSGRL(nn.Module):
    """Semantic decoupling, semantic interaction, and a classifier for each label.

    Args:
        task: what the head is built for.
        joint: I.
        hidden: D.
        steps: number of updates of the graph, at least 1.
        word_vectors: file of word vectors, see :func:`~sadcl.model.heads.word_vectors.read_vectors`
            (GloVe's in the published runs); None for random ones.
        word_dim: E.
        word_vectors_seed: of the random ones.

    Raises:
        ValueError: for an argument out of its range.
        UserError: where the file is not what it should be.
    """

    def __init__(
        self,
        task: Task,
        *,
        joint: int = 1024,
        hidden: int = 2048,
        steps: int = 3,
        word_vectors: str | None = None,
        word_dim: int = 300,
        word_vectors_seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"joint": joint, "hidden": hidden, "word_dim": word_dim}
        for name, size in {**sizes, "steps": steps}.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, but got {size}")
        vectors_LE = label_vectors(task, word_vectors, dim=word_dim, seed=word_vectors_seed)
        dtype, channels = torch.get_default_dtype(), task.channels[-1]
        self.word_vectors_LE: Tensor
        self.register_buffer("word_vectors_LE", vectors_LE.to(dtype))
        self.adjacency_LL: Tensor
        self.register_buffer("adjacency_LL", conditional(task.co_occurrence_LL).to(dtype))
        self.attention = SemanticAttention(channels, word_dim, joint)
        self.graph = GatedGraph(channels, steps)
        self.output = nn.Linear(2 * channels, hidden)
        self.feature_size = hidden
        self.classifier = GroupLinear(len(task.labels), hidden)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map (B, C, H, W) into (B, L) logits and (B, L, D) features o.

        Under autocast the logits stay in the precision of the weights: in bfloat16 many would be
        equal.
        """
        features_BLC, _ = self.decouple(map_BCHW)
        states_BLC = self.graph(features_BLC, self.adjacency_LL)
        output_BLD = self.output(torch.cat([states_BLC, features_BLC], 2))
        with torch.autocast(map_BCHW.device.type, enabled=False):
            output_BLD = output_BLD.to(self.classifier.weight_LD.dtype).tanh()
            return HeadOutput(self.classify(output_BLD), output_BLD)

    def classify(self, features_BLD: Tensor) -> Tensor:
        """Compute the logits (B, L) of label-level features."""
        logits_BL: Tensor = self.classifier(features_BLD)
        return logits_BL

    def decouple(self, map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the labels' features f, (B, L, C), and the weights of attention, (B, L, P)."""
        positions_BPC = pooled(map_BCHW).flatten(2).transpose(1, 2)
        weights_BLP = self.attention(positions_BPC, self.word_vectors_LE)
        return weights_BLP @ positions_BPC, weights_BLP

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute the weight of each position of the map before its pooling, (B, L, H, W).

        The positions of a 2x2 cell share its weight, so that the weights sum to 1. A last row or
        column that no cell has gets 0.
        """
        height, width = map_BCHW.shape[2:]
        with torch.autocast(map_BCHW.device.type, enabled=False):
            map_BCHW = map_BCHW.to(self.classifier.weight_LD.dtype)
            _, weights_BLP = self.decouple(map_BCHW)
        rows, columns = cell(height, width)
        weights_BLHW = weights_BLP.unflatten(2, (height // rows, width // columns))
        weights_BLHW = weights_BLHW.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
        return functional.pad(weights_BLHW, (0, width % columns, 0, height % rows)) / rows / columns


def conditional(co_occurrence_LL: Tensor) -> Tensor:
    """Compute A_lm, the share of the images with label l that also have m, and 0 for l = m.

    Args:
        co_occurrence_LL: images with both labels; the diagonal has those with each label.

    Returns:
        (L, L) in float64; a label that no image has gets a row of zeros.
    """
    counts_LL = co_occurrence_LL.double()
    share_LL = counts_LL / counts_LL.diagonal()[:, None].clamp_min(1)
    return share_LL - share_LL.diagonal().diag()


def cell(height: int, width: int) -> tuple[int, int]:
    """Rows and columns that are pooled to one: 2, or 1 where a map has no more."""
    return min(height, 2), min(width, 2)


def pooled(map_BCHW: Tensor) -> Tensor:
    """Average-pool a map 2x2 with stride 2; a last row or column of an odd side is left out."""
    size = cell(*map_BCHW.shape[2:])
    return functional.avg_pool2d(map_BCHW, size, size)
