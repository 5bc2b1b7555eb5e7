"""Which checkpoint is meant: a trial's, a study's best one, and the baseline of its study."""

import pytest

from sadcl.errors import UserError
from sadcl.results import checkpoints


def test_which_checkpoint_is_shown(two_runs):
    root, main, pooled = two_runs
    assert (
        checkpoints.best_trial_key(root) == checkpoints.best_trial_key(root, "look") == main["key"]
    )
    assert (
        checkpoints.baseline_trial_key(root, main["key"])
        == checkpoints.baseline_trial_key(root, main["checkpoint"])
        == pooled["key"]
    )
    assert checkpoints.baseline_trial_key(root, pooled["key"]) is None
    assert checkpoints.baseline_trial_key(root, "elsewhere/best.pt") is None
    assert checkpoints.find_checkpoint(root, main["key"]) == main["checkpoint"]
    with pytest.raises(UserError, match="no study 'loko' in .*; did you mean 'look'"):
        checkpoints.best_trial_key(root, "loko")
