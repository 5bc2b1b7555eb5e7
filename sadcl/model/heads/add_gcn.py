r"""ADD-GCN: attention finds a feature for each label, and a graph of the image relates them.

    M = F X,   a = s(M)                                            (semantic attention)
    V_l = sum_p a_lp (T x_p + t)                                   (a feature for each label)
    H = V + lrelu(R lrelu(K V) + r)                                (a static graph K of the labels)
    g = mean_l H_l,   g' = lrelu(BN(Wg g + bg))
    J_(.,l) = s(Wc [g'; H_l] + bc)                                 (dynamic graph of the image)
    Z_l = lrelu(sum_m J_ml H_m),   G_l = V_l + lrelu(Wd Z_l + bd)
    logits = (max_p M_lp + w_l . G_l + b_l) / 2

X with the columns x_p is the feature map, s the sigmoid, lrelu has the slope 0.2, [;] concatenates.
K mixes labels; R, T and the Ws act on the channels of each label.

Axes: B images, C channels, H, W height and width of the feature map, P = H * W positions, L and M
labels, D size of a label's feature.

Source: Ye, He, Peng, Wu, Qiao, Attention-Driven Dynamic Graph Convolutional Network for Multi-Label
Image Recognition, ECCV 2020, and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sarl import GroupLinear

SLOPE = 0.2


class DynamicGraph(nn.Module):
    """A static graph of the labels, then one that each image gives itself.

    Args:
        num_labels: L.
        dim: D.
    """

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        bound = num_labels**-0.5
        self.static_LL = nn.Parameter(torch.empty(num_labels, num_labels).uniform_(-bound, bound))
        self.static_weight = nn.Linear(dim, dim)
        self.global_weight = nn.Linear(dim, dim)
        self.global_norm = nn.BatchNorm1d(dim)
        self.co_occurrence = nn.Linear(2 * dim, num_labels)
        self.dynamic_weight = nn.Linear(dim, dim)

    def forward(self, nodes_BLD: Tensor) -> Tensor:
        """Turn the labels' features V into the graph's output lrelu(Wd Z + bd), (B, L, D)."""
        nodes_BLD = nodes_BLD + self.static(nodes_BLD)
        return self.dynamic(nodes_BLD, self.adjacency(nodes_BLD))

    def static(self, nodes_BLD: Tensor) -> Tensor:
        """Compute lrelu(R lrelu(K V) + r)."""
        mixed_BLD = functional.leaky_relu(self.static_LL @ nodes_BLD, SLOPE)
        return functional.leaky_relu(self.static_weight(mixed_BLD), SLOPE)

    def adjacency(self, nodes_BLD: Tensor) -> Tensor:
        """Compute the dynamic matrix J from H, (B, M, L)."""
        global_BD = self._norm(self.global_weight(nodes_BLD.mean(1)))
        global_BLD = functional.leaky_relu(global_BD, SLOPE)[:, None].expand_as(nodes_BLD)
        rows_BLM = self.co_occurrence(torch.cat([global_BLD, nodes_BLD], 2))
        return rows_BLM.sigmoid().transpose(1, 2)

    def _norm(self, global_BD: Tensor) -> Tensor:
        """Compute BN; a single image has no statistics, and gets the running ones."""
        norm = self.global_norm
        is_alone = global_BD.shape[0] == 1 and not isinstance(norm, nn.SyncBatchNorm)
        if self.training and is_alone:  # a synchronised one has the other workers' images
            mean_D, variance_D = norm.running_mean, norm.running_var
            return functional.batch_norm(
                global_BD, mean_D, variance_D, norm.weight, norm.bias, eps=norm.eps
            )
        return norm(global_BD)

    def dynamic(self, nodes_BLD: Tensor, adjacency_BML: Tensor) -> Tensor:
        """Compute lrelu(Wd lrelu(sum_m J_ml H_m) + bd)."""
        mixed_BLD = functional.leaky_relu(adjacency_BML.transpose(1, 2) @ nodes_BLD, SLOPE)
        return functional.leaky_relu(self.dynamic_weight(mixed_BLD), SLOPE)


class ADDGCN(nn.Module):
    """Semantic attention, the dynamic graph, and the mean of both branches' logits.

    In training the graph's BatchNorm takes its statistics from the images of this worker, so that
    gradients depend on how a batch is divided among workers. Of a single image, which the released
    code refuses, it takes the running statistics.

    Args:
        task: what the head is built for.
        hidden: D.

    Raises:
        ValueError: for ``hidden`` below 1.
    """

    def __init__(self, task: Task, *, hidden: int = 1024) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, but got {hidden}")
        channels, num_labels = task.channels[-1], len(task.labels)
        self.activation = nn.Linear(channels, num_labels, bias=False)
        self.transform = nn.Linear(channels, hidden)
        self.graph = DynamicGraph(num_labels, hidden)
        self.feature_size = hidden
        self.classifier = GroupLinear(num_labels, hidden)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map (B, C, H, W) into (B, L) logits and (B, L, D) features G.

        Under autocast both branches' logits stay in the precision of the weights: in bfloat16 many
        would be equal.
        """
        scores_BLP = self.scores(map_BCHW)
        nodes_BLD = self.nodes(map_BCHW, scores_BLP)
        features_BLD = nodes_BLD + self.graph(nodes_BLD)
        with torch.autocast(map_BCHW.device.type, enabled=False):
            features_BLD = features_BLD.to(self.classifier.weight_LD.dtype)
            logits_BL = (scores_BLP.max(2).values + self.classifier(features_BLD)) / 2
        return HeadOutput(logits_BL, features_BLD)

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute a, (B, L, H, W), in the precision of the weights; each value is from 0 to 1."""
        return self.scores(map_BCHW).sigmoid().unflatten(2, map_BCHW.shape[2:])

    def scores(self, map_BCHW: Tensor) -> Tensor:
        """Compute the activation maps M, (B, L, P), in the precision of the weights."""
        with torch.autocast(map_BCHW.device.type, enabled=False):
            weight_LC = self.activation.weight
            return weight_LC @ map_BCHW.flatten(2).to(weight_LC.dtype)

    def nodes(self, map_BCHW: Tensor, scores_BLP: Tensor) -> Tensor:
        """Compute the labels' features V, (B, L, D)."""
        positions_BPD = self.transform(map_BCHW.flatten(2).transpose(1, 2))
        return scores_BLP.sigmoid() @ positions_BPD
