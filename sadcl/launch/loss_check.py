"""The losses of a configuration, tried before anything is reserved."""

from __future__ import annotations

import torch

from sadcl import build
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.errors import UserError, first_line_of
from sadcl.losses.criterion import Criterion
from sadcl.memory import Memory
from sadcl.model import Output


def check_losses(config: Config) -> None:
    """Check that the class loss of each stage and the contrast are there and take their arguments.

    Raises:
        UserError: where they are not.
    """
    for stage in (1, 2):
        _try(build.criterion(config, stage, contrast=False), f"stage{stage}.class_loss")
    if config.stage2.epochs and config.loss.sample_weight > 0:
        _try(build.criterion(config, 2, contrast=True), f"loss.contrast = {config.loss.contrast!r}")


def _try(losses: Criterion, field: str) -> None:
    """Compute losses of two images with two labels each, and their gradient.

    Raises:
        UserError: with the field, where that fails.
    """
    x_BLP = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets_BL = torch.ones(2, 2, dtype=torch.int8)
    index_A = torch.arange(2)
    output = Output(x_BLP.sum(2), x_BLP, x_BLP, x_BLP[0], x_BLP[1], torch.ones(2, dtype=torch.bool))
    batch = Batch(torch.zeros(2, 3, 1, 1), targets_BL, torch.ones(2), index_A, 0)
    try:
        losses(output, batch, Memory(x_BLP.detach()[0], index_A, index_A)).loss.backward()
    except Exception as error:
        reason = first_line_of(error)
        raise UserError(
            f"{field} fails on two images with two labels: {type(error).__name__}: {reason}"
        ) from None
