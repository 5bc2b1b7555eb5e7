"""What the actor of a run knows of its workers, and what is told where it is lost."""

import pytest
from ray.exceptions import RayActorError

from sadcl.errors import TrialFailed
from sadcl.ray_backend import membership


def test_workers_join_fail_and_are_asked_to_leave():
    actor = membership._Membership()
    assert actor.members() == membership.Members({}, {}, "")
    assert actor.leave_reason() == ""
    actor.join(0, "a")
    actor.join(1, "b")
    failure = TrialFailed("lost", final=False)
    actor.fail(1, failure)
    actor.request_leave("a node is to be taken away")
    assert actor.members() == ({0: "a", 1: "b"}, {1: failure}, "a node is to be taken away")
    assert actor.leave_reason() == "a node is to be taken away"


class Handle:
    """An actor in this process."""

    def __init__(self, actor):
        self.actor = actor

    def __getattr__(self, name):
        return type("Method", (), {"remote": staticmethod(getattr(self.actor, name))})


def test_a_run_stays_where_the_actor_asks_for_nothing_or_is_lost(monkeypatch):
    actor = membership._Membership()
    monkeypatch.setattr(membership.ray, "get", lambda value: value)
    assert membership.leave_reason(Handle(actor)) is None
    actor.request_leave("there is room for 1 more worker(s)")
    assert membership.leave_reason(Handle(actor)) == "there is room for 1 more worker(s)"
    assert membership.members(Handle(actor)).leave_reason

    def lost(value):
        raise RayActorError

    monkeypatch.setattr(membership.ray, "get", lost)
    assert membership.leave_reason(Handle(actor)) is None
    with pytest.raises(RayActorError):
        membership.members(Handle(actor))
