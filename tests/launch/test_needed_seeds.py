"""How many seeds a small difference needs, from the pairs that there are."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from sadcl import Ablation, recipes
from sadcl.launch.needed_seeds import needed_seeds_lines, seeds_needed
from sadcl.search import AblationPlan, Until
from sadcl.search.trial import DataContext
from tests.reports.ablations import ablation


def plan(seeds, arms=("stage2", "both")):
    changes = {arm: {"loss.tau": 0.1 + i / 10} for i, arm in enumerate(arms)}
    value = Ablation("ab", recipes.coco14(), changes, arms[0], seeds=seeds)
    return AblationPlan(value, "full", {"coco14": DataContext("ab", recipes.coco14(), "d")})


def sentence(root, seeds=(0, 1, 2), own=True, arms=("stage2", "both")):
    from sadcl import results

    rows = results.read(root, "trials").to_pylist()
    rows = [row for row in rows if own and row["study"] == "ab"]
    (line,) = needed_seeds_lines(plan(seeds, arms), root, rows)
    return line


def power(count, spread, family):
    """By Student's t with a shifted centre, from its definition."""
    critical = stats.t.isf(0.025 / family, count - 1)
    return stats.nct.sf(critical, count - 1, 0.3 / spread * math.sqrt(count))


@pytest.mark.parametrize(("spread", "family"), [(0.1, 1), (0.5, 1), (0.5, 14)])
def test_the_number_is_the_least_with_the_power(spread, family):
    count = seeds_needed(spread, family)
    assert power(count, spread, family) >= 0.8
    assert count == 3 or power(count - 1, spread, family) < 0.8
    assert seeds_needed(5.0, 1) == 201  # more than 200


def test_the_spread_is_of_the_studys_own_pairs(tmp_path):
    root = ablation(tmp_path, {"stage2": [80.0, 81.0, 79.5], "both": [80.4, 81.9, 79.7]})
    spread = stats.tstd([0.4, 0.9, 0.2])
    text = sentence(root)
    assert f"needs {seeds_needed(spread, 1)} seeds at the spread so far" in text
    assert f"differences {spread:.2f} points" in text
    assert "but there are at most 3" in text
    assert "but there are at most" not in sentence(root, Until(0.5, 5, 60))


def test_else_of_the_same_arms_in_another_study_and_where_there_is_none_it_says_so(tmp_path):
    figures = {"stage2": [80.0, 81.0, 79.5], "both": [80.4, 81.9, 79.7]}
    root = ablation(tmp_path, figures, study="before")
    assert "of the same arms in the study before" in sentence(root, own=False)
    other = sentence(root, own=False, arms=("stage2", "new"))
    assert "is not known yet, because the storage has no 3 pairs of any of these arms" in other
