"""Where the rows of a study come from, and how they are made again."""

from __future__ import annotations

import shlex

from sadcl.reports.page.provenance import COLUMNS, commands, config_code, made_by, wrapped
from sadcl.reports.page.study import study_data
from sadcl.results import schema
from tests.reports.pages import search


def test_every_column_exists():
    assert COLUMNS.keys() <= schema.TRIALS.keys()


def test_the_versions_of_this_package_come_first(tmp_path):
    search(tmp_path)
    lines = {line["what"]: line["value"] for line in made_by(study_data(str(tmp_path), "s"))}
    assert list(lines)[:3] == ["sadcl", "sources (hash)", "git revision"]
    assert list(lines.values())[:3] == ["0.1.0", "abc", "f00+"]
    assert lines["torch"] == "2.14.1"
    assert "Ray" not in lines  # no row has it


def test_a_study_on_cpus_says_nothing_of_gpus(tmp_path):
    search(tmp_path)
    study = study_data(str(tmp_path), "s")
    for row in study.rows:
        row |= {"gpus": 0.0, "cuda": "13.0", "cudnn": "9"}
    assert not {"GPUs per worker", "CUDA", "cuDNN"} & {line["what"] for line in made_by(study)}
    study.rows[0]["gpus"] = 1.0
    lines = {line["what"]: line["value"] for line in made_by(study)}
    assert lines["GPUs per worker"].endswith("1 (1 runs)")
    assert lines["CUDA"] == "13.0"


def test_several_values_are_counted(tmp_path):
    rows = search(tmp_path)
    study = study_data(str(tmp_path), "s")
    study.rows[0]["sadcl"] = "0.2.0"
    lines = {line["what"]: line["value"] for line in made_by(study)}
    assert lines["sadcl"] == f"0.1.0 ({len(rows) - 1} runs), 0.2.0 (1 runs)"


def test_commands_name_revision_versions_and_checkpoint(tmp_path):
    search(tmp_path)
    study = study_data(str(tmp_path), "s")
    best = study.best_run()
    lines = commands(study, best)
    assert lines[0] == "git checkout f00   # plus changes that were not committed"
    assert lines[1] == "pip install -e . torch==2.14.1"
    assert lines[2].startswith("python FILE.py --storage NEW   # FILE.py defines the study")
    study.description["file"] = "experiments/tune.py"
    assert commands(study, best)[2] == "python experiments/tune.py --storage NEW"
    words = ["sadcl", "run", "mine.py", "--data-root", "DIR", "--set", "loss.tau=0.1"]
    study.description["command"] = words
    assert commands(study, best)[2] == (
        "sadcl run mine.py --data-root DIR --set loss.tau=0.1 --storage NEW"
        "   # DIR is where the data set is"
    )
    assert lines[3] == f"sadcl results report s --storage {tmp_path} -o report.html"
    assert lines[4].startswith(f"sadcl evaluate --checkpoint {best['key']} --storage {tmp_path}")


def test_a_long_command_is_broken_before_its_options_and_stays_the_same_words():
    values = [f"data.scene_train={n}{'0' * 20}" for n in range(4)]
    odd = "it's --quite a name"
    words = ["python", odd, *(word for value in values for word in ("--set", value))]
    lines = wrapped(f"{shlex.join(words)}   # DIR is where the data set is").split("\n")
    assert len(lines) == 4
    assert all(line.endswith(" \\") and len(line) <= 82 for line in lines[:-1])
    assert all(line.startswith("    --set ") for line in lines[1:])
    assert shlex.split("\n".join(lines).replace("\\\n", ""), comments=True) == words
    assert wrapped("git checkout f00   # plus") == "git checkout f00   # plus"


def test_a_row_without_a_configuration_has_no_code():
    assert config_code({"config": None}) == ""
