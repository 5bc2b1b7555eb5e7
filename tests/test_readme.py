"""The READMEs are true: commands that can run here run, and the others have the flags they name."""

import inspect
import json
import re
import shlex
from pathlib import Path

import pytest

import sadcl
from sadcl import storage
from sadcl.results import RunWriter
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in (
        "README.md",
        "*/README.md",
        "*/*/README.md",
        "*/FIGURES.md",
        ".github/CONTRIBUTING.md",
    )
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).parts[0]
    in ("README.md", "sadcl", "experiments", "cluster", ".github")
)
README = (ROOT / "README.md").read_text()
GROUPS = ("results", "data", "studies", "config")
SEARCH, ABLATION = "coco14-tune-demo", "components"
"""The studies that the README's commands name."""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """The project's own commands on a page, without comments."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line)]
    return [part for part in parts if part.startswith(("python ", "sadcl ", "pytest ", "cluster/"))]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def subcommand(words: list[str]) -> tuple[str, ...]:
    """The command that has the help of a line."""
    if words[0] == "python":
        return ("python", str(ROOT / words[1]))
    return tuple(words[: 3 if words[1] in GROUPS else 2])


@pytest.fixture
def store(tmp_path):
    """A storage ``runs`` with the README's studies, in the folder that ``command`` runs in."""
    root = str(tmp_path / "runs")
    for study, kind, phase, arms in (
        (SEARCH, "search", "search", ["tuned"]),
        (ABLATION, "ablation", "arm", ["stage 2", "both"]),
    ):
        record = {"name": study, "kind": kind, "question": "Why?", "scale": "demo"}
        record |= {"baseline": arms[0], "order": arms, "marks": {}, "published": {}}
        storage.write(f"{root}/studies/{study}.json", json.dumps(record).encode())
        for arm in arms:
            for seed in range(3):
                row = {"study": study, "phase": phase, "arm": arm, "seed": seed, "params": "{}"}
                row |= {"dataset": "scenes", "scale": "demo"}
                writer = RunWriter(root, f"{study}-{arm}-s{seed}", row)
                writer.epoch({"stage": 2, "epoch": 1, "val_mAP": 60.0 + seed})
                label = {"split": "test", "label": "star", "AP": 50.0, "pointing": 60.0}
                mAP = 60.0 + seed + len(arm) / 10
                writer.finish("complete", metrics={"val_mAP": mAP, "test_mAP": mAP}, labels=[label])
    return root


def test_the_two_commands_are_those_that_the_gate_runs():
    assert "pip install -e . && python experiments/tune_coco.py" in README
    assert 'pip install -e ".[dev]" && pytest' in README
    gate = (ROOT / ".ci" / "run").read_text()
    assert 'pip install --quiet -e ".[dev]"' in gate
    assert "\npytest\n" in gate
    assert "python experiments/tune_coco.py" in gate
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_readme_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 200
    for folder in ("sadcl/data", "experiments", "experiments/benchmarks", "cluster"):
        assert f"{folder}/README.md" in PAGES
    pictures = list((ROOT / ".github" / "images").glob("*.png"))
    assert pictures
    assert sum(path.stat().st_size for path in pictures) < 150_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        if not target.startswith("https://"):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    named = r"(?<![\w/.])(?:sadcl|tests|experiments|cluster|\.github)/[\w./-]+\.(?:py|sh|yaml|md)\b"
    for path in re.findall(named, text):
        assert "NAME" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_flag_exists(page, command):
    helps: dict[tuple[str, ...], str] = {}
    for line in commands(page):
        words = words_of(line)
        if words[0] in ("pytest", "cluster/local.sh"):
            paths = [word for word in words if "/" in word]
            assert all((ROOT / path).exists() for path in paths), line
            continue
        if words[:2] == ["sadcl", "run"]:
            words[:2] = ["python", "experiments/tune_coco.py"]  # the flags of any study's file
        key = subcommand(words)
        if key not in helps:
            helps[key] = command(*key, "--help", COLUMNS="200").stdout
        for flag in (word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)):
            assert re.search(rf"{flag}\b", helps[key]), f"{flag} of {line!r}"


def test_questions_to_the_tables_are_answered(command, store):
    lines = {
        line
        for page in ("README.md", "experiments/README.md")
        for line in commands(page)
        if line.startswith(("sadcl results ", "sadcl studies list"))
    }
    assert len(lines) >= 5
    for line in sorted(lines):
        assert command(*words_of(line)).stdout.strip(), line
    page = Path(store).parent / "report.html"
    assert "components" in page.read_text()
    assert (Path(store).parent / "forest.pdf").exists()


def test_a_copy_is_checked(command, tmp_path):
    (layout,) = [layout for layout in LAYOUTS if layout.name == "coco14"]
    layout.write(tmp_path / "coco", TRAIN, TEST)
    (line,) = [line for line in commands("README.md") if line.startswith("sadcl data check coco")]
    words = [word.replace("/data/coco", str(tmp_path / "coco")) for word in words_of(line)]
    done = command(*words, check=False)
    assert done.returncode == 1, done.stderr  # the copy is whole, but has not the published counts
    assert (tmp_path / "check.parquet").exists()


def test_a_plan_is_printed(command):
    assert "python experiments/tune_coco.py\n" in README
    assert "trials" in command("python", ROOT / "experiments/tune_coco.py", "--dry-run").stdout


@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page}-{number}")
        for page in ("README.md", "experiments/README.md")
        for number, code in enumerate(blocks(page, "python"))
        if "onnxruntime" not in code  # tests/inference/export/test_write.py runs it on a network
    ],
)
def test_python_runs(page, code, store, monkeypatch):
    """Training and loading are replaced: their arguments must fit, and what they give is used."""

    class Model:
        def explain(self, *arguments, **options):
            inspect.signature(Predictor.explain).bind(self, *arguments, **options)
            return [("star", 0.9, np.zeros((4, 4)))]

    import numpy as np

    from sadcl.inference import Predictor

    results = {"train": {"test_mAP": 50.0, "checkpoint": "best.pt"}, "load": Model()}
    for name, result in results.items():
        signature = inspect.signature(getattr(sadcl, name))

        def stand_in(*arguments, result=result, signature=signature, **options):
            signature.bind(*arguments, **options)
            return result

        monkeypatch.setattr(sadcl, name, stand_in)
    monkeypatch.chdir(Path(store).parent)
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_every_name_exists(page):
    code = "\n".join(blocks(page, "python"))
    modules = {"results", "search", "model"}
    assert set(re.findall(r"\bsadcl\.(\w+)", code)) <= {*sadcl.__all__, *modules}
    for line in re.findall(r"^(?:from|import) sadcl.*", code, flags=re.MULTILINE):
        exec(line, {})


def test_names_of_the_five_things_are_there():
    names = set(re.findall(r"sadcl\.(\w+)\(", "\n".join(blocks("README.md", "python"))))
    assert {"read", "sql", "train"} <= names <= set(sadcl.__all__)
