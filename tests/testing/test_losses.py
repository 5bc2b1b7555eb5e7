"""The contract suites of losses: all built-in ones pass, and each fault is named."""

from __future__ import annotations

import pytest

from sadcl.losses import class_loss
from sadcl.losses.mulsupcon import mulsupcon
from sadcl.losses.probmcl import probmcl
from sadcl.losses.same_label import label_wise, same_label
from sadcl.losses.sample_contrast import sample_contrast
from sadcl.losses.similarity_dissimilarity import similarity_dissimilarity
from sadcl.testing import check_class_loss, check_contrast, workers
from tests.testing import parts


@pytest.mark.parametrize(
    "arguments",
    [{}, {"kind": "asymmetric"}, {"kind": "asymmetric", "focus_gradient": False}, {"floor": 1e-5}],
)
def test_the_class_losses_that_are_built_in(arguments):
    check_class_loss(class_loss, **arguments)


def test_a_loss_may_leave_scores_alone_that_are_right():
    check_class_loss(parts.hinge)
    with pytest.raises(AssertionError, match="hinge gives no gradient to some logits of known"):
        check_class_loss(parts.hinge, sign=-1.0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (parts.mean_loss, "is not the sum over its images. Return a sum, and no mean"),
        (parts.ignores_nothing, "depends on the logits of targets that are -1"),
        (parts.counts_padding, "counts 7 images of 6 real ones. Return weight_B.sum()"),
        (parts.infinite, "or its gradient is not finite for logits of -40 and 40. Use logsigm"),
        (parts.plain, "does not return two scalars|takes 4 positional arguments"),
    ],
)
def test_each_fault_of_a_class_loss_is_named(part, message):
    with pytest.raises(AssertionError, match=f"{part.__name__} ({message})"):
        check_class_loss(part)


@pytest.mark.parametrize(
    ("part", "arguments"),
    [
        (sample_contrast, {}),
        (mulsupcon, {}),
        (similarity_dissimilarity, {}),
        (probmcl, {"alpha": 0.5}),
        (same_label, {}),
        (label_wise, {}),
        (parts.supcon_all, {}),
    ],
)
def test_the_contrasts_that_are_built_in(part, arguments):
    check_contrast(part, **arguments)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (parts.alone, "has another .* on two workers with 4 and 3 images. Sum over this worker's"),
        (parts.no_gradient, "is 0, without a gradient or not finite. A worker without anchors"),
    ],
)
def test_each_fault_of_a_contrast_is_named(part, message):
    with pytest.raises(AssertionError, match=f"{part.__name__} {message}"):
        check_contrast(part)


def test_a_worker_that_makes_other_calls_is_found(monkeypatch):
    check_contrast(parts.supcon_all)  # both workers are there
    with monkeypatch.context() as patch:
        patch.setattr(workers, "SECONDS", 10)
        with pytest.raises(AssertionError, match="Worker . of 2 fails: it waits for the other one"):
            check_contrast(parts.hangs)
    check_contrast(parts.supcon_all)  # with new workers
