"""What a run sets in its process, and puts back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sadcl.study import process

TOUCH = """
import sadcl.launch.train, torch  # as before the start of a run, which makes no tensor
from sadcl.study.process import large_pages

with large_pages():
    ones = torch.ones(64, 3, 448, 448)
lines = [line for line in open("/proc/self/smaps") if line.startswith("AnonHugePages")]
print(sum(int(line.split()[1]) for line in lines))
"""


def test_the_variable_is_put_back(monkeypatch):
    monkeypatch.delenv(process.LARGE_PAGES, raising=False)
    with process.large_pages():
        assert os.environ[process.LARGE_PAGES] == "1"
    assert process.LARGE_PAGES not in os.environ
    monkeypatch.setenv(process.LARGE_PAGES, "0")
    with process.large_pages():
        assert os.environ[process.LARGE_PAGES] == "0"
    assert os.environ[process.LARGE_PAGES] == "0"


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").is_file()
    or "[madvise]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(),
    reason="the kernel gives huge pages to all or to none",
)
def test_pages_are_large_although_torch_was_imported_before():
    environment = {k: v for k, v in os.environ.items() if k != process.LARGE_PAGES}
    done = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, env=environment, check=True
    )
    assert int(done.stdout) > 100_000  # kB, of 154,000
