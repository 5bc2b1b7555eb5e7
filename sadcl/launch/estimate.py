"""What a study takes: hours by a timed step, bytes of checkpoints."""

from __future__ import annotations

import time

import torch

from sadcl import build
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.study import record
from sadcl.study.placement import Placement


def in_hours(hours: float) -> str:
    return (
        f"{hours:,.0f} hours"
        if hours >= 10
        else f"{hours:.1f} hours"
        if hours >= 1
        else f"{max(hours * 60, 1):.0f} minutes"
    )


def disk_limit(root: str, given: float | None) -> float | None:
    """Bytes of checkpoints that may lie below a storage: as many GB as were given, and never more than the disk has."""
    free = storage_of.free_bytes(root)
    if free is None:
        return None if given is None else given * 1e9
    most = record.checkpoint_bytes(root)["."] + 0.95 * free
    return most if given is None else min(most, given * 1e9)


def training_hours(config: Config, labels: int, images: int, of: Placement) -> tuple[float, str]:
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
        pixels = torch.zeros(
            count, 3, side, side, device=device, dtype=next(network.parameters()).dtype
        )
        took = 0.0
        for _ in range(
            3 if cuda or side <= 128 else 1
        ):  # the first ones are slow, where waiting for more costs little
            began = time.monotonic()
            with torch.autocast(
                device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"
            ):
                logits = network(pixels).logits_BL
            logits.float().sum().backward()
            if cuda:
                torch.cuda.synchronize()
            took = time.monotonic() - began
    finally:
        torch.set_num_threads(threads)
    return (
        images * took / count / 3600,
        torch.cuda.get_device_name() if cuda else f"{of.threads} thread(s) of this CPU",
    )


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
