"""Where the rows of a study come from, and how they are made again."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sadcl.reports.page.study import Row, StudyData

COLUMNS = {
    "sadcl": "sadcl",
    "code": "sources (hash)",
    "revision": "git revision",
    "data_digest": "data digest",
    "start_digest": "start checkpoint digest",
    "python": "Python",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "ray": "Ray",
    "optuna": "Optuna",
    "numpy": "NumPy",
    "pyarrow": "PyArrow",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "device": "device",
    "cpu": "CPU",
    "host": "host",
    "workers": "workers",
    "gpus": "GPUs per worker",
    "schema_version": "table schema",
}
"""Columns of the trials table, with the name that the page shows."""
GPU_ONLY = ("cuda", "cudnn", "gpus")
"""Columns that say nothing of a study whose runs all used CPUs."""
MAX_VALUES = 6
"""The largest number of different values that are listed for a column."""
MAX_CHARACTERS = 80
"""Of a line of a command, with which an option and its value still fit on paper."""
_WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"])+"""
"""A word of a command, with its quotes."""
PINNED = ("torch", "torchvision", "timm", "ray", "optuna", "numpy")


def made_by(study: StudyData) -> list[dict[str, str]]:
    """List versions and machines; several values where the runs differ, with their counts."""
    lines = []
    on_gpus = any(row.get("gpus") for row in study.rows)
    for column, name in COLUMNS.items():
        if column in GPU_ONLY and not on_gpus:
            continue
        cells = [row[column] for row in study.rows if row.get(column) not in (None, "")]
        values = [f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]
        counts = Counter(values)
        texts = [
            value if len(counts) == 1 else f"{value} ({n} runs)"
            for value, n in counts.most_common(MAX_VALUES)
        ]
        rest = len(counts) - MAX_VALUES
        if counts:
            text = ", ".join(texts) + (f" and {rest} more" if rest > 0 else "")
            lines.append({"what": name, "value": text})
    return lines


def commands(study: StudyData, best: Row | None) -> list[str]:
    """Return the shell commands that make the study again."""
    storage = f"--storage {shlex.quote(study.root)}"
    lines = []
    revisions = Counter(row["revision"] for row in study.rows if row["revision"]).most_common(1)
    if revisions:
        revision = revisions[0][0]
        comment = "   # plus changes that were not committed" if revision.endswith("+") else ""
        lines.append(f"git checkout {shlex.quote(revision.rstrip('+'))}{comment}")
    versions = {name: best[name] for name in PINNED if best and best[name]}
    pins = " ".join(shlex.quote(f"{name}=={version}") for name, version in versions.items())
    lines.append(f"pip install -e . {pins}".strip())
    if study.kind != "runs":
        lines.append(_start_command(study.description))
    lines.append(f"sadcl results report {shlex.quote(study.name)} {storage} -o report.html")
    if best and best["checkpoint"]:
        lines.append(
            f"sadcl evaluate --checkpoint {shlex.quote(best['key'])} {storage}"
            "   # computes its figures again from the images"
        )
    return lines


def wrapped(line: str) -> str:
    """Break a long command before its options, so that it can be copied, from paper too.

    A page breaks it anywhere, also between the two hyphens of an option.
    """
    command, mark, comment = line.partition("   # ")
    first, *options = re.findall(rf"(?:^|--){_WORD}(?: (?!--){_WORD})*", command)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) < MAX_CHARACTERS:
            lines[-1] += f" {option}"
        else:
            lines.append(f"    {option}")
    return " \\\n".join(lines) + mark + comment


def _start_command(description: Mapping[str, Any]) -> str:
    """Return the command that starts a study of a description, in a storage of its own."""
    file = description.get("file") or "FILE.py"
    words = description.get("command") or ["python", file]
    comments = []
    if "file" not in description:
        comments.append("FILE.py defines the study; its name was not recorded")
    if any(word == "DIR" or word.endswith("=DIR") for word in words):
        comments.append("DIR is where the data set is")
    comment = f"   # {'; '.join(comments)}" if comments else ""
    return f"{shlex.join(words)} --storage NEW{comment}"


def config_code(row: Row) -> str:
    """Return a run's whole configuration as Python code; empty where the row has none."""
    if not row["config"]:
        return ""
    config = json.dumps(json.loads(row["config"]), indent=1)
    return (
        "import sadcl\n\n"
        f'config = sadcl.Config.stored(r"""\n{config}\n""")\n'
        f"assert config.digest() == {row['config_digest']!r}\n"
    )
