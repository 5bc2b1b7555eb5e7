"""A run as a value: its phase, its key and its title."""

import pickle

import pytest

from sadcl import recipes
from sadcl.errors import UserError
from sadcl.search import Phase, Trial
from sadcl.search.trial import short_id, study_name

BASE = recipes.demo()


def test_a_phase_is_its_text_and_an_unknown_one_is_refused():
    trial = Trial("s", "confirm", "tuned", BASE)
    assert trial.phase is Phase.CONFIRM
    assert trial == Trial("s", Phase.CONFIRM, "tuned", BASE)
    assert pickle.loads(pickle.dumps(trial)) == trial
    assert f"{trial.phase}" == "confirm"
    assert set(Phase) == {"stage1", "baseline", "search", "confirm", "final", "arm", "train"}
    with pytest.raises(ValueError, match="'confrim' is not a valid Phase"):
        Trial("s", "confrim", "tuned", BASE)


@pytest.mark.parametrize(
    ("phase", "arm", "title"),
    [
        ("arm", "both", "both s3"),
        ("baseline", "stage2", "control s3"),
        ("stage1", "stage1", "stage 1 s3"),
        ("train", "train", "train s3"),
        ("confirm", "tuned", "confirm tuned s3"),
        ("final", "tuned", "final tuned s3"),
    ],
)
def test_titles(phase, arm, title):
    assert Trial("s", phase, arm, BASE.override({"seed": 3})).title == title


def test_titles_of_a_trial_and_of_a_stage_1_on_all_images():
    trial = Trial("s", "search", "tuned", BASE)
    assert trial.title == f"search {trial.key[-6:]}"
    whole = BASE.override({"data.holdout": 0.0})
    assert Trial("s", "stage1", "stage1", whole).title == "stage 1 s0, all images"
    assert Trial("s", "final", "tuned", whole).title == "final tuned s0"


def test_a_run_is_known_by_its_setting_and_not_by_its_data():
    data, start = "2bf9a535b93a", "0123456789ab"
    for end in ("", f"-{data}", f"-{data}-{start}"):
        assert short_id(f"mine-s0-a0933b80f0e2{end}") == "80f0e2"
    assert short_id("s-tuned-s0-aab1") == "0-aab1"


def test_the_name_of_a_study_at_a_scale():
    assert (study_name("a", "full"), study_name("a", "demo")) == ("a", "a-demo")
    assert study_name("a", "full", ["coco17"]) == "a"
    assert study_name("a", "demo", ["scenes"]) == "a-demo"
    assert study_name("a", "demo", ["voc2007", "coco17"]) == "a-demo-coco17-voc2007"


def test_names_of_runs_that_no_file_can_have_are_refused_when_they_are_made():
    assert len(Trial("s" * 90, "arm", "a" * 90, BASE).key.encode()) <= 210
    with pytest.raises(
        UserError, match=r"names of 217 bytes, which files cannot have; 210 are pos"
    ):
        Trial("s" * 100, "arm", "a" * 100, BASE)
    with pytest.raises(UserError, match=r"Shorten the name of the study \(1 bytes\) or of the arm"):
        Trial("s", "arm", "ž" * 100, BASE)
