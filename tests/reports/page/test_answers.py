"""The answer and the banners of studies in every state."""

from __future__ import annotations

import json

import pytest

from sadcl import storage
from sadcl.reports.page import html
from sadcl.reports.page.answers import answer, banners
from sadcl.reports.page.study import study_data
from tests.reports.ablations import ablation, add


def texts(root, name="s"):
    """Return the banners and the answer of a study."""
    study = study_data(str(root), name)
    return banners(study), answer(study, study.comparison())


def write_search(root, *statuses, total=5):
    """Write a search of full scale with one trial of each status."""
    for i, status in enumerate(statuses):
        add(
            root,
            "tuned",
            i,
            50.0 + i if status == "complete" else None,
            study="s",
            status=status,
            phase="search",
            cause="Why",
        )
    (root / "tables").mkdir(parents=True, exist_ok=True)
    description = {
        "name": "s",
        "kind": "search",
        "scale": "full",
        "question": "",
        "space": {},
        "trials": total,
    }
    storage.write(f"{root}/studies/s.json", json.dumps(description).encode())


@pytest.mark.parametrize(
    ("statuses", "banner", "expected"),
    [
        ("", "No run of this study has started.", "There is no answer yet"),
        (
            "running",
            "Still running, or interrupted: 0 of 5 trials have ended.",
            "There is no answer yet",
        ),
        (
            "complete pruned running",
            "Still running, or interrupted: 2 of 5 trials",
            "The best of 1 complete trial",
        ),
        (
            "complete pruned",
            "Not finished: 2 of 5 trials have ended.",
            "49.00 % mAP on the held-out images that chose it",
        ),
        (
            "failed failed",
            "None of the trials is complete: 2 failed.",
            "There is no answer yet: no run is complete.",
        ),
        (
            "complete",
            "There is only one trial: nothing was searched",
            "without a comparison over fresh seeds, no conclusion can be drawn",
        ),
        (
            "complete complete",
            "Not confirmed: the best trial was chosen on the",
            "The best of 2 complete trials",
        ),
    ],
)
def test_a_study_in_any_state_says_so(tmp_path, statuses, banner, expected):
    write_search(tmp_path, *statuses.split())
    banner_texts, text = texts(tmp_path)
    if "complete" not in statuses:  # the page has even what has nothing to draw
        assert text in html.study_page(str(tmp_path), "s")
    assert any(line.startswith(banner) for line in banner_texts), banner_texts
    assert expected in text


def test_runs_that_no_study_holds_together_are_listed(tmp_path):
    add(tmp_path, "train", 0, 50.0, study="train", phase="train")
    banner_texts, text = texts(tmp_path, "train")
    assert not banner_texts
    assert "The best of 1 complete run reaches 49.00 % mAP" in text
    assert text in html.study_page(str(tmp_path), "train")


BASE = [50.0, 51.0, 52.5]


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ({"a": BASE}, "no significant difference for a."),
        ({"a": [60.0, 61.1, 62.4]}, "a significant gain for a (+10.00 points, +9.75 to +10.25)."),
        (
            {"a": [40.0, 41.1, 42.4], "b": BASE, "c": [51.0]},
            "a significant loss for a (-10.00 points, -10.36 to -9.64); "
            "no significant difference for b; 1 arm could not be tested.",
        ),
        ({"a": BASE, "b": BASE}, "no significant difference for any of 2 arms."),
    ],
)
def test_an_ablation_states_what_is_significant_and_no_more(tmp_path, arms, expected):
    root = ablation(tmp_path, {"stage2": BASE, **arms})
    study = study_data(root, "ab")
    text = answer(study, study.comparison())
    assert text.startswith("On coco14, compared with stage2 over ")
    assert text.endswith(expected)


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_fewer_than_three_pairs_answer_nothing_even_without_a_spread(tmp_path, num_seeds):
    root = ablation(tmp_path, {"stage2": BASE[:num_seeds], "a": [b - 2 for b in BASE[:num_seeds]]})
    study = study_data(root, "ab")
    text = answer(study, study.comparison())
    assert text.startswith("On coco14, this study cannot answer anything yet: ")
    assert "loss" not in text


def test_few_images_are_warned_of_before_the_answer(tmp_path):
    images = {"coco14": {"train": 99, "val": 12, "test": 500}}
    root = ablation(tmp_path, {"stage2": BASE, "a": BASE}, images=images)
    study = study_data(root, "ab")
    (warning,) = [text for text in banners(study) if text.startswith("WARNING")]
    assert "coco14 has only 12 held-out images" in warning
