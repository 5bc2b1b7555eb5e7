"""Workers of a run: how many may be asked for, and how long one may keep the others waiting."""

from __future__ import annotations

import pytest

import sadcl
from sadcl import recipes
from sadcl.cli.experiment import main
from sadcl.errors import UserError
from sadcl.launch import options, resources
from sadcl.search import Search
from sadcl.search.space import Float


@pytest.mark.parametrize(
    ("text", "range_"), [(1, (1, 0)), ("8", (8, 0)), ("2:8", (2, 8)), ("1:2", (1, 2))]
)
def test_a_number_or_a_range(text, range_):
    assert options.parse_workers(text) == range_


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two", "--workers two is not possible: give a number, or a range such as 2:8"),
        ("2:", "give a number, or a range such as 2:8"),
        ("0:4", "at least 1"),
        (-1, "at least 1"),
        ("4:4", "the second number must be the larger one"),
        ("8:2", "the second number must be the larger one"),
    ],
)
def test_another_number_is_refused(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sadcl.train(recipes.demo(), storage=str(tmp_path), workers=text)
    assert not list(tmp_path.iterdir())


def test_a_study_refuses_a_range(tmp_path, capsys):
    study = Search(
        name="s",
        question="?",
        base=recipes.coco14(),
        demo=recipes.demo(),
        space={"loss.tau": Float(0.05, 0.5)},
        n_trials=4,
    )
    with pytest.raises(SystemExit) as ended:
        main(study, ["--workers", "2:8", "--storage", str(tmp_path / "runs")])
    assert ended.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    assert (
        "--workers 2:8 is not possible here: the trials of a study have one fixed number of workers"
        in message
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
    arguments = (options.Options(storage=str(tmp_path), gpus_per_worker=0), "demo", None)
    if seconds is None:
        with pytest.raises(UserError, match=f"SADCL_TIMEOUT_SECONDS = '{text}' is not possible"):
            resources.make_placement(*arguments, workers=1)
    else:
        assert resources.make_placement(*arguments, workers=1).timeout == seconds
