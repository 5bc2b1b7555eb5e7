"""Metrics of the user's."""

import importlib

import numpy as np
import pytest

from sadcl.errors import UserError
from sadcl.metrics import check_metrics, check_names, own_figures
from tests.own_parts import write_module


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "metric_parts")
    return importlib.import_module("metric_parts")


def test_the_example_is_the_share_of_images_whose_first_label_is_wrong(parts):
    scores = np.array([[0.9, 0.1], [0.2, 0.7], [0.8, 0.1], [0.9, 0.2], [0.3, 0.4]])
    targets = np.array([[1, 0], [1, 0], [-1, 1], [0, 0], [0, 1]], dtype=np.int8)
    figures = own_figures({"metric_parts:one_error": parts.one_error}, scores, targets)
    assert figures == {"one_error": 25.0}
    check_metrics({"metric_parts:one_error": parts.one_error}, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown", "is NaN where each label has images with it and images without it"),
        ("text", r"must return one finite number, or NaN .* but returned '12' \(str\)"),
        ("crash", r"fails with IndexError: .* \(metric_parts.py line \d+\)"),
        ("nothing", "fails with TypeError"),
    ],
)
def test_what_it_returns_is_checked(parts, name, message):
    path = f"metric_parts:{name}"
    with pytest.raises(UserError, match=message) as caught:
        check_metrics({"metric_parts:one_error": parts.one_error, path: getattr(parts, name)}, 3)
    assert f"metrics[1] = {path!r}" in str(caught.value)


def test_where_it_is_not_defined_it_is_nan():
    nan = own_figures({"m:undefined": lambda s, t: float("nan")}, np.ones((2, 2)), np.ones((2, 2)))
    assert np.isnan(nan["undefined"])


def test_scores_cannot_be_changed():
    def spoils(scores_NL, targets_NL):
        scores_NL[0] = 0
        return 1.0

    with pytest.raises(UserError, match="read-only"):
        own_figures({"m:spoils": spoils}, np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("name", ["mAP", "map", "CF1", "cf1_top3", "pointing", "mAP_ema"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(UserError, match=f"would be called '{name}', but a metric of that name is"):
        check_names((f"mine:{name}",))


def test_two_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"metrics\[1\] = 'b:One'.* is there already, metrics\[0\]"):
        check_names(("a:one", "b:One"))
