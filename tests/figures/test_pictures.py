"""Explaining real files with networks that were really trained, in Python and as typed; the figures that come out."""

import io

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sadcl
from sadcl import figures, inference, recipes
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.results import checkpoints
from tests.conftest import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cache):
    """A storage with a run of SADCL and the pooled baseline of its study: root, and row of each."""
    root = str(tmp_path_factory.mktemp("explain") / "runs")
    config = recipes.demo().override(TINY)
    pooled = config.override({"model.arch": "pooled", "stage1.epochs": 3, "stage2.epochs": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return root, *(sadcl.train(c, storage=root, name="look") for c in (config, pooled))


@pytest.fixture
def here(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return tmp_path


@pytest.fixture
def photos(here):
    """Real files: wide, grey and high, and one that its EXIF turns from lying to standing."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(here / "wide.jpg")
    Image.fromarray(noise[:, :20, 0]).save(here / "grey high.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(here / "turned.jpg", exif=exif)
    return "wide.jpg", "grey high.png", "turned.jpg"


def pixels(data):
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert image.std() > 10
    return image


def invoke(*words):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


def test_the_tested_split_is_localised_and_others_are_not(runs):
    root, *rows = runs
    labels = sadcl.read(root, "labels")
    tested, held = (labels.filter(pc.equal(labels["split"], split)) for split in ("test", "val"))
    for name in ("pointing", "box_energy", "box_area"):
        assert held[name].null_count == len(held)
        values = np.array(tested[name].to_pylist(), dtype=float)
        assert (
            np.isnan(values) == (np.array(tested["support"]) == 0)
        ).all()  # each object of a scene has its box
        assert 0 <= np.nanmin(values) <= np.nanmax(values) <= 100
        for row in rows:
            own = np.array(
                tested.filter(pc.equal(tested["key"], row["key"]))[name].to_pylist(), dtype=float
            )
            assert row[f"test_{name}"] == pytest.approx(np.nanmean(own))
            assert f"val_{name}" not in row


@pytest.mark.parametrize("which", [1, 2])
def test_localising_again_gives_what_the_run_has_recorded(runs, here, which):
    root, row = runs[0], runs[which]
    opened = inference.open_with_data(row["checkpoint"])
    found = inference.localise(opened.predictor, opened.data)
    recorded = sadcl.sql(
        root, f"select * from labels where key = '{row['key']}' and split = 'test'"
    ).to_pylist()
    for name, values in found.items():
        np.testing.assert_array_equal(
            values, [np.nan if r[name] is None else r[name] for r in recorded]
        )


@pytest.mark.parametrize("which", [1, 2])
def test_explain_in_python(runs, photos, which):
    model = sadcl.load(runs[which]["checkpoint"], device="cpu")
    for name, shape in zip(photos, ((60, 100), (60, 20), (100, 60)), strict=True):
        found = model.explain(name, threshold=0.02)
        assert found
        scores = dict(model.predict(name)[0])
        assert [f.score for f in found] == sorted(
            (s for s in scores.values() if s > 0.02), reverse=True
        )
        for label, score, map_HW in found:
            assert score == pytest.approx(scores[label], abs=1e-6)
            assert map_HW.shape == shape
            assert map_HW.dtype == np.float32
            assert map_HW.min() >= 0
            assert map_HW.max() in (0, pytest.approx(1))
    assert len(model.explain("wide.jpg", threshold=1)) == 1  # nothing scores so high: the best one
    assert [f.label for f in model.explain("wide.jpg", labels=["star", "die"])] == ["star", "die"]


def test_a_map_lies_over_the_photograph_whatever_its_proportions():
    maps = torch.zeros(1, 2, 4)
    maps[0, 0, 3] = 5  # top right
    seen = inference.Seen(np.zeros((40, 200, 3), np.uint8), np.array([0.5]), maps)
    over = seen.over(0, 40, 200)
    np.testing.assert_allclose(over[:11, 175:], 1, atol=0.1)
    assert over[:, :125].max() == 0
    assert over[30:].max() == 0


def test_the_command_draws_all_photographs_that_can_be_read(runs, photos, here):
    root, main, pooled = runs
    (here / "text.jpg").write_text("hello")
    done = invoke(
        *photos,
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
    assert [line.split(": ")[0] for line in lines[1:]] == [*photos, "maps.png"]
    both = pixels((here / "maps.png").read_bytes())
    alone = invoke(
        *photos,
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
    assert len(pixels((here / "alone.png").read_bytes())) < 0.7 * len(both)
    again = invoke(
        *photos, "--checkpoint", main["key"], "--storage", root, "-o", "again.png", "--top", 2
    )
    assert again.exit_code == 0
    assert (here / "again.png").read_bytes() == (here / "maps.png").read_bytes()


def test_the_command_with_chosen_labels_and_with_a_baseline_alone(runs, photos, here):
    root, _, pooled = runs
    words = ("--checkpoint", pooled["key"], "--storage", root, "--label", "die", "--label", "star")
    done = invoke("wide.jpg", *words, "-o", "maps.svg")
    assert done.exit_code == 0
    assert "baseline:" not in done.stdout
    text = (here / "maps.svg").read_text()
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
            "is not a pooled baseline",
        ),
        (
            ("none.jpg", "--checkpoint", "{key}", "-o", "a.png"),
            "'none.jpg' cannot be read: No such file",
        ),
    ],
)
def test_mistakes_of_the_command(runs, photos, here, words, message):
    root, main, _ = runs
    done = invoke(*(word.format(key=main["key"]) for word in words), "--storage", root)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not list(here.glob("a.*"))


def test_the_figures_of_the_paper(runs, here):
    _, main, pooled = runs
    said = figures.draw_paper(
        main["checkpoint"], "figures", baseline=pooled["checkpoint"], photos=2
    )
    assert [line.partition(":")[0] for line in said] == [f"figures/fig{n}.png" for n in (4, 5, 6)]
    for number in (4, 5, 6):
        pixels((here / "figures" / f"fig{number}.png").read_bytes())
    assert "perplexity" in said[0]
    assert "seed 0" in said[0]
    assert (
        f"SADCL: pointing {main['test_pointing']:.1f} %, energy inside the boxes {main['test_box_energy']:.1f} %"
        in said[1]
    )
    assert f"baseline: pointing {pooled['test_pointing']:.1f} %" in said[1]
    assert f"a map that knows nothing has {main['test_box_area']:.1f} %" in said[1]
    assert "silhouette" in said[2]


def test_a_baseline_that_held_other_images_out_stands_beside_and_is_said_to(runs, here):
    config = recipes.demo().override(
        {**TINY, "data.holdout": 0, "stage1.epochs": 1, "stage2.epochs": 0}
    )
    final = sadcl.train(config, storage="runs", name="look")
    said = figures.draw_paper(
        final["checkpoint"], "figures", baseline=runs[2]["checkpoint"], photos=1
    )
    assert "Only one of the two was trained on the held-out images too." in said[1]
    assert "baseline: pointing" in said[1]
    assert "No contrast has trained this checkpoint's projection head" in said[2]


def test_figures_that_a_checkpoint_cannot_have(runs, here):
    _, main, pooled = runs
    said = figures.draw_paper(pooled["checkpoint"], "figures", photos=1, ending="svg")
    assert said[0].startswith("Fig. 4 is left out. The checkpoint has 0 prototypes of 20 labels")
    assert said[2].startswith("Fig. 6 is left out. The pooled baseline")
    assert [path.name for path in (here / "figures").iterdir()] == ["fig5.svg"]
    with pytest.raises(UserError, match="is no pooled baseline of the same data"):
        figures.draw_paper(main["checkpoint"], "figures", baseline=main["checkpoint"])
    with pytest.raises(UserError, match="photos = 0"):
        figures.draw_paper(main["checkpoint"], "figures", photos=0)


def test_which_checkpoint_is_shown(runs):
    root, main, pooled = runs
    assert (
        checkpoints.best_trial_key(root) == checkpoints.best_trial_key(root, "look") == main["key"]
    )
    assert (
        checkpoints.baseline_trial_key(root, main["key"])
        == checkpoints.baseline_trial_key(root, main["checkpoint"])
        == pooled["key"]
    )
    assert checkpoints.baseline_trial_key(root, pooled["key"]) is None
    assert checkpoints.baseline_trial_key(root, "elsewhere/best.pt") is None
    assert checkpoints.find_checkpoint(root, main["key"]) == main["checkpoint"]
    with pytest.raises(UserError, match="no study 'loko' in .*; did you mean 'look'"):
        checkpoints.best_trial_key(root, "loko")
