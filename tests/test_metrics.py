"""Every figure against scikit-learn or plain loops."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from sadcl.metrics import average_precision, multilabel_metrics


def make(images=200, labels=12, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, labels)) < rng.uniform(0.05, 0.6, labels)).astype(int)
    scores = 1 / (1 + np.exp(-(rng.normal(size=targets.shape) + 1.5 * targets - 1)))
    return (scores.round(1) if ties else scores), targets


def devkit_2010(scores, targets):
    """VOCap of the VOC 2010 devkit, thresholds at distinct scores."""
    recall, precision = [0.0], [0.0]
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall.append(targets[chosen].sum() / targets.sum())
        precision.append(targets[chosen].mean())
    recall, precision = [*recall, 1.0], [*precision, 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return 100 * sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def devkit_2007(scores, targets):
    total = 0.0
    for tenth in range(11):
        best = 0.0
        for threshold in set(scores):
            chosen = scores >= threshold
            if targets[chosen].sum() * 10 >= tenth * targets.sum():
                best = max(best, targets[chosen].mean())
        total += best / 11
    return 100 * total


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_by_three_conventions(ties):
    scores, targets = make(ties=ties)
    result = multilabel_metrics(scores, targets)
    expected = {
        "mAP": [devkit_2010(s, t) for s, t in zip(scores.T, targets.T, strict=True)],
        "mAP_step": [
            100 * average_precision_score(t, s) for s, t in zip(scores.T, targets.T, strict=True)
        ],
        "mAP_11pt": [devkit_2007(s, t) for s, t in zip(scores.T, targets.T, strict=True)],
    }
    np.testing.assert_allclose(result["AP"], expected["mAP"], rtol=1e-12)
    for name, values in expected.items():
        assert result[name] == pytest.approx(np.mean(values), abs=1e-10)
    assert result["mAP"] >= result["mAP_step"]


@pytest.mark.parametrize(
    ("scores", "targets", "area", "step", "eleven"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 5 / 6, 5 / 6, (6 * 1 + 5 * 2 / 3) / 11),
        (
            [0.9, 0.8, 0.7],
            [0, 1, 1],
            2 / 3,
            (1 / 2 + 2 / 3) / 2,
            2 / 3,
        ),  # the envelope lifts the first
        (
            [0.5, 0.5, 0.2],
            [1, 0, 1],
            2 / 3,
            (1 / 2 + 2 / 3) / 2,
            2 / 3,
        ),  # tied scores enter together
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4, 1 / 4, 1 / 4),
        ([0.9, 0.8, 0.7, 0.6], [-1, 0, 1, -1], 1 / 2, 1 / 2, 1 / 2),  # ignored ones are not there
    ],
)
def test_average_precision_worked_by_hand(scores, targets, area, step, eleven):
    found = average_precision(scores, targets)
    assert [found[n] / 100 for n in ("AP", "AP_step", "AP_11pt")] == pytest.approx(
        [area, step, eleven]
    )


def test_both_cf1_worked_by_hand():
    """One label with P = R = 1, one with P = 1/2 and R = 1/3: CP 3/4, CR 2/3."""
    targets = [[1, 1], [0, 1], [0, 1], [0, 0]]
    found = multilabel_metrics([[0.9, 0.9], [0.1, 0.1], [0.1, 0.1], [0.1, 0.9]], targets)
    assert (found["CP"], found["CR"]) == pytest.approx((75, 200 / 3))
    assert found["CF1"] == pytest.approx(2 * 75 * (200 / 3) / (75 + 200 / 3))
    assert found["CF1_macro"] == pytest.approx((100 + 40) / 2)


def test_precision_recall_and_f1_are_scikit_learns():
    scores, targets = make()
    result = multilabel_metrics(scores, targets)
    p, r, f, support = precision_recall_fscore_support(targets, scores > 0.5, zero_division=0)
    for name, values in (("P", p), ("R", r), ("F1", f)):
        np.testing.assert_allclose(result[name], 100 * values)
    np.testing.assert_array_equal(result["support"], support)
    assert result["CP"] == pytest.approx(100 * p.mean())
    assert result["CR"] == pytest.approx(100 * r.mean())
    assert result["CF1"] == pytest.approx(200 * p.mean() * r.mean() / (p.mean() + r.mean()))
    assert result["CF1_macro"] == pytest.approx(100 * f.mean())
    micro = precision_recall_fscore_support(targets, scores > 0.5, average="micro")
    assert [result[n] for n in ("OP", "OR", "OF1")] == pytest.approx([100 * v for v in micro[:3]])


def test_top3_is_among_the_highest_three_and_above_the_threshold():
    scores, targets = make()
    predicted = np.zeros_like(targets)
    for i, row in enumerate(scores):
        for j in sorted(range(len(row)), key=lambda j: -row[j])[:3]:
            predicted[i, j] = row[j] > 0.5
    p, r, f, _ = precision_recall_fscore_support(targets, predicted, zero_division=0)
    result = multilabel_metrics(scores, targets)
    assert result["CP_top3"] == pytest.approx(100 * p.mean())
    assert result["CR_top3"] == pytest.approx(100 * r.mean())
    assert result["CF1_macro_top3"] == pytest.approx(100 * f.mean())
    assert result["OR_top3"] == pytest.approx(100 * (predicted & targets).sum() / targets.sum())
    assert result["OR_top3"] < result["OR"]


def test_ignored_targets_count_for_nothing():
    scores, targets = make()
    hidden = targets.copy()
    hidden[::3, 0] = -1
    kept = hidden[:, 0] >= 0
    result = multilabel_metrics(scores, hidden)
    assert result["AP"][0] == pytest.approx(devkit_2010(scores[kept, 0], targets[kept, 0]))
    assert result["support"][0] == targets[kept, 0].sum()
    p, r, _, _ = precision_recall_fscore_support(
        targets[kept, 0], scores[kept, 0] > 0.5, average="binary"
    )
    assert (result["P"][0], result["R"][0]) == pytest.approx((100 * p, 100 * r))
    wild = np.where(hidden < 0, 1.0, scores)
    assert multilabel_metrics(wild, hidden)["AP"][0] == result["AP"][0]


def test_a_label_without_a_positive_is_left_out_and_said():
    scores, targets = make()
    targets[:, 3] = 0
    result = multilabel_metrics(scores, targets)
    others = np.delete(np.arange(12), 3)
    alone = multilabel_metrics(scores[:, others], targets[:, others])
    assert np.isnan(result["AP"][3])
    assert result["undefined"] == 1
    for name in ("mAP", "CP", "CR", "CF1", "CF1_macro"):
        assert result[name] == pytest.approx(alone[name])


def test_a_label_that_is_never_predicted_has_precision_0_and_stays():
    scores, targets = make(labels=2)
    scores[:, 0] = 0.1
    result = multilabel_metrics(scores, targets)
    assert result["P"][0] == 0
    assert result["CP"] == pytest.approx(result["P"][1] / 2)


def test_nothing_positive_at_all():
    result = multilabel_metrics([[0.9, 0.1]], [[0, 0]])
    assert np.isnan(result["mAP"])
    assert result["OP"] == result["OR"] == result["OF1"] == 0
    assert np.isnan(average_precision([0.5], [0])["AP"])


def test_threshold_is_strict():
    result = multilabel_metrics([[0.5, 0.6]], [[1, 1]])
    assert result["OR"] == 50


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([[0.1]], [[1, 0]], r"\(1, 1\) and \(1, 2\)"),
        ([], [], r"\(0,\)"),
        ([[np.nan]], [[1]], "finite"),
        ([[0.3]], [[2]], r"1, 0 or -1, but got \[2\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        multilabel_metrics(scores, targets)
