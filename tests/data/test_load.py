"""Loading: limits, and roots that cannot be read."""

from __future__ import annotations

from sadcl.config import Data
from sadcl.data.load import load
from tests.data.readers.layouts import (
    BY_NAME,
    refused,
)


def test_limits_are_the_same_each_time_and_nested(small_scenes):
    root = small_scenes.train.folder.rsplit("/", 1)[0]

    def names(**limits):
        data = load(Data(name="coco", holdout=0.2, **limits), root)
        return {
            *data.train.files.to_pylist(),
            *data.val.files.to_pylist(),
        }, data.test.files.to_pylist()

    few, many = names(limit_train=20, limit_test=5), names(limit_train=40, limit_test=1000)
    assert (len(few[0]), len(many[0]), len(few[1]), len(many[1])) == (20, 40, 5, 20)
    assert few == names(limit_train=20, limit_test=5)
    assert few[0] < many[0]
    assert few[0] != names(limit_train=20, split_seed=1)[0]


def test_a_root_whose_name_is_no_text(layout_copy, tmp_path):
    root, _ = layout_copy("voc2007-itself")
    (tmp_path / "\udcff").symlink_to(root)
    refused(
        lambda: load(BY_NAME["voc2007"].config, tmp_path / "\udcff"),
        r"data root .* is no UTF-8 text; rename",
    )
