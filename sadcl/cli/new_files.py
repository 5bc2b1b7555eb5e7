"""The files that ``sadcl new`` writes, with ``$name`` for what differs between them."""

from __future__ import annotations

from string import Template

_COMMANDS = '''
The first command trains a small network on $demo_data, in minutes on a laptop.
The second prints the plan at full scale, and the third lists what can be changed:

sadcl run $file$demo_flags
sadcl run $file --data-root $root --dry-run
sadcl config fields
"""
'''

FOLDER_HINT = """\
# For some hundreds of images, append .override(recipes.FEW) to the base. Its ImageNet
# weights are downloaded; without a network, pass --set model.weights=FILE.
"""
"""What stands above the base of an experiment on images of one's own."""

SEARCH = Template(
    '''"""Which temperature, learning rate and memory bank serve best on $title?
'''
    + _COMMANDS
    + """
from sadcl import Search, main, recipes
from sadcl.search import ASHA, Choice, Float, Int, When

# A recipe has a value for each field, and override changes some of them.
${hint}base = $base
demo = $demo

search = Search(
    name="$name",  # of the study in the tables
    question="Which temperature, learning rate and memory bank serve best?",
    base=base,  # with --data-root
    demo=demo,  # without it
    # A trial draws these fields; all others are those of the base.
    space={
        "loss.tau": Float(0.05, 0.5, log=True),
        "stage2.lr": Float(1e-5, 1e-2, log=True),
        "bank.policy": Choice("slot", "fifo"),
        "bank.size": When("bank.policy", "fifo", Int(4, 64, log=True)),
    },
    n_trials=40,
    n_demo_trials=4,
    # Of the trials that have trained for as many epochs, the best third goes on.
    pruner=ASHA(min_epochs=2, reduction=3),
    # Held-out images choose the best setting. It and the control without contrasts are
    # trained again over these seeds, and only then are the test images looked at.
    confirm_top=1,
    confirm_seeds=(1001, 1002, 1003),
)

if __name__ == "__main__":
    main(search)
"""
)

ABLATION = Template(
    '''"""What does each contrast bring on $title?
'''
    + _COMMANDS
    + """
from sadcl import Ablation, main, recipes

# A recipe has a value for each field, and override changes some of them.
${hint}base = $base
demo = $demo

ablation = Ablation(
    name="$name",  # of the study in the tables
    question="What does each contrast bring beyond stage 2 without contrasts?",
    base=base,  # with --data-root
    demo=demo,  # without it
    # An arm changes these fields of the base.
    arms={
        "pooled": {"model.head": "sadcl.model.heads:Pooled"},
        "no contrast": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
        "sample contrast": {"loss.prototype_weight": 0.0},
        "prototype contrast": {"loss.sample_weight": 0.0},
        "both": {},
    },
    # The others are compared with this arm, in pairs over the same seeds.
    baseline="no contrast",
    seeds=(0, 1, 2),
)

if __name__ == "__main__":
    main(ablation)
"""
)

HEAD = Template(
    '''"""A head and a class loss of my own.

Any experiment takes them (`sadcl new FILE` writes one), and the last command lists the
arguments, which a search can draw too:

sadcl run FILE --set model.head=$name:LabelAttention
sadcl run FILE --set stage1.class_loss.kind=$name:focal
sadcl config fields $name:LabelAttention

Axes: B images, C channels, H, W the map's sides, N = H * W cells, L labels, D feature.
"""

import torch
from sadcl.model import HeadOutput, Task
from torch import Tensor, nn
from torch.nn import functional as F


class LabelAttention(nn.Module):
    """Each label attends to the cells of the feature map, and classifies what it finds.

    Args:
        task: channels of the feature maps, and names and co-occurrence of the labels.
        dim: D.
        dropout: probability that a feature is zero in training.
    """

    def __init__(self, task: Task, *, dim: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        num_labels = len(task.labels)
        self.feature_size = dim  # with it, the contrasts and the bank use the features
        self.reduce = nn.Conv2d(task.channels[-1], dim, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.query_LD = nn.Parameter(torch.randn(num_labels, dim) / dim**0.5)
        self.weight_LD = nn.Parameter(torch.randn(num_labels, dim) / dim**0.5)
        self.bias_L = nn.Parameter(torch.zeros(num_labels))

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        cells_BDN = self.reduce(map_BCHW).flatten(2)
        attention_BLN = (self.query_LD @ cells_BDN).softmax(2)
        features_BLD = self.dropout(attention_BLN @ cells_BDN.transpose(1, 2))
        with torch.autocast(map_BCHW.device.type, enabled=False):  # not in bfloat16
            features_BLD = features_BLD.to(self.weight_LD.dtype)
            logits_BL = (features_BLD * self.weight_LD).sum(2) + self.bias_L
        return HeadOutput(logits_BL, features_BLD)


def focal(
    logits_BL: Tensor, targets_BL: Tensor, weight_B: Tensor, *, gamma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy in which a label that is nearly right counts less.

    A target is 1, 0 or -1 (ignored); the weight of a padding image is 0. Returns the
    sum over images and labels, and the number of images; the platform divides.
    """
    sign_BL = 2.0 * (targets_BL == 1) - 1
    plain_BL = -F.logsigmoid(sign_BL * logits_BL)
    loss_BL = (1 - (-plain_BL).exp()) ** gamma * plain_BL * (targets_BL >= 0)
    return (loss_BL.sum(1) * weight_B).sum(), weight_B.sum()
'''
)
