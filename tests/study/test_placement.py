"""The size of a trial and how many fit, node by node; what can never fit is refused."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from sadcl.errors import UserError
from sadcl.ray_backend import environment
from sadcl.study.placement import Placement, fit_to_cluster


def placement(**changes):
    return Placement(storage="runs", data_root="/data", **{"scale": "full", **changes})


def node(cpus, gpus=0):
    return {"CPU": float(cpus), "GPU": float(gpus), "memory": 1e9}


@pytest.mark.parametrize(
    ("wanted", "nodes", "cpus", "at_once"),
    [
        (placement(cpus=1), [node(2)], 1, 2),
        (placement(cpus=2), [node(2)], 2, 1),
        (placement(cpus=8), [node(2)], 2, 1),
        (placement(cpus=1, workers=2), [node(2)], 1, 1),
        (placement(cpus=1, workers=3), [node(2), node(2)], 1, 1),
        # beside a GPU: as many CPUs as leave every GPU its trial
        (placement(cpus=8, gpus=1), [node(16, 8)], 2, 8),
        (placement(cpus=8, gpus=1), [node(64, 0), node(4, 1), node(4, 1)], 4, 2),
        (placement(cpus=8, gpus=0.1), [node(20, 1)], 2, 10),
        (placement(cpus=8, gpus=2, workers=2), [node(32, 8)], 8, 2),
        (placement(cpus=8, gpus=1, workers=8), [node(16, 8)], 2, 1),
        # nodes that differ: the smallest of what still fits
        (placement(cpus=4, workers=3), [node(2), node(2), node(8)], 2, 2),
        (placement(cpus=3), [node(0), node(3)], 3, 1),
        (placement(cpus=8, gpus=1), [node(16, 8), node(64, 2)], 2, 10),
        (
            placement(cpus=8, gpus=1, workers=2),
            [node(9, 3)],
            4,
            1,
        ),  # the third GPU serves no second trial
        # a part of a GPU is a part of one: two of 0.4 to a GPU, not five to two
        (placement(gpus=0.4), [node(16, 2)], 1, 4),
        (placement(gpus=0.6), [node(16, 3)], 1, 3),
        (placement(cpus=4, gpus=0.34), [node(16, 2), node(1, 1)], 1, 5),
        (placement(gpus=2), [node(16, 3), node(16, 1), node(16, 2)], 1, 2),
    ],
)
def test_size_and_number(wanted, nodes, cpus, at_once):
    placed, number = fit_to_cluster(wanted, nodes)
    assert (placed.cpus, number) == (cpus, at_once)


def placed_one_by_one(wanted, nodes, cpus):
    """Workers of a trial are put on whole CPUs and on GPUs one after another until none fits."""
    count = 0
    for each in nodes:
        free, left = int(each["CPU"]), [Fraction(1)] * int(each["GPU"])
        need = Fraction(wanted.gpus).limit_denominator(100)
        while free >= cpus:
            with_room = [i for i, part in enumerate(left) if part >= min(need, 1)]
            take = max(int(need), 1) if need else 0
            if len(with_room) < take:
                break
            for i in with_room[:take]:
                left[i] -= min(need, 1)
            free, count = free - cpus, count + 1
    return count // wanted.workers


def test_odd_clusters_against_placing_one_by_one():
    draw = random.Random(0)
    refused = 0
    for _ in range(400):
        nodes = [
            node(draw.randrange(0, 18), draw.choice((0, 0, 1, 2, 3, 8)))
            for _ in range(draw.randrange(1, 5))
        ]
        gpus = draw.choice((0, 0.1, 0.25, 0.3, 0.34, 0.4, 0.6, 1, 2, 3))
        wanted = placement(cpus=draw.randrange(1, 9), gpus=gpus, workers=draw.randrange(1, 5))
        most = placed_one_by_one(wanted, nodes, 1)
        if not most:
            refused += 1
            with pytest.raises(UserError, match="but the cluster has room for"):
                fit_to_cluster(wanted, nodes)
            continue
        enough = most if gpus else 1
        cpus = max(
            c for c in range(1, wanted.cpus + 1) if placed_one_by_one(wanted, nodes, c) >= enough
        )
        placed, number = fit_to_cluster(wanted, nodes)
        assert (placed.cpus, number) == (cpus, placed_one_by_one(wanted, nodes, cpus)), (
            wanted,
            nodes,
        )
    assert 50 < refused < 300


@pytest.mark.parametrize(
    ("wanted", "nodes", "message"),
    [
        (
            placement(workers=3),
            [node(2)],
            r"needs 3 workers with 1 CPU each, but the cluster has room for 2 "
            r"\(2 CPUs and 0 GPUs\)",
        ),
        (
            placement(gpus=1),
            [node(64), node(8)],
            r"1 CPU and 1 GPUs each, whole on one node, but the cluster has room for 0",
        ),
        (
            placement(gpus=1, workers=3),
            [node(64), node(8, 2)],
            r"3 workers .* for 2 \(64 CPUs and 0 GPUs; 8 CPUs and 2 GPUs\)",
        ),
        (
            placement(gpus=2),
            [node(8, 1), node(8, 1), node(64)],
            r"2 GPUs each, whole on one node, but .* room for 0 "
            r"\(2 nodes of 8 CPUs and 1 GPUs; 64 CPUs and 0 GPUs\)",
        ),
        (
            placement(workers=99),
            [node(i) for i in range(8)],
            r"room for 28 \(.*3 CPUs and 0 GPUs; 4 other kinds of node\)",
        ),
        (placement(), [node(0)], r"room for 0"),
    ],
)
def test_what_can_never_be_placed_is_refused(wanted, nodes, message):
    with pytest.raises(UserError, match=message):
        fit_to_cluster(wanted, nodes)


def test_threads_and_decoders():
    def split(one, stores_features=False):
        return one.loader_workers(stores_features), one.threads(stores_features)

    assert split(placement(cpus=8, gpus=1)) == (7, 1)
    assert split(placement(cpus=8)) == (1, 7)
    assert split(placement(cpus=1)) == (0, 1)
    assert split(placement(cpus=2, scale="demo"))[0] == 0
    assert split(placement(cpus=2), stores_features=True) == (0, 2)


def test_storage_is_probed_and_left_clean(tmp_path):
    environment.check_storage(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        for write in (True, False):
            with pytest.raises(UserError, match="/file' is a file, not a folder. Give another"):
                environment.check_storage(str(tmp_path / place), write=write)
    environment.check_storage(str(tmp_path / "other"), write=False)
    assert not (tmp_path / "other").exists()
