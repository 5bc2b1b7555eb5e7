"""The commands of `sadcl results`: recipes, folders that are no store, light imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sadcl import recipes, storage
from sadcl.cli.app import app
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.results import store
from tests.results.runs import run


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command of `sadcl results` in this process; a mistake is raised."""

    def command(*words):
        done = CliRunner().invoke(app, ["results", *words, "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return command


@pytest.mark.parametrize(
    "config",
    [
        recipes.coco14().override(
            {"data.name": "coco14", "loss.tau": 0.123456789, "loss.prototype_tau": None, "seed": 3}
        ),
        recipes.voc2012("paper").override(
            {"model.frozen": (), "model.start": 'it\'s/"x".pt', "optim.ema_warmup": True}
        ),
        recipes.demo("nuswide").override({"stage2.augmentation.multiscale": (1.0, 0.5)}),
        recipes.vg500(),
    ],
)
def test_a_recipe_pasted_is_the_same_configuration(tmp_path, sadcl, config):
    run(tmp_path, config=config)
    pasted = {}
    text = sadcl("recipe", "k")
    exec(text, pasted)
    assert pasted["config"].digest() == config.digest()
    assert text.count("\n") <= 12
    assert "# The run was made" not in text


def test_a_recipe_of_an_older_configuration_says_so(tmp_path, sadcl):
    tree = recipes.demo().model_dump(mode="json")
    del tree["loss"]["anchor_mask"]
    run(tmp_path, config=recipes.demo())
    store.amend(str(tmp_path), "k", config=json.dumps(tree), config_digest="000000000000")
    text = sadcl("recipe", "k")
    assert "another version of the package: its configuration had the digest 000000000000" in text
    assert Config.parse(tree).digest() in text


@pytest.mark.parametrize(
    "what",
    [
        "top",
        "studies",
        "compare",
        "verify",
        "compact",
        "publish",
        "export trials",
        "sql 1",
        "show k",
        "recipe k",
    ],
)
def test_a_folder_that_is_no_store(sadcl, what):
    words = ["sql", "select 1 from trials"] if what == "sql 1" else what.split()
    with pytest.raises(UserError, match="holds no results: it has no folder 'tables'"):
        sadcl(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("top",),
        ("compare",),
        ("sql", "select count(*) from trials"),
        ("export", "trials", "--latex"),
        ("recipe", "k"),
        ("verify",),
        ("compact",),
        ("publish",),
    ],
)
def test_commands_import_nothing_heavy(tmp_path, words):
    """So they start in half a second: no torch, Ray, Optuna, pandas, matplotlib, scipy.stats."""
    run(tmp_path, config=recipes.demo())
    heavy = {
        "torch",
        "ray",
        "optuna",
        "pandas",
        "matplotlib",
        "scipy.stats",
        "sklearn",
        "pyarrow.dataset",
    }
    code = (
        "import atexit, sys; from sadcl.cli.app import main\n"
        f"atexit.register(lambda: print({heavy} & sys.modules.keys(), file=sys.stderr))\n"
        "main()"
    )
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    words = [sys.executable, "-c", code, "results", *words, "--storage", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert done.stdout
