"""A run in a process of its own, killed with SIGKILL at random moments and started again until it is done."""

import random
import signal
import subprocess
import sys
import time

import pytest

from sadcl.training import checkpoint

RUN = """
import sys, torch
from sadcl import recipes
from sadcl.data import load
from sadcl.training import fit, loop
from tests.conftest import TINY
torch.set_num_threads(1)
loop.MEETING, loop.SAVE_SECONDS = 1, 0.0
config = recipes.demo().override({**TINY, "bank.policy": "fifo", "optim.batch_size": 4})
fit(config, load(config.data, sys.argv[1]), sys.argv[2], device="cpu", heartbeat=lambda *step: print(*step[:4], flush=True))
"""


@pytest.mark.soak
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    def start(folder):
        command = [sys.executable, "-c", RUN, str(tmp_path / "data"), str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    trace = whole.communicate(timeout=120)[0].splitlines()
    assert whole.returncode == 0
    chance, seen, kills = random.Random(0), [], 0
    while True:
        run = start("parts")
        seen.append(run.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        seen += run.communicate(timeout=60)[0].splitlines()
        if run.returncode == 0:
            break
        kills += 1
    assert kills >= 5
    assert set(filter(None, seen)) == set(trace)  # each start goes on where the last had come
    assert len(seen) < len(trace) + 2 * kills
    for stage in ("stage1/", ""):
        one, other = (
            checkpoint.load_checkpoint(str(tmp_path / folder / f"{stage}state.pt"))
            for folder in ("whole", "parts")
        )
        for content in (one, other):
            content["progress"] |= {"seconds": 0, "before": 0}
        from tests.training.test_loop import same

        assert same(one, other)
