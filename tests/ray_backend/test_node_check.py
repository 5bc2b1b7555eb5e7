"""What is wrong on a node is reported before anything is placed there.

The first tests run on a real cluster whose nodes see different disks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from sadcl.errors import UserError
from sadcl.ray_backend import node_check, node_report
from sadcl.ray_backend.node_report import MISSING, Entry, EntryKind, NodeReport
from sadcl.study.gpu_driver import GPUDriver
from sadcl.study.placement import Placement

CLUSTER = '''
import contextlib, ctypes, json, os, signal, subprocess, sys, threading
from pathlib import Path
from types import SimpleNamespace

from ray.cluster_utils import Cluster

import sadcl
from sadcl.errors import UserError
from sadcl.ray_backend import cluster, node_check

LEAST = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
NEWNS, FS = 0x00020000, 0x00000200
base, views = Path(sys.argv[1]), sys.argv[2] == "views"
libc = ctypes.CDLL(None, use_errno=True)
own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
for name in ("shared", "local", "fixed", "empty", "data"):
    (base / name).mkdir()
(base / "data" / "labels.json").write_text("12345")
(base / "data" / "photo.jpg").write_bytes(b"1234")
(base / "cut.json").write_text("123")
(base / "other.py").write_text("changed = True")


def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


@contextlib.contextmanager
def alone():
    """Only this process, and those that it starts in the block, see what is mounted in it."""
    call("unshare", NEWNS)
    yield
    call("unshare", FS)  # with threads that share it, setns would fail
    call("setns", own, NEWNS)


def add(address, cpus):
    with alone() if views else contextlib.nullcontext():
        node = ray.add_node(num_cpus=cpus, node_ip_address=address, **LEAST)
    return node.all_processes["raylet"][0].process.pid


def hide(raylet, what, there):
    """A node sees another file or folder in its place."""
    view = os.open(f"/proc/{raylet}/ns/mnt", os.O_RDONLY)
    with alone():
        call("setns", view, NEWNS)
        subprocess.run(["mount", "--bind", str(there), str(what)], check=True)
        if what == there:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(what)], check=True)


def ask(label, storage="shared", names=(), **options):
    placement = SimpleNamespace(
        storage=str(base / storage), data_root=str(base / "data"), scale="demo", gpus=0
    )
    answers[label] = ""
    try:
        node_check.check_nodes(placement, names, **options)
    except UserError as error:
        answers[label] = str(error)


answers = {}
ray = Cluster()
head, same, other = add("127.0.0.2", 0), add("127.0.0.3", 2), add("127.0.0.4", 2)
names = ["labels.json", "photo.jpg"]
with cluster.connected(ray.address):
    ask("agree", names=names)
    answers["left"] = sorted(os.listdir(base / "shared"))
    if views:
        hide(head, base / "data", base / "empty")
        ask("served", names=names)
        hide(other, base / "local", base / "empty")
        ask("local", "local")
        answers["strayed"] = sorted(os.listdir(base / "empty"))
        hide(other, base / "fixed", base / "fixed")
        ask("fixed", "fixed")
        hide(other, base / "data" / "labels.json", base / "cut.json")
        ask("cut", names=names)
        hide(other, base / "data", base / "empty")
        ask("both", "local", names=names)
        ask("unneeded")
        hide(other, sadcl.__file__, base / "other.py")
with cluster.connected(ray.address):
    if views:
        ask("sources")
    os.kill(other, signal.SIGSTOP)
    ask("hangs", deadline=5)
    threading.Timer(0.5, os.kill, (other, signal.SIGKILL)).start()
    ask("dies")
    ask("gone")
ray.shutdown()
print(json.dumps(answers))
'''


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each check of the cluster reported."""
    own_view = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*own_view, "mount", "--bind", "/tmp", "/tmp"], check=False).returncode
    ):
        own_view = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    with tempfile.TemporaryDirectory(
        prefix="r"
    ) as short:  # the names of sockets below it may have 107 characters
        environment |= {"RAY_TMPDIR": short, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        # notices in 3 s instead of 15 s that a raylet is killed; a slow one has as long as ever
        environment |= {
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_initial_delay_ms": "0",
        }
        words = [
            sys.executable,
            "-c",
            CLUSTER,
            str(tmp_path_factory.mktemp("cluster")),
            "views" if own_view else "",
        ]
        done = subprocess.run(
            [*own_view, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


ONE = "1 of the 3 nodes of the cluster cannot take trials. Node 127.0.0.4: "


def test_nodes_that_agree_pass_and_nothing_is_left(answers):
    assert answers["agree"] == ""
    assert answers["left"] == []


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("served", ""),  # a node without a CPU trains nothing
        (
            "local",
            ONE + "does not see what the driver wrote in '{base}/local': give --storage s3://",
        ),
        (
            "fixed",
            ONE + "The storage '{base}/fixed' cannot be written: [Errno 30] Read-only file system",
        ),
        (
            "cut",
            ONE + "'{base}/data/labels.json' is 3 bytes there, but 5 bytes on the driver: give a "
            "--data-root",
        ),
        ("both", ONE + "does not see what the driver wrote in '{base}/local'"),
        (
            "both",
            "all nodes share. Node 127.0.0.4: '{base}/data/labels.json' does not exist there "
            "(and 1 more): give a --data-root",
        ),
        ("unneeded", ""),
        ("sources", ONE + "sadcl's sources "),
    ],
)
def test_a_node_that_sees_something_else(answers, tmp_path_factory, label, message):
    if label not in answers:
        pytest.skip("this machine lets nobody mount anything")
    base = tmp_path_factory.getbasetemp() / "cluster0"
    error = answers[label]
    assert message.format(base=base) in error if message else error == ""


def test_nothing_is_written_to_a_storage_that_is_another(answers):
    assert answers.get("strayed", []) == []


def test_a_node_that_hangs_and_one_that_dies(answers):
    assert answers["hangs"].startswith(ONE + "no answer within 5 s (a disk that hangs")
    assert answers["dies"].startswith(ONE + "was lost during the check (")
    assert answers["gone"] == ""


VERSIONS = {"code": "ab12", "python": "3.11.7", "torch": "2.14.1", "timm": "1.0.31"}
FOLDER, FILE = Entry(EntryKind.FOLDER), Entry(EntryKind.FILE, 5)
DRIVER = NodeReport(VERSIONS, "", {"": FOLDER, "a": FILE})


def problems(scale="full", trains=True, **changes):
    return node_check.problems(
        DRIVER._replace(**changes), DRIVER, Placement("/runs", "/data", scale), trains
    )


def test_a_node_like_the_driver_has_no_problem():
    assert problems() == []


def test_versions_are_named_with_both_values():
    (text,) = problems(versions=dict(VERSIONS, torch="2.9.1", code="cd34", timm=None))
    assert text.startswith(
        "sadcl's sources cd34, on the driver ab12; torch 2.9.1, on the driver 2.14.1; "
        "timm missing, on the driver 1.0.31: install"
    )


OLD = GPUDriver("570.124.06", 12, "13.0")


def test_a_driver_that_is_too_old_is_named_where_a_gpu_trains():
    def gpu_problems(gpu, gpus=1, trains=True):
        placement = Placement("/runs", "/data", gpus=gpus)
        return node_check.problems(DRIVER._replace(gpu=gpu), DRIVER, placement, trains)

    assert gpu_problems(GPUDriver("580.65.06", 13, "13.0")) == []
    (text,) = gpu_problems(OLD)
    assert node_check.refusal({"10.0.0.4": [text], "10.0.0.5": []}) == (
        "1 of the 2 nodes of the cluster cannot take trials. Node 10.0.0.4: the NVIDIA driver is "
        "570.124.06, but PyTorch is built for CUDA 13.0 and needs 580 or newer: update the driver, "
        "or install PyTorch for an older CUDA."
    )
    assert gpu_problems(OLD, trains=False) == []  # a head
    assert gpu_problems(OLD, gpus=0) == []


def test_a_node_reports_its_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(node_report, "read_gpu_driver", lambda: OLD)
    (tmp_path / "marker").write_bytes(f"{tmp_path}/marker".encode())
    assert node_report.node_report(str(tmp_path), f"{tmp_path}/marker", None, []).gpu == OLD


def test_builds_for_other_hardware_are_one_version(monkeypatch):
    for build, version in (("2.14.1+cpu", "2.14.1"), ("2.14.1", "2.14.1"), (None, None)):
        monkeypatch.setattr(
            node_report,
            "provenance",
            lambda build=build: {"torch": build, "host": "h", "revision": None},
        )
        assert node_report.versions() == {"torch": version}


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"": MISSING, "a": MISSING}, "'/data' does not exist there: give"),
        (
            {"": Entry(EntryKind.UNREADABLE, error="why")},
            "'/data' is not readable (why) there, but a folder on the driver: give",
        ),
        (
            {"": FOLDER, "a": Entry(EntryKind.FILE, 6)},
            "'/data/a' is 6 bytes there, but 5 bytes on the driver: give",
        ),
        (
            {"": FOLDER, "a": FOLDER},
            "'/data/a' is a folder there, but 5 bytes on the driver: give",
        ),
    ],
)
def test_another_copy_of_the_data(entries, text):
    assert problems(data=entries)[0].startswith(text)
    assert problems(data=entries, trains=False) == []


def test_many_nodes_make_one_paragraph():
    problems_of = (
        {f"10.0.0.{i}": ["alike"] for i in range(9)}
        | {f"10.0.1.{i}": [f"p{i}"] for i in range(7)}
        | {"10.0.2.0": []}
    )
    text = node_check.refusal(problems_of)
    assert text.startswith(
        "16 of the 17 nodes of the cluster cannot take trials. Nodes 10.0.0.0, 10.0.0.1, 10.0.0.2, "
    )
    assert "10.0.0.5 and 3 more: alike. Node 10.0.1.0: p0. " in text
    assert text.endswith("Node 10.0.1.4: p4. And 2 more problems.")


def test_what_lies_at_a_root(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "file").write_bytes(bytes(1234))
    (tmp_path / "a b" / "lost").symlink_to("nowhere")
    names = ["file", "lost", "file/x"]
    entries = {
        "": FOLDER,
        "file": Entry(EntryKind.FILE, 1234),
        "lost": MISSING,
        "file/x": MISSING,
    }
    assert node_report.data_entries(str(tmp_path / "a b"), names) == entries
    assert [str(entry) for entry in entries.values()] == [
        *("a folder", "1,234 bytes", "nothing", "nothing"),
    ]
    assert node_report.data_entries(f"file://{tmp_path}/a b/", names) == {"": FOLDER}
    assert node_report.data_entries(f"file://{tmp_path}/b", names) == {"": MISSING}
    assert str(node_report.data_entries("nowhere://x", names)[""]).startswith("not readable (")
    assert node_report.data_entries(None, names) == {}


def test_a_storage_elsewhere_that_is_another(monkeypatch):
    monkeypatch.setattr(node_report.storage, "read", lambda uri: b"of somebody else")
    report = node_report.node_report("s3://lab/runs", "s3://lab/runs/.probe-1", None, [])
    assert report.storage.startswith(
        "does not see what the driver wrote in 's3://lab/runs': give its environment the "
    )


def test_a_node_needs_no_torch_to_look():
    code = (
        "import sadcl.ray_backend.node_report, sys; "
        "sys.exit(bool({'torch', 'ray'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("address", "message"), [("10.0.0.1:6379", "asked for a"), (None, "room for 0")]
)
@pytest.mark.parametrize("command", ["search", "ablation", "train"])
def test_only_a_cluster_that_was_joined_is_asked_and_before_anything_else(
    monkeypatch, tmp_path, address, message, command
):
    from sadcl.ray_backend import driver
    from sadcl.study.checkpoint_quota import CheckpointQuota

    def check(placement, names):
        raise UserError(f"asked for {names[0]}")

    monkeypatch.setattr(node_check, "check_nodes", check)
    monkeypatch.setattr(
        driver.cluster,
        "connected",
        lambda address, sources: contextlib.nullcontext([{"CPU": 0.0}]),
    )
    plan = SimpleNamespace(
        study="s",
        key="k",
        is_complete=lambda rows: False,
        sources={},
        config=SimpleNamespace(sources={}),
    )
    study = SimpleNamespace(name="s", plan=plan, rows=[])
    placement = Placement(str(tmp_path), "/data")
    arguments = {
        "search": (study, placement, address, ["a"], None, CheckpointQuota(str(tmp_path), None)),
        "ablation": (study, {"coco": placement}, address, {"coco": ["a"]}, None),
        "train": (plan, placement, address, ["a"]),
    }
    with pytest.raises(UserError, match=message):
        getattr(driver, f"run_{command}")(*arguments[command])
