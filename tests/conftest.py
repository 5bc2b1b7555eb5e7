"""A study small enough for a test: every phase of the real thing in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

settings.register_profile("gate", derandomize=True, database=None)  # same examples for everybody
settings.load_profile("gate")

ROOT = Path(__file__).parents[1]


def soaked(cases, gate):
    """Parameters of a test: those of the gate, and all others for ``pytest -m soak``."""
    cases, gate = list(cases), list(gate)
    assert all(case in cases for case in gate)

    def long(case):
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.soak)

    return [case if case in gate else long(case) for case in cases]


TINY = {
    "data.scene_train": 60,
    "data.scene_test": 24,
    "data.image_size": 32,
    "data.holdout": 0.25,
    "model.hidden": 16,
    "model.feedforward": 16,
    "model.projection": 8,
    "model.heads": 2,
    "optim.batch_size": 16,
    "stage1.epochs": 2,
    "stage2.epochs": 3,
    "bank.epsilon": 0.02,
}
STUDY = """
import sys
from sadcl import Search, main, recipes
from sadcl.search import Float

main(Search(
    name="tiny",
    question="Does the path hold?",
    base=recipes.coco14(),
    demo=recipes.demo().override({changes!r}),
    space={{"loss.tau": Float(0.05, 0.5, log=True), "bank.epsilon": Float(0.02, 0.1)}},
    n_trials=3,
    n_demo_trials={trials},
    confirm_seeds={seeds!r},
))
"""


def admit(features, admitted, first=0):
    """Rows for a bank or for prototypes: (B, L, D) features where (B, L) ``admitted`` is True."""
    from sadcl.memory import activated_rows

    return activated_rows(
        features, torch.ones(admitted.shape), admitted.flatten().nonzero()[:, 0], first
    )


def candidates(x, targets, bank, bank_labels, **options):
    """Candidates of Eq. 4 from (N, L, P) embeddings and the bank's rows."""
    from sadcl.losses.contrast import positive_index
    from sadcl.losses.sample_to_sample import gather_candidates, gather_labels

    index, num_labels = positive_index(targets), targets.shape[1]
    rows = x.flatten(0, 1).index_select(0, index)
    labelled = gather_labels(rows, index % num_labels)
    return gather_candidates(labelled, bank, bank_labels, num_labels=num_labels, **options)


def sample_sum(x, targets, bank, bank_labels, *, temperature, normalize=True, **options):
    """Eq. 4 over (N, L, P) embeddings: sum and count."""
    from sadcl.losses.sample_to_sample import sample_to_sample

    rows = candidates(x, targets, bank, bank_labels, **options)
    return sample_to_sample(rows, temperature=temperature, normalize=normalize)


def prototype_sum(x, targets, prototypes, valid, *, temperature, normalize=True):
    """Eq. 6 over (N, L, P) embeddings: sum and count."""
    from sadcl.losses.prototype_to_sample import prototype_to_sample, similarities

    no_index = torch.zeros(0, dtype=torch.int64)
    similarity, _ = similarities(
        x, prototypes, no_index, temperature=temperature, normalize=normalize
    )
    return prototype_to_sample(similarity, targets, valid)


def pytest_xdist_auto_num_workers():
    """Two test files at a time, also on a large machine: many of them start a Ray cluster."""
    return 2


def pytest_collection_modifyitems(items):
    """The longest files come first, so that no process waits for the other's last one."""
    items.sort(key=lambda item: item.path.parent.name not in ("ray_backend", "training"))


@pytest.fixture(scope="session", autouse=True)
def manifests(tmp_path_factory):
    """Data that tests make leaves nothing in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("manifests")))
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where drawn scenes are kept for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(cache, tmp_path):
    """Run a command as a user would: in an empty folder, and without the tester's Ray settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}

    def run(*words, check=True, timeout=300, **more):
        words = [sys.executable if w == "python" else str(w) for w in words]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    run.environment = environment
    return run


@pytest.fixture
def study_file(tmp_path):
    """Writes an experiment's file and gives its path."""

    def write(trials=3, seeds=(7,), **changes):
        path = tmp_path / "tiny.py"
        path.write_text(STUDY.format(changes=TINY | changes, trials=trials, seeds=seeds))
        return path

    return write


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory, cache):
    """A storage with a run of SADCL and the pooled baseline of its study: root, and row of each."""
    import sadcl

    root = str(tmp_path_factory.mktemp("two_runs") / "runs")
    config = sadcl.recipes.demo().override(TINY)
    pooled = config.override({"model.arch": "pooled", "stage1.epochs": 3, "stage2.epochs": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return root, *(sadcl.train(c, storage=root, name="look") for c in (config, pooled))


@pytest.fixture
def work_folder(tmp_path, monkeypatch, cache):
    """An empty folder that the test stands in, with the scenes of the session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return tmp_path


@pytest.fixture
def photo_files(work_folder):
    """Real files: wide, grey and high, and one that its EXIF turns from lying to standing."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(work_folder / "wide.jpg")
    Image.fromarray(noise[:, :20, 0]).save(work_folder / "grey high.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(work_folder / "turned.jpg", exif=exif)
    return "wide.jpg", "grey high.png", "turned.jpg"
