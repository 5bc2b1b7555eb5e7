"""GPUs of a worker that cannot be."""

from tests.launch.mistakes import refused


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    error = refused(capsys, "--gpus-per-trial", 1)
    assert "sees no GPU on this machine" in error
    assert "--gpus-per-worker 0" in error
    assert "0, a fraction such as 0.25, or a whole number" in refused(
        capsys, "--gpus-per-trial", 1.5
    )
