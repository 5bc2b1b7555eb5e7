"""Who may import whom; read from the sources, so that an import inside a function counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sadcl

ROOT = Path(sadcl.__file__).parent
MATHS = {"admission", "losses", "memory", "prototypes", "model", "criterion"}
BUILD = MATHS | {"config", "data", "metrics", "localisation", "distributed", "errors"}
MAY = {
    "__init__": {"losses", "metrics", "recipes", "config", "errors", "inference", "platform", "results", "script", "search"},
    "errors": set(),
    "config": {"errors"},
    "distributed": set(),
    "metrics": set(),
    "localisation": set(),
    "storage": {"errors"},
    "console": {"errors"},
    "winners": set(),
    "results": {"metrics", "storage", "winners", "errors"},
    "losses": {"distributed"},
    "admission": {"distributed"},
    "memory": {"admission"},
    "prototypes": {"admission"},
    "model": {"prototypes", "errors"},
    "criterion": {"losses", "memory", "prototypes", "distributed"},
    "data": {"config", "storage", "errors", "distributed"},
    "recipes": {"config", "errors"},
    "search": {"config", "winners", "errors"},
    "build": BUILD | {"storage"},
    "training": BUILD | {"build", "storage"},
    "inference": {"build", "model", "data", "metrics", "config", "training", "storage", "errors"},
    "figures": {"build", "model", "data", "inference", "results", "storage", "errors"},
    "runner": {"config", "data", "training", "search", "results", "distributed", "storage", "errors"},
    "study": {"search", "results", "storage", "winners", "errors"},
    "curves": {"results", "storage"},
    "ray_backend": {
        *("curves", "config", "training", "search", "results", "distributed", "errors"),
        *("runner", "study", "storage", "console", "winners"),
    },
}
MAY["sizing"] = {"build", "config", "runner", "ray_backend", "storage", "errors"}
MAY["launch"] = set(MAY) - {"__init__"}
MAY["platform"] = set(MAY) - {"__init__"}
MAY["script"] = {"platform", "launch", "search", "config", "console", "errors"}
MAY["cli_data"] = {"config", "console", "data", "errors", "results", "storage"}
MAY["cli_results"] = {"console", "errors", "results", "study"}
MAY["cli_explain"] = {"cli_results", "errors", "figures", "inference", "results"}
MAY["cli_report"] = {"cli_results", "config", "console", "errors", "recipes", "results", "storage"}
MAY["cli_stats"] = {"cli_results", "console", "errors", "results"}
MAY["cli_store"] = {"cli_results", "config", "console", "errors", "recipes", "results", "storage"}
MAY["cli"] = MAY["platform"] | {"platform", *(part for part in MAY if part.startswith("cli_"))}
NOWHERE = {"tensorboardX": {"curves"}, "ray": {"ray_backend"}, "optuna": {"ray_backend", "results"}}
WITHOUT_TORCH = (
    "errors",
    "config",
    "metrics",
    "storage",
    "console",
    "results",
    "recipes",
    "search",
    "study",
    "curves",
    "cli",
    "cli_data",
    "cli_report",
    "cli_explain",
    "cli_results",
    "cli_stats",
    "cli_store",
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


def by_part() -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        parts.setdefault(part, set()).update(imports(path))
    return parts


def test_every_part_has_its_place():
    assert by_part().keys() == MAY.keys()


@pytest.mark.parametrize("part", sorted(MAY))
def test_imports_go_down_only(part):
    names = by_part()[part]
    ours = {name.split(".")[1] for name in names if name.startswith("sadcl.")} - {part, "__version__"}
    assert ours <= MAY[part], f"{part} must not import {sorted(ours - MAY[part])}"
    for package, places in NOWHERE.items():
        assert part in places or not any(name.split(".")[0] == package for name in names), f"{part} imports {package}"
    if part in WITHOUT_TORCH:
        assert not any(name.split(".")[0] in ("torch", "torchvision", "timm") for name in names)


def test_the_maths_and_the_loop_need_no_ray():
    """They run on machines that do not have it."""
    code = (
        "import sys; sys.modules['ray'] = sys.modules['optuna'] = None\n"
        "import sadcl.training, sadcl.inference, sadcl.runner, sadcl.losses"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "code", ["import sadcl", "import sadcl.results, sadcl.results.query", "import sadcl.cli", "sadcl.read"]
)
def test_asking_the_tables_loads_neither_torch_nor_ray(code):
    heavy = {"torch", "ray", "optuna", "scipy", "matplotlib"}
    check = f"import sadcl\n{code}\nimport sys; sys.exit(bool({heavy} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_help_loads_no_arrow_either():
    code = "import sys\nfrom sadcl.cli import main\nsys.argv[1:] = ['--help']\ntry: main()\nfinally: print(set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert "'pyarrow'" not in done.stdout


def test_at_most_fifteen_public_names_all_there():
    assert len(sadcl.__all__) <= 15
    for name in sadcl.__all__:
        assert getattr(sadcl, name) is not None
    assert set(sadcl.__all__) <= set(dir(sadcl))
    with pytest.raises(AttributeError, match="no attribute 'Serach'"):
        _ = sadcl.Serach


def test_files_can_be_read_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ROOT.rglob("*.py")}
    assert not {name: n for name, n in lengths.items() if n > 400}
    experiments = {p.name: len(p.read_text().splitlines()) for p in (ROOT.parent / "experiments").glob("*.py")}
    assert experiments
    assert max(experiments.values()) <= 60
