"""GPUs of a worker that cannot be."""

import pytest

from sadcl.errors import UserError
from sadcl.launch import resources
from sadcl.launch.datasets import MOST_AT_ONCE
from sadcl.launch.options import StartOptions
from sadcl.study.gpu_driver import GPUDriver
from tests.launch.mistakes import refused


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    error = refused(capsys, "--gpus-per-trial", 1)
    assert "sees no GPU on this machine" in error
    assert "--gpus-per-worker 0" in error
    assert "NVIDIA" not in error


@pytest.mark.parametrize(("gpus", "workers"), [(2, 2), (1.5, 2), (8, 8)])
def test_a_worker_has_one_gpu(capsys, monkeypatch, gpus, workers):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    error = refused(capsys, "--gpus-per-worker", gpus)
    assert f"--gpus-per-worker {gpus} is not possible: a worker computes on one GPU" in error
    assert f"give --workers {workers} and --gpus-per-worker 1" in error


@pytest.mark.parametrize("gpus", ["-1", "nan", "inf"])
def test_no_number_of_gpus(capsys, gpus):
    assert "give 0 (the CPU), 1, or a fraction such as 0.25" in refused(
        capsys, f"--gpus-per-worker={gpus}"
    )


OLD = GPUDriver("570.124.06", 12, "13.0")
WORDS = "the NVIDIA driver is 570.124.06, but PyTorch is built for CUDA 13.0 and needs 580 or newer"


def test_a_driver_that_is_too_old_is_named(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(resources, "read_gpu_driver", lambda: OLD)
    error = refused(capsys, "--gpus-per-worker", 1)
    assert f"sees no GPU on this machine ({WORDS}" in error


def test_a_gpu_that_cannot_be_used_is_not_passed_over_at_full_scale(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(resources, "read_gpu_driver", lambda: OLD)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def gpus(scale, **options):
        options = StartOptions(storage=str(tmp_path), **options)
        return resources.make_placement(options, scale, None, workers=1).gpus

    with pytest.raises(UserError) as caught:
        gpus("full")
    assert f"cannot use the GPU of this machine ({WORDS}" in str(caught.value)
    assert "Pass --gpus-per-worker 0" in str(caught.value)
    assert gpus("full", gpus_per_worker=0) == gpus("demo") == 0
    monkeypatch.setattr(resources, "read_gpu_driver", GPUDriver)
    assert gpus("full") == 0  # there is no driver, and so no GPU


@pytest.mark.parametrize(("cores", "of_a_run"), [(1, 1), (2, 1), (8, 2), (16, 4), (64, 8)])
def test_runs_that_read_stored_feature_maps_share_the_cpus(monkeypatch, tmp_path, cores, of_a_run):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(resources, "read_gpu_driver", GPUDriver)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    options = StartOptions(storage=str(tmp_path))

    def cpus(**changes):
        return resources.make_placement(options, "full", None, workers=1, **changes).cpus

    assert cpus(at_once=MOST_AT_ONCE) == of_a_run
    assert cpus() == min(cores, 8)
