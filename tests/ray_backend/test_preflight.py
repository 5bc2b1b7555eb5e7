"""How large a trial is and how many fit, by node; and what is refused with its arithmetic."""

import pytest

from sadcl.errors import UserError
from sadcl.ray_backend import preflight
from sadcl.runner import Where


def where(**changes):
    return Where(storage="runs", data_root="/data", **{"scale": "full", **changes})


def node(cpus, gpus=0):
    return {"CPU": float(cpus), "GPU": float(gpus), "memory": 1e9}


@pytest.mark.parametrize(
    ("wanted", "nodes", "cpus", "at_once"),
    [
        (where(cpus=1), [node(2)], 1, 2),
        (where(cpus=2), [node(2)], 2, 1),
        (where(cpus=8), [node(2)], 2, 1),
        (where(cpus=1, workers=2), [node(2)], 1, 1),
        (where(cpus=1, workers=3), [node(2), node(2)], 1, 1),
        # beside a GPU: as many CPUs as leave every GPU its trial
        (where(cpus=8, gpus=1), [node(16, 8)], 2, 8),
        (where(cpus=8, gpus=1), [node(64, 0), node(4, 1), node(4, 1)], 4, 2),
        (where(cpus=8, gpus=0.1), [node(20, 1)], 2, 10),
        (where(cpus=8, gpus=2, workers=2), [node(32, 8)], 8, 2),
        (where(cpus=8, gpus=1, workers=8), [node(16, 8)], 2, 1),
    ],
)
def test_size_and_number(wanted, nodes, cpus, at_once):
    placed, number = preflight.place(wanted, nodes)
    assert (placed.cpus, number) == (cpus, at_once)


@pytest.mark.parametrize(
    ("wanted", "nodes", "message"),
    [
        (
            where(workers=3),
            [node(2)],
            r"needs 3 workers with 1 CPU each, but the cluster has room for 2 \(2 CPUs and 0 GPUs\)",
        ),
        (where(gpus=1), [node(64), node(8)], r"1 CPU and 1 GPUs each, but the cluster has room for 0"),
        (where(gpus=2), [node(8, 1), node(8, 1)], r"room for 0"),
        (where(), [node(0)], r"room for 0"),
    ],
)
def test_what_can_never_be_placed_is_refused(wanted, nodes, message):
    with pytest.raises(UserError, match=message):
        preflight.place(wanted, nodes)


def test_threads_and_decoders():
    assert (where(cpus=8, gpus=1).loader_workers, where(cpus=8, gpus=1).threads) == (7, 1)
    assert (where(cpus=8).loader_workers, where(cpus=8).threads) == (1, 7)
    assert (where(cpus=1).loader_workers, where(cpus=1).threads) == (0, 1)
    assert where(cpus=2, scale="demo").loader_workers == 0


def test_storage_is_probed_and_left_clean(tmp_path):
    preflight.check_storage(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        preflight.check_storage(str(tmp_path / "file"))
