"""Where a study runs and how much of it: the options of every start."""

from __future__ import annotations

from dataclasses import dataclass

from sadcl.errors import UserError


@dataclass(frozen=True)
class Options:
    """Where and how much, as :func:`run` takes it."""

    storage: str = "runs"
    address: str | None = None
    workers: int = 1
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    trials: int | None = None
    max_epochs: int | None = None
    max_hours: float | None = None
    max_disk: float | None = None
    retry_failed: bool = False
    fresh: bool = False
    dry_run: bool = False
    yes: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.workers, str):
            raise UserError(
                f"--workers {self.workers} is not possible here: the runs of a study have one fixed number of workers, as in "
                "--workers 2. Ranges are for single runs (experiments/train_coco.py, sadcl.train)."
            )
        for name in ("workers", "max_concurrent", "trials", "max_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value} is not possible: at least 1.")
        for name in ("max_hours", "max_disk"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(
                    f"--{name.replace('_', '-')} {value:g} is not possible: more than 0."
                )


def parse_workers(text: str | int) -> tuple[int, int]:
    """``8`` workers, or ``2:8``, as many of them as there is room for: the least, and the most or 0 for a fixed number.

    Raises:
        UserError: for something else.
    """
    least, colon, most = str(text).partition(":")
    try:
        found = int(least), int(most) if colon else 0
    except ValueError:
        raise UserError(
            f"--workers {text} is not possible: give a number, or a range such as 2:8."
        ) from None
    if found[0] < 1:
        raise UserError(f"--workers {text} is not possible: at least 1.")
    if colon and found[1] <= found[0]:
        raise UserError(
            f"--workers {text} is not possible: the second number is the larger one, as in 2:8."
        )
    return found
