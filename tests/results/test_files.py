"""Names of files, and which of their rows count."""

from sadcl import results
from tests.results.runs import complete_trial


def test_keys_that_are_no_file_names(tmp_path):
    for key in ("a/b", "a b", "../../x", "ä", "x" * 300, "x" * 300 + "y"):
        complete_trial(tmp_path, key)
    assert len(set(results.read(tmp_path, "trials")["key"].to_pylist())) == 6
    assert not (tmp_path.parent / "x").exists()
