"""How much of a machine a study takes: what a trial runs on, hours, bytes."""

from __future__ import annotations

import os
import time

import torch

from sadcl import build, storage
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.ray_backend import preflight
from sadcl.runner import Where

TIMEOUT = "SADCL_TIMEOUT_SECONDS"
"""Environment variable: seconds that a worker may keep the others waiting, in place of 600."""


def workers_of(text: str | int) -> tuple[int, int]:
    """``8`` workers, or ``2:8``, as many of them as there is room for: the least, and the most or 0 for a fixed number.

    Raises:
        UserError: for something else.
    """
    least, colon, most = str(text).partition(":")
    try:
        found = int(least), int(most) if colon else 0
    except ValueError:
        raise UserError(f"--workers {text} is not possible: give a number, or a range such as 2:8.") from None
    if found[0] < 1:
        raise UserError(f"--workers {text} is not possible: at least 1.")
    if colon and found[1] <= found[0]:
        raise UserError(f"--workers {text} is not possible: the second number is the larger one, as in 2:8.")
    return found


def _timeout() -> int:
    text = os.environ.get(TIMEOUT, "600")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{TIMEOUT} = {text!r} is not possible: give whole seconds, at least 1.")
    return int(text)


def where(
    root: str,
    data_root: str | None,
    scale: str,
    workers: int,
    gpus: float | None,
    address: str | None,
    up_to: int = 0,
) -> Where:
    """What a trial runs on; on a private cluster a GPU that is not there is found out now.

    Raises:
        UserError: for a number of workers or GPUs that is not possible.
    """
    remote = bool(address or os.environ.get("RAY_ADDRESS"))
    here = torch.cuda.device_count()
    if gpus is None:
        gpus = 1.0 if here or (remote and scale == "full") else 0.0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-trial {gpus:g} is not possible: 0, a part of one such as 0.25, or a whole number.")
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
        preflight.place(Where(root, None, scale, workers, 1, gpus), _this_machine())
    cpus = 1
    if scale == "full":  # on a cluster as many as its nodes have room for beside each other
        at_once = max(int(here / gpus), workers) if gpus and here else workers
        cpus = 8 if remote else max(1, min(8, (os.cpu_count() or 1) // at_once))
    place = storage.absolute(data_root) if data_root is not None else None
    return Where(storage.absolute(root), place, scale, workers, cpus, gpus, up_to, _timeout())


def at_once(of: Where, address: str | None) -> int | None:
    """Trials that a private cluster runs at once; None where the cluster is another."""
    if address or os.environ.get("RAY_ADDRESS"):
        return None
    return preflight.place(of, _this_machine())[1]


def _this_machine() -> list[dict[str, float]]:
    return [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]


def hours(config: Config, labels: int, images: int, of: Where) -> tuple[float, str]:
    """Hours that one trial's worker takes for so many training images, by a timed step forward and backward.

    Returns:
        The hours, and what they were timed on, in words.
    """
    cuda = torch.cuda.is_available() and of.gpus > 0
    device = torch.device("cuda" if cuda else "cpu")
    side, threads = config.data.image_size, torch.get_num_threads()
    count = min(config.optim.batch_size, 16 if cuda or side <= 128 else 2)
    if not cuda:
        torch.set_num_threads(of.threads)
    try:
        network = build.model(config, labels, pretrained=False).to(device)
        pixels = torch.zeros(count, 3, side, side, device=device, dtype=next(network.parameters()).dtype)
        took = 0.0
        for _ in range(3 if cuda or side <= 128 else 1):  # the first ones are slow, where waiting for more costs little
            began = time.monotonic()
            with torch.autocast(device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
                logits = network(pixels).logits_BL
            logits.float().sum().backward()
            if cuda:
                torch.cuda.synchronize()
            took = time.monotonic() - began
    finally:
        torch.set_num_threads(threads)
    return images * took / count / 3600, torch.cuda.get_device_name() if cuda else f"{of.threads} thread(s) of this CPU"


def checkpoint_bytes(config: Config, labels: int) -> tuple[int, int]:
    """Bytes that a run leaves (``best.pt`` and ``last.pt``), and those of its state while it is under way."""
    network = build.model(config, labels, pretrained=False)
    tensors = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    state = tensors * (2 if config.optim.ema_decay else 1) + 2 * trained
    hidden = config.model.hidden or 0
    if config.loss.contrasts and config.bank.policy != "none":
        rows = config.optim.batch_size if config.bank.policy == "slot" else config.bank.size
        state += 4 * rows * labels * hidden
    return 2 * tensors, state
