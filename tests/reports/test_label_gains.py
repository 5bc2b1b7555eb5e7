"""Which labels an arm helps: paired over seeds, corrected for the labels, by frequency and by size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sadcl import storage
from sadcl.errors import UserError
from sadcl.reports import label_gains, label_gains_text, label_plot
from sadcl.results import RunWriter
from tests.reports.ablations import EVIL

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)
SUPPORT = [640, 320, 160, 80, 40, 20, 10, 5]
NAMES = [f"l{i}" for i in range(len(SUPPORT))]


def rows(ap_SL, arm, *, names=NAMES, support=SUPPORT, size=None, **more):
    """A run a seed, and its rows of labels."""
    trials, labels = [], []
    for seed, ap_L in enumerate(ap_SL):
        key = f"{arm}-{seed}"
        trials.append(
            {"key": key, "study": "ab", "phase": "arm", "arm": arm, "seed": seed, "dataset": "coco14", "scale": "full",
             "status": "complete", "cause": None, "params": "{}", **more}
        )  # fmt: skip
        for i, ap in enumerate(ap_L):
            area = {} if size is None else {"box_area": size[i]}
            labels.append(
                {
                    "key": key,
                    "label": names[i],
                    "AP": ap,
                    "support": float(support[i]),
                    "split": "test",
                    **area,
                }
            )
    return trials, labels


def compared(base_SL, arm_SL, **options):
    one, two = rows(base_SL, "stage2", **options), rows(arm_SL, "both", **options)
    return label_gains.gains_of(one[0] + two[0], one[1] + two[1], "both", "stage2")


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    base_SL = rng.uniform(40, 60, (4, 8))
    return base_SL, base_SL + rng.normal(0.5, 0.4, (4, 8)) + np.arange(8) / 8


def test_each_label_is_scipys_paired_test_corrected_for_all_labels(arrays):
    base_SL, arm_SL = arrays
    found = compared(base_SL, arm_SL)
    assert [gain.label for gain in found.labels] == NAMES
    p_L = [stats.ttest_rel(arm_SL[:, i], base_SL[:, i]).pvalue for i in range(8)]
    ranked = sorted(range(8), key=p_L.__getitem__)
    corrected = {
        i: min(p_L[j] * 8 / (rank + 1) for rank, j in enumerate(ranked) if p_L[j] >= p_L[i])
        for i in range(8)
    }
    for i, gain in enumerate(found.labels):
        interval = stats.ttest_rel(arm_SL[:, i], base_SL[:, i]).confidence_interval()
        assert gain.effect.difference - gain.effect.difference_half == pytest.approx(interval.low)
        assert gain.effect.p == pytest.approx(p_L[i])
        assert gain.effect.corrected == pytest.approx(corrected[i])
        assert (gain.effect.verdict == "gain") == (corrected[i] < 0.05)
        assert gain.baseline == pytest.approx(base_SL[:, i].mean())
    assert {gain.effect.verdict for gain in found.labels} == {"gain", "not shown"}
    assert found.seeds == (0, 1, 2, 3)


def test_a_loss_by_hand():
    """Differences -1, -2, -3 of one label: t = -2 sqrt 3, two degrees of freedom; and nothing of the other."""
    base = [[50.0, 70.0], [60.0, 71.0], [55.0, 72.0]]
    arm = [[49.0, 70.0], [58.0, 71.0], [52.0, 72.0]]
    one, two = compared(base, arm, support=[7, 3]).labels
    t = 2 * math.sqrt(3)
    p = 1 - t / math.sqrt(t**2 + 2)
    assert one.effect.p == pytest.approx(p)
    assert one.effect.corrected == pytest.approx(2 * p)  # the smaller of two
    assert (one.effect.difference, one.effect.verdict) == (-2.0, "not shown")
    assert (two.effect.p, two.effect.verdict) == (1.0, "not shown")
    shifted = compared(base, [[49.9, 70.0], [59.9, 71.1], [54.9001, 72.2]], support=[7, 3])
    assert shifted.labels[0].effect.verdict == "loss"


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_and_hochberg_reject_what_their_definition_rejects(values):
    """Step up: all up to the last k whose p is not above k / m times the level."""
    by_label = {str(i): p for i, p in enumerate(values)}
    corrected = label_gains._benjamini_hochberg({**by_label, "not tested": math.nan})
    assert corrected.keys() == by_label.keys()
    ranked, m = sorted(values), len(values)
    for level in (0.01, 0.0501, 0.3):
        last = max((k for k in range(1, m + 1) if ranked[k - 1] * m / k < level), default=0)
        assert sum(p < level for p in corrected.values()) == sum(
            p <= ranked[last - 1] for p in values if last
        )


def test_thirds_are_tested_by_the_mean_of_their_labels_in_each_seed(arrays):
    base_SL, arm_SL = arrays
    found = compared(base_SL, arm_SL, size=[1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 5.0, None])
    by_name = {group.name: group for group in found.groups}
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
        expected[name] = test.pvalue
    smallest = min(expected, key=expected.get)
    assert by_name[smallest].effect.corrected == pytest.approx(min(6 * expected[smallest], 1))
    of = {gain.label: (gain.frequency, gain.of_size) for gain in found.labels}
    assert of["l7"] == ("rare", "")
    assert of["l0"] == ("frequent", "small")


def test_trends_are_straight_lines_over_the_logarithm(arrays):
    base_SL, arm_SL = arrays
    size = [1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 5.0, 4.0]
    found = compared(base_SL, arm_SL, size=size)
    raw = []
    for trend, x_L in zip(found.trends, (np.log2(SUPPORT), np.log2(size)), strict=True):
        slopes = [
            np.polyfit(x_L, own - base, 1)[0] for own, base in zip(arm_SL, base_SL, strict=True)
        ]
        low, high = stats.t.interval(0.95, 3, loc=np.mean(slopes), scale=stats.sem(slopes))
        assert (trend.slope - trend.half, trend.slope + trend.half) == pytest.approx((low, high))
        raw.append(stats.ttest_1samp(slopes, 0).pvalue)
        r = stats.pearsonr(x_L, (arm_SL - base_SL).mean(axis=0))
        assert trend.r == pytest.approx(r.statistic)
        assert (trend.low, trend.high) == pytest.approx(tuple(r.confidence_interval()))
    assert [trend.by for trend in found.trends] == ["frequency", "size"]
    assert min(trend.p for trend in found.trends) == pytest.approx(min(2 * min(raw), 1))


def test_a_trend_is_shown_where_both_seeds_and_labels_agree():
    base_SL, noise_SL = np.full((4, 8), 50.0), np.random.default_rng(0).normal(0, 0.2, (4, 8))
    (steady,) = compared(base_SL, base_SL + noise_SL + np.arange(8)).trends
    (two_odd,) = compared(base_SL, base_SL + noise_SL + [0, 0, 0, 0, 0, 0, 5, -5]).trends
    (nothing,) = compared(base_SL, base_SL + noise_SL).trends
    assert (steady.shown, two_odd.shown, nothing.shown) == (True, False, False)
    assert two_odd.p < 0.05  # in every seed alike
    assert steady.slope == pytest.approx(-1, abs=0.1)


@settings(PROPERTY, max_examples=8)
@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_what_a_seed_gives_to_all_labels_alike_is_no_trend(shifts):
    base_SL = np.random.default_rng(1).uniform(40, 60, (4, 8))
    arm_SL = base_SL + np.random.default_rng(2).normal(1, 0.5, (4, 8))
    (plain,), (moved,) = (
        compared(base_SL, a).trends for a in (arm_SL, arm_SL + np.array(shifts)[:, None])
    )
    assert moved.slope == pytest.approx(plain.slope, abs=1e-7)
    assert moved.half == pytest.approx(plain.half, abs=1e-7)
    assert moved.r == pytest.approx(plain.r, abs=1e-6)


def test_a_label_that_the_split_does_not_have_is_left_out_of_all(arrays):
    base_SL, arm_SL = (a.copy() for a in arrays)
    base_SL[:, 3] = arm_SL[:, 3] = math.nan
    support = [*SUPPORT[:3], 0, *SUPPORT[4:]]
    found = compared(base_SL, arm_SL, support=support)
    assert [gain.label for gain in found.labels] == [n for n in NAMES if n != "l3"]
    assert all(math.isfinite(group.effect.p) for group in found.groups)
    assert found.trends[0].slope == pytest.approx(
        np.polyfit(
            np.log2(np.delete(support, 3)), np.delete((arm_SL - base_SL).mean(axis=0), 3), 1
        )[0]
    )


def test_few_labels_have_no_thirds_and_one_seed_shows_nothing(arrays):
    base_SL, arm_SL = arrays
    assert compared(base_SL[:, :5], arm_SL[:, :5]).groups == ()
    found = compared(base_SL[:1], arm_SL[:1])
    assert {gain.effect.verdict for gain in found.labels} == {"one seed"}
    assert math.isnan(found.trends[0].p)
    assert list(label_gains_text.gains_sentences(found)) == [
        "On coco14, both against stage2: one seed, which shows nothing of any label."
    ]
    (none,) = label_gains_text.gains_sentences(compared(base_SL[:0], arm_SL))
    assert none.endswith("no seed has an AP of both.")


def test_seeds_that_only_one_has_do_not_count(arrays):
    base_SL, arm_SL = arrays
    found = compared(base_SL[:3], arm_SL)
    assert found.seeds == (0, 1, 2)
    assert found.labels[0].effect.p == pytest.approx(
        stats.ttest_rel(arm_SL[:3, 0], base_SL[:3, 0]).pvalue
    )
    assert found.labels[0].baseline == pytest.approx(base_SL[:3, 0].mean())


def store_of(root, arms, *, phase="arm", name="ab", about=None, params="{}", names=NAMES, **more):
    """Writes runs of arms with their labels, and what the study is."""
    for arm, ap_SL in arms.items():
        for trial, seed in zip(rows(ap_SL, arm)[0], range(9), strict=False):
            row = {**trial, "study": name, "phase": phase, "params": params, **more}
            labels = [
                {"split": "test", "label": label, "AP": float(ap), "support": float(n)}
                for label, ap, n in zip(names, ap_SL[seed], SUPPORT, strict=True)
            ]
            writer = RunWriter(str(root), f"{name}-{phase}-{arm}-{seed}-{len(params)}", row)
            writer.finish(
                "complete", metrics={"val_mAP": float(np.mean(ap_SL[seed]))}, labels=labels
            )
    if about is not None:
        storage.write(f"{root}/studies/{name}.json", about.encode())
    return str(root)


ABLATION = '{"kind": "ablation", "baseline": "stage2", "order": ["stage2", "both", "+SSCL"], "scale": "full"}'


def test_an_ablation_from_the_tables(tmp_path, arrays):
    base_SL, arm_SL = arrays
    root = store_of(
        tmp_path, {"stage2": base_SL, "both": arm_SL, "+SSCL": base_SL + 0.1}, about=ABLATION
    )
    (found,) = label_gains.label_gains(root, "ab", "both")
    assert found == compared(base_SL, arm_SL)
    (other,) = label_gains.label_gains(root, "ab", "stage2", "both")
    assert other.labels[0].effect.difference == pytest.approx(-found.labels[0].effect.difference)
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
    (found,) = label_gains.label_gains(root, "ab")
    assert (found.arm, found.baseline) == ("tuned", "stage2")
    assert [g.effect for g in found.labels] == [
        replace(g.effect, arm="tuned") for g in compared(base_SL, arm_SL).labels
    ]


@pytest.mark.parametrize(
    ("words", "message"),
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
def test_mistakes_name_the_nearest(tmp_path, arrays, words, message):
    root = store_of(tmp_path, {"stage2": arrays[0], "both": arrays[1]}, about=ABLATION)
    with pytest.raises(UserError, match=message):
        label_gains.label_gains(root, *words)


def test_words_say_what_is_shown_and_no_more(arrays):
    base_SL, _ = arrays
    noise_SL = np.random.default_rng(3).normal(0, 0.1, (4, 8))
    found = compared(base_SL, base_SL + noise_SL + [0, 0, 0, 0, 0, 0, 5, -5], size=[*range(1, 9)])
    text = " ".join(
        [*label_gains_text.gains_notes(found), *label_gains_text.gains_sentences(found)]
    )
    for part in (
        "over 4 seeds that both have",
        "corrected by Benjamini and Hochberg for 8 labels",
        "Size is the share of an image",
        "a gain is shown for 1 of 8 labels: l6.",
        "a loss is shown for 1 of 8 labels: l7.",
        "by frequency: rare ",
        "with twice as many images: not shown (p ",
        "over the labels r = ",
    ):
        assert part in text
    assert "Demo scale" not in text
    line = label_gains_text.gains_table(found)[6]
    assert list(line) == [
        "label",
        "images",
        "size",
        "baseline AP",
        "difference",
        "p (Benjamini-Hochberg)",
    ]
    assert (line["label"], line["images"], line["size"]) == ("l6", "10", "7 %")
    assert label_gains_text.thirds_table(found)[0]["from"] == "5 to 20 images"
    assert label_gains_text.thirds_table(found)[5]["from"] == "7 % to 8 % of the image"
    plain = compared(base_SL, base_SL + noise_SL)
    assert "size" not in label_gains_text.gains_table(plain)[0]
    assert "no gain and no loss is shown for any of 8 labels over 4 seeds" in next(
        label_gains_text.gains_sentences(plain)
    )


def test_the_plot_has_a_line_a_label_and_a_panel_a_trend(arrays):
    base_SL, arm_SL = arrays
    figure = label_plot.label_figure(
        compared(base_SL, arm_SL, size=[1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 5.0, 4.0])
    )
    left, frequency, size = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == NAMES
    low, high = left.get_ylim()
    assert low > high  # the most frequent on top
    diamonds = [line for line in left.lines if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in diamonds] == pytest.approx(
        (arm_SL - base_SL).mean(axis=0)
    )
    filled = [line.get_markerfacecolor() != "white" for line in diamonds]
    assert filled == [gain.effect.verdict == "gain" for gain in compared(base_SL, arm_SL).labels]
    points = [line for line in frequency.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == SUPPORT
    assert frequency.get_xscale() == size.get_xscale() == "log"
    assert [text.get_text() for text in size.texts] == ["small", "medium", "large"]
    assert len(label_plot.label_figure(compared(base_SL[:, :5], arm_SL[:, :5])).axes) == 1


def test_of_many_labels_those_that_differ_the_most_are_drawn():
    rng = np.random.default_rng(0)
    names, support = [f"l{i}" for i in range(150)], list(range(150, 0, -1))
    base_SL = rng.uniform(40, 60, (2, 150))
    found = compared(base_SL, base_SL + rng.normal(0, 1, (2, 150)), names=names, support=support)
    left = label_plot.label_figure(found).axes[0]
    drawn = [label.get_text() for label in left.get_yticklabels()]
    assert len(drawn) == 100
    assert drawn == sorted(drawn, key=names.index)
    least = sorted(found.labels, key=lambda gain: abs(gain.effect.difference))[:50]
    assert not {gain.label for gain in least} & set(drawn)
    assert "100 labels that differ the most" in left.get_title(loc="left")


@pytest.mark.filterwarnings("ignore:Glyph")  # no font of the test's has a duck
def test_the_plot_is_written_whatever_the_names_hold(tmp_path, arrays):
    base_SL, arm_SL = arrays
    found = compared(base_SL, arm_SL, names=[EVIL, *NAMES[1:]])
    for ending, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        uri = str(tmp_path / "new" / f"x.{ending}")
        label_plot.draw_labels(found, uri)
        content = storage.read(uri)
        assert content.startswith(begins)
    assert "|x| $y$ {z}" in content.decode()
    with pytest.raises(UserError, match="nothing to draw"):
        label_plot.draw_labels(compared(base_SL[:0], arm_SL), uri)
