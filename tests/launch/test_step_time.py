"""The step that estimates rest on: warmed up, several, and elsewhere where a GPU computes."""

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from sadcl import UserError, recipes
from sadcl.launch import estimate, step_time
from sadcl.launch.step_time import Question, StepTime
from sadcl.study.placement import Placement
from tests.conftest import TINY

DEMO = recipes.demo().override(TINY)
QUESTION = Question(DEMO.model_dump(mode="json"), 20, 4, 1, False)


@pytest.fixture
def clock(monkeypatch):
    """Let steps take so many seconds, and none be taken."""
    taken = []

    def steps(*seconds):
        durations, now = itertools.chain(seconds, itertools.repeat(seconds[-1])), [0.0]

        def step():
            taken.append(next(durations))
            now[0] += taken[-1]

        monkeypatch.setattr(step_time.time, "perf_counter", lambda: now[0])
        monkeypatch.setattr(step_time, "_prepare", lambda *_: step)
        return taken

    return steps


@pytest.mark.parametrize(
    ("seconds", "median", "steps"),
    [
        ((9.0, 0.125), 0.125, 8),  # the first one is cold
        ((9.0, 0.125, 5.0, 0.125), 0.125, 5),  # one that another process has disturbed
        ((9.0, 0.001), 0.001, 50),
        ((9.0, 2.0), 2.0, 5),
        ((9.0, 8.0), 8.0, 3),
        ((9.0, 60.0), 60.0, 1),
    ],
)
def test_a_warm_step_is_the_median_of_a_few(clock, seconds, median, steps):
    taken = clock(*seconds)
    timed = step_time.answer(QUESTION)
    assert timed == StepTime(pytest.approx(median), 4, 32, steps, "1 thread of this CPU", False)
    assert len(taken) == steps + 1


def test_a_real_step_is_timed_and_the_threads_are_put_back():
    before = torch.get_num_threads()
    timed = step_time.step_time(DEMO, 20, threads=2, on_gpu=False)
    assert torch.get_num_threads() == before
    assert 0 < timed.seconds < 60
    assert (timed.images, timed.side, timed.on_gpu) == (16, 32, False)
    assert 1 <= timed.steps <= step_time.MOST_STEPS
    assert timed.device == "2 threads of this CPU"


def test_it_is_said_what_was_timed():
    timed = StepTime(0.2, 16, 448, 7, "NVIDIA H100", True)
    assert timed.text() == "the median of 7 steps of 16 images of 448 px on NVIDIA H100"
    timed = StepTime(0.2, 1, 64, 1, "1 thread of this CPU", False)
    assert timed.text() == "one step of 1 image of 64 px on 1 thread of this CPU"


def test_large_images_are_few_on_a_cpu(monkeypatch):
    asked = []
    monkeypatch.setattr(step_time, "answer", asked.append)
    monkeypatch.setattr(step_time, "_ask_process", asked.append)
    large = DEMO.override({"data.image_size": 448, "optim.batch_size": 64})
    for config, on_gpu in ((large, False), (large, True), (DEMO, False)):
        step_time.step_time(config, 20, threads=1, on_gpu=on_gpu)
    assert [question.images for question in asked] == [2, 16, 16]


def test_a_gpu_is_asked_in_a_process_of_its_own(monkeypatch):
    """This process gets no part of the GPU's memory; the other one ends before the study starts."""
    asked = []

    def answer(question):
        asked.append(question)
        return StepTime(0.5, 10, 32, 9, "NVIDIA H100", True)

    monkeypatch.setattr(step_time, "_ask_process", answer)
    monkeypatch.setattr(step_time, "answer", lambda question: pytest.fail("in this process"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    timed = estimate.training_hours(DEMO, 20, 7200, Placement("/runs", None, gpus=1))
    assert timed.hours == pytest.approx(7200 * 0.5 / 10 / 3600)
    assert timed.step.on_gpu
    assert [question.on_gpu for question in asked] == [True]
    assert not torch.cuda.is_initialized()


def test_the_process_answers_as_this_one_does():
    timed = step_time._ask_process(QUESTION)
    assert timed.images == 4
    assert timed.device == "1 thread of this CPU"
    assert timed.seconds > 0


def test_a_process_that_fails_is_reported_with_its_last_line():
    with pytest.raises(UserError, match="of 4 images could not be timed: seed = -1 is not"):
        step_time._ask_process(QUESTION._replace(config={"seed": -1}))


def test_fewer_images_are_timed_where_a_gpu_has_no_room(monkeypatch):
    asked = []

    def run(command, *, input, **options):
        images = step_time.json.loads(input)["images"]
        asked.append(images)
        if images > room:
            error = "Traceback\ntorch.OutOfMemoryError: CUDA out of memory."
            return SimpleNamespace(returncode=1, stdout="", stderr=error)
        timed = StepTime(0.1, images, 32, 5, "NVIDIA H100", True)
        return SimpleNamespace(returncode=0, stdout=step_time.json.dumps(timed._asdict()))

    monkeypatch.setattr(step_time.subprocess, "run", run)
    room = 5
    assert step_time._ask_process(QUESTION._replace(images=16)).images == 4
    assert asked == [16, 8, 4]
    room = 0
    with pytest.raises(UserError, match="of 1 image could not be timed: torch.OutOfMemoryError"):
        step_time._ask_process(QUESTION)


def test_the_process_finds_the_package_from_any_folder(tmp_path, monkeypatch):
    """As in a job, whose package Ray has put on the path of this process only."""
    environments = []

    def run(command, **options):
        environments.append(options["env"])
        return SimpleNamespace(returncode=1, stdout="", stderr="stop")

    monkeypatch.setattr(step_time.subprocess, "run", run)
    with pytest.raises(UserError):
        step_time._ask_process(QUESTION)
    monkeypatch.undo()
    code = "import sadcl; print(sadcl.__file__)"
    plain = {"PYTHONPATH": environments[0]["PYTHONPATH"], "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=plain, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == sys.modules["sadcl"].__file__
