"""Shares of the gradient, from an epoch's figures and from the table."""

import pytest

from sadcl.results import RunWriter
from sadcl.results.gradients import gradient_shares, mean_gradient_shares


def test_a_share_is_relative_to_the_classification_loss():
    figures = {"gradient_class": 2.0, "gradient_sample": 0.5, "gradient_prototype": None}
    assert gradient_shares(figures) == {"sample": 0.25}
    assert gradient_shares({**figures, "gradient_prototype": 0.0}) == {
        "sample": 0.25,
        "prototype": 0.0,
    }


@pytest.mark.parametrize("figures", [{}, {"gradient_class": None}, {"gradient_class": 0.0}])
def test_nothing_is_relative_to_nothing(figures):
    assert gradient_shares({**figures, "gradient_sample": 1.0}) == {}


def test_means_are_over_the_epochs_that_were_measured(tmp_path):
    for key, shares in {"a": (0.1, 0.3), "b": (0.5,), "other": (9.0,)}.items():
        writer = RunWriter(str(tmp_path), key, {"study": "s", "params": "{}"})
        writer.epoch({"stage": 1, "epoch": 1, "val_mAP": 1.0})
        for epoch, share in enumerate(shares, 1):
            gradients = {"gradient_class": 4.0, "gradient_sample": 4.0 * share}
            writer.epoch({"stage": 2, "epoch": epoch, **gradients})
        writer.finish("complete", metrics={"val_mAP": 1.0})
    assert mean_gradient_shares(str(tmp_path), ["a", "b"]) == {"sample": pytest.approx(0.3)}
    assert mean_gradient_shares(str(tmp_path), []) == {}
