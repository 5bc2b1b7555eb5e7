"""How many rows a chart has."""

from __future__ import annotations

import re

from sadcl.reports import importance
from sadcl.reports.page import html
from tests.reports.pages import search


def test_many_trials_are_thinned_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 10)
    monkeypatch.setattr(importance, "PERMUTATIONS", 10)
    search(tmp_path, 240, pruned=90, failed=5, labels=tuple(f"label {i}" for i in range(200)))
    text = html.study_page(str(tmp_path), "s")
    assert len(text.encode()) < 1_500_000
    assert "of 235 trials (the best, and others at even distances)" in text
    assert "The best 100 of 240 trials" in text
    assert re.search(r"stage 2: 120 of \d+ runs are drawn", text)
    assert "the 120 of 200 labels that differ the most" in text
    compared = {f"confirm {arm}, seed {seed}" for arm in ("stage2", "tuned") for seed in (7, 8)}
    assert compared < set(re.findall(r"<title>(.*?):", text))  # none of them is thinned out
