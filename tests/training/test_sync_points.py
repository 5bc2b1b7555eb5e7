"""When the workers synchronise."""

import torch

from sadcl.training import sync_points
from sadcl.training.sync_points import SyncPoints


def test_sync_points_come_every_few_seconds_and_at_least_every_so_many_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sync_points.time, "monotonic", lambda: now[0])
    points = SyncPoints(7, 50)
    assert points.next == 8
    cpu = torch.device("cpu")
    for seconds, wait in ((30.0, 1), (1.0, 5), (0.5, 50), (25.0, 10), (0.0, 50)):
        now[0] += seconds
        step = points.next
        assert points.agree(step, cpu, True, False) == [True, False]
        assert points.next - step == wait
