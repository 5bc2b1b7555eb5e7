"""All figures of one checkpoint."""

import pytest

import sadcl
from sadcl import figures, recipes
from sadcl.errors import UserError
from tests.conftest import TINY
from tests.figures.pixels import pixels


def test_the_figures_of_the_paper(two_runs, work_folder):
    _, main, pooled = two_runs
    said = figures.draw_paper(
        main["checkpoint"], "figures", baseline=pooled["checkpoint"], photos=2
    )
    assert [line.partition(":")[0] for line in said] == [f"figures/fig{n}.png" for n in (4, 5, 6)]
    for number in (4, 5, 6):
        pixels((work_folder / "figures" / f"fig{number}.png").read_bytes())
    assert "perplexity" in said[0]
    assert "seed 0" in said[0]
    energy = f"energy inside the boxes {main['test_box_energy']:.1f} %"
    assert f"SADCL: pointing {main['test_pointing']:.1f} %, {energy}" in said[1]
    assert f"baseline: pointing {pooled['test_pointing']:.1f} %" in said[1]
    assert f"a map that is the same everywhere has {main['test_box_area']:.1f} %" in said[1]
    assert "silhouette" in said[2]


def test_a_baseline_that_held_other_images_out_stands_beside_and_is_said_to(two_runs, work_folder):
    config = recipes.demo().override(
        {**TINY, "data.holdout": 0, "stage1.epochs": 1, "stage2.epochs": 0}
    )
    final = sadcl.train(config, storage="runs", name="look")
    said = figures.draw_paper(
        final["checkpoint"], "figures", baseline=two_runs[2]["checkpoint"], photos=1
    )
    assert "Only one of the two was trained on the held-out images too." in said[1]
    assert "baseline: pointing" in said[1]
    assert "No contrast has trained this checkpoint's projection head" in said[2]


def test_figures_that_a_checkpoint_cannot_have(two_runs, work_folder):
    _, main, pooled = two_runs
    said = figures.draw_paper(pooled["checkpoint"], "figures", photos=1, ending="svg")
    assert said[0].startswith("Fig. 4 is left out. The checkpoint has 0 prototypes of 20 labels")
    assert said[2].startswith("Fig. 6 is left out. The head Pooled has no label-level features")
    assert [path.name for path in (work_folder / "figures").iterdir()] == ["fig5.svg"]
    with pytest.raises(UserError, match="is no pooled baseline of the same data"):
        figures.draw_paper(main["checkpoint"], "figures", baseline=main["checkpoint"])
    with pytest.raises(UserError, match="photos = 0"):
        figures.draw_paper(main["checkpoint"], "figures", photos=0)
