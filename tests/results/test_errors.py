"""Errors carry their values, also from one process to another."""

import pickle

import pytest

from sadcl.errors import UserError
from sadcl.results.errors import BadFile, UnknownName


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("column", "val_map", ["key", "val_mAP"], "the table trials", "See the schema."),
        UnknownName("study", "x", []),
        BadFile("/a/b.parquet", "is damaged: it ends too early", "Move it away."),
    ],
)
def test_an_error_is_the_same_after_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, UserError)
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_texts_say_what_is_wrong_and_what_to_do():
    error = UnknownName(
        "column", "val_map", ["key", "val_mAP"], "the table trials", "See the schema."
    )
    assert str(error) == (
        "There is no column 'val_map' in the table trials; did you mean 'val_mAP'? See the schema."
    )
    assert str(UnknownName("study", "x", [])) == "There is no study 'x'; there are none."
    many = UnknownName("study", "x", [f"study{i}" for i in range(20)])
    assert str(many).endswith("study10, study11 and 8 more.")
    assert str(BadFile("/a", "is damaged", "Move it away.")) == "'/a' is damaged. Move it away."
