"""The time left, on the times at which the epochs of real studies have ended."""

import math

import pytest

from sadcl.study.time_left import TimeLeft

ABLATION = """
52 80 133 155 170 184 189 215 218 246 254 295 296 328 345 360 372 383 402 408 433 437 461 462
484 485 499 502 516 519 528 531 540 544 556 559 570 573 585 588 597 603 610 619 624 635 639 651
652 663 663 672 672 679 681 688 688 697 697 707 710 715 719 723 729 734 740 743 751 754 762 763
770 771 775 777 781 781 785 786 790 791 794 797 797 802 802 807 807 811 812 817 818 822 825 826
830 832 836 837 840 842 846 849 854 856 860 861 866 866 871 872 877 878 882 884 888 889 894 895
899 900 903 904 906 908 910 912 914 918
"""
"""The first of 410 epochs of an ablation, in seconds; they are ten times as fast after a while."""
SEARCH = """
6 7 10 12 17 18 23 23 26 26 29 30 32 33 35 37 38 40 41 43 44 46 47 50 50 53 53 56 56 61 63 65 68
71 75 75 78 78 81 81 87 87 92 93 98 102 102 106 106 110 110 114 114 120 121 123 124 127 130 132
134 138 140 146 150 155 161 167 170 173 175 181 182 190 193 197 201 206 209 215 215 223 224 230
231 235 236 252 253 260 263 268 274 275 279 285 289 293
"""
"""All epochs of a small search, in seconds."""


def shown(ends, epochs):
    """The clock and what is shown at it, twice a second."""
    left, done, lines = TimeLeft(), 0, []
    for half in range(2 * ends[-1]):
        now = half / 2
        while done < len(ends) and ends[done] <= now:
            done += 1
        lines.append((now, left.update(now, done, epochs - done)))
    return lines


@pytest.mark.parametrize(("text", "epochs"), [(ABLATION, 410), (SEARCH, 98)])
def test_it_never_jumps(text, epochs):
    lines = shown([int(word) for word in text.split()], epochs)
    values = [value for _, value in lines if value is not None]
    for before, after in zip(values[:-60], values[60:], strict=True):
        if min(before, after) > 60:
            assert abs(math.log(after / before)) < math.log(1.6)  # within half a minute


def test_it_is_right_where_the_work_is_steady():
    lines = shown(list(range(5, 1005, 5)), 200)
    for now, value in lines:
        if now > 60:
            assert value == pytest.approx(1000 - now, rel=0.1, abs=15)


def test_it_follows_a_change_of_speed():
    slow = list(range(20, 620, 20))
    lines = shown([*slow, *range(602, 1002, 2)], 30 + 370)
    (later,) = [value for now, value in lines if now == 900]
    right, by_the_mean_of_all = 2 * 220, 220 * 900 / 180
    assert right < later < (right + by_the_mean_of_all) / 2


def test_nothing_is_said_too_early():
    left = TimeLeft()
    assert left.update(0.0, 0, 10) is None
    assert left.update(5.0, 3, 7) is None
    assert left.update(25.0, 4, 6) is not None


def test_what_the_start_takes_is_no_rate_of_the_rest():
    """Workers start and feature maps are computed for 7 minutes; then an epoch takes 3 seconds."""
    lines = shown(list(range(420, 996, 3)), 192)
    assert not any(value for now, value in lines if now < 420)
    for now, value in lines:
        if now > 420 + 24 * 3:
            assert value == pytest.approx(996 - now, rel=0.1, abs=15)
