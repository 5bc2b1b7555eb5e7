"""Which checkpoint is meant: a trial's, a study's best one, and the baseline of its study."""

import shutil

import pytest
from typer.testing import CliRunner

from sadcl import results, storage
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.launch.outcome import StudyResult
from sadcl.results import checkpoints, store, verify
from sadcl.search import Trial
from sadcl.search.trial import short_id
from sadcl.study import execute
from sadcl.study.placement import Placement
from tests.results.runs import complete_trial


def test_which_checkpoint_is_shown(two_runs):
    root, main, pooled = two_runs
    assert (
        checkpoints.best_trial_key(root) == checkpoints.best_trial_key(root, "look") == main["key"]
    )
    assert (
        checkpoints.baseline_trial_key(root, main["key"])
        == checkpoints.baseline_trial_key(root, main["checkpoint"])
        == checkpoints.baseline_trial_key(root, f"look/{short_id(main['key'])}")
        == pooled["key"]
    )
    assert checkpoints.baseline_trial_key(root, pooled["key"]) is None
    assert checkpoints.baseline_trial_key(root, "elsewhere/best.pt") is None
    for text in (main["key"], f"look/{short_id(main['key'])}"):
        assert checkpoints.find_checkpoint(root, text) == main["checkpoint"]
    with pytest.raises(UserError, match="no study 'loko' in .*; did you mean 'look'"):
        checkpoints.best_trial_key(root, "loko")


@pytest.fixture(params=["as it is written", "by an older version"])
def moved(request, two_runs, tmp_path):
    """A copy of a storage at another place; rows of an older version name the former place."""
    root, main, _ = two_runs
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    if request.param == "by an older version":
        store.amend(str(copy), main.key, checkpoint=f"/gone/checkpoints/{main.key}/best.pt")
    return str(copy), main


def test_a_storage_that_is_copied_has_its_own_checkpoints(moved, photo_files):
    root, main = moved
    uri = f"{root}/checkpoints/{main.key}/best.pt"
    assert checkpoints.find_checkpoint(root, main.key) == uri
    run = next(run for run in StudyResult.read(["look"], root).trials if run.key == main.key)
    assert run.checkpoint == run["checkpoint"] == dict(run)["checkpoint"] == uri
    assert list(verify.verify(root, checkpoints=True)) == []
    words = ["explain", photo_files[0], "-o", "a.png", "--checkpoint", main.key]
    done = CliRunner().invoke(app, [*words, "--storage", root])
    assert done.exit_code == 0, done.output
    storage.delete(uri)
    assert [fault.file for fault in verify.verify(root, checkpoints=True)] == [uri]
    done = CliRunner().invoke(app, [*words, "--storage", root])
    assert f"There is no checkpoint at {uri!r}" in str(done.exception)


def test_rows_hold_no_place_of_the_storage(two_runs):
    root, main, _ = two_runs
    for table in ("trials", "epochs", "labels", "predictions"):
        assert root not in str(results.read(root, table).to_pylist())
    stored = store.row_of(root, main.key)["checkpoint"]
    assert stored == f"checkpoints/{main.key}/best.pt"


@pytest.mark.parametrize("recorded", ["stage1/one/best.pt", "/gone/runs/stage1/one/best.pt"])
def test_a_stage_1_is_found_where_the_storage_is_now(tmp_path, recorded):
    complete_trial(tmp_path, "one", phase="stage1")
    store.amend(str(tmp_path), "one", checkpoint=recorded)
    first = Trial("s", "stage1", "stage1", None, name="one")
    trial = Trial("s", "search", "tuned", None, stage1=first, name="two")
    placement = Placement(str(tmp_path), None, "demo")
    assert execute.stage1_checkpoint(trial, placement) == f"{tmp_path}/stage1/one/best.pt"
