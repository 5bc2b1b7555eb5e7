"""The plot of label gains: lines, panels, and its file."""

from __future__ import annotations

import numpy as np
import pytest

from sadcl import storage
from sadcl.errors import UserError
from sadcl.reports import label_plot
from tests.reports.ablations import EVIL
from tests.reports.labels import NAMES, SUPPORT, compared


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
    gains = compared(base_SL, base_SL + rng.normal(0, 1, (2, 150)), names=names, support=support)
    left = label_plot.label_figure(gains).axes[0]
    drawn = [label.get_text() for label in left.get_yticklabels()]
    assert len(drawn) == 100
    assert drawn == sorted(drawn, key=names.index)
    least = sorted(gains.labels, key=lambda gain: abs(gain.effect.difference))[:50]
    assert not {gain.label for gain in least} & set(drawn)
    assert "100 labels that differ the most" in left.get_title(loc="left")


@pytest.mark.filterwarnings("ignore:Glyph")  # no font of the test's has a duck
def test_the_plot_is_written_whatever_the_names_hold(tmp_path, arrays):
    base_SL, arm_SL = arrays
    gains = compared(base_SL, arm_SL, names=[EVIL, *NAMES[1:]])
    for ending, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        uri = str(tmp_path / "new" / f"x.{ending}")
        label_plot.draw_labels(gains, uri)
        content = storage.read(uri)
        assert content.startswith(begins)
    assert "|x| $y$ {z}" in content.decode()
    with pytest.raises(UserError, match="nothing to draw"):
        label_plot.draw_labels(compared(base_SL[:0], arm_SL), uri)
