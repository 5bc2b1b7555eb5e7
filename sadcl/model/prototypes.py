r"""The category prototypes (section 3.5).

    C_j = (1 / N_j) \sum_i Q_ij [score(Q_ij) >= epsilon] [y_ij = 1]                  (Eq. 5)

Q_ij is the un-projected representation of image i and label j, N_j the number of rows that are
admitted (both brackets hold). The paper's N_j may be read otherwise; here it counts admitted rows.

Every worker updates them by the same rows of the global batch in the same order, and so holds the
same bits.

Axes: L labels, D hidden size, A activated rows of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sadcl.memory import ActivatedRows


class Prototypes(nn.Module):
    """One un-projected representation for each label, and whether it exists yet.

    Args:
        num_labels: L.
        dim: D.
        policy: ``mean`` (Eq. 5: the mean of the rows admitted during an epoch, swapped in at its
            end), ``ema`` (moving average of each step's means) or ``learned`` (a parameter that
            starts as the mean).
        momentum: of ``ema``, 0 <= momentum < 1.

    Raises:
        ValueError: for an unknown policy, or a momentum outside [0, 1).
    """

    rows_LD: Tensor
    valid_L: Tensor
    sum_LD: Tensor
    count_L: Tensor

    def __init__(
        self, num_labels: int, dim: int, *, policy: str = "mean", momentum: float = 0.99
    ) -> None:
        super().__init__()
        if policy not in ("mean", "ema", "learned"):
            raise ValueError(f"policy must be mean, ema or learned, but got {policy!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"0 <= momentum < 1 must hold, but got {momentum}")
        self.policy, self.momentum = policy, momentum
        rows_LD = torch.zeros(num_labels, dim)
        if policy == "learned":
            self.rows_LD = nn.Parameter(rows_LD)
        else:
            self.register_buffer("rows_LD", rows_LD)
        self.register_buffer("valid_L", torch.zeros(num_labels, dtype=torch.bool))
        self.register_buffer("sum_LD", torch.zeros(num_labels, dim, dtype=torch.float64))
        self.register_buffer("count_L", torch.zeros(num_labels, dtype=torch.int64))
        self.needs_rows = True
        """Whether admitted rows still change anything; False once each label has a learned one.

        It is updated at the end of an epoch only, because the host waits for it."""

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the rows (L, D), zero for a label without one, and which are valid (L,)."""
        return self.rows_LD, self.valid_L

    @torch.no_grad()
    def accumulate(self, rows: ActivatedRows, epsilon: float) -> None:
        """Add the rows with score >= epsilon to the sums of Eq. 5."""
        sum_LD, count_L = self._sums(rows, epsilon)
        self.sum_LD += sum_LD
        self.count_L += count_L

    @torch.no_grad()
    def start_from_accumulated(self) -> None:
        """Make the accumulated means the prototypes (Eq. 5) and empty the sums.

        A label without an accumulated row keeps its prototype.
        """
        seen_L = self.count_L > 0
        mean_LD = self.sum_LD / self.count_L.clamp(min=1)[:, None]
        self.rows_LD.copy_(torch.where(seen_L[:, None], mean_LD, self.rows_LD))
        self.valid_L |= seen_L
        self.sum_LD.zero_()
        self.count_L.zero_()
        self._update_needs_rows()

    @torch.no_grad()
    def update(self, rows: ActivatedRows, epsilon: float) -> Tensor:
        """Take in those rows of a step that have score >= epsilon.

        Returns:
            (L,) bool, True for a label that got its first prototype in this step.
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
        """Swap in the epoch's means (``mean``); a label without an admitted row keeps its own."""
        if self.policy == "mean":
            self.start_from_accumulated()
        self._update_needs_rows()

    def zero_moments(self, optimizer: Optimizer, new_L: Tensor) -> None:
        """Zero AdamW's moments of the learned prototypes that are new in this step."""
        if self.policy != "learned" or self.rows_LD not in optimizer.state:
            return
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            if name in optimizer.state[self.rows_LD]:
                optimizer.state[self.rows_LD][name].masked_fill_(new_L[:, None], 0)

    @torch.no_grad()
    def take_rows(self, other: Prototypes, new_L: Tensor) -> None:
        """Copy the rows of some labels from other prototypes."""
        self.rows_LD.copy_(torch.where(new_L[:, None], other.rows_LD, self.rows_LD))

    def _update_needs_rows(self) -> None:
        self.needs_rows = not (self.policy == "learned" and bool(self.valid_L.all()))

    def _sums(self, rows: ActivatedRows, epsilon: float) -> tuple[Tensor, Tensor]:
        """Sum and number of the admitted rows of each label; the same order on every worker."""
        # index_put with accumulate sorts on a GPU; index_add would add in the order of its threads.
        sum_LD = torch.zeros_like(self.sum_LD)
        admitted_AD = torch.where(
            (rows.scores_A >= epsilon)[:, None], rows.features_AD.double(), 0.0
        )
        sum_LD.index_put_((rows.labels_A,), admitted_AD, accumulate=True)
        return sum_LD, rows.count_per_label(len(self.valid_L), epsilon)
