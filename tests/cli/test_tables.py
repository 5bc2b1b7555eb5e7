"""The command ``sadcl results`` as it is typed: answers, and mistakes as one paragraph."""

from __future__ import annotations

import csv
import io
import json

import pytest


def test_the_best_trials(command, runs):
    root, row = runs
    lines = command(
        "sadcl", "results", "top", "--storage", root, "--metric", "test_mAP"
    ).stdout.splitlines()
    assert lines[0].split("\t")[:4] == ["rank", "key", "study", "phase"]
    cells = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))
    assert cells["key"] == row["key"]
    assert cells["test_mAP"] == f"{row['test_mAP']:.2f}"
    words = ("sadcl", "results", "top", "--json", "--storage", root)
    (best,) = json.loads(command(*words).stdout)
    assert (best["key"], best["test_mAP"]) == (row["key"], row["test_mAP"])
    done = command(*words, "--raw", check=False)
    assert "got --raw and --json: choose one" in done.stderr


def test_sql_as_a_table_and_as_csv(command, runs):
    root, row = runs
    query = "select study, test_mAP from trials"
    words = ("sadcl", "results", "sql", query, "--storage", root)
    assert command(*words).stdout == f"study\ttest_mAP\ncli\t{row['test_mAP']:.2f}\n"
    assert command(*words, "--raw").stdout == f"study\ttest_mAP\ncli\t{row['test_mAP']!r}\n"
    text = command("sadcl", "results", "sql", query, "--storage", root, "--csv").stdout
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"study": "cli", "test_mAP": repr(row["test_mAP"])}
    ]


def test_show_studies_and_schema(command, runs):
    root, row = runs
    shown = command("sadcl", "results", "show", row["key"], "--storage", root).stdout
    for word in (
        "# epochs",
        "# labels",
        "config_digest",
        f"val_mAP\t{row['val_mAP']:.2f}",
        "mushroom",
    ):
        assert word in shown
    for line in ("data_image_size\t32\n", "seed\t0\n", "--raw shows them)\n"):
        assert line in shown
    assert '"image_size"' not in shown
    query = "select max(data_image_size), avg(data_image_size) from trials"
    answer = command("sadcl", "results", "sql", query, "--storage", root).stdout
    assert answer.splitlines()[1] == "32\t32.00"
    assert (
        "cli\tscenes\tdemo\t1\t1"
        in command("sadcl", "results", "studies", "--storage", root).stdout
    )
    schema = command("sadcl", "results", "schema").stdout
    assert "# trials (key: key)" in schema
    assert "val_mAP\tdouble\tpercent, on the held-out training images, which choose" in schema


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("results", "top", "--storage", "nowhere"), "'nowhere' holds no results"),
        (
            ("results", "top", "--study", "clj", "--storage", "{root}"),
            "There is no study 'clj' in '{root}'; did you mean 'cli'",
        ),
        (
            ("results", "top", "--metric", "val_map", "--storage", "{root}"),
            "did you mean 'val_mAP'",
        ),
        (
            ("results", "sql", "select val_mpa from trials", "--storage", "{root}"),
            "There is no column 'val_mpa' in the table trials; did you mean 'val_mAP'",
        ),
        (("results", "sql", " ", "--storage", "{root}"), "The query is empty"),
        (("results", "tpo"), "No such command 'tpo'. Did you mean 'top'?"),
    ],
)
def test_mistakes_are_one_paragraph(command, runs, words, message):
    root, _row = runs
    done = command("sadcl", *(w.format(root=root) for w in words), check=False)
    assert done.returncode == 2
    assert message.format(root=root) in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("words", [("top",), ("studies",), ("compare",), ("show", "{key}")])
def test_tables_fit_a_terminal_of_80_columns(terminal_output, runs, words):
    root, row = runs
    text = terminal_output(
        "sadcl", "results", *(w.format(key=row["key"]) for w in words), "--storage", root
    )
    assert f"{row['val_mAP']:.2f}" in text
    lines = [line for line in text.splitlines() if row["checkpoint"] not in line]
    assert max(map(len, lines)) <= 80
    if words[0] == "show":
        assert row["checkpoint"] in text
        assert row["key"] in text


def test_a_metric_that_no_search_trial_has_ranks_the_other_phases(tmp_path):
    from typer.testing import CliRunner

    from sadcl.cli.app import app
    from sadcl.results import RunWriter

    for key, phase, figures in (("a", "search", {}), ("b", "confirm", {"test_mAP": 50.0})):
        writer = RunWriter(str(tmp_path), key, {"study": "s", "phase": phase, "arm": "tuned"})
        writer.finish("complete", metrics={"val_mAP": 60.0, **figures})
    words = ["results", "top", "--metric", "test_mAP", "--storage", str(tmp_path)]
    shown = CliRunner().invoke(app, words).stdout.splitlines()
    assert [line.split("\t")[1] for line in shown[1:]] == ["b"]


def test_a_pipe_rounds_the_settings_and_raw_has_all_digits(tmp_path):
    from typer.testing import CliRunner

    from sadcl.cli.app import app
    from sadcl.results import RunWriter

    row = {"study": "s", "phase": "search", "params": '{"loss.tau": 0.123456789}'}
    RunWriter(str(tmp_path), "a", row).finish("complete", metrics={"val_mAP": 60.123456789})
    for words in (["show", "a"], ["top"]):
        words = ["results", *words, "--storage", str(tmp_path)]
        plain = CliRunner().invoke(app, words).stdout
        assert "\t60.12\n" in plain or "\t60.12\t" in plain
        assert "tau=0.123\n" in plain
        exact = CliRunner().invoke(app, [*words, "--raw"]).stdout
        assert "60.123456789" in exact
        assert '{"loss.tau": 0.123456789}\n' in exact
