"""The words of label gains."""

from __future__ import annotations

import numpy as np

from sadcl.reports import label_gains_text
from tests.reports.labels import compared


def test_words_state_what_is_significant_and_no_more(arrays):
    base_SL, _ = arrays
    noise_SL = np.random.default_rng(3).normal(0, 0.1, (4, 8))
    gains = compared(base_SL, base_SL + noise_SL + [0, 0, 0, 0, 0, 0, 5, -5], size=[*range(1, 9)])
    text = " ".join(
        [*label_gains_text.gains_notes(gains), *label_gains_text.gains_sentences(gains)]
    )
    for part in (
        "over the 4 seeds that both arms have",
        "corrected by Benjamini and Hochberg over 8 labels",
        "Size is the share of an image",
        "a significant gain for 1 of 8 labels: l6.",
        "a significant loss for 1 of 8 labels: l7.",
        "by frequency: rare ",
        "for each doubling of the number of images: no significant trend (corrected p ",
        "correlation over the labels r = ",
    ):
        assert part in text
    assert "Demo scale" not in text
    line = label_gains_text.gains_table(gains)[6]
    assert list(line) == [
        "label",
        "images",
        "size",
        "baseline AP",
        "difference (95 %, that label alone)",
        "p (Benjamini-Hochberg)",
    ]
    assert (line["label"], line["images"], line["size"]) == ("l6", "10", "7 %")
    assert label_gains_text.thirds_table(gains)[0]["range"] == "5 to 20 images"
    assert label_gains_text.thirds_table(gains)[5]["range"] == "7 % to 8 % of the image"
    plain = compared(base_SL, base_SL + noise_SL)
    assert "size" not in label_gains_text.gains_table(plain)[0]
    assert "no significant difference for any of 8 labels over 4 seeds" in next(
        label_gains_text.gains_sentences(plain)
    )
