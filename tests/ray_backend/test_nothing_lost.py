"""Parts of a study are killed twenty times: no row is lost or doubled, nothing is left behind."""

import json
import random
import signal
import time

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sadcl import results
from sadcl.training import checkpoint
from tests.ray_backend.test_driver_search import PHASES, count, rows, start

KINDS = ["driver"] * 7 + ["trial"] * 7 + ["cluster"] * 6
TRIALS = 5
OF_CHANCE = {"seconds", "images_per_second", "memory_mb"}
"""Columns that differ between two runs of the same trial."""


def processes(mark):
    """All that the drivers of this test have started, whoever is their parent by now."""
    marked = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("SADCL_MARK") == mark
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                marked.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return marked


def training(mark):
    """The processes that train: Ray titles them by the task or the actor that they run."""
    trainers = []
    for process in processes(mark):
        try:
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if title.startswith("ray::") and any(
            word in title for word in ("run", "ImplicitFunc", "objective")
        ):
            trainers.append(process)
    return trainers


def epochs(root):
    """Every epoch's row by key, stage and epoch; a duplicate is an error."""
    if not (root / "tables").exists():
        return {}
    table = results.read(root, "epochs").to_pylist()
    by_epoch = {
        (row["key"], row["stage"], row["epoch"]): {
            n: v for n, v in row.items() if n not in OF_CHANCE
        }
        for row in table
    }
    assert len(by_epoch) == len(table)
    return by_epoch


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def kill(kind, process, mark, chance):
    if kind == "trial":
        until(lambda: training(mark), process)
        victim = chance.choice(sorted(training(mark), key=lambda p: p.pid))
        victim.kill()
        return
    hit = [psutil.Process(process.pid)] if kind == "driver" else processes(mark)
    for victim in hit:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    assert process.wait(60) == -signal.SIGKILL


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_twenty_times_nothing_is_lost_doubled_or_left(command, study_file, tmp_path):
    file = study_file(trials=TRIALS, **{"stage1.epochs": 6, "stage2.epochs": 30})
    text = file.read_text().replace("import Float", "import ASHA, Float")
    file.write_text(
        text.replace("    n_trials=3,", "    n_trials=3, pruner=ASHA(min_epochs=4, reduction=2),")
    )
    root, mark = tmp_path / "runs", str(tmp_path)
    command.environment["SADCL_MARK"] = mark
    chance, kinds, seen, process = random.Random(0), list(KINDS), {}, None
    chance.shuffle(kinds)
    for number, kind in enumerate(kinds):
        fresh = process is None
        process = process or start(command, file, tmp_path)
        if fresh and number % 4 == 0 and kind != "trial":  # while it starts
            time.sleep(chance.uniform(0, 12))
        else:
            least = len(seen) + chance.randint(1, 10)
            until(lambda least=least: len(epochs(root)) >= least, process)
            time.sleep(chance.uniform(0, 0.5))
        kill(kind, process, mark, chance)
        if kind != "trial":
            process = None
            until_gone = (
                time.monotonic() + 30
            )  # what trains must go at once, though nobody is left to tell it
            while training(mark):
                assert time.monotonic() < until_gone, training(mark)
                time.sleep(0.1)
        now = epochs(root)
        assert {at: now.get(at) for at in seen} == seen, kind
        seen = now
    if process is not None:
        assert process.wait(300) == 0
    else:
        command("python", file)
    found = rows(root)
    assert count(found) == {**PHASES, "search": TRIALS}
    assert len({row["key"] for row in found}) == len(found)
    assert {row["status"] for row in found} == {"complete", "pruned"}
    assert {row["phase"] for row in found if row["status"] == "pruned"} == {"search"}
    now = epochs(root)
    assert {at: now.get(at) for at in seen} == seen
    for row in found:
        own = [at[1:] for at in now if at[0] == row["key"]]
        for stage in {stage for stage, _ in own}:
            numbers = sorted(epoch for s, epoch in own if s == stage)
            assert numbers == list(range(1, len(numbers) + 1))
        assert len(own) == row["epochs_done"]
        checkpoint.load_checkpoint(f"{root}/{row['checkpoint']}")
    assert optuna_has(root) == {
        row["key"]: (
            json.loads(row["params"]),
            row["status"],
            row["val_mAP"] if row["status"] == "complete" else None,
        )
        for row in found
        if row["phase"] == "search"
    }
    left = [
        p
        for p in root.rglob("*")
        if p.name == "state.pt" or p.suffix == ".part" or ".probe" in p.name
    ]
    assert not left

    quiet = tmp_path / "quiet"
    command("python", file, "--storage", quiet)
    settled = {
        row["key"]
        for row in found
        if row["phase"] in ("stage1", "baseline") and row["key"] in {r["key"] for r in rows(quiet)}
    }
    assert len(settled) >= 4
    undisturbed = epochs(quiet)
    assert {at: e for at, e in now.items() if at[0] in settled} == {
        at: e for at, e in undisturbed.items() if at[0] in settled
    }


def optuna_has(root):
    """Settings, status and value of each trial in the last start's journal, by its row's key."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="tiny-demo",
        storage=JournalStorage(JournalFileBackend(str(root / "optuna/tiny-demo.journal"))),
    )
    assert all(trial.state.is_finished() for trial in study.trials)
    return {
        trial.user_attrs["key"]: (
            trial.params,
            trial.state.name.lower(),
            trial.value if trial.state.name == "COMPLETE" else None,
        )
        for trial in study.trials
    }
