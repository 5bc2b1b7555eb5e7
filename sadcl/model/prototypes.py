"""The category prototypes of section 3.5: what they are given alike on every worker, they hold alike on every worker.

Axes: L labels, D hidden size, A activated rows of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sadcl.memory import Rows


class Prototypes(nn.Module):
    """One un-projected representation for each label, and whether it exists yet.

    Args:
        labels: L.
        dim: D.
        policy: ``mean`` (Eq. 5: the mean of the rows admitted in an epoch, swapped in at its end), ``ema`` (moving
            average of each step's means) or ``learned`` (a parameter, initialised by the mean).
        momentum: of ``ema``.

    Raises:
        ValueError: for another policy, or a momentum outside [0, 1).
    """

    rows_LD: Tensor
    valid_L: Tensor
    sum_LD: Tensor
    count_L: Tensor

    def __init__(
        self, labels: int, dim: int, *, policy: str = "mean", momentum: float = 0.99
    ) -> None:
        super().__init__()
        if policy not in ("mean", "ema", "learned"):
            raise ValueError(f"policy must be mean, ema or learned, but got {policy!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"0 <= momentum < 1 must hold, but got {momentum}")
        self.policy, self.momentum = policy, momentum
        rows_LD = torch.zeros(labels, dim)
        if policy == "learned":
            self.rows_LD = nn.Parameter(rows_LD)
        else:
            self.register_buffer("rows_LD", rows_LD)
        self.register_buffer("valid_L", torch.zeros(labels, dtype=torch.bool))
        self.register_buffer("sum_LD", torch.zeros(labels, dim, dtype=torch.float64))
        self.register_buffer("count_L", torch.zeros(labels, dtype=torch.int64))
        self.settled = False
        """True where no admitted row changes them any more: each is learned, and there; found at the ends of epochs."""

    def read(self) -> tuple[Tensor, Tensor]:
        """Rows (L, D), zero where there is none, and which are valid (L,)."""
        return self.rows_LD, self.valid_L

    @torch.no_grad()
    def accumulate(self, rows: Rows, epsilon: float) -> None:
        """Add the rows that ``epsilon`` admits to the sums of Eq. 5."""
        sum_LD, count_L = self._sums(rows, epsilon)
        self.sum_LD += sum_LD
        self.count_L += count_L

    @torch.no_grad()
    def start_from_accumulated(self) -> None:
        """Make the accumulated means the prototypes (Eq. 5) and empty the sums."""
        seen_L = self.count_L > 0
        mean_LD = self.sum_LD / self.count_L.clamp(min=1)[:, None]
        self.rows_LD.copy_(torch.where(seen_L[:, None], mean_LD, self.rows_LD))
        self.valid_L |= seen_L
        self.sum_LD.zero_()
        self.count_L.zero_()
        self._settle()

    @torch.no_grad()
    def update(self, rows: Rows, epsilon: float) -> Tensor:
        """Take in those of a step's rows that ``epsilon`` admits.

        Returns:
            (L,) bool, True where a prototype came to be in this step.
        """
        if self.policy == "mean":
            self.accumulate(rows, epsilon)
            return torch.zeros_like(self.valid_L)
        sum_LD, count_L = self._sums(rows, epsilon)
        seen_L = count_L > 0
        mean_LD = sum_LD / count_L.clamp(min=1)[:, None]
        new_L = seen_L & ~self.valid_L
        rows_LD = torch.where(new_L[:, None], mean_LD, self.rows_LD)
        if self.policy == "ema":
            old_L = seen_L & self.valid_L
            rows_LD = torch.where(
                old_L[:, None], torch.lerp(mean_LD, rows_LD, self.momentum), rows_LD
            )
        self.rows_LD.copy_(rows_LD)
        self.valid_L |= new_L
        return new_L

    def end_epoch(self) -> None:
        """Swap in the epoch's means (``mean``); a label that nothing was admitted for keeps what it had."""
        if self.policy == "mean":
            self.start_from_accumulated()
        self._settle()

    def zero_moments(self, optimizer: Optimizer, new_L: Tensor) -> None:
        """Forget AdamW's moments of prototypes that came to be in this step."""
        if self.policy != "learned" or self.rows_LD not in optimizer.state:
            return
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            if name in optimizer.state[self.rows_LD]:
                optimizer.state[self.rows_LD][name].masked_fill_(new_L[:, None], 0)

    def _settle(self) -> None:
        self.settled = self.policy == "learned" and bool(self.valid_L.all())

    def _sums(self, rows: Rows, epsilon: float) -> tuple[Tensor, Tensor]:
        """Sum and number a label; every worker adds the same rows in the same order."""
        # Accumulating by index_put sorts on a GPU; index_add would add in whatever order its threads come.
        sum_LD = torch.zeros_like(self.sum_LD)
        admitted_AD = torch.where(
            (rows.score_A >= epsilon)[:, None], rows.features_AD.double(), 0.0
        )
        sum_LD.index_put_((rows.label_A,), admitted_AD, accumulate=True)
        return sum_LD, rows.per_label(len(self.valid_L), epsilon)
