"""Which checkpoint is meant: a trial's, a study's best one, and the baseline of its study."""

import pytest

from sadcl.errors import UserError
from sadcl.results import checkpoints


def test_which_checkpoint_is_shown(two_runs):
    root, main, pooled = two_runs
    assert (
        checkpoints.best_checkpoint(root)
        == checkpoints.best_checkpoint(root, "look")
        == main["key"]
    )
    assert (
        checkpoints.baseline_checkpoint(root, main["key"])
        == checkpoints.baseline_checkpoint(root, main["checkpoint"])
        == pooled["key"]
    )
    assert checkpoints.baseline_checkpoint(root, pooled["key"]) is None
    assert checkpoints.baseline_checkpoint(root, "elsewhere/best.pt") is None
    assert checkpoints.find_checkpoint(root, main["key"]) == main["checkpoint"]
    with pytest.raises(UserError, match="no study 'loko' here; did you mean 'look'"):
        checkpoints.best_checkpoint(root, "loko")
