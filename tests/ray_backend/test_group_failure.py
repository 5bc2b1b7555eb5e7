"""Of several workers' errors: which is the cause, which would repeat, and who is missing."""

import pickle
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError
from ray.train import WorkerGroupError

from sadcl.errors import FailureKind, TrialFailed
from sadcl.ray_backend import capacity, group_failure
from sadcl.ray_backend.membership import Members

CONNECTION_LOST = TrialFailed(
    "RuntimeError: [gloo] Connection closed by peer (rank 0 of 2 on a)",
    kind=FailureKind.CONNECTION,
    final=False,
)
DEVICE_LOST = TrialFailed("AcceleratorError: CUDA error", kind=FailureKind.DEVICE, final=False)
DIVERGED = TrialFailed("Diverged: The loss is not finite.", kind=FailureKind.DIVERGENCE)
DISAGREE = TrialFailed("Disagreement", kind=FailureKind.DIVERGENCE, final=False)
MISTAKE = TrialFailed("The image is damaged.", kind=FailureKind.MISTAKE)
BUG = TrialFailed("KeyError: 'x'")
NOBODY = Members({}, {}, "")


def cause(failure, members=NOBODY):
    return group_failure.cause(failure, group_failure.worker_errors(failure, members))


def test_the_cause_is_that_of_the_worker_that_failed_first():
    broken = TrialFailed("OSError: the disk is gone (rank 1 of 2 on b)", final=False)
    both = WorkerGroupError("x", {0: CONNECTION_LOST, 1: broken})
    assert cause(both) == str(broken)
    assert cause(pickle.loads(pickle.dumps(both))) == str(broken)
    assert cause(WorkerGroupError("x", {0: CONNECTION_LOST})) == str(CONNECTION_LOST)
    wrapped = RayTaskError("f", "traceback", broken).as_instanceof_cause()
    assert cause(WorkerGroupError("x", {0: wrapped})) == str(broken)
    assert cause(WorkerGroupError("x", {0: ValueError("a\nb")})) == "WorkerGroupError: b"
    assert cause(KeyError()) == "KeyError: no message"


def test_what_the_workers_reported_counts_and_comes_first():
    """Ray Train has taken note of one of two errors only, and of the wrong one."""
    failure = WorkerGroupError("x", {0: CONNECTION_LOST})
    members = Members({0: "a", 1: "b"}, {1: DEVICE_LOST, 0: CONNECTION_LOST}, "")
    assert list(group_failure.worker_errors(failure, members)) == [1, 0]
    assert cause(failure, members) == str(DEVICE_LOST)


@pytest.mark.parametrize(
    ("errors", "lost", "final"),
    [
        ({0: BUG}, [], BUG),
        ({1: BUG, 0: CONNECTION_LOST}, [], BUG),  # the others only lost their connection to it
        ({0: CONNECTION_LOST, 1: BUG}, [], None),  # garbage of a collective that was aborted
        ({0: DEVICE_LOST, 1: BUG}, [], None),
        ({0: BUG}, [1], None),
        ({0: DEVICE_LOST, 1: MISTAKE}, [], MISTAKE),
        ({0: MISTAKE}, [1], MISTAKE),
        ({1: DIVERGED, 0: DIVERGED}, [], DIVERGED),
        ({0: DIVERGED}, [], None),  # a loss that is not finite is that of all workers
        ({0: DIVERGED}, [1], None),
        ({0: DIVERGED, 1: DEVICE_LOST}, [], None),
        ({0: DIVERGED, 1: BUG}, [], None),
        ({0: DISAGREE, 1: DISAGREE}, [], None),
        ({0: DEVICE_LOST}, [], None),
        ({}, [], None),
    ],
)
def test_only_what_would_repeat_is_final(errors, lost, final):
    assert group_failure.final_error(errors, lost, workers=2) is final


@pytest.mark.parametrize(
    ("errors", "main"),
    [
        ({0: CONNECTION_LOST, 1: BUG}, BUG),
        ({0: DIVERGED, 1: DEVICE_LOST}, DEVICE_LOST),
        ({0: DIVERGED, 1: BUG}, BUG),
        ({0: DIVERGED, 1: CONNECTION_LOST}, DIVERGED),
        ({0: TrialFailed("a", final=False), 1: BUG}, BUG),
    ],
)
def test_who_knows_what_is_wrong_is_believed(errors, main):
    assert group_failure.main_error(errors) is main


def test_who_is_gone_and_who_keeps_the_others_waiting_is_named(monkeypatch):
    nodes = [
        {"NodeID": f"{n}" * 8, "NodeManagerAddress": f"10.0.0.{n}", "Alive": n != 3}
        for n in (1, 2, 3)
    ]
    for module in (group_failure, capacity):
        monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
    timed_out, lost = TrialFailed("RuntimeError: Timed out", final=False), RuntimeError("dead")
    joined = {0: "1" * 8, 1: "2" * 8}
    failure = SimpleNamespace(worker_failures={})

    def text(nodes, failed, behind=()):
        members = Members(nodes, dict.fromkeys(failed, timed_out), "")
        errors = group_failure.worker_errors(failure, members)
        lost = group_failure.lost_ranks(failure, members)
        return group_failure.missing_workers(errors, lost, behind, members)

    assert text(joined, [0]) == (
        "worker 1 on node 10.0.0.2 (222222) has not arrived (RuntimeError: Timed out)"
    )
    failure.worker_failures[1] = lost
    assert text(joined, [0]) == "worker 1 on node 10.0.0.2 (222222) was lost"
    assert text(joined, []) == "worker 1 on node 10.0.0.2 (222222) was lost"
    assert text(joined, [0, 1]) == ""
    assert text({**joined, 1: "3" * 8}, [0]) == "node 10.0.0.3 (333333) was lost"
    # NCCL has ended those that waited
    failure.worker_failures = {0: lost, 2: lost}
    three = joined | {2: "1" * 8}
    assert text(three, [], [1]) == (
        "worker 1 on node 10.0.0.2 (222222) has not arrived (each of worker 0 on node 10.0.0.1 "
        "(111111), worker 2 on node 10.0.0.1 (111111) waited and was ended)"
    )
    assert text(three, [], [0]) == (
        "worker 0 on node 10.0.0.1 (111111) has not arrived (worker 2 on node 10.0.0.1 (111111) "
        "waited and was ended)"
    )
    failure.worker_failures = {0: lost}
    assert text(three, [], [0]) == "worker 0 on node 10.0.0.1 (111111) has not arrived"
    assert text(three, []) == "worker 0 on node 10.0.0.1 (111111) was lost"
