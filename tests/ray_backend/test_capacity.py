"""Numbers of workers: what may be asked for, and where a range is refused; what is said of workers that are gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import sadcl
from sadcl import recipes
from sadcl.cli.experiment import main
from sadcl.errors import TrialFailed, UserError
from sadcl.launch import options, resources
from sadcl.search import Search
from sadcl.search.space import Float


@pytest.mark.parametrize(
    ("given", "found"), [(1, (1, 0)), ("8", (8, 0)), ("2:8", (2, 8)), ("1:2", (1, 2))]
)
def test_a_number_or_a_range(given, found):
    assert options.parse_workers(given) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("two", "--workers two is not possible: give a number, or a range such as 2:8"),
        ("2:", "give a number, or a range such as 2:8"),
        ("0:4", "at least 1"),
        (-1, "at least 1"),
        ("4:4", "the second number must be the larger one"),
        ("8:2", "the second number must be the larger one"),
    ],
)
def test_another_number_is_refused(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sadcl.train(recipes.demo(), storage=str(tmp_path), workers=given)
    assert not list(tmp_path.iterdir())


def test_a_study_refuses_a_range(tmp_path, capsys):
    study = Search(
        name="s",
        question="?",
        base=recipes.coco14(),
        demo=recipes.demo(),
        space={"loss.tau": Float(0.05, 0.5)},
        trials=4,
    )
    with pytest.raises(SystemExit) as ended:
        main(study, ["--workers", "2:8", "--storage", str(tmp_path / "runs")])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "--workers 2:8 is not possible here: the trials of a study have one fixed number of workers"
        in said
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 600), ("45", 45), ("0", None), ("1.5", None), ("soon", None)]
)
def test_the_time_that_a_worker_may_keep_the_others_waiting(monkeypatch, tmp_path, text, seconds):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(resources.TIMEOUT, raising=False)
    if text is not None:
        monkeypatch.setenv(resources.TIMEOUT, text)
    start = options.StartOptions(storage=str(tmp_path), gpus_per_worker=0)
    if seconds is None:
        with pytest.raises(UserError, match=f"SADCL_TIMEOUT_SECONDS = '{text}' is not possible"):
            resources.make_placement(start, "demo", None, workers=1)
    else:
        assert resources.make_placement(start, "demo", None, workers=1).timeout == seconds


def test_who_is_gone_and_who_keeps_the_others_waiting_is_said(monkeypatch):
    from sadcl.ray_backend import capacity, trainer

    nodes = [
        {"NodeID": f"{n}" * 8, "NodeManagerAddress": f"10.0.0.{n}", "Alive": n != 3}
        for n in (1, 2, 3)
    ]
    for module in (trainer, capacity):
        monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
    timed_out, lost = TrialFailed("RuntimeError: Timed out"), RuntimeError("dead")
    timed_out.final = False
    came = {0: "1" * 8, 1: "2" * 8}
    failure = SimpleNamespace(worker_failures={0: timed_out})
    said = trainer._who(failure, timed_out, came, {0})
    assert said == "worker 1 on node 10.0.0.2 (222222) has not arrived (RuntimeError: Timed out)"
    failure.worker_failures[1] = lost
    assert (
        trainer._who(failure, timed_out, came, {0}) == "worker 1 on node 10.0.0.2 (222222) was lost"
    )
    assert trainer._who(failure, None, came, set()) == "worker 1 on node 10.0.0.2 (222222) was lost"
    assert trainer._who(failure, timed_out, came, {0, 1}) == ""
    assert (
        trainer._who(failure, timed_out, {**came, 1: "3" * 8}, {0})
        == "node 10.0.0.3 (333333) was lost"
    )
