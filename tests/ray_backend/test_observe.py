"""What is seen of trials while they run: metrics, the Train tab, errors by rank, and steps that hang."""

import json
import threading
import time

import pytest

from sadcl.errors import UserError
from sadcl.ray_backend.attendance import Attendance

WATCHED = """
import json, os, signal, sys, threading, time, urllib.request
from pathlib import Path
from sadcl import recipes
from sadcl.ray_backend import environment
environment.prepare(None)
import psutil, ray
from sadcl.ray_backend import board as boards, cluster, jobs
from sadcl.runner import Where
from sadcl.search.trial import Trial
from tests.conftest import TINY

def trial(arm, **changes):
    return Trial("seen", "train", arm, recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1, **changes}))

def get(url):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
    return urllib.request.urlopen(request, timeout=20).read().decode()

def until(true, what, seconds=200):
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}: {EVENTS}")
        time.sleep(0.3)
    return found

EVENTS = []
def events():
    EVENTS.extend(boards.drain(board))
    return EVENTS

with cluster.connected(None):
    board = boards.open_board()
    def start(trial, workers):
        where = Where("runs", None, scale="demo", workers=workers)
        return jobs.Jobs(where, os.path.abspath("scratch"), board), trial
"""
ENDS = """
"""
METRICS = (
    WATCHED
    + """
    # long enough for Ray to export what it holds: it does so every second here
    long = {"data.scene_train": 600, "optim.batch_size": 4, "stage2.epochs": 40}
    one, two = start(trial("one", **long), 1), start(trial("two", **long), 2)
    for pool, t in (one, two):
        pool.start(t)
    url = "http://{NodeManagerAddress}:{MetricsExportPort}/metrics".format(**ray.nodes()[0])
    said = {}
    def scraped():
        for line in get(url).splitlines():
            if line.startswith("ray_sadcl_"):
                name, _, value = line.rpartition(" ")
                said[name] = float(value)
        events()
        arms = [name for name in said if "sadcl_val_mAP" in name]
        return len(arms) == 2 and any("synchronisation" in n and 'rank="1"' in n and v > 0 for n, v in said.items())
    until(scraped, "the metrics")
    host = psutil.Process()
    def beating():  # both workers of the larger trial take part in the second stage
        return [e for e in events() if e["key"] == two[1].key and e.get("stage") == 2]
    until(beating, "stage 2")
    worker = next(p for p in host.children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline()))
    worker.send_signal(signal.SIGSTOP)
    until(lambda: [e for e in events() if "HANGS" in e.get("late", "")], "the report of what hangs")
    worker.send_signal(signal.SIGCONT)
    until(lambda: [e for e in events() if "goes on" in e.get("late", "")], "the trial to go on")
    runs = json.loads(get(f"http://{ray._private.worker.get_dashboard_url()}/api/train/v2/runs/v1"))
    late = [e["late"] for e in events() if "late" in e]
    print("RESULT", json.dumps({"metrics": said, "late": late, "pid": worker.pid, "runs": runs["train_runs"]}))
"""
)
