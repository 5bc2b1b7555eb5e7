"""Jobs on three nodes that local.sh starts: sent, watched, stopped, resumed, refused."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from sadcl import results
from tests.conftest import ROOT, STUDY, TINY
from tests.ray_backend.test_driver_search import PHASES, count, rows
from tests.ray_backend.test_nothing_lost import processes

LOCAL = ROOT / "cluster" / "local.sh"
SECRET = "wJalrXUtnFEMI-of-nobody"
ABLATION = """
from sadcl import Ablation, main, recipes

main(Ablation(
    name="parts", question="Does a job hold?", base=recipes.coco14(),
    demo=recipes.demo().override({changes!r}),
    baseline="SARL", seeds=(0,), arms={{"SARL": {{"stage2.epochs": 0}}, "both": {{}}}},
))
"""


def six_ports():
    """The first of six that nobody listens on, below those that the kernel gives away."""
    for first in range(21000 + os.getpid() % 5000, 32000, 6):
        with socket.socket() as probe:
            if all(
                probe.connect_ex((f"127.0.0.{host}", first + i))
                for host in (1, 2)
                for i in range(6)
            ):
                return first
    raise AssertionError("no port is free")


def user(folder, **more):
    """The environment of a user without settings of Ray, and with secrets in it, as is usual."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_", "SADCL_"))}
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    return (
        plain
        | {
            "PATH": path,
            "HOME": str(folder),
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "PYTHONUNBUFFERED": "1",
        }
        | more
    )


def shell(*words, env, timeout=240, **more):
    return subprocess.run(
        [str(w) for w in words],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **more,
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A cluster, a checkout to submit from, and the environment that local.sh says to set."""
    home = tmp_path_factory.mktemp("home")
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("sadcl", "experiments"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, checkout)
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        port, mark = six_ports(), str(home)
        cache = str(tmp_path_factory.mktemp("scenes"))
        env = user(
            home,
            SADCL_LOCAL=folder,
            SADCL_LOCAL_PORT=str(port),
            SADCL_MARK=mark,
            XDG_CACHE_HOME=cache,
        )
        try:
            started = shell(LOCAL, "start", env=env)
            assert started.returncode == 0, started.stdout + started.stderr
            said = dict(re.findall(r"(RAY_AUTH_\w+)=(\S+)", started.stdout))
            url = re.search(r"--address (\S+)", started.stdout)[1]
            yield SimpleNamespace(
                env=env,
                said=said,
                url=url,
                checkout=checkout,
                folder=Path(folder),
                port=port,
                text=started.stdout,
                token=Path(said["RAY_AUTH_TOKEN_PATH"]).read_text(),
            )
        finally:
            stopped = shell(LOCAL, "stop", env=env)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        left = [p for p in processes(mark) if "Agent" not in p.name()]
        assert not left, left
        assert not [path for path in Path(folder).iterdir() if path.is_dir()]
        assert shell(LOCAL, "status", env=env).returncode == 1


def answer(url, token=None, body=None, method="GET"):
    """What a server says to a request: its code."""
    request = urllib.request.Request(
        url, data=body and json.dumps(body).encode(), method="POST" if body else method
    )
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


class Job:
    """`ray job submit`, its output in a file as it comes."""

    def __init__(self, local, name, *entrypoint):
        self.local, self.name, self.out = local, name, local.folder / f"{name}.out"
        words = [
            "ray",
            "job",
            "submit",
            "--address",
            local.url,
            "--working-dir",
            ".",
            "--submission-id",
            name,
            "--",
        ]
        with open(self.out, "w") as out:
            self.process = subprocess.Popen(
                [*words, *map(str, entrypoint)],
                cwd=local.checkout,
                env=local.env | local.said,
                stdout=out,
                stderr=out,
            )

    @property
    def text(self):
        return self.out.read_text()

    def until(self, condition, seconds=240):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text[-3000:]
            assert time.monotonic() < deadline, self.text[-3000:]
            time.sleep(0.2)

    def stop(self, by_hand=False):
        """Stop the job by hand or by the request of `ray job stop`, and wait for its end."""
        if by_hand:
            env = self.local.env | self.local.said
            done = shell("ray", "job", "stop", "--address", self.local.url, self.name, env=env)
            assert "was stopped" in done.stdout + done.stderr, done.stdout + done.stderr
        else:
            assert (
                answer(
                    f"{self.local.url}/api/jobs/{self.name}/stop", self.local.token, method="POST"
                )
                == 200
            )
        self.process.wait(240)
        assert f"Job '{self.name}' was stopped" in self.text

    def log(self):
        """The cluster's log of the job; the stream of `submit` may lack its last lines."""
        request = urllib.request.Request(f"{self.local.url}/api/jobs/{self.name}/logs")
        request.add_header("Authorization", f"Bearer {self.local.token}")
        return json.loads(urllib.request.urlopen(request, timeout=60).read())["logs"]

    def end(self, seconds=300):
        return self.process.wait(seconds)


def epochs(root, key):
    """Loss by stage and epoch; an epoch that is there twice is an error."""
    found = [row for row in results.read(str(root), "epochs").to_pylist() if row["key"] == key]
    losses = {(row["stage"], row["epoch"]): row["loss"] for row in found}
    assert len(losses) == len(found)
    return losses


def packages(local):
    """Where each node has unpacked the packages of jobs."""
    return sorted(
        local.folder.glob("[0-2]/ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_submission_of_the_readme_on_a_new_cluster(local, tmp_path):
    """From an empty storage to its table, as the first job: nodes unpack while the driver runs."""
    assert not packages(local)
    job = Job(local, "readme", "python", "experiments/tune_coco.py", "--storage", tmp_path / "runs")
    assert job.end(1100) == 0, job.text[-3000:]
    assert "Traceback" not in job.log()
    assert "tuned, confirmed" in job.log()
    assert (
        "sadcl results report coco14-tune-demo --out coco14-tune-demo.html --storage" in job.log()
    )
    assert {row["status"] for row in rows(tmp_path / "runs")} <= {"complete", "pruned"}
    assert len({path.parents[4] for path in packages(local)}) == 3, (
        "a node has no folder of its own"
    )


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_job_whose_package_is_unpacked_anew_again_and_again(local, tmp_path):
    """The folders of its driver and workers vanish, and others take their place."""
    (local.checkout / "anew.py").write_text(
        STUDY.format(changes=TINY | {"stage2.epochs": 20}, trials=6, seeds=(7, 8))
    )
    root, before = tmp_path / "runs", set(packages(local))
    job = Job(local, "anew", "python", "anew.py", "--storage", root)
    job.until(lambda: any(row["phase"] == "search" for row in rows(root)))
    ours = [path for path in packages(local) if path not in before]
    assert len(ours) == 3
    times = 0
    while job.process.poll() is None:
        for path in ours:
            shutil.copytree(path, path.with_suffix(".new"), symlinks=True)
            path.rename(path.with_suffix(".old"))
            path.with_suffix(".new").rename(path)
            shutil.rmtree(path.with_suffix(".old"))
        times += 1
        time.sleep(2)
    assert job.end() == 0, job.log()[-3000:]
    assert times > 3
    assert "Traceback" not in job.log()
    assert count(rows(root)) == PHASES | {"stage1": 4, "search": 6, "confirm": 4}
    assert {row["status"] for row in rows(root)} == {"complete"}


@pytest.mark.soak
def test_a_job_is_sent_watched_stopped_and_resumed(local, tmp_path):
    (local.checkout / "parts.py").write_text(ABLATION.format(changes=TINY | {"stage2.epochs": 40}))
    root = tmp_path / "runs"
    command = ("python", "parts.py", "--storage", root)

    refused = Job(local, "relative", "python", "parts.py", "--storage", "runs")
    first = Job(local, "first", *command)

    def trained():
        found = [
            row["key"] for row in rows(root) if row["arm"] == "both" and row["status"] == "running"
        ]
        return bool(found) and len(epochs(root, found[0])) >= 2

    first.until(trained)
    first.until(
        lambda: re.search(r"both\S* s0: stage 2 epoch 2/40", first.text), 30
    )  # while it runs
    first.stop()
    assert "Nothing is lost; run the same command to resume" in first.log()
    assert "Traceback" not in first.log()
    before = {row["key"]: row for row in rows(root)}
    (key,) = [key for key, row in before.items() if row["arm"] == "both"]
    assert before[key]["status"] == "running"
    seen = epochs(root, key)
    assert len(seen) < 40

    # with the token in the driver's own environment, as it is where somebody gives it so
    word = (
        f'export RAY_AUTH_TOKEN="$(cat $RAY_AUTH_TOKEN_PATH)"; exec {" ".join(map(str, command))}'
    )
    second = Job(local, "second", "bash", "-c", word)
    assert second.end() == 0, second.text[-3000:]
    assert re.search(r"(1 was|2 were) interrupted", second.text)
    went_on = [
        int(epoch) for epoch in re.findall(r"both\S* s0: stage 2 epoch (\d+)/40", second.text)
    ]
    assert went_on == list(range(len(seen) + 1, 41))
    after = epochs(root, key)
    assert set(after) == {(2, epoch) for epoch in range(1, 41)}
    assert {at: after[at] for at in seen} == seen
    assert {row["status"] for row in rows(root)} == {"complete"}

    # an exit code that is not 0 comes back
    assert refused.end() == 1
    assert "failed with exit code 2" in refused.text
    assert "--storage 'runs' is relative, and this is a Ray job" in refused.text

    # no secret is in what was written or said
    shown = shell(
        "sadcl",
        "results",
        "show",
        key,
        "--storage",
        root,
        env=local.env | {"PYTHONPATH": str(local.checkout)},
    )
    assert shown.returncode == 0, shown.stderr
    study = next(row["study"] for row in rows(root))
    words = ("sadcl", "results", "report", study, "-o", root / "report.html", "--storage", root)
    reported = shell(*words, env=local.env | {"PYTHONPATH": str(local.checkout)})
    assert reported.returncode == 0, reported.stderr
    written = {
        str(p): p.read_bytes()
        for base in (root, local.folder)
        for p in base.rglob("*")
        if p.is_file()
    }
    written |= {"show": shown.stdout.encode(), "start": local.text.encode()}
    assert any(path.endswith(".parquet") for path in written)
    assert any("/logs/" in path for path in written)
    assert any(path.endswith("report.html") for path in written)
    for secret in (local.token, SECRET):
        assert [path for path, content in written.items() if secret.encode() in content] == (
            [local.said["RAY_AUTH_TOKEN_PATH"]] if secret == local.token else []
        )
    assert oct((local.folder / "token").stat().st_mode)[-3:] == "600"


@pytest.mark.soak
def test_without_the_token_nobody_is_let_in(local, tmp_path):
    evil = {"entrypoint": f"touch {tmp_path}/evil"}
    jobs, agent = f"{local.url}/api/jobs/", f"http://127.0.0.2:{local.port + 2}/api/job_agent/jobs/"
    for url in (jobs, agent):
        assert answer(url, body=evil) == 401
        assert answer(url, "0" * 64, evil) == 403
    assert answer(jobs) == 401
    assert answer(jobs, local.token) == 200
    address = f"127.0.0.2:{local.port}"
    ask = (
        "from ray._raylet import GcsClient; "
        f"GcsClient(address={address!r}).get_all_node_info(timeout=9)"
    )
    stranger = local.env | {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    submit = ("ray", "job", "submit", "--address", local.url, "--", "touch", tmp_path / "evil")
    for words, said in (
        (submit, "Missing authentication token"),
        ((sys.executable, "-c", ask), "missing or incorrect"),
    ):
        done = shell(*words, env=stranger)
        assert done.returncode == 1
        assert said in done.stderr
    assert not (tmp_path / "evil").exists()


@pytest.mark.soak
def test_others_cannot_reach_dashboard_and_job_server(local):
    """They listen on loopback alone, whatever address the machine has."""
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A":
            host, port = address.split(":")
            listening.setdefault(int(port, 16), set()).add(
                socket.inet_ntoa(bytes.fromhex(host)[::-1])
            )
    for port in range(local.port + 1, local.port + 5):
        assert listening[port]
        assert all(host.startswith("127.") for host in listening[port]), (port, listening[port])


@pytest.mark.soak
def test_stop_ends_nothing_that_it_did_not_start(tmp_path):
    """A number in its list that is another process by now."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "pids").write_text(f"{other.pid} Wed Nov 25 23:30:47 2020\n")
        env = user(tmp_path, SADCL_LOCAL=str(tmp_path))
        assert "does not run" in shell(LOCAL, "status", env=env).stdout
        assert shell(LOCAL, "stop", env=env).returncode == 0
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


@pytest.mark.soak
def test_a_search_as_a_job_stopped_three_times(local, tmp_path):
    (local.checkout / "tiny.py").write_text(
        STUDY.format(changes=TINY | {"stage2.epochs": 30}, trials=3, seeds=(7,))
    )
    root, seen = tmp_path / "runs", {}
    for number, phase in enumerate(("baseline", "search", "final")):
        job = Job(local, f"search{number}", "python", "tiny.py", "--storage", root)
        job.until(
            lambda phase=phase: any(
                row["phase"] == phase and row["status"] == "running" for row in rows(root)
            )
        )
        job.stop(by_hand=True)
        now = {
            (row["key"], row["stage"], row["epoch"]): row["loss"]
            for row in results.read(str(root), "epochs").to_pylist()
        }
        assert {at: now.get(at) for at in seen} == seen
        seen = now
    last = Job(local, "last", "python", "tiny.py", "--storage", root)
    assert last.end() == 0
    assert count(rows(root)) == PHASES
    assert {row["status"] for row in rows(root)} == {"complete"}
