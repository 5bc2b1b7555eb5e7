"""The GPU's driver, read from fabricated files, and what PyTorch needs of it."""

import importlib.util
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sadcl.study import gpu_driver
from sadcl.study.gpu_driver import GPUDriver

PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 01:53:02 UTC 2025
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder@u22)
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Give the machine a kernel module, nvidia-smi and a build of PyTorch; none where left out."""

    def make(kernel=None, smi=None, torch_version=None):
        monkeypatch.setattr(gpu_driver, "KERNEL_MODULE", tmp_path / "kernel")
        if kernel is not None:
            (tmp_path / "kernel").write_text(kernel)
        if smi is not None:
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
            (tmp_path / "nvidia-smi").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        if torch_version is not None:
            (tmp_path / "version.py").write_text(torch_version)
            spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        return gpu_driver.read_gpu_driver()

    return make


@pytest.mark.parametrize(
    ("files", "driver"),
    [
        ({"kernel": PROPRIETARY}, "570.124.06"),
        ({"kernel": OPEN}, "580.65.06"),
        ({"kernel": OPEN, "smi": "echo 1.2.3"}, "580.65.06"),
        ({"kernel": "NVRM version: something else\n"}, None),
        ({"smi": "echo 535.54.03; echo 535.54.03"}, "535.54.03"),  # a machine of two GPUs
        ({"smi": "echo NVIDIA-SMI has failed; exit 9"}, None),
        ({}, None),
    ],
)
def test_the_driver_is_read_from_the_kernel_or_nvidia_smi(machine, files, driver):
    assert machine(**files).driver == driver


BUILD = """\
from typing import Optional
__version__ = '2.14.1'
cuda: Optional[str] = {cuda}
git_version = '5c48'
hip: Optional[str] = {hip}
xpu: Optional[str] = None
"""


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        (BUILD.format(cuda="'13.0'", hip=None), "13.0"),
        (BUILD.format(cuda=None, hip=None), ""),
        (BUILD.format(cuda=None, hip="'6.4'"), None),  # for AMD's GPUs
        ("__version__ = '3.0'", None),
    ],
)
def test_the_build_of_pytorch_is_read_from_its_file(machine, text, cuda):
    assert machine(torch_version=text).torch_cuda == cuda


def test_the_installed_pytorch_says_the_same_of_itself():
    assert gpu_driver.read_gpu_driver().torch_cuda == (torch.version.cuda or "")


NEEDS = "PyTorch is built for CUDA 13.0 and needs 580 or newer"


@pytest.mark.parametrize(
    ("gpu", "problem"),
    [
        (GPUDriver("580.65.06", 13, "13.0"), ""),
        (GPUDriver("581.0", None, "13.0"), ""),
        (GPUDriver("570.124.06", 13, "13.0"), ""),  # with NVIDIA's compatibility package
        (GPUDriver("570.124.06", 12, "12.8"), ""),
        (GPUDriver("525.60.13", 12, "12.8"), ""),
        (
            GPUDriver("570.124.06", 12, "13.0"),
            f"the NVIDIA driver is 570.124.06, but {NEEDS}: update the driver, or install PyTorch "
            "for an older CUDA",
        ),
        (GPUDriver(None, None, "13.0"), f"there is no NVIDIA driver, but {NEEDS}: install it"),
        (
            GPUDriver("580.65.06", 13, ""),
            "PyTorch is built without CUDA: install a build with it (pip install torch)",
        ),
        (GPUDriver("470.1", 11, "12.1"), "the NVIDIA driver is 470.1, but PyTorch is built for"),
        (GPUDriver("580.1", 13, "14.0"), ""),  # newer than what this program knows
        (GPUDriver(None, None, None), ""),
    ],
)
def test_what_is_wrong_is_said_in_words(gpu, problem):
    assert gpu.problem().startswith(problem)
    assert bool(gpu.problem()) is bool(problem)


def test_it_needs_no_torch():
    code = (
        "import sadcl.study.gpu_driver as g, sys; g.read_gpu_driver(); "
        "sys.exit(bool({'torch', 'ray'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cloud_s_image_has_a_driver_that_pytorch_accepts():
    text = (Path(__file__).parents[2] / "cluster" / "gcp.yaml").read_text()
    driver = text.partition("-nvidia-")[2].split()[0]
    assert GPUDriver(f"{driver}.0", None, "13.0").problem() == ""
