"""A Ray cluster of real nodes on addresses of their own, which tests start, drain and kill."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from sadcl import results
from tests.conftest import TINY

TRAIN = """
from sadcl import recipes
from sadcl.cli.experiment import main_train
{before}
main_train(recipes.coco14(), recipes.demo().override({changes!r}), name="t")
"""
OF_CHANCE = {"seconds", "images_per_second", "memory_mb"}
"""Columns that differ between two runs of the same trial."""
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_", "SADCL_"))}


def train_file(folder, before="", **changes):
    path = folder / "train.py"
    path.write_text(TRAIN.format(before=before, changes=TINY | changes))
    return path


def until(condition, seconds=240, process=None):
    """What the condition gave at last; a process that must not end before is watched."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, "it has ended before"
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found


def epochs(root):
    """Every epoch's figures by stage and epoch; one that is there twice is an error."""
    try:
        table = results.read(root, "epochs").to_pylist()
    except results.store.UserError:  # nothing is written yet
        return {}
    found = {
        (row["stage"], row["epoch"]): {n: v for n, v in row.items() if n not in OF_CHANCE}
        for row in table
    }
    assert len(found) == len(table)
    return found


class Cluster:
    """Each node in a process group of its own; the first is the head, which has no CPU."""

    def __init__(self, folder, cache, head="127.0.0.2", namespaces=False):
        self.short = tempfile.TemporaryDirectory(
            prefix="r"
        )  # names of sockets below it may have 107 characters
        self.folder, self.head, self.namespaces = folder, head, namespaces
        self.nodes, self.drivers, self.numbers = {}, [], itertools.count()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = 12000 + probe.getsockname()[1] % 18000
        self.address = f"{head}:{self.port}"
        bin_first = f"{Path(sys.executable).parent}:{PLAIN['PATH']}"
        self.environment = PLAIN | {
            "PATH": bin_first,
            "XDG_CACHE_HOME": str(cache),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0" * 64,
        }

    def inside(self, address):
        """In front of a command that runs where a node does."""
        return (
            ["ip", "netns", "exec", f"sadcl{address.rpartition('.')[2]}"] if self.namespaces else []
        )

    def start(self, address, cpus=1):
        number = next(self.numbers)
        agent = str(self.port + 3 + number)
        words = [
            *self.inside(address),
            "ray",
            "start",
            "--block",
            "--disable-usage-stats",
            f"--node-ip-address={address}",
        ]
        words += [
            "--object-store-memory=80000000",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--num-cpus={cpus}",
        ]
        words += ["--num-gpus=0", f"--dashboard-agent-listen-port={agent}"]
        if address == self.head:
            words += [
                "--head",
                f"--port={self.port}",
                f"--temp-dir={self.short.name}/ray",
                "--include-dashboard=false",
            ]
            words += [
                f"--ray-client-server-port={self.port + 1}",
                f"--dashboard-port={self.port + 2}",
            ]
        else:
            words += [f"--address={self.address}"]
        more = {"GLOO_SOCKET_IFNAME": "eth0"} if self.namespaces else {}
        for attempt in range(6):  # on a busy machine Ray's own 30 seconds are too few
            log = open(self.folder / f"node{number}-{attempt}.log", "w")  # noqa: SIM115
            process = subprocess.Popen(
                words,
                env=self.environment | more,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.nodes[address] = process
            said = until(
                lambda log=log, p=process: (
                    "runtime started" in Path(log.name).read_text() or p.poll()
                ),
                200,
            )
            if said is True:
                return address
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(Path(log.name).read_text()[-2000:])

    def processes(self, address):
        process = psutil.Process(self.nodes[address].pid)
        return [process, *process.children(recursive=True)]

    def kill(self, address):
        """The node with all of its processes at once, as when the power fails."""
        for process in self.processes(address):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.nodes.pop(address).wait(60)

    def trainers(self):
        """The training process of each node that has one."""
        found = {}
        for address in self.nodes:
            for process in self.processes(address):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "TrainWorker" in " ".join(process.cmdline()):
                        found[address] = process
        return found

    def call(self, *words):
        done = subprocess.run(
            [*self.inside(self.head), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def ids(self):
        """The id of each node that is alive, by its address."""
        code = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
print("ids", *[f"{n['NodeManagerAddress']}={n['NodeID']}" for n in ray.nodes() if n["Alive"]])
"""
        said = self.call(sys.executable, "-c", code, self.address)
        line = next(line for line in said.splitlines() if line.startswith("ids "))
        return dict(word.split("=") for word in line.split()[1:])

    def run(self, file, *words, **environment):
        """A driver in the background, whose output is in ``log``."""
        words = [
            *self.inside(self.head),
            sys.executable,
            str(file),
            *map(str, words),
            "--address",
            self.address,
        ]
        log = open(self.folder / "log", "w")  # noqa: SIM115
        self.drivers.append(
            subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        return self.drivers[-1]

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def stop(self):
        for driver in self.drivers:
            driver.kill()
        for address in list(self.nodes):
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in self.processes(address):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGCONT)
            with contextlib.suppress(psutil.NoSuchProcess, subprocess.TimeoutExpired):
                self.kill(address)
        self.short.cleanup()
