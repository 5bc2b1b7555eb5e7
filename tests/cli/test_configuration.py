"""``sadcl config fields``, as a user sees it on a terminal and through a pipe."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess

import pytest

from sadcl.config.fields import all_fields

HEAD = """
from torch import nn

class Attention(nn.Module):
    \"\"\"Looks.

    Args:
        size: how far.
    \"\"\"

    def __init__(self, task, *, size: int, power: float = 2.0):
        super().__init__()
"""


def on_terminal(command, folder, *words):
    """Standard output of a command on a terminal that is 80 columns wide."""
    parent, child = pty.openpty()
    with subprocess.Popen(
        words, stdout=child, cwd=folder, env={**command.environment, "COLUMNS": "80"}
    ):
        os.close(child)
        parts = []
        try:
            while part := os.read(parent, 65536):
                parts.append(part)
        except OSError:  # the end of a terminal
            pass
    os.close(parent)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_all_fields_as_tables_for_other_programs(command):
    rows = json.loads(command("sadcl", "config", "fields", "--format", "json").stdout)
    assert [row["field"] for row in rows] == list(all_fields())
    assert {row["field"]: row["default"] for row in rows}["data.mean"] is None
    plain = command("sadcl", "config", "fields").stdout.splitlines()
    assert plain[0].split("\t") == ["field", "type", "default", "meaning"]
    assert len(plain) == len(rows) + 1
    text = command("sadcl", "config", "fields", "stage1.class_loss", "--format", "csv").stdout
    (kind, *others) = csv.DictReader(io.StringIO(text))
    assert kind["type"] == "one of bce, asymmetric or an import path"
    assert {row["field"].rpartition(".")[0] for row in others} == {"stage1.class_loss"}


def test_a_recipe_has_a_column(command):
    words = ("sadcl", "config", "fields", "loss", "--recipe", "coco14:paper", "--format", "json")
    rows = {row["field"]: row for row in json.loads(command(*words).stdout)}
    assert rows["loss.sample_weight"]["default"] == 8.0
    assert rows["loss.sample_weight"]["coco14:paper"] == 1.0
    assert rows["loss.class_reduction"]["coco14:paper"] == "sum"


def test_eighty_columns_are_enough(command, tmp_path):
    every = on_terminal(command, tmp_path, "sadcl", "config", "fields", "--recipe", "coco14")
    assert max(map(len, every.splitlines())) <= 80
    assert all(f"  {name} = " in every for name in all_fields())
    text = on_terminal(command, tmp_path, "sadcl", "config", "fields", "loss", "--recipe", "coco14")
    assert "  loss.tau = 0.2, in coco14 too (number from 0.005 to 100)\n" in text
    assert "  loss.prototype_tau = None, in coco14 0.07 (number" in text
    assert "Rows of the memory bank that are candidates of Eq. 4.\n" in text
    assert "a row takes part" not in text
    whole = on_terminal(command, tmp_path, "sadcl", "config", "fields", "loss.candidates")
    assert "smaller share of its gradient." in whole
    assert "\x1b" not in whole


def test_a_part_shows_its_arguments(command, tmp_path):
    (tmp_path / "my_lab.py").write_text(HEAD)
    text = command("sadcl", "config", "fields", "my_lab:Attention").stdout
    assert text.splitlines()[1:] == [
        "size\twhole number\tnone, it must be given\thow far.",
        "power\tnumber\t2.0\t",
    ]
    (head, *arguments) = command("sadcl", "config", "fields", "model.head").stdout.splitlines()[1:]
    assert head.startswith("model.head\timport path\tsadcl.model.heads:SARL\t")
    assert "model.heads\twhole number >= 1\t4\tNumber of attention heads;" in "\n".join(arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle"], "There is no field or section 'modle'; did you mean 'model'?"),
        (["tau"], "There is no field or section 'tau'; did you mean 'loss.tau'?"),
        (["no_lab:X"], "the module 'no_lab' cannot be imported"),
        (["sadcl.model.heads:Sarl"], "sadcl.model.heads has no 'Sarl'"),
        (["model.head_arguments.x"], "has no argument 'x'; there are hidden,"),
        (["stage1.class_loss.arguments.x"], "kind = 'bce' has no argument 'x'"),
        (["--recipe", "coco15"], "There is no recipe 'coco15'; did you mean 'coco14'?"),
        (["--recipe", "coco14:x"], "variant must be 'released' or 'paper', but got 'x'"),
        (["--format", "xml"], "--format xml is not possible: choose json or csv."),
    ],
)
def test_wrong_turns(command, words, message):
    done = command("sadcl", "config", "fields", *words, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
