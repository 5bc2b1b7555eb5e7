"""Which labels an arm helps: paired by seed, corrected over labels, and in groups."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sadcl.errors import UserError
from sadcl.reports import label_gains, label_gains_text
from sadcl.search import Until
from tests.reports.labels import ABLATION, NAMES, SUPPORT, compared, store_of


def test_each_label_is_scipys_paired_test_corrected_for_all_labels(arrays):
    base_SL, arm_SL = arrays
    gains = compared(base_SL, arm_SL)
    assert [gain.label for gain in gains.labels] == NAMES
    p_L = [stats.ttest_rel(arm_SL[:, i], base_SL[:, i]).pvalue for i in range(8)]
    ranked = sorted(range(8), key=p_L.__getitem__)
    corrected = {
        i: min(p_L[j] * 8 / (rank + 1) for rank, j in enumerate(ranked) if p_L[j] >= p_L[i])
        for i in range(8)
    }
    for i, gain in enumerate(gains.labels):
        interval = stats.ttest_rel(arm_SL[:, i], base_SL[:, i]).confidence_interval()
        assert gain.effect.difference - gain.effect.difference_half_width == pytest.approx(
            interval.low
        )
        assert gain.effect.p == pytest.approx(p_L[i])
        assert gain.effect.p_corrected == pytest.approx(corrected[i])
        assert (gain.effect.verdict == "gain") == (corrected[i] < 0.05)
        assert gain.baseline_AP == pytest.approx(base_SL[:, i].mean())
    assert {gain.effect.verdict for gain in gains.labels} == {"gain", "not significant"}
    assert gains.seeds == (0, 1, 2, 3)


def test_a_loss_by_hand():
    """Of -1, -2, -3: t = -2 sqrt 3, two degrees of freedom; the other label does not differ."""
    base = [[50.0, 70.0], [60.0, 71.0], [55.0, 72.0]]
    arm = [[49.0, 70.0], [58.0, 71.0], [52.0, 72.0]]
    one, two = compared(base, arm, support=[7, 3]).labels
    t = 2 * math.sqrt(3)
    p = 1 - t / math.sqrt(t**2 + 2)
    assert one.effect.p == pytest.approx(p)
    assert one.effect.p_corrected == pytest.approx(2 * p)  # the smaller of two
    assert (one.effect.difference, one.effect.verdict) == (-2.0, "not significant")
    assert (two.effect.p, two.effect.verdict) == (1.0, "not significant")
    shifted = compared(base, [[49.9, 70.0], [59.9, 71.1], [54.9001, 72.2]], support=[7, 3])
    assert shifted.labels[0].effect.verdict == "loss"


def test_thirds_are_tested_by_the_mean_of_their_labels_in_each_seed(arrays):
    base_SL, arm_SL = arrays
    gains = compared(base_SL, arm_SL, size=[1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 5.0, None])
    by_name = {group.name: group for group in gains.groups}
    assert list(by_name) == ["rare", "middle", "frequent", "small", "medium", "large"]
    assert set(by_name["rare"].labels) == {"l5", "l6", "l7"}
    assert (by_name["rare"].low, by_name["rare"].high) == (5, 20)
    assert set(by_name["frequent"].labels) == {"l0", "l1"}
    assert set(by_name["small"].labels) == {"l0", "l2", "l4"}
    assert set(by_name["large"].labels) == {"l1", "l3"}
    expected = {}
    for name, group in by_name.items():
        at = [NAMES.index(label) for label in group.labels]
        test = stats.ttest_rel(arm_SL[:, at].mean(axis=1), base_SL[:, at].mean(axis=1))
        assert group.effect.p == pytest.approx(test.pvalue)
        low, high = test.confidence_interval(1 - 0.05 / 6)  # six thirds, by Bonferroni
        assert group.effect.difference_interval == pytest.approx((low, high))
        expected[name] = test.pvalue
    smallest = min(expected, key=expected.get)
    assert by_name[smallest].effect.p_corrected == pytest.approx(min(6 * expected[smallest], 1))
    of = {gain.label: (gain.frequency_group, gain.size_group) for gain in gains.labels}
    assert of["l7"] == ("rare", "")
    assert of["l0"] == ("frequent", "small")


def test_a_label_that_the_split_does_not_have_is_left_out_of_all(arrays):
    base_SL, arm_SL = (a.copy() for a in arrays)
    base_SL[:, 3] = arm_SL[:, 3] = math.nan
    support = [*SUPPORT[:3], 0, *SUPPORT[4:]]
    gains = compared(base_SL, arm_SL, support=support)
    assert [gain.label for gain in gains.labels] == [n for n in NAMES if n != "l3"]
    assert all(math.isfinite(group.effect.p) for group in gains.groups)
    assert gains.trends[0].slope == pytest.approx(
        np.polyfit(
            np.log2(np.delete(support, 3)), np.delete((arm_SL - base_SL).mean(axis=0), 3), 1
        )[0]
    )


def test_few_labels_have_no_thirds_and_one_seed_cannot_be_tested(arrays):
    base_SL, arm_SL = arrays
    assert compared(base_SL[:, :5], arm_SL[:, :5]).groups == ()
    gains = compared(base_SL[:1], arm_SL[:1])
    assert {gain.effect.verdict for gain in gains.labels} == {"too few pairs"}
    assert math.isnan(gains.trends[0].p)
    assert list(label_gains_text.gains_sentences(gains)) == [
        "On coco14, both compared with stage2: 1 seed decides nothing, at least 3 are needed to "
        "test a label."
    ]
    three = compared(base_SL[:3], arm_SL[:3])
    looked_at = [
        replace(gain, effect=replace(gain.effect, until=Until(0.5, at_least=5)))
        for gain in three.labels
    ]
    (few,) = label_gains_text.gains_findings(replace(three, labels=tuple(looked_at)))
    assert few == "3 seeds decide nothing, at least 5 are needed to test a label."
    (none,) = label_gains_text.gains_sentences(compared(base_SL[:0], arm_SL))
    assert none.endswith("no seed has an AP for both arms.")


def test_seeds_that_only_one_has_do_not_count(arrays):
    base_SL, arm_SL = arrays
    gains = compared(base_SL[:3], arm_SL)
    assert gains.seeds == (0, 1, 2)
    assert gains.labels[0].effect.p == pytest.approx(
        stats.ttest_rel(arm_SL[:3, 0], base_SL[:3, 0]).pvalue
    )
    assert gains.labels[0].baseline_AP == pytest.approx(base_SL[:3, 0].mean())


def test_an_ablation_from_the_tables(tmp_path, arrays):
    base_SL, arm_SL = arrays
    root = store_of(
        tmp_path, {"stage2": base_SL, "both": arm_SL, "+SSCL": base_SL + 0.1}, description=ABLATION
    )
    (gains,) = label_gains.label_gains(root, "ab", "both")
    assert gains == compared(base_SL, arm_SL)
    (other,) = label_gains.label_gains(root, "ab", "stage2", "both")
    assert other.labels[0].effect.difference == pytest.approx(-gains.labels[0].effect.difference)
    with pytest.raises(UserError, match=r"several arms: give --arm as one of both, \+SSCL"):
        label_gains.label_gains(root, "ab")


def test_a_search_compares_the_setting_that_it_chose_with_the_control(tmp_path, arrays):
    base_SL, arm_SL = arrays
    store_of(tmp_path, {"stage2": base_SL, "tuned": arm_SL}, phase="confirm", params='{"a": 10}')
    store_of(
        tmp_path, {"tuned": base_SL - 5}, phase="confirm", params='{"a": 100}'
    )  # confirmed as well, and worse
    root = store_of(
        tmp_path,
        {"tuned": base_SL + 30, "stage2": base_SL - 30},
        phase="search",
        params='{"a": 10}',
    )
    (gains,) = label_gains.label_gains(root, "ab")
    assert (gains.arm, gains.baseline) == ("tuned", "stage2")
    assert [g.effect for g in gains.labels] == [
        replace(g.effect, arm="tuned") for g in compared(base_SL, arm_SL).labels
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("an",), "no study 'an' here; did you mean 'ab'"),
        (("ab", "bot"), "no runs of an arm 'bot'; did you mean 'both'"),
        (("ab", "both", "stage"), "no runs of an arm 'stage'; did you mean 'stage2'"),
        (("ab", "stage2"), "'stage2' is the baseline"),
        (("ab", "both", None, "tset"), "no split 'tset'; did you mean 'test'"),
        (
            ("ab", "both", None, "val"),
            "No seed of 'ab' has figures of 'both' and 'stage2' for each label on the held-out",
        ),
        (("ab", "both", None, "test", "coco"), "no runs on 'coco'; did you mean 'coco14'"),
    ],
)
def test_mistakes_name_the_nearest(tmp_path, arrays, arguments, message):
    root = store_of(tmp_path, {"stage2": arrays[0], "both": arrays[1]}, description=ABLATION)
    with pytest.raises(UserError, match=message):
        label_gains.label_gains(root, *arguments)
