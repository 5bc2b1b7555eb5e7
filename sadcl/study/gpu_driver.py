"""The NVIDIA driver of this machine, and whether the installed PyTorch can work with it.

Neither is asked through PyTorch, which takes seconds to import and only says that there is no GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""The oldest driver for each major version of CUDA (NVIDIA, CUDA Compatibility, Minor Version
Compatibility, table 1)."""
KERNEL_MODULE = Path("/proc/driver/nvidia/version")


class GPUDriver(NamedTuple):
    """What a machine has.

    Attributes:
        driver: Version of the kernel's driver, as 580.65.06; None without one.
        driver_cuda: Newest major version of CUDA that its library supports, which may be newer than
            the driver where NVIDIA's compatibility package is installed; None without one.
        torch_cuda: Version of CUDA that PyTorch is built for, as 13.0; empty for a build without,
            None where that is not known or PyTorch is built for GPUs of another maker.
    """

    driver: str | None = None
    driver_cuda: int | None = None
    torch_cuda: str | None = None

    def problem(self) -> str:
        """Say why PyTorch cannot use a GPU of the machine; empty where nothing is known to."""
        if self.torch_cuda is None:
            return ""
        if not self.torch_cuda:
            return "PyTorch is built without CUDA: install a build with it (pip install torch)"
        cuda = int(self.torch_cuda.partition(".")[0])
        oldest = OLDEST_DRIVERS.get(cuda, max(OLDEST_DRIVERS.values()))
        needs = f"PyTorch is built for CUDA {self.torch_cuda} and needs {oldest} or newer"
        if self.driver is None:
            return f"there is no NVIDIA driver, but {needs}: install it"
        if (self.driver_cuda or 0) >= cuda or int(self.driver.partition(".")[0]) >= oldest:
            return ""
        return (
            f"the NVIDIA driver is {self.driver}, but {needs}: update the driver, or install "
            "PyTorch for an older CUDA"
        )


def read_gpu_driver() -> GPUDriver:
    """Look at this machine; it takes milliseconds, or a second where nvidia-smi has to be asked."""
    return GPUDriver(_driver_version(), _driver_cuda(), _torch_cuda())


def _driver_version() -> str | None:
    """Read the version from the kernel, or ask nvidia-smi where a container hides that file."""
    try:
        text = KERNEL_MODULE.read_text()
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    except OSError:
        found = re.match(r"\s*(\d+(?:\.\d+)+)", _ask_nvidia_smi())
    return found.group(1) if found else None


def _ask_nvidia_smi() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if not done.returncode else ""


def _driver_cuda() -> int | None:
    try:
        library = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000


def _torch_cuda() -> str | None:
    """Read the build from PyTorch's own file, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    builds = dict(re.findall(r"^(cuda|hip|xpu)\b.*= (?:'([^']*)'|None)$", text, flags=re.MULTILINE))
    if "cuda" not in builds or builds.get("hip") or builds.get("xpu"):
        return None
    return builds["cuda"]
