"""How long a step takes, timed before a study starts.

On a GPU that is done in a process of its own, so that none of the GPU's memory stays taken while
the study runs: ``python -m sadcl.launch.step_time`` reads what to time from standard input and
writes what it measured as the last line of standard output, both as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sadcl import build
from sadcl.config import Config
from sadcl.console import count_text
from sadcl.errors import UserError
from sadcl.model.backbone import BLOCK

WARM_UP = {"cuda": 3, "cpu": 1}
"""Steps that are not counted: they load kernels, choose algorithms and fill caches."""
LEAST_STEPS, MOST_STEPS = 5, 50
LEAST_SECONDS, MOST_SECONDS = 1.0, 20.0
"""Steps are timed until both least values are reached, or one of the most values."""
PATIENCE_SECONDS = 600.0
"""A process that times a step has so long in all."""


class StepTime(NamedTuple):
    """What was measured.

    Attributes:
        seconds: Median of the timed steps, forward and backward.
        images: Of each step.
        side: Of the images, in pixels.
        steps: Timed steps.
        device: Name of what they ran on.
        on_gpu: Whether that was a GPU.
    """

    seconds: float
    images: int
    side: int
    steps: int
    device: str
    on_gpu: bool

    def text(self) -> str:
        """What was timed, in words."""
        steps = "one step" if self.steps == 1 else f"the median of {self.steps} steps"
        images = count_text(self.images, "image")
        return f"{steps} of {images} of {self.side} px on {self.device}"


class Question(NamedTuple):
    """What to time.

    Attributes:
        config: As plain values.
        num_labels: Of the data set.
        images: Of a step.
        threads: That compute where no GPU does.
        on_gpu: Whether a GPU computes.
    """

    config: dict[str, Any]
    num_labels: int
    images: int
    threads: int
    on_gpu: bool


def step_time(config: Config, num_labels: int, *, threads: int, on_gpu: bool) -> StepTime:
    """Time a step forward and backward, of few images where a step of them is slow.

    Where feature maps are stored, the step starts from them.

    Args:
        config: What is trained.
        num_labels: Of the data set.
        threads: That compute where no GPU does.
        on_gpu: Whether a GPU computes.

    Raises:
        UserError: Where not even a step of one image is possible.
    """
    few = not on_gpu and config.data.image_size > 128
    images = min(config.optim.batch_size, 2 if few else 16)
    if config.model.frozen == "all":  # which computes whole blocks
        images = BLOCK
    plain = config.model_dump(mode="json")
    question = Question(plain, num_labels, images, threads, on_gpu)
    return _ask_process(question) if on_gpu else answer(question)


def answer(question: Question) -> StepTime:
    """Time the steps in this process."""
    config, threads = Config.parse(question.config), torch.get_num_threads()
    device = torch.device("cuda" if question.on_gpu else "cpu")
    if not question.on_gpu:
        torch.set_num_threads(question.threads)
    try:
        step = _prepare(config, question, device)
        for _ in range(WARM_UP[device.type]):
            step()
        seconds = _measure(step)
    finally:
        torch.set_num_threads(threads)
    name = f"{count_text(question.threads, 'thread')} of this CPU"
    if question.on_gpu:
        name = torch.cuda.get_device_name()
    side, median = config.data.image_size, statistics.median(seconds)
    return StepTime(median, question.images, side, len(seconds), name, question.on_gpu)


def _prepare(config: Config, question: Question, device: torch.device) -> Callable[[], None]:
    """Build the network, and give a function that takes a step with it and waits for its end."""
    network = build.model(config, question.num_labels, pretrained=False).to(device)
    if question.on_gpu:
        network.to(memory_format=torch.channels_last)
    side, dtype = config.data.image_size, next(network.parameters()).dtype
    images_BCHW = torch.zeros(question.images, 3, side, side, device=device, dtype=dtype)

    targets_BL = None
    if network.needs_targets:
        targets_BL = torch.zeros(
            question.images, question.num_labels, dtype=torch.int8, device=device
        )

    inputs: torch.Tensor | tuple[torch.Tensor, ...] = images_BCHW
    if config.stores_features:
        with build.autocast(config, device):
            inputs = network.backbone.maps(images_BCHW)

    def step() -> None:
        network.zero_grad()
        with build.autocast(config, device):
            logits_BL = network(inputs, None, targets_BL).logits_BL
        logits_BL.float().sum().backward()
        if question.on_gpu:
            torch.cuda.synchronize()

    return step


def _measure(step: Callable[[], None]) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < MOST_STEPS and sum(seconds) < MOST_SECONDS:
        if len(seconds) >= LEAST_STEPS and sum(seconds) >= LEAST_SECONDS:
            break
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds


def _ask_process(question: Question) -> StepTime:
    """Time the steps in a process of its own, of fewer images where the GPU has no room for them.

    Raises:
        UserError: With the last line of what the process wrote, where it fails.
    """
    paths = [path for path in sys.path if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sadcl.launch.step_time"],
            input=json.dumps(question._asdict()),
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"A training step could not be timed: it took more than {PATIENCE_SECONDS:g} s."
        ) from None
    if not done.returncode:
        return StepTime(**json.loads(done.stdout.splitlines()[-1]))
    reason = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1].removeprefix("error: ")
    if "OutOfMemoryError" in reason and question.images > 1:
        return _ask_process(question._replace(images=question.images // 2))
    raise UserError(
        f"A training step of {count_text(question.images, 'image')} could not be timed: {reason}"
    )


if __name__ == "__main__":
    print(json.dumps(answer(Question(**json.load(sys.stdin)))._asdict()))
