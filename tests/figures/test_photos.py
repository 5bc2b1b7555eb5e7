"""Maps over real files, as typed: ``sadcl explain`` with networks that were really trained."""

import pytest
from typer.testing import CliRunner

from sadcl.cli.app import app
from sadcl.errors import UserError
from tests.figures.pixels import pixels


def invoke(*words):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


def test_the_command_draws_all_photographs_that_can_be_read(two_runs, photo_files, work_folder):
    root, main, pooled = two_runs
    (work_folder / "text.jpg").write_text("hello")
    done = invoke(
        *photo_files,
        "text.jpg",
        "--checkpoint",
        main["key"],
        "--storage",
        root,
        "-o",
        "maps.png",
        "--top",
        2,
    )
    assert isinstance(done.exception, UserError)
    assert "'text.jpg' (5 bytes) cannot be decoded" in str(done.exception)
    lines = done.stdout.splitlines()
    assert lines[0] == f"baseline: {pooled['key']}"
    assert [line.split(": ")[0] for line in lines[1:]] == [*photo_files, "maps.png"]
    both = pixels((work_folder / "maps.png").read_bytes())
    alone = invoke(
        *photo_files,
        "--checkpoint",
        main["checkpoint"],
        "--baseline",
        "",
        "--storage",
        root,
        "-o",
        "alone.png",
    )
    assert alone.exit_code == 0
    assert len(pixels((work_folder / "alone.png").read_bytes())) < 0.7 * len(both)
    again = invoke(
        *photo_files, "--checkpoint", main["key"], "--storage", root, "-o", "again.png", "--top", 2
    )
    assert again.exit_code == 0
    assert (work_folder / "again.png").read_bytes() == (work_folder / "maps.png").read_bytes()


def test_the_command_with_chosen_labels_and_with_a_baseline_alone(
    two_runs, photo_files, work_folder
):
    root, _, pooled = two_runs
    words = ("--checkpoint", pooled["key"], "--storage", root, "--label", "die", "--label", "star")
    done = invoke("wide.jpg", *words, "-o", "maps.svg")
    assert done.exit_code == 0
    assert "baseline:" not in done.stdout
    text = (work_folder / "maps.svg").read_text()
    for word in ("die 0.", "star 0.", "wide.jpg", "class activation map"):
        assert word in text
    assert "attention" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wide.jpg", "--checkpoint", "{key}x", "-o", "a.png"), "There is no trial"),
        (("wide.jpg", "--checkpoint", "none.pt", "-o", "a.png"), "no checkpoint at 'none.pt'"),
        (("wide.jpg", "--checkpoint", "{key}", "-o", "a.jpg"), "must end in .png, .svg, .pdf"),
        (
            ("wide.jpg", "--checkpoint", "{key}", "-o", "a.png", "--label", "strar"),
            "no label 'strar'; did you mean 'star'?",
        ),
        (
            ("wide.jpg", "--checkpoint", "{key}", "-o", "a.png", "--baseline", "{key}"),
            "is no pooled baseline",
        ),
        (
            ("none.jpg", "--checkpoint", "{key}", "-o", "a.png"),
            "'none.jpg' cannot be read: No such file",
        ),
    ],
)
def test_mistakes_of_the_command(two_runs, photo_files, work_folder, words, message):
    root, main, _ = two_runs
    done = invoke(*(word.format(key=main["key"]) for word in words), "--storage", root)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not list(work_folder.glob("a.*"))
