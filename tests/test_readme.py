"""What the README says to type exists: files, commands, flags, names."""

import re
import shlex
from pathlib import Path

import sadcl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    part.split("#")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    for part in line.split("&&")
]
OURS = [c for c in COMMANDS if c.startswith(("python experiments/", "sadcl "))]


def test_the_two_commands_are_those_that_the_gate_runs():
    assert "pip install -e . && python experiments/tune_coco.py" in README
    assert 'pip install -e ".[dev]" && pytest' in README
    gate = (ROOT / ".ci" / "run").read_text()
    assert 'pip install --quiet -e ".[dev]"' in gate
    assert "\npytest\n" in gate
    assert "python experiments/tune_coco.py" in gate


def test_every_command_and_flag_exists(command):
    helps: dict[tuple[str, ...], str] = {}
    for line in OURS:
        words = shlex.split(line)
        if words[0] == "python":
            assert (ROOT / words[1]).is_file()
            what = ("python", str(ROOT / words[1]))
        else:
            what = tuple(words[: 3 if words[1] in ("results", "data", "studies") else 2])
        if what not in helps:
            helps[what] = command(*what, "--help", COLUMNS="200").stdout
        for flag in (w for w in words if w.startswith("--")):
            assert flag in helps[what], f"{flag} of {line!r}"


def test_every_name_exists():
    names = set(
        re.findall(
            r"sadcl\.(\w+)\(", "\n".join(text for language, text in BLOCKS if language == "python")
        )
    )
    assert {"read", "sql", "train"} <= names
    assert names <= set(sadcl.__all__)
    assert OURS
    for path in re.findall(
        r"sadcl/\w+|\w+\.py(?=\s)", next(text for language, text in BLOCKS if language == "text")
    ):
        assert list((ROOT / "sadcl").glob(path.removeprefix("sadcl/") + "*")), path
