"""The workers, CPUs and GPUs of a run."""

from __future__ import annotations

import math
import os

import torch

from sadcl import storage
from sadcl.errors import UserError
from sadcl.launch.options import StartOptions
from sadcl.study.gpu_driver import read_gpu_driver
from sadcl.study.placement import Placement, fit_to_cluster

TIMEOUT = "SADCL_TIMEOUT_SECONDS"
"""Environment variable: seconds that a worker may keep the others waiting (default: 600)."""


def _timeout() -> int:
    text = os.environ.get(TIMEOUT, "600")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{TIMEOUT} = {text!r} is not possible: give whole seconds, at least 1.")
    return int(text)


def make_placement(
    options: StartOptions,
    scale: str,
    data_root: str | None,
    *,
    workers: int,
    up_to: int = 0,
    at_once: int = 1,
) -> Placement:
    """Decide where a run runs and what each of its workers gets.

    On a private cluster a trial that this machine has no room for is refused now. On a cluster that
    is joined the CPUs are an upper limit, which :func:`sadcl.study.placement.fit_to_cluster` lowers
    to what its nodes have.

    Args:
        options: Those of the start.
        scale: ``demo`` or ``full``.
        data_root: Where the run's data set is; None for the drawn scenes.
        workers: Training processes.
        up_to: Most training processes where the number is a range; 0 for a fixed number.
        at_once: Runs that are to find room at once on the CPUs of this machine, if it has as many.

    Raises:
        UserError: For a number of workers or GPUs that is not possible.
    """
    is_remote = _is_remote(options.address)
    local_gpus = torch.cuda.device_count()
    gpus = options.gpus_per_worker
    if gpus is None and scale == "full" and not local_gpus and not is_remote:
        _check_unused_gpu()
    if gpus is None:
        gpus = 1.0 if local_gpus or (is_remote and scale == "full") else 0.0
    _check_gpus(gpus, max(workers, up_to))
    if gpus and not local_gpus and not is_remote:
        raise UserError(
            f"--gpus-per-worker {gpus:g} is not possible: PyTorch {torch.__version__} sees no GPU "
            f"on this machine{_driver_problem()}. Check the driver and CUDA_VISIBLE_DEVICES, pass "
            "--gpus-per-worker 0 to train on the CPU, or join a cluster with --address."
        )
    if not is_remote:
        trial = Placement(options.storage, None, scale, workers, 1, gpus)
        fit_to_cluster(trial, _this_machine())
    cpus = 1
    if scale == "full":
        share = max(int(local_gpus / gpus), workers) if gpus and local_gpus else workers * at_once
        cpus = 8 if is_remote else max(1, min(8, (os.cpu_count() or 1) // share))
    root = storage.absolute(data_root) if data_root is not None else None
    return Placement(
        storage.absolute(options.storage), root, scale, workers, cpus, gpus, up_to, _timeout()
    )


def _driver_problem() -> str:
    """Why PyTorch cannot use the GPU of this machine, if it has one and that is known."""
    gpu = read_gpu_driver()
    return f" ({gpu.problem()})" if gpu.driver and gpu.problem() else ""


def _check_unused_gpu() -> None:
    """Refuse to train for days on the CPU of a machine whose GPU only lacks the right driver."""
    if problem := _driver_problem():
        raise UserError(
            f"PyTorch {torch.__version__} cannot use the GPU of this machine{problem}. Pass "
            "--gpus-per-worker 0 to train on the CPU all the same."
        )


def _check_gpus(gpus: float, workers: int) -> None:
    if 1 < gpus < math.inf:
        raise UserError(
            f"--gpus-per-worker {gpus:g} is not possible: a worker computes on one GPU and would "
            f"leave the others idle. To train each run on {math.ceil(gpus)} GPUs, give --workers "
            f"{math.ceil(gpus)} and --gpus-per-worker 1."
        )
    if not 0 <= gpus <= 1:
        raise UserError(
            f"--gpus-per-worker {gpus:g} is not possible: give 0 (the CPU), 1, or a fraction such "
            "as 0.25, with which runs share a GPU."
        )
    if workers > 1 and 0 < gpus < 1:
        raise UserError(
            f"--gpus-per-worker {gpus:g} is not possible with {workers} workers: each of several "
            "workers needs a whole GPU."
        )


def _is_remote(address: str | None) -> bool:
    """Whether a cluster is joined instead of a private one started on this machine."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def trials_at_once(placement: Placement, address: str | None) -> int | None:
    """The number of trials that fit on a private cluster at once; None for one that is joined."""
    if _is_remote(address):
        return None
    return fit_to_cluster(placement, _this_machine())[1]


def _this_machine() -> list[dict[str, float]]:
    return [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
