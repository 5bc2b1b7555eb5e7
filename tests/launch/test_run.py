"""Wrong turns of a new user: one paragraph, exit code 2, no traceback, and nothing is started."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import sys

import pytest

from sadcl import Ablation, Search, UserError, main, recipes, results, run, train
from sadcl.data.readers import scenes
from sadcl.errors import TrialFailed
from sadcl.launch import datasets
from sadcl.search import Float
from tests.conftest import TINY

DEMO = recipes.demo().override(TINY)
SEARCH = Search(
    name="wrong",
    question="What is wrong?",
    base=recipes.coco14(),
    demo=DEMO,
    space={"loss.tau": Float(0.05, 0.5)},
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole copy of 'COCO 2017'."""
    return scenes.ensure(tmp_path_factory.mktemp("data"), seed=0, train=60, test=24)


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "coco")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    """Whatever is asked here must be answered before Ray is started."""
    monkeypatch.setitem(sys.modules, "sadcl.ray_backend.driver", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words, search=SEARCH):
    with pytest.raises(SystemExit) as end:
        main(search, [str(w) for w in words])
    captured = capsys.readouterr()
    assert end.value.code == 2, captured
    assert "Traceback" not in captured.err + captured.out
    return captured.err


def test_a_data_root_that_is_wrong(capsys, tmp_path, copy):
    demo = ("--scale", "demo", "--data-root")
    assert "nowhere' does not exist; give the folder" in refused(
        capsys, *demo, tmp_path / "nowhere"
    )
    assert "is not a copy of COCO: looked for annotations/" in refused(
        capsys, *demo, copy / "train2017"
    )
    shutil.rmtree(copy / "val2017")
    assert "but their folder" in refused(capsys, *demo, copy)


def test_an_image_that_is_missing_or_damaged_is_found_before_anything_starts(capsys, copy):
    words = ("--scale", "demo", "--data-root", copy)
    image = sorted((copy / "val2017").iterdir())[3]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    error = refused(capsys, *words)
    assert f"1 of 84 image files cannot be used. The first: The image '{image}'" in error
    assert "cut short" in error
    image.unlink()
    assert (
        f"1 of 24 images that instances_val2017.json lists are missing in '{copy / 'val2017'}'"
        in refused(capsys, *words)
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"loss.tau"',
            '"loss.tua"',
            "There is no configuration field 'loss.tua'. Did you mean 'loss.tau'?",
        ),
        (
            "Float(0.05, 0.5, log=True)",
            "Float(0.5, 0.05)",
            "low < high must hold, but got low=0.5, high=0.05.",
        ),
        (
            "confirm_seeds=",
            "confirm_sedes=",
            "A Search has no 'confirm_sedes'. Did you mean 'confirm_seeds'?",
        ),
        (
            "recipes.coco14()",
            'recipes.coco14("relesed")',
            "variant must be 'released' or 'paper', but got 'relesed'",
        ),
        (
            "recipes.coco14()",
            'recipes.coco14().override({"loss.tau": -1})',
            "loss.tau = -1 is not possible",
        ),
    ],
)
def test_a_mistake_in_the_experiments_file(command, study_file, old, new, words):
    """It is made when the file is read, before any function of ours is called."""
    file = study_file()
    file.write_text(file.read_text().replace(old, new))
    done = command("python", file, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_cluster_that_is_not_there(command, study_file, how):
    more = {"RAY_ADDRESS": "127.0.0.1:1"} if how == "environment" else {}
    words = ["--address", "127.0.0.1:1"] if how == "flag" else []
    done = command("python", study_file(), *words, check=False, timeout=90, **more)
    assert done.returncode == 2
    assert (
        "There is no Ray cluster at '127.0.0.1:1' that can be joined: [Errno 111] Connection refused"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_other_errors_keep_their_traceback(command, tmp_path):
    (tmp_path / "x.py").write_text("import sadcl.errors\n1 / 0\n")
    done = command("python", "x.py", check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    error = refused(capsys, "--gpus-per-trial", 1)
    assert "sees no GPU on this machine" in error
    assert "--gpus-per-trial 0" in error
    assert "0, a part of one such as 0.25, or a whole number" in refused(
        capsys, "--gpus-per-trial", 1.5
    )


def test_weights_that_cannot_be_downloaded(capsys, monkeypatch, copy, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(capsys, "--data-root", copy, "--yes")
    assert (
        "The weights of resnet101.tv_in1k are not on this machine and cannot be downloaded" in error
    )
    assert "model.weights" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scale", "full"), "--scale full needs --data-root"),
        (("--workers", "0"), "--workers 0 is not possible: at least 1"),
        (
            ("--workers", "999", "--dry-run"),
            "A trial needs 999 workers with 1 CPU each, but the cluster has room for",
        ),
        (("--storage", ""), "The storage is an empty text"),
        (("--trials", "0"), "--trials 0 is not possible: at least 1"),
        (("--max-concurrent", "0"), "--max-concurrent 0 is not possible: at least 1"),
        (("--scale", "hug"), "invalid choice: 'hug'"),
        (("--data_root", "x"), "unrecognized arguments"),
        (("--storage", "/proc/nothing"), "storage '/proc/nothing' cannot be written"),
        (("--storage", "s4://bucket/x"), "storage 's4://bucket/x' cannot be opened"),
    ],
)
def test_flags_that_cannot_be(capsys, words, message):
    assert message in refused(capsys, *words)


def test_a_backbone_that_does_not_exist_is_named_with_the_nearest(capsys):
    search = Search(
        name="wrong", question="?", base=recipes.coco14(), demo=DEMO.override({"model.backbone": "resnet1o1"}),
        space={"loss.tau": Float(0.05, 0.5)},
    )  # fmt: skip
    assert "did you mean resnet101" in refused(capsys, search=search)


def test_a_job_may_not_keep_its_results_in_its_working_directory(capsys, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "its working directory is removed at the end" in refused(capsys)


def test_full_scale_without_a_gpu_says_the_hours_and_asks(capsys, copy, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    search = Search(name="slow", question="?", base=DEMO.override({"data.name": "coco"}), demo=DEMO,
                    space={"loss.tau": Float(0.05, 0.5)})  # fmt: skip
    error = refused(capsys, "--data-root", copy, search=search)
    assert "There is no GPU: this would take about" in error
    assert "Give --yes to go on without being asked." in error


def test_a_dry_run_shows_the_plan_and_starts_nothing(capsys, copy, tmp_path):
    main(SEARCH, ["--dry-run", "--data-root", str(copy), "--scale", "demo", "--trials", "5"])
    text = capsys.readouterr().out
    assert (
        "study wrong-demo: coco17 (46 train, 14 held out to select, 24 test images, 20 labels)"
        in text
    )
    assert "loss.tau: 0.05 to 0.5" in text
    assert "5 trials" in text
    assert "DEMO SCALE" not in text
    assert not (tmp_path / "runs").exists()


def test_images_that_were_left_out_are_counted(capsys, copy):
    for path in sorted((copy / "train2017").iterdir())[:2]:
        path.unlink()
    dropping = dataclasses.replace(SEARCH, demo=DEMO.override({"data.missing": "drop"}))
    main(dropping, ["--dry-run", "--scale", "demo", "--data-root", str(copy)])
    assert (
        "20 labels, 2 listed images are not on disk and were left out)"
        in capsys.readouterr().out.replace("\n", " ")
    )


def test_the_demo_on_real_images_is_small():
    config = recipes.demo()
    assert config.data.limit_train <= 2000
    assert config.data.limit_test <= 600


def test_training_in_this_process(good, tmp_path):
    config = DEMO.override({"data.name": "coco"})
    row = train(config, data_root=str(good), name="alone", scale="demo")
    assert (row["status"], row["dataset"], row["workers"]) == ("complete", "coco17", 1)
    (kept,) = results.read("runs", "trials").to_pylist()
    assert kept["test_mAP"] == row["test_mAP"]
    assert kept["study"] == "alone"
    assert len(results.read("runs", "epochs")) == 5
    again = train(config, data_root=str(good), name="alone", scale="demo")
    assert again["ended"] == kept["ended"]
    with pytest.raises(UserError, match="It holds coco17"):
        train(config.override({"data.name": "coco14"}), data_root=str(good))


def test_training_that_diverges_is_recorded_with_its_cause(good):
    with pytest.raises(TrialFailed, match="not finite in stage 1"):
        train(
            DEMO.override({"data.name": "coco", "stage1.lr": 1e30}),
            data_root=str(good),
            name="wild",
            scale="demo",
        )
    (row,) = results.read("runs", "trials").to_pylist()
    assert row["status"] == "failed"
    assert row["cause"].startswith("Diverged: The loss is not finite in stage 1, step ")


def test_an_image_that_breaks_while_training_is_recorded(copy, monkeypatch):
    monkeypatch.setattr("sadcl.data.image_check.check_files", lambda *a, **k: None)
    image = sorted((copy / "train2017").iterdir())[0]
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(TrialFailed, match="cannot be decoded"):
        train(DEMO.override({"data.name": "coco"}), data_root=str(copy), name="bad", scale="demo")
    (row,) = results.read("runs", "trials").to_pylist()
    assert str(image) in row["cause"]


@pytest.mark.parametrize(
    ("known", "given", "found"),
    [
        (["coco"], None, {}),
        (["coco"], "/data/coco", {"coco": "/data/coco"}),
        (["coco", "nuswide"], {"nuswide": "/n"}, {"nuswide": "/n"}),
    ],
)
def test_where_each_data_set_lies(known, given, found):
    assert datasets.roots_of(known, given) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--data-root", "/data"),
            r"This study has 2 data sets (coco, nuswide): say whose '/data' is",
        ),
        (
            ("--data-root", "/a", "--data-root", "/b"),
            r"--data-root '/a': of several data sets each is given once, as NAME=DIR",
        ),
        (
            ("--data-root", "coco=/a", "--data-root", "coco=/b"),
            r"--data-root 'coco=/b': of several",
        ),
        (("--data-root", "nuswid=/a"), r"names the data set 'nuswid'; did you mean 'nuswide'"),
        (("--data-root", "coco=/nowhere"), r"data root '/nowhere' does not exist"),
    ],
)
def test_places_of_several_data_sets_that_cannot_be(capsys, words, message):
    both = Ablation(
        name="wrong",
        base={"coco": recipes.coco14(), "nuswide": recipes.nuswide()},
        demo=DEMO,
        arms={"one": {}, "two": {"loss.tau": 0.4}},
        baseline="one",
    )
    assert message in refused(capsys, *words, search=both)


def test_an_ablation_takes_no_budget(capsys):
    both = Ablation(
        name="wrong",
        base=DEMO,
        demo=DEMO,
        arms={"one": {}, "two": {"loss.tau": 0.4}},
        baseline="one",
    )
    with pytest.raises(UserError, match="are for searches"):
        run(both, trials=3)
    with pytest.raises(UserError, match="has no demo"):
        run(dataclasses.replace(both, demo=None))


def test_what_has_no_room_is_refused_with_the_arithmetic(capsys, monkeypatch):
    monkeypatch.setattr("sadcl.storage.free_bytes", lambda root: 1000)
    text = refused(capsys)
    assert "There is room for 950 bytes of checkpoints in" in text
    assert "raise --max-disk" in text.replace("\n", " ")


def test_a_dry_run_says_what_it_takes(capsys, copy):
    main(
        SEARCH,
        [
            "--dry-run",
            "--data-root",
            str(copy),
            "--scale",
            "demo",
            "--trials",
            "5",
            "--max-hours",
            "3",
        ],
    )
    text = capsys.readouterr().out.replace("\n", " ")
    assert "at most 3 hours of training" in text
    assert re.search(
        r"to run: \d+ runs, \d+ epochs, on CPUs; about [\d.]+ (minutes|hours) with \d+ at once",
        text,
    )
    assert re.search(r"up to [\d.]+ (kB|MB) of checkpoints", text)


def test_an_ablation_that_does_not_fit_is_refused_because_it_gives_nothing_up(capsys):
    value = Ablation(
        name="a",
        question="?",
        base=recipes.coco14(),
        demo=DEMO,
        baseline="x",
        arms={"x": {}, "y": {"loss.tau": 0.3}},
    )
    text = refused(capsys, "--max-disk", "0.0002", search=value).replace("\n", " ")
    assert re.search(
        r"There is room for 200 kB of checkpoints in .*, but [\d.]+ [kM]B are needed: .* and each of \d+ leaves",
        text,
    )
    assert "give up" not in text
    main(
        SEARCH, ["--dry-run", "--max-disk", "0.016"]
    )  # a search of as many runs removes those of its worst trials
    assert "of a search's worst trials are removed on the way" in capsys.readouterr().out.replace(
        "\n", " "
    )


def test_what_fresh_removes_makes_room(capsys, tmp_path):
    from sadcl import storage

    row = {"study": "wrong-demo", "phase": "search", "arm": "tuned", "params": "{}", "seed": 0}
    results.RunWriter("runs", "k", row).finish("complete", metrics={"val_mAP": 1.0})
    storage.write("runs/checkpoints/k/best.pt", b"x" * 10_000_000)
    assert "room for 10 MB" in refused(capsys, "--dry-run", "--max-disk", "0.02")
    main(SEARCH, ["--dry-run", "--max-disk", "0.02", "--fresh"])


def test_what_is_tried_again_is_in_the_plan(capsys):
    main(SEARCH, ["--dry-run", "--trials", "1"])
    (before,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    row = {"study": "wrong-demo", "phase": "search", "arm": "tuned", "params": "{}", "seed": 0}
    results.RunWriter("runs", "k", row).finish("failed", cause="?")
    main(SEARCH, ["--dry-run", "--trials", "1"])
    (without,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    main(SEARCH, ["--dry-run", "--trials", "1", "--retry-failed"])
    (again,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    assert (int(without), again) == (int(before) - 1, before)


def test_several_searches_are_looked_at_before_the_first_starts(capsys, copy):
    other = dataclasses.replace(SEARCH, name="other", base=recipes.voc2007())
    with pytest.raises(SystemExit) as end:
        main(
            [SEARCH, other],
            ["--scale", "demo", "--data-root", f"coco={copy}", "--data-root", f"voc2007={copy}"],
        )
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert "study wrong-demo: scenes" not in captured.out
    assert "is not a copy of voc2007" in captured.err.replace("\n", " ")
    assert not (pathlib.Path("runs") / "studies").exists()


def test_data_sets_that_are_the_same_scenes_are_told(capsys):
    demo = {"small": DEMO, "large": DEMO.override({"data.scene_train": 70})}
    base = {"coco": recipes.coco14()}
    value = Ablation(
        name="a",
        question="?",
        base=base,
        demo=demo,
        baseline="x",
        arms={"x": {}, "y": {"loss.tau": 0.3}},
    )
    assert "The data sets small, large of 'a' are 1 only: scenes" in refused(
        capsys, search=value
    ).replace("\n", " ")


def test_a_trial_whose_own_stage_1_fails_says_so_in_its_row(tmp_path):
    from sadcl.ray_backend import tasks
    from sadcl.search.trial import DataContext
    from sadcl.study.placement import Placement

    base = DEMO.override({"stage1.lr": 1e30})
    trial = DataContext("s", base, "d").trial("search", "tuned", base, {"stage1.lr": 1e30})
    (tmp_path / "runs" / "studies").mkdir(parents=True)  # as a driver leaves it
    with pytest.raises(TrialFailed, match="The stage 1 that it starts from"):
        tasks.run_trial(trial, Placement(str(tmp_path / "runs"), None, "demo"), "", None)
    rows = {row["phase"]: row for row in results.read(str(tmp_path / "runs"), "trials").to_pylist()}
    assert {row["status"] for row in rows.values()} == {"failed"}
    assert (
        rows["search"]["cause"]
        == f"The stage 1 that it starts from ({trial.stage1.key}) has failed: {rows['stage1']['cause']}"
    )
