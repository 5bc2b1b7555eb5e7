"""Who may import whom; read from the sources, so that an import inside a function counts too."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import sadcl

ROOT = Path(sadcl.__file__).parent
FILES = {
    "": ("errors distributed storage memory metrics build __init__"),
    "console": "words terminal ending table __init__",
    "recipes": "methods laptop __init__",
    "config": "sources frozen component type_text older sections stages __init__ fields",
    "losses": (
        "classification contrast sample_to_sample released_mask sample_contrast mulsupcon "
        "similarity_dissimilarity probmcl same_label prototype_to_sample criterion __init__"
    ),
    "model": (
        "recompute frozen_batchnorm position prototypes standardization transformer backbone "
        "heads/head heads/sarl heads/pooled heads/word_vectors heads/query2label heads/ml_gcn "
        "heads/add_gcn heads/ssgrl heads/csra heads/c_tran heads/tdrg heads/mulcon "
        "heads/ml_decoder heads/__init__ network attention_maps check __init__"
    ),
    "data": (
        "base bad_rows label_names image_header one_copy batch_step torchvision_operations "
        "pillow_operations randaugment augment gpu_prefetch prepared readers/sources freed_memory "
        "child_processes socket_folder split manifest remote transforms readers/files sampler "
        "image_augmentation readers/scene_labels readers/scenes readers/xml_tree readers/coco "
        "readers/folder readers/nuswide readers/vg500 readers/voc readers/label_groups "
        "readers/label_lists "
        "readers/__init__ dataset load __init__ image_check feature_file feature_views loader "
        "prepare "
        "audit/published_counts audit/jpeg_scans audit/image_file audit/findings audit/__init__ "
        "convert/source convert/coco convert/voc convert/cvat convert/label_studio convert/yolo "
        "convert/tables convert/class_folders convert/write convert/__init__"
    ),
    "training": (
        "heartbeat sync_points replica_check checkpoint checkpoint_writer published_state "
        "published_checkpoint optim timer localiser compiled_share engine evaluation features "
        "first_values resume selection ddp report setup loop __init__"
    ),
    "inference": (
        "predictor evaluation __init__ export/network export/description export/formats "
        "export/check export/write export/__init__"
    ),
    "results": (
        "errors remedies status trial_columns schema provenance published table_file files "
        "benchmarks joined_rows cache store run_writer gradients compact published_tables "
        "used_columns query predictions checkpoints file_faults figure_faults verify export "
        "__init__"
    ),
    "search": (
        "plain_values trial space settings pruning_rules study_file ranking search plan sequential "
        "until ablation comparison changes plan_text __init__"
    ),
    "study": (
        "__init__ placement gpu_driver process study_differences record trial_event event_text "
        "time_left live_view live_table tensorboard checkpoint_quota gpu_share failure execute"
    ),
    "reports": (
        "__init__ statistics effect_text plot_style arm_costs ablation ablation_text "
        "ablation_documents forest_plot label_trends label_gains label_gains_text label_plot "
        "best_epoch comparison importance_evaluator importance importance_text "
        "rank_agreement search_summary page/__init__ "
        "page/study page/svg page/curve_charts page/effect_charts page/search_charts page/tables "
        "page/label_tables page/answers page/provenance page/curves page/search_section page/lead "
        "page/side_by_side page/html"
    ),
    "testing": "checks workers head_case heads losses data __init__",
    "figures": "drawing photos prototypes representations paper __init__",
    "ray_backend": (
        "__init__ environment membership hangs optuna_study pruner prometheus spot capacity "
        "cluster node_report event_channel node_check group_failure trainer tasks tuner driver"
    ),
    "launch": (
        "__init__ options outcome resources step_time estimate features loss_check datasets "
        "study_estimate needed_seeds setup search cost ablation comparison next_steps run train"
    ),
    "cli": (
        "__init__ shared_options table_options trial_tables mistakes data checkpoints "
        "import_checkpoint tables reports studies configuration new_files new experiment run train "
        "app start"
    ),
}
"""The files of each package; a file imports only those before it."""

BUILD = {
    "losses",
    "memory",
    "model",
    "config",
    "data",
    "metrics",
    "distributed",
    "errors",
    "storage",
}
MAY = {
    "__init__": {
        "cli",
        "config",
        "errors",
        "inference",
        "launch",
        "losses",
        "metrics",
        "recipes",
        "results",
        "search",
    },
    "errors": set(),
    "config": {"errors"},
    "distributed": set(),
    "metrics": {"errors"},
    "storage": {"errors"},
    "console": {"errors"},
    "memory": {"distributed"},
    "losses": {"distributed", "memory"},
    "model": {"memory", "errors"},
    "model/heads/word_vectors": {"errors", "storage"},
    "data": {"config", "storage", "errors", "distributed"},
    "recipes": {"config", "errors"},
    "build": BUILD,
    "training": BUILD | {"build"},
    "training/published_checkpoint": BUILD | {"build", "recipes"},
    "inference": {"build", "model", "data", "metrics", "config", "training", "storage", "errors"},
    "results": {"metrics", "storage", "errors"},
    "results/trial_columns": {"config"},
    "search": {"config", "errors", "metrics", "results"},
    "search/plan_text": {"console"},
    "study": {"results", "search", "storage", "console", "errors"},
    "study/study_differences": {"config", "errors", "search"},
    "study/failure": {"distributed", "errors", "training"},
    "study/execute": {
        "config",
        "data",
        "distributed",
        "errors",
        "results",
        "search",
        "storage",
        "training",
    },
    "reports": {"results", "search", "storage", "errors"},
    "reports/comparison": {"console", "errors", "results", "search"},
    "reports/page/tables": {"console", "results", "search"},
    "reports/page/search_section": {"console", "search"},
    "reports/page/side_by_side": {"console", "search"},
    "testing": {
        *("config", "data", "distributed", "errors", "losses", "memory", "metrics", "model"),
    },
    "figures": {"build", "model", "data", "inference", "reports", "storage", "errors"},
    "ray_backend": {"results", "search", "study", "storage", "errors"},
    "ray_backend/cluster": {"config", "results", "study", "storage", "errors"},
    "ray_backend/tasks": {"results", "search", "study", "storage", "training", "errors"},
    "ray_backend/trainer": {"search", "study", "storage", "training", "errors"},
    "launch/options": {"errors"},
    "launch/resources": {"errors", "storage", "study"},
    "launch/outcome": {"results", "search", "storage"},
    "launch/step_time": {"build", "config", "console", "errors", "model"},
    "launch/features": {
        *("build", "config", "console", "data", "errors", "storage", "study", "training"),
    },
    "launch/loss_check": {"build", "config", "data", "errors", "losses", "memory", "model"},
    "launch/estimate": {"build", "config", "console", "storage", "study"},
    "launch/needed_seeds": {"reports", "search", "study"},
    "launch/study_estimate": {"config", "console", "errors", "search", "study"},
    "launch/datasets": {
        *(
            "build",
            "config",
            "console",
            "data",
            "errors",
            "metrics",
            "results",
            "search",
            "storage",
            "study",
            "training",
        ),
    },
    "launch/setup": {"config", "console", "errors", "results", "search", "storage", "study"},
    "launch/search": {"errors", "ray_backend", "reports", "search", "study"},
    "launch/ablation": {
        *("config", "console", "errors", "ray_backend", "reports", "search", "study"),
    },
    "launch/cost": {"build", "config"},
    "launch/next_steps": {"config", "console", "errors", "results", "search", "study"},
    "launch/comparison": {"console", "errors", "search", "study"},
    "launch/run": {
        "console",
        "errors",
        "ray_backend",
        "reports",
        "search",
        "storage",
        "study",
    },
    "launch/train": {
        *(
            "build",
            "config",
            "console",
            "data",
            "errors",
            "ray_backend",
            "results",
            "search",
            "storage",
            "study",
        ),
    },
    "cli/experiment": {"config", "console", "errors", "launch", "search", "study"},
    "cli/app": {"console", "errors"},
    "cli/data": {"config", "console", "data", "errors", "results", "storage"},
    "cli/checkpoints": {
        "console",
        "data",
        "errors",
        "figures",
        "inference",
        "reports",
        "results",
        "storage",
        "study",
    },
    "cli/configuration": {"config", "console", "errors", "recipes"},
    "cli/new": {"errors"},
    "cli/table_options": {"console", "errors"},
    "cli/shared_options": {"errors"},
    "cli/trial_tables": {"console", "errors", "reports", "results", "search"},
    "cli/import_checkpoint": {"console", "storage", "training"},
    "cli/run": {"errors", "search"},
    "cli/train": {"errors", "recipes"},
    "cli/start": set(),
    "cli/tables": {"config", "console", "errors", "recipes", "reports", "results", "storage"},
    "cli/reports": {"config", "console", "errors", "recipes", "reports", "storage"},
    "cli/studies": {"console", "errors", "results", "study"},
}
"""The packages that a package imports, or a file where it has a line of its own."""
EMPTY = ("study/__init__", "reports/__init__")
"""Nodes look into a study, and laptops at results, without torch."""
ONLY = {
    "ray": {"ray_backend"},
    "optuna": {"ray_backend", "reports/importance_evaluator"},
    "tensorboardX": {"study/tensorboard"},
    "onnxruntime": {"inference/export/formats"},
}
"""Libraries that nobody else imports."""
WITHOUT_TORCH = {
    *(
        "errors",
        "config",
        "metrics",
        "storage",
        "console",
        "recipes",
        "results",
        "reports",
        "search",
        "cli",
    ),
    *(
        "study/__init__",
        "study/placement",
        "study/gpu_driver",
        "study/process",
        "study/record",
        "study/study_differences",
        "study/live_table",
        "study/live_view",
        "study/time_left",
        "study/tensorboard",
    ),
    *(
        "study/checkpoint_quota",
        "ray_backend/environment",
        "ray_backend/node_report",
        "launch/options",
        "launch/outcome",
    ),
    *("study/trial_event", "study/event_text"),
}
BEFORE_RAY = ("ray_backend/environment", "ray_backend/node_report")
"""Imported before Ray, or on nodes that answer in a second."""


def modules() -> dict[str, Path]:
    """Every file as ``package/file``, or ``file`` at the root."""
    return {str(p.relative_to(ROOT).with_suffix("")): p for p in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return names


def ours(path: Path) -> set[str]:
    """The files of ours that a file imports."""
    files = set()
    for name in imports(path):
        if name.startswith("sadcl."):
            parts = name.split(".")[1:]
            for end in range(len(parts), 0, -1):
                file = "/".join(parts[:end])
                if found := {file, f"{file}/__init__"} & modules().keys():
                    files |= found
                    break
    return files


def package_of(file: str) -> str:
    return file.split("/")[0]


def listed(table: set[str] | dict[str, set[str]], file: str) -> bool:
    return file in table or package_of(file) in table


def test_every_file_has_its_place():
    places = [
        f"{package}/{file}".lstrip("/")
        for package, files in FILES.items()
        for file in files.split()
    ]
    assert sorted(places) == sorted(modules())
    assert not {name for name in MAY if name not in modules() and not (ROOT / name).is_dir()}
    for name in EMPTY:
        assert not modules()[name].read_text().strip(), f"{name} must be empty"


def test_the_root_shows_the_program():
    """23 parts of it, and ``testing``, which only users' own tests import."""
    assert len([p for p in ROOT.iterdir() if p.name != "__pycache__"]) <= 24


@pytest.mark.parametrize("file", sorted(modules()))
def test_imports_go_down_only(file):
    package = package_of(file) if "/" in file else ""
    order = [f"{package}/{name}".lstrip("/") for name in FILES[package].split()]
    inside = {other for other in ours(modules()[file]) if package and package_of(other) == package}
    later = [other for other in inside if order.index(other) > order.index(file)]
    assert not later, f"{file} imports {later}, which come after it"
    assert listed(MAY, file) or not ours(modules()[file]) - inside, f"{file} has no line in MAY"
    may = MAY.get(file, MAY.get(package_of(file), set()))
    packages = {package_of(other) for other in ours(modules()[file]) - inside} - {"__init__"}
    assert packages <= may, f"{file} must not import {sorted(packages - may)}"


@pytest.mark.parametrize("file", sorted(modules()))
def test_libraries_stay_where_they_belong(file):
    libraries = {name.split(".")[0] for name in imports(modules()[file])}
    for library, places in ONLY.items():
        assert library not in libraries or listed(places, file), f"{file} imports {library}"
    if listed(WITHOUT_TORCH, file):
        assert not libraries & {"torch", "torchvision", "timm"}
    if file in BEFORE_RAY:
        assert "ray" not in libraries


def test_no_package_depends_on_one_that_depends_on_it():
    edges = {package_of(file): set() for file in modules()}
    for file, path in modules().items():
        edges[package_of(file)] |= {package_of(other) for other in ours(path)} - {
            package_of(file),
            "__init__",
        }
    tuple(graphlib.TopologicalSorter(edges).static_order())  # raises where there is a circle


def test_the_maths_and_the_loop_need_no_ray():
    """They run on machines that do not have it."""
    code = (
        "import sys; sys.modules['ray'] = sys.modules['optuna'] = None\n"
        "import sadcl.training, sadcl.inference, sadcl.study.execute, sadcl.losses"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "code",
    [
        "import sadcl",
        "import sadcl.results, sadcl.results.query",
        "import sadcl.cli.app",
        "sadcl.read",
    ],
)
def test_asking_the_tables_loads_neither_torch_nor_ray(code):
    heavy = {"torch", "ray", "optuna", "scipy", "matplotlib"}
    check = f"import sadcl\n{code}\nimport sys; sys.exit(bool({heavy} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_help_loads_no_arrow_either():
    code = (
        "import sys\nfrom sadcl.cli.app import main\nsys.argv[1:] = ['--help']\n"
        "try: main()\nfinally: print(set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert "'pyarrow'" not in done.stdout


def test_at_most_sixteen_public_names_all_there():
    assert len(sadcl.__all__) <= 16
    for name in sadcl.__all__:
        assert getattr(sadcl, name) is not None
    assert set(sadcl.__all__) <= set(dir(sadcl))
    with pytest.raises(AttributeError, match="no attribute 'Serach'"):
        _ = sadcl.Serach


def test_files_can_be_read_in_one_sitting():
    lengths = {
        str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ROOT.rglob("*.py")
    }
    assert not {name: n for name, n in lengths.items() if n > 400}
    experiments = {
        p.name: len(p.read_text().splitlines()) for p in (ROOT.parent / "experiments").glob("*.py")
    }
    assert experiments
    assert max(experiments.values()) <= 60
