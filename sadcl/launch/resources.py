"""The workers, CPUs and GPUs that a trial gets."""

from __future__ import annotations

import os

import torch

from sadcl import storage
from sadcl.errors import UserError
from sadcl.study.placement import Placement, fit_to_cluster

TIMEOUT = "SADCL_TIMEOUT_SECONDS"
"""Environment variable: seconds that a worker may keep the others waiting, in place of 600."""


def _timeout() -> int:
    text = os.environ.get(TIMEOUT, "600")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{TIMEOUT} = {text!r} is not possible: give whole seconds, at least 1.")
    return int(text)


def make_placement(
    root: str,
    data_root: str | None,
    scale: str,
    workers: int,
    gpus: float | None,
    address: str | None,
    up_to: int = 0,
) -> Placement:
    """What a trial runs on; on a private cluster a GPU that is not there is found out now.

    Raises:
        UserError: for a number of workers or GPUs that is not possible.
    """
    remote = bool(address or os.environ.get("RAY_ADDRESS"))
    here = torch.cuda.device_count()
    if gpus is None:
        gpus = 1.0 if here or (remote and scale == "full") else 0.0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(
            f"--gpus-per-trial {gpus:g} is not possible: 0, a part of one such as 0.25, or a whole number."
        )
    if max(workers, up_to) > 1 and 0 < gpus < 1:
        raise UserError(
            f"--gpus-per-trial {gpus:g} with --workers {workers} is not possible: each worker needs a GPU of its own."
        )
    if gpus and not here and not remote:
        raise UserError(
            f"--gpus-per-trial {gpus:g} was asked for, but PyTorch {torch.__version__} sees no GPU on this machine. Check "
            "the driver and CUDA_VISIBLE_DEVICES, give --gpus-per-trial 0 for the CPU, or join a cluster with --address."
        )
    if not remote:
        fit_to_cluster(Placement(root, None, scale, workers, 1, gpus), _this_machine())
    cpus = 1
    if scale == "full":  # on a cluster as many as its nodes have room for beside each other
        at_once = max(int(here / gpus), workers) if gpus and here else workers
        cpus = 8 if remote else max(1, min(8, (os.cpu_count() or 1) // at_once))
    place = storage.absolute(data_root) if data_root is not None else None
    return Placement(storage.absolute(root), place, scale, workers, cpus, gpus, up_to, _timeout())


def trials_at_once(of: Placement, address: str | None) -> int | None:
    """Trials that a private cluster runs at once; None where the cluster is another."""
    if address or os.environ.get("RAY_ADDRESS"):
        return None
    return fit_to_cluster(of, _this_machine())[1]


def _this_machine() -> list[dict[str, float]]:
    return [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
