"""Optuna's side of a search: what it is asked and told, and what it has after a new start.

Trials are rows here, and nothing is trained.
"""

import json
import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sadcl import Search, recipes, results, storage
from sadcl.ray_backend import optuna_study, tuner
from sadcl.results import RunWriter
from sadcl.search import Choice, Float, Int, Plan, When
from sadcl.search.plan_text import plan_lines
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.placement import Placement

NUMBERS = {
    "loss.tau": Float(0.05, 0.5, log=True),
    "bank.epsilon": Float(0.3, 0.7),
    "stage2.epochs": Int(2, 30),
}
BANK = {
    "bank.policy": Choice("slot", "fifo"),
    "bank.size": When("bank.policy", "fifo", Int(4, 64)),
    **NUMBERS,
}


class Bench:
    """A search on a store, whose trials end as the test says."""

    def __init__(self, root, space=NUMBERS, total=12, limit=None, **options):
        value = Search(
            name="s",
            question="?",
            base=recipes.coco14(),
            demo=recipes.demo(),
            space=space,
            **options,
        )
        self.plan = Plan(value, "demo", value.demo, total, "d1", "d2")
        self.placement = Placement(str(root), None, "demo")
        self.journal = root / "optuna" / "s.journal"
        self.quota = CheckpointQuota(str(root), limit, 1000, 300)
        self.number = 0
        self.start()

    def rows(self):
        if not storage.exists(f"{self.placement.storage}/tables"):
            return []
        return results.read(self.placement.storage, "trials").to_pylist()

    def start(self):
        """As a driver starts."""
        self.study = optuna_study.rebuild(self.plan, self.rows(), self.placement, self.journal)
        self.searcher = tuner._AskAndTell(
            self.plan, self.rows(), self.placement, self.study, self.quota, 1
        )

    def begin(self):
        self.number += 1
        setting = self.searcher.suggest(str(self.number))
        if setting == "FINISHED":
            return None
        trial = self.plan.search_trial(setting)
        columns = {
            "study": self.plan.study,
            "phase": "search",
            "arm": "tuned",
            "params": json.dumps(setting),
        }
        self.writer = RunWriter(self.placement.storage, trial.key, columns)
        return str(self.number), setting

    def end(self, begun, curve=(50.0,), status="complete"):
        name, _ = begun
        for epoch, value in enumerate(curve, 1):
            self.writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": value, "seconds": 60.0})
        seconds = 60.0 * len(curve)
        figures = (
            {"val_mAP": max(curve, default=None), "seconds": seconds, "memory_mb": 1.0}
            if status != "failed"
            else {}
        )
        self.writer.finish(status, metrics=figures)
        names = ("status", "epochs_done", "seconds", *self.plan.search.objectives)
        self.searcher.on_trial_complete(name, {n: self.writer.row.get(n) for n in names})


def ended_trials(study):
    return {
        t.user_attrs["key"]: (t.params, t.state.name, t.values, t.intermediate_values)
        for t in study.get_trials(deepcopy=False)
        if t.state.is_finished() and "key" in t.user_attrs  # not of a setting proposed twice
    }


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (BANK, {"sampler": "tpe"}),
        (BANK, {"sampler": "random"}),
        (NUMBERS, {"sampler": "cmaes"}),
        ({**NUMBERS, "bank.policy": Choice("slot", "fifo")}, {"sampler": "gp"}),
        (BANK, {"sampler": "nsga2", "objectives": ("val_mAP", "seconds")}),
    ],
)
def test_every_sampler_asks_tells_and_resumes(tmp_path, space, options):
    bench = Bench(tmp_path, space, **options)
    seen = []
    for i in range(12):
        begun = bench.begin()
        setting = begun[1]
        assert ("bank.size" in setting) == (
            setting.get("bank.policy") == "fifo" and "bank.size" in space
        )
        assert 0.05 <= setting["loss.tau"] <= 0.5
        seen.append(setting)
        bench.end(begun, curve=(40.0 + i, 50.0 - setting["loss.tau"]))
        if i in (4, 10):  # before and after the random ones end
            before = ended_trials(bench.study)
            bench.start()
            assert ended_trials(bench.study) == before
    assert len({json.dumps(s, sort_keys=True) for s in seen}) == 12
    assert len(ended_trials(bench.study)) == 12
    keys = {row["key"] for row in bench.rows()}
    assert ended_trials(bench.study).keys() == keys
    values = {
        row["key"]: [row[name] for name in bench.plan.search.objectives] for row in bench.rows()
    }
    assert {key: ended[2] for key, ended in ended_trials(bench.study).items()} == values


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (BANK, {"sampler": "tpe"}),
        (BANK, {"sampler": "random", "start_with": ({"loss.tau": 0.11},)}),
        (NUMBERS, {"sampler": "cmaes"}),
        pytest.param(NUMBERS, {"sampler": "gp"}, marks=pytest.mark.soak),
        (BANK, {"sampler": "nsga2", "objectives": ("val_mAP", "seconds")}),
    ],
)
def test_a_search_that_is_interrupted_proposes_what_one_that_is_not_does(tmp_path, space, options):
    """Killed between two trials, and in the middle of one, which resumes with its settings."""

    def settings(name, interrupted_after=(), interrupted_in=()):
        bench = Bench(tmp_path / name, space, total=16, **options)
        tried = []
        for i in range(14):
            begun = bench.begin()
            if i in interrupted_in:
                bench.start()
                assert bench.begin()[1] == begun[1]
                begun = str(bench.number), begun[1]
            tried.append(begun[1])
            status = "pruned" if i in (7, 11) else "failed" if i == 9 else "complete"
            tau = begun[1]["loss.tau"]
            bench.end(begun, (50 - tau, 60 - (tau - 0.2) ** 2) if i % 3 else (55 + tau,), status)
            if i in interrupted_after:
                bench.start()
        return tried

    whole = settings("whole")
    assert len({json.dumps(setting, sort_keys=True) for setting in whole}) == 14
    assert settings("killed", (0, 4, 9, 10), (1, 6, 12)) == whole


def test_of_several_at_once_a_proposal_follows_from_those_that_have_ended(tmp_path):
    def third(name, killed):
        bench = Bench(tmp_path / name, total=16)
        for _ in range(6):
            begun = bench.begin()
            bench.end(begun, (60 - begun[1]["loss.tau"],))
        first, writer = bench.begin(), bench.writer
        bench.end(bench.begin(), (61.0,))  # while the first one runs
        if killed:
            bench.start()
            assert bench.begin()[1] == first[1]
        else:
            bench.writer = writer
        return bench.begin()[1]

    assert third("killed", killed=True) == third("whole", killed=False)


def test_optuna_is_told_what_became_of_each_trial(tmp_path):
    bench = Bench(tmp_path)
    bench.end(bench.begin(), (40.0, 60.0, 55.0))
    bench.end(bench.begin(), (30.0, 20.0), "pruned")
    bench.end(bench.begin(), (10.0,), "failed")
    bench.end(bench.begin(), (float("nan"),))
    before = list(ended_trials(bench.study).values())
    assert [(state, curve) for _, state, _, curve in before[:3]] == [
        ("COMPLETE", {1: 40.0, 2: 60.0, 3: 55.0}),
        ("PRUNED", {1: 30.0, 2: 20.0}),
        ("FAIL", {1: 10.0}),
    ]
    assert before[0][2] == [60.0]
    assert before[3][1] == "FAIL"
    bench.start()
    again = list(ended_trials(bench.study).values())
    assert [t[:3] for t in again[:3]] == [t[:3] for t in before[:3]]
    assert again[3][1] == "FAIL"


def test_who_opens_the_journal_sees_what_the_study_is(tmp_path):
    bench = Bench(tmp_path, objectives=("val_mAP", "seconds"), sampler="nsga2")
    bench.start()
    journal = JournalStorage(JournalFileBackend(str(bench.journal)))
    study = optuna.load_study(study_name=None, storage=journal)
    assert study.metric_names == ["val_mAP", "seconds"]
    attributes = study.user_attrs
    assert (attributes["data set"], attributes["sampler"]) == ("scenes", "nsga2")
    assert attributes["question"] == bench.plan.search.question


def test_what_was_interrupted_comes_first_then_what_is_to_be_tried_first(tmp_path):
    bench = Bench(tmp_path, recipe_first=True, start_with=({"loss.tau": 0.11},))
    first, second = bench.begin(), bench.begin()
    assert first[1]["loss.tau"] == recipes.demo().loss.tau
    assert second[1]["loss.tau"] == 0.11
    bench.start()  # both were interrupted
    again = [bench.begin()[1] for _ in range(3)]
    assert {json.dumps(s, sort_keys=True) for s in again[:2]} == {
        json.dumps(s, sort_keys=True) for s in (first[1], second[1])
    }
    assert (
        again[2]["loss.tau"] != 0.11
    )  # what was to be tried first was tried, though it left other fields open


def test_no_trial_starts_once_the_budget_is_used_up(tmp_path):
    bench = Bench(tmp_path, max_epochs=5)
    bench.end(bench.begin(), (1.0, 2.0))
    begun = bench.begin()
    for epoch in range(1, 4):  # under way, and counted
        bench.writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": 1.0, "seconds": 60.0})
    assert bench.begin() is None
    bench.start()  # what was interrupted may end
    assert bench.begin()[1] == begun[1]
    assert bench.begin() is None
    hours = Bench(tmp_path / "hours", max_hours=0.05)
    hours.end(hours.begin(), (1.0, 2.0))
    hours.end(hours.begin(), (1.0,))
    assert hours.begin() is None


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_space_that_is_exhausted_ends_and_settings_are_never_tried_twice(tmp_path, sampler):
    space = {
        "bank.policy": Choice("slot", "fifo"),
        "bank.size": When("bank.policy", "fifo", Int(4, 8)),
        "stage2.epochs": Int(2, 5),
    }
    bench = Bench(tmp_path, space, total=30, sampler=sampler)
    seen = []
    while (begun := bench.begin()) is not None:
        seen.append(json.dumps(begun[1], sort_keys=True))
        bench.end(begun, (50.0,))
        if len(seen) == 15:
            bench.start()
    assert len(seen) == len(set(seen)) == (1 + 5) * 4
    assert bench.plan.remaining_trials(bench.rows()) == 0
    assert any(
        "24 trials, which is all that the space holds" in line for line in plan_lines(bench.plan)
    )


def test_values_that_are_tuples_come_back_as_they_were(tmp_path):
    frozen = {
        "model.frozen": Choice((), ("stem",), ("stem", "stage1")),
        "loss.tau": Float(0.05, 0.5),
    }
    bench = Bench(tmp_path, frozen, total=6)
    for _ in range(3):
        begun = bench.begin()
        assert begun[1]["model.frozen"] in ((), ("stem",), ("stem", "stage1"))
        bench.end(begun)
    before = ended_trials(bench.study)
    bench.start()
    assert ended_trials(bench.study) == before
    assert bench.begin() is not None


def test_a_study_may_be_named_like_a_pattern_and_takes_no_other_study_s_journal(tmp_path):
    bench = Bench(tmp_path)
    other = bench.journal.with_name("tau0.journal")
    other.write_text("of another study")
    bench.journal = bench.journal.with_name("tau[01].journal")
    bench.start()
    bench.end(bench.begin())
    bench.start()
    assert len(ended_trials(bench.study)) == 1
    assert other.read_text() == "of another study"


def test_generations_resume_where_they_were(tmp_path):
    bench = Bench(
        tmp_path, total=20, sampler="nsga2", objectives=("val_mAP", "seconds"), recipe_first=False
    )

    def generations():
        complete = [t for t in bench.study.get_trials() if t.state.name == "COMPLETE"]
        return [t.system_attrs.get("NSGAIISampler:generation") for t in complete]

    for i in range(12):
        bench.end(bench.begin(), (40.0 + i,))
    before = generations()
    assert max(before) == 2
    bench.start()
    assert generations() == before
    bench.end(bench.begin())
    assert generations()[-1] == 2


def test_settings_that_are_not_possible_together_end_the_search_with_their_reason(tmp_path):
    space = {"stage2.planned_epochs": Choice(85, 100), "stage2.epochs": Choice(80, 90)}
    bench = Bench(tmp_path, space, recipe_first=False)
    for _ in range(4):
        if bench.begin() is None:
            break
    assert "planned_epochs >= epochs must hold, but got 85 < 90" in str(bench.searcher.impossible)


def test_checkpoints_of_the_worst_trials_make_room_and_the_best_stay(tmp_path):
    bench = Bench(tmp_path, limit=None)
    rest = bench.plan.remaining_work([]).runs - bench.plan.remaining_trials([])
    bench.quota = CheckpointQuota(
        str(tmp_path), 3800 + rest * 1000, 1000, 300
    )  # the best, another, and one that runs
    bench.start()
    values = (50.0, 40.0, 60.0)
    keys = []
    for value in values:
        begun = bench.begin()
        storage.write(f"{tmp_path}/checkpoints/{bench.writer.key}/best.pt", b"x" * 1000)
        bench.writer.row["checkpoint"] = "best.pt"
        keys.append(bench.writer.key)
        bench.end(begun, (value,))
    assert bench.begin() is not None
    remaining = {p.parent.name for p in tmp_path.rglob("best.pt")}
    assert remaining == {keys[0], keys[2]}
    rows = {row["key"]: row for row in bench.rows()}
    assert rows[keys[1]]["checkpoint"] is None
    assert rows[keys[1]]["val_mAP"] == 40.0
    bench.end(bench.begin(), (), "failed")
    storage.write(f"{tmp_path}/checkpoints/{bench.writer.key}/state.pt", b"x" * 4000)
    assert bench.quota.make_room(
        bench.plan, 1
    )  # what a failed run left goes before anything of one that is complete
    assert {p.parent.name for p in tmp_path.rglob("*.pt")} == {keys[0], keys[2]}
    full = CheckpointQuota(str(tmp_path), 500, 1000, 300)
    assert not full.make_room(bench.plan, 1)
    assert {p.parent.name for p in tmp_path.rglob("best.pt")} == {
        keys[2]
    }  # the best is never given up
    assert "Raise --max-disk" in str(full.explain())
    assert "1 kB of the 500 bytes" in str(full.explain())


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_a_journal_on_a_disk_that_fails_has_each_line_once(tmp_path, monkeypatch):
    path, failures = tmp_path / "a.journal", []
    sync = os.fsync

    def failing(file):
        if failures:
            raise OSError(failures.pop(), "the disk fails")
        sync(file)

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    study = optuna.create_study(storage=JournalStorage(optuna_study._Journal(path)), study_name="a")
    for _ in range(3):
        failures.extend([30, 5])
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, 1.0)
    assert not failures
    again = optuna.load_study(storage=JournalStorage(optuna_study._Journal(path)), study_name="a")
    assert [trial.state.name for trial in again.trials] == ["COMPLETE"] * 3
    lines = path.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 3 * 3
