"""How failures are classified: the kind of an error, and whether it would repeat."""

import errno
import pickle

import pytest
import torch
from ray.exceptions import RayTaskError

from sadcl.errors import FailureKind, TrialFailed, UserError
from sadcl.study import failure
from sadcl.training import Disagreement, Diverged

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]"
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"
CUBLAS = "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"
CUBLAS_MEMORY = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    ("error", "kind", "final"),
    [
        (TrialFailed("x", kind=FailureKind.STORAGE, final=False), FailureKind.STORAGE, False),
        (TrialFailed("Connection"), FailureKind.TRAINING, True),
        (UserError("no connection"), FailureKind.MISTAKE, True),
        (OSError(errno.ENOSPC, "full"), FailureKind.DISK_FULL, True),
        (OSError(errno.EIO, "broken"), FailureKind.STORAGE, False),
        (ConnectionResetError("reset"), FailureKind.CONNECTION, False),
        (torch.distributed.DistNetworkError("lost"), FailureKind.CONNECTION, False),
        (torch.distributed.DistBackendError("lost"), FailureKind.CONNECTION, False),
        (RuntimeError(GLOO), FailureKind.CONNECTION, False),
        (RuntimeError("NCCL communicator was aborted"), FailureKind.CONNECTION, False),
        (RuntimeError(ALLOCATOR), FailureKind.MEMORY, True),
        (MemoryError(), FailureKind.MEMORY, True),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureKind.MEMORY, True),
        (torch.AcceleratorError("CUDA error: out of memory"), FailureKind.MEMORY, True),
        (RuntimeError(CUBLAS_MEMORY), FailureKind.MEMORY, True),
        (torch.AcceleratorError(ILLEGAL), FailureKind.DEVICE, False),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), FailureKind.DEVICE, False),
        (RuntimeError(ILLEGAL), FailureKind.DEVICE, False),
        (RuntimeError(CUBLAS), FailureKind.DEVICE, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), FailureKind.DEVICE, False),
        (Diverged("nan"), FailureKind.DIVERGENCE, True),
        (Disagreement(3, 1, "bank"), FailureKind.DIVERGENCE, False),
        (RuntimeError("shape mismatch"), FailureKind.TRAINING, False),
        (ValueError("gloo"), FailureKind.TRAINING, True),
        (IndexError("out of range"), FailureKind.TRAINING, True),
        (NotImplementedError("for this type"), FailureKind.TRAINING, True),
    ],
)
def test_an_error_s_type_tells_its_kind_and_whether_it_repeats(error, kind, final):
    assert failure.failure_kind(error) is kind
    diagnosis = failure.diagnose(error)
    assert (diagnosis.kind, diagnosis.final) == (kind, final)
    assert "\n" not in str(diagnosis) or kind is FailureKind.TRAINING


def raised(error, *, after, explicitly=False):
    """An error as it is when it was raised while another one was handled."""
    setattr(error, "__cause__" if explicitly else "__context__", after)
    return error


@pytest.mark.parametrize("explicitly", [False, True])
@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (torch.AcceleratorError(ILLEGAL), FailureKind.DEVICE),
        (torch.distributed.DistBackendError("NCCL error"), FailureKind.CONNECTION),
    ],
)
def test_what_follows_from_a_device_or_connection_is_not_final(first, kind, explicitly):
    for error in (Diverged("nan"), IndexError("9e18"), MemoryError("9e18 bytes"), KeyError("x")):
        diagnosis = failure.diagnose(raised(error, after=first, explicitly=explicitly))
        assert (diagnosis.kind, diagnosis.final) == (kind, False)


def test_a_mistake_stays_one_and_an_unrelated_cause_changes_nothing():
    lost = ConnectionResetError("reset")
    assert failure.diagnose(raised(UserError("Wrong."), after=lost)).final
    assert failure.diagnose(raised(KeyError("x"), after=ValueError("y"))).final


@pytest.mark.parametrize(
    "error", [Diverged("nan"), IndexError("9e18"), torch.OutOfMemoryError("9e18 bytes")]
)
def test_nothing_is_proven_on_a_device_that_no_longer_computes(monkeypatch, error):
    monkeypatch.setattr(failure, "device_computes", lambda: False)
    diagnosis = failure.diagnose(error)
    assert (diagnosis.kind, diagnosis.final) == (FailureKind.DEVICE, False)
    assert str(diagnosis).endswith(" (the GPU no longer computes)")
    assert failure.diagnose(UserError("Wrong.")).final


def test_nothing_is_proven_after_an_aborted_collective(monkeypatch):
    monkeypatch.setattr(failure.distributed, "is_broken", lambda: True)
    diagnosis = failure.diagnose(Diverged("nan"))
    assert (diagnosis.kind, diagnosis.final) == (FailureKind.CONNECTION, False)


@pytest.mark.parametrize(
    ("product", "computes"),
    [
        (lambda a, b: torch.Tensor.matmul(a, b), True),
        (lambda a, b: torch.Tensor.matmul(a, b) + 1, False),
        (lambda a, b: raise_(torch.AcceleratorError(ILLEGAL)), False),
        (lambda a, b: raise_(torch.OutOfMemoryError("full")), True),
    ],
)
def test_a_gpu_is_asked_for_a_product_that_is_known(monkeypatch, product, computes):
    """With a CPU tensor that plays the GPU's."""

    class OnGPU(torch.Tensor):
        def __matmul__(self, other):
            return product(self.as_subclass(torch.Tensor), other.as_subclass(torch.Tensor))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self.as_subclass(OnGPU))
    assert failure.device_computes() is computes


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("Wrong field."), "Wrong field."),
        (TrialFailed("It diverged."), "It diverged."),
        (RuntimeError(ALLOCATOR + "\nmore"), f"out of memory: {ALLOCATOR}"),
        (MemoryError(), "out of memory: allocation failed"),
        (
            torch.AcceleratorError(ILLEGAL),
            "AcceleratorError: CUDA error: an illegal memory access was encountered",
        ),
        (KeyError(), "KeyError: no message"),
        (RuntimeError(" shape mismatch\n"), "RuntimeError: shape mismatch"),
    ],
)
def test_the_cause_is_one_line(error, text):
    assert failure.cause_of(error) == text


def test_a_full_disk_is_named_with_what_to_do():
    text = failure.cause_of(OSError(errno.ENOSPC, "No space left on device"))
    assert text.startswith("The storage is full: [Errno 28] No space left on device. Nothing")
    assert "make room and give the same command again" in text


def test_the_fields_of_a_failure_survive_pickling():
    failed = TrialFailed("lost", kind=FailureKind.CONNECTION, final=False)
    again = pickle.loads(pickle.dumps(failed))
    assert (str(again), again.kind, again.final) == ("lost", FailureKind.CONNECTION, False)
    task_error = RayTaskError("run_trial", "traceback", failed)
    again = pickle.loads(pickle.dumps(task_error)).cause
    assert (str(again), again.kind, again.final) == ("lost", FailureKind.CONNECTION, False)
    both = task_error.as_instanceof_cause()  # what ray.get raises
    assert isinstance(both, TrialFailed)
    assert (both.cause.kind, both.cause.final) == (FailureKind.CONNECTION, False)
