"""Names of files, and which of their rows count."""

import pyarrow.parquet as pq

from sadcl import results
from sadcl.results import compact, store
from tests.results.runs import complete_trial


def test_keys_that_are_no_file_names(tmp_path):
    for key in ("a/b", "a b", "../../x", "ä", "x" * 300, "x" * 300 + "y"):
        complete_trial(tmp_path, key)
    assert len(set(results.read(tmp_path, "trials")["key"].to_pylist())) == 6
    assert not (tmp_path.parent / "x").exists()


def read_with_other_software(folder):
    """Values of val_mAP by key, read by the rules of the package's README alone."""
    newest, values = {}, {}
    for path in folder.glob("[!.]*.parquet"):
        name, _, number = path.stem.partition("~")
        place = (int(number or 0), 1, str(path))
        newest[name] = max(newest.get(name, place), place)
    for index in folder.glob("merged/[!.]*.index.parquet"):
        merged = str(index).replace(".index", "")
        for entry in pq.read_table(index).to_pylist():
            place = (entry["number"], 0, merged)
            newest[entry["name"]] = max(newest.get(entry["name"], place), place)
    keys = {}
    for index in folder.glob("merged/[!.]*.index.parquet"):
        for entry in pq.read_table(index).to_pylist():
            keys[entry["name"]] = entry["key"]
    for name, (_, is_own, path) in newest.items():
        for row in pq.read_table(path).to_pylist():
            if is_own or row["key"] == keys[name]:
                values[row["key"]] = row["val_mAP"]
    return values


def test_the_rules_for_other_software_give_the_same_rows(tmp_path):
    folder, root = tmp_path / "tables" / "trials", str(tmp_path)

    def check(keys):
        rows = {row["key"]: row["val_mAP"] for row in results.read(root, "trials").to_pylist()}
        assert read_with_other_software(folder) == rows
        assert set(rows) == set(keys)

    for key in ("a", "b/ä", "c"):
        complete_trial(tmp_path, key)
    check(["a", "b/ä", "c"])
    compact.compact(root)
    store.amend(root, "a", val_mAP=1.0)
    store.delete(root, "c")
    complete_trial(tmp_path, "d", status="failed")
    check(["a", "b/ä", "d"])
    compact.compact(root)
    store.amend(root, "b/ä", val_mAP=2.0)
    check(["a", "b/ä", "d"])
