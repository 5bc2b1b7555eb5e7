r"""Query2Label: learnable label queries pool the feature map by cross-attention.

    F = Encoder(X, PE)                                     (X: the feature map, 1x1-convolved to D)
    Q = Decoder(F, queries, PE)                            (a representation for each label)
    logit_l = sum(W_l * Q_l) + b_l

SADCL took over its released code, whose decoder has no self-attention between labels, and added
both contrasts. The head without them is therefore SARL, at Query2Label's own sizes.

Source: Liu, Zhang, Yang, Su, Zhu, Query2Label: A Simple Transformer Way to Multi-Label
Classification, 2021, arXiv 2107.10834, and its released code.
"""

from __future__ import annotations

from sadcl.model.heads.head import Task
from sadcl.model.heads.sarl import SARL


class Query2Label(SARL):
    """A transformer whose decoder has one query for each label, and one classifier for each.

    Arguments and errors are those of :class:`~sadcl.model.heads.sarl.SARL`, with the published
    sizes.
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
        super().__init__(
            task,
            hidden=hidden,
            position=position,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
            checkpointing=checkpointing,
        )
