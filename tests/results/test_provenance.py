"""What a real run's row says of where it comes from and what it cost."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from sadcl import results
from sadcl.results import compact, provenance, schema, verify
from sadcl.study import process


def test_its_row_says_where_it_comes_from_and_what_it_cost(trained):
    root, row = trained
    (read,) = results.read(root, "trials").to_pylist()
    for name in (
        "config",
        "config_digest",
        "data_digest",
        "weights_digest",
        "code",
        "sadcl",
        "torch",
        "pyarrow",
        "cpu",
        "host",
    ):
        assert read[name], name
    assert (
        read["weights_digest"]
        == hashlib.sha256(Path(row["checkpoint"]).read_bytes()).hexdigest()[:12]
    )
    assert (
        read["config_digest"]
        == hashlib.sha256(
            json.dumps(json.loads(read["config"]), sort_keys=True).encode()
        ).hexdigest()[:12]
    )
    assert (read["gpus"], read["gpu_hours"], read["device"], read["schema_version"]) == (
        0.0,
        0.0,
        "cpu",
        schema.VERSION,
    )
    assert read["seconds"] > 0
    assert read["images"] == 46 * 2
    assert not list(verify.verify(str(root), checkpoints=True))
    compact.compact(str(root))
    assert results.read(root, "trials").to_pylist() == [read]
    assert not list(verify.verify(str(root), checkpoints=True))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("clone/experiments/tune.py", "experiments/tune.py"),
        ("elsewhere/deep/tune.py", "tune.py"),
        ("clone/notebook", None),
        ("clone/missing.py", None),
    ],
)
def test_the_file_of_an_experiment_has_no_path_of_a_machine(tmp_path, monkeypatch, path, expected):
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.stem != "missing":
        file.touch()
    monkeypatch.setattr("sys.argv", [str(file), "--storage", "runs"])
    assert provenance.experiment_file() == expected


@pytest.mark.parametrize("runs_itself", [True, False])
def test_a_relative_file_is_known_after_its_folder_was_left(tmp_path, monkeypatch, runs_itself):
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    (tmp_path / "clone" / "my study.py").touch()
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr("sys.argv", ["my study.py", "--storage", "runs"])
    main = "my study.py" if runs_itself else "/bin/sadcl"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", main, raising=False)
    with process.away_from_start_folder():
        start = ["python"] if runs_itself else ["sadcl", "run"]
        assert provenance.experiment_command() == [*start, "my study.py"]
