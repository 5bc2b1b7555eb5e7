"""A storage of the version before, whose study file holds sentences, is read, resumed and reported.

The form of the study file and the figures are those of a search that the version before ran. Keys
and digests are of today's demo recipe: a study of another recipe is another study.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from sadcl import Search, recipes, results, storage
from sadcl.errors import UserError
from sadcl.reports import importance, search_summary
from sadcl.reports.page import html, study, tables
from sadcl.results import RunWriter, query
from sadcl.search import ASHA, AblationPlan, Float, Plan, contrast_space
from sadcl.search.ablation import Ablation
from sadcl.search.space import space_to_json
from sadcl.search.trial import DataContext
from sadcl.study.record import StudyRecord

NAME, DATA, WHOLE_DATA = "coco14-tune-demo", "50fa63f061a5", "596946eb4339"
STUDY_FILE = {
    "name": NAME,
    "scale": "demo",
    "base": "ca86190ec171",
    "data": DATA,
    "space": {
        "bank.epsilon": "0.3 to 0.7",
        "loss.prototype_tau": "0.03 to 0.3, logarithmic",
        "loss.prototype_weight": "0.125 to 8, logarithmic",
        "loss.sample_weight": "0.25 to 16, logarithmic",
        "loss.tau": "0.05 to 0.5, logarithmic",
        "prototypes.epsilon": "0.3 to 0.7",
    },
    "kind": "search",
    "question": "Which tau, epsilon and loss weights serve SADCL best on MS-COCO?",
    "trials": 8,
    "sampler": "tpe",
    "stopping": "ASHA from epoch 2, reduction 3",
    "objectives": ["val_mAP"],
    "confirm_top": 1,
    "confirm_seeds": [1001, 1002],
    "published": 85.6,
}
FIELDS = tuple(STUDY_FILE["space"])
RECIPE = (0.5, 0.2, 1.0, 2.0, 0.2, 0.5)
BEST = (
    0.6854651042004116,
    0.23382678345482846,
    0.3383067633019783,
    1.009320691150582,
    0.13694847976173485,
    0.45337660753031106,
)
STAGE1 = "stage1-s0-3b2ee4652630-50fa63f061a5"
STAGE1_1001 = "stage1-s1001-4ff028e7cac9-50fa63f061a5"
STAGE1_1002 = "stage1-s1002-ea14ea5e5ae7-50fa63f061a5"
STAGE1_WHOLE = "stage1-s0-e4d8d80e8e7e-596946eb4339"
RUNS = [  # end of the key, phase, arm, seed, searched values, held-out mAP, test mAP, stage 1
    ("baseline-s0-a29fddb8db73", "baseline", "baseline", 0, (), 62.01580357078804, None, None),
    (STAGE1, "stage1", "stage1", 0, (), 69.24152007255476, None, None),
    (STAGE1_1002, "stage1", "stage1", 1002, (), 68.03317482875035, None, None),
    ("stage2-s0-91cf84ae5ebc", "baseline", "stage2", 0, (), 71.97771179152062, None, STAGE1),
    (STAGE1_1001, "stage1", "stage1", 1001, (), 64.65323778271336, None, None),
    (STAGE1_WHOLE, "stage1", "stage1", 0, (), None, None, None),
    ("stage2-s1002-5741a59d86ed", "confirm", "stage2", 1002, (), 71.26, 70.996, STAGE1_1002),
    ("stage2-s1001-62923ab0be8b", "confirm", "stage2", 1001, (), 68.23, 69.282, STAGE1_1001),
    ("tuned-s0-feb3892accb7", "search", "tuned", 0, RECIPE, 71.93083137948835, None, STAGE1),
    ("tuned-s0-37b92fb0bb35", "search", "tuned", 0, BEST, 72.30645715838544, None, STAGE1),
    ("tuned-s0-62462ca5f039", "final", "tuned", 0, BEST, None, 77.159, STAGE1_WHOLE),
    ("tuned-s1001-4a39869ce23a", "confirm", "tuned", 1001, BEST, 69.471, 70.490, STAGE1_1001),
    ("tuned-s1002-d0cbbd44a25f", "confirm", "tuned", 1002, BEST, 71.360, 71.570, STAGE1_1002),
]
SEARCH = Search(
    name="coco14-tune",
    question=STUDY_FILE["question"],
    base=recipes.coco14(),
    demo=recipes.demo("coco"),
    space=contrast_space(recipes.coco14()),
    demo_space=contrast_space(recipes.demo("coco"), epsilon=(0.3, 0.7)),
    n_demo_trials=2,
    pruner=ASHA(2, 3),
    confirm_seeds=(1001, 1002),
    published=85.6,
)
PLAN = Plan(SEARCH, "demo", SEARCH.demo, 2, DATA, WHOLE_DATA)


def key_of(name):
    return name if name.startswith("stage1") else f"{NAME}-{name}"


@pytest.fixture
def root(tmp_path):
    """The storage of a search that has ended, with two of its trials."""
    content = json.dumps(STUDY_FILE, indent=1).encode()
    storage.write(f"{tmp_path}/studies/{NAME}.json", content)
    for name, phase, arm, seed, values, val, test, stage1 in RUNS:
        row = {"study": NAME, "phase": phase, "arm": arm, "seed": seed, "stage1_key": stage1}
        row |= {"params": json.dumps(dict(zip(FIELDS, values, strict=False)), sort_keys=True)}
        row |= {"scale": "demo", "dataset": "scenes", "data_digest": DATA}
        writer = RunWriter(str(tmp_path), key_of(name), row)
        for epoch in (1, 2, 3):
            figures = {"val_mAP": val, "admitted": 100.0 + epoch}
            writer.epoch({"stage": 1 if phase == "stage1" else 2, "epoch": epoch, **figures})
        split, figure = ("val", val) if test is None else ("test", test)
        labels = [{"split": split, "label": "star", "AP": figure, "support": 9.0}]
        epoch = {"stage1": 10, "baseline": 4, "confirm": 4}.get(phase, 3)
        metrics = {"val_mAP": val, "test_mAP": test, "epoch": epoch, "weights": "raw"}
        writer.finish("complete", metrics=metrics, labels=labels)
    return str(tmp_path)


def stored(root):
    return json.loads(storage.read(f"{root}/studies/{NAME}.json"))


def test_the_file_is_as_the_version_before_wrote_it():
    identity = PLAN.identity()
    assert {k: v for k, v in identity.items() if k != "space"} == {
        k: STUDY_FILE[k] for k in ("name", "scale", "base", "data")
    }
    assert identity["space"].keys() == STUDY_FILE["space"].keys()


def test_the_keys_are_the_same(root):
    rows = StudyRecord(root, PLAN).rows
    planned = {trial.key for trial in PLAN.planned_trials(rows)}
    searched = {key_of(name) for name, phase, *_ in RUNS if phase == "search"}
    assert planned == {key_of(name) for name, *_ in RUNS} - searched
    for name, phase, _, _, values, *_ in RUNS:
        if phase == "search":
            setting = dict(zip(FIELDS, values, strict=True))
            assert PLAN.search_trial(setting).key == key_of(name)


def test_its_rows_are_finished_and_nothing_is_left(root):
    study = StudyRecord(root, PLAN)
    assert len(study.rows) == len(RUNS)
    assert PLAN.is_complete(study.rows)
    assert PLAN.remaining_work(study.rows) == (0, 0)
    longer = dataclasses.replace(PLAN, n_trials=5)
    assert longer.remaining_trials(study.rows) == 3
    assert longer.first_settings(study.rows) == []  # the recipe was tried


def test_a_claim_keeps_the_study_and_writes_todays_form(root):
    study = StudyRecord(root, PLAN)
    study.check_same()
    assert stored(root) == STUDY_FILE
    study.claim()
    assert stored(root) == STUDY_FILE | {
        "trials": 2,
        "space": space_to_json(SEARCH.demo_space),
        "stopping": {"name": "ASHA", "attributes": {"min_epochs": 2, "reduction": 3}},
    }
    study.claim()
    assert len(study.refresh()) == len(RUNS)


@pytest.mark.parametrize("claimed", [False, True])
def test_another_space_is_another_study(root, claimed):
    if claimed:
        StudyRecord(root, PLAN).claim()
    space = {**SEARCH.demo_space, "loss.tau": Float(0.05, 0.6, log=True)}
    other = dataclasses.replace(PLAN, search=dataclasses.replace(SEARCH, demo_space=space))
    message = (
        r"\(space of loss.tau: 0.05 to 0.5, log scale before, 0.05 to 0.6, log scale now\)\. To"
    )
    with pytest.raises(UserError, match=message):
        StudyRecord(root, other).check_same()
    with pytest.raises(UserError, match=r"\(data: the file names, the labels or the split"):
        StudyRecord(root, dataclasses.replace(PLAN, digest="x")).claim()


def test_a_study_of_another_recipe_is_another_study(root):
    """As one of the version before is, whose recipe had other weights and candidates."""
    old = STUDY_FILE | {"base": "d9a2d6299633"}
    storage.write(f"{root}/studies/{NAME}.json", json.dumps(old).encode())
    with pytest.raises(UserError, match=r"another one \(base: the configuration, which"):
        StudyRecord(root, PLAN).claim()
    assert stored(root) == old


@pytest.mark.parametrize("claimed", [False, True])
def test_it_is_reported(root, claimed):
    if claimed:
        StudyRecord(root, PLAN).claim()
    data = study.study_data(root, NAME)
    assert tables.study_facts(data)["early stopping"] == "ASHA from epoch 2, reduction 3"
    space = tables.space_or_arms(data)
    assert {"field": "loss.tau", "range": "0.05 to 0.5, log scale"} in space
    assert {"field": "bank.epsilon", "range": "0.3 to 0.7"} in space
    assert data.chosen_run()["key"] == key_of("tuned-s0-37b92fb0bb35")
    text = html.study_page(root, NAME)
    assert "0.05 to 0.5, log scale" in text
    assert "ASHA from epoch 2, reduction 3" in text
    _, sentences = search_summary.summary(StudyRecord(root, PLAN).rows_with_admitted(), SEARCH)
    assert sentences[0].startswith("Answer: test mAP 71.03 ± 6.86 over 2 fresh seeds, confirmed")
    assert "held-out mAP over 2 pairs of seeds: 2 pairs decide nothing" in sentences[1]


@pytest.mark.parametrize("claimed", [False, True])
def test_it_is_queried(root, claimed):
    if claimed:
        StudyRecord(root, PLAN).claim()
    (row,) = results.read(root, "studies").to_pylist()
    assert (row["study"], row["kind"], row["base_digest"]) == (NAME, "search", "ca86190ec171")
    assert json.loads(row["about"])["confirm_seeds"] == [1001, 1002]
    count = "select count(*) as n from trials where phase = 'search'"
    assert query.sql(root, count).to_pylist() == [{"n": 2}]
    found = importance.field_importances(root, NAME)
    assert (found.complete, found.fields) == (2, ())


def test_importance_is_the_same_before_and_after_a_claim(root, monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 5)
    monkeypatch.setattr(importance, "PERMUTATIONS", 5)
    for i in range(10):
        params = dict(zip(FIELDS, (0.3 + i / 30, *RECIPE[1:4], 0.05 + i / 23, 0.5), strict=True))
        row = {"study": NAME, "phase": "search", "arm": "tuned", "params": json.dumps(params)}
        RunWriter(root, f"more{i}", row).finish("complete", metrics={"val_mAP": 60.0 + i % 7})
    before = importance.field_importances(root, NAME)
    assert {one.field for one in before.fields} == set(FIELDS)
    StudyRecord(root, PLAN).claim()
    assert importance.field_importances(root, NAME) == before


def test_an_ablation_is_the_same_study(tmp_path):
    """Its file had no sentences."""
    demo = recipes.demo().override({"model.encoder_layers": 1})
    arms = {"SARL": {"stage2.epochs": 0}, "both": {}}
    ablation = Ablation("components", demo, arms, "SARL", seeds=(0,), demo=demo)
    file = {
        "name": "components-demo",
        "scale": "demo",
        "datasets": {"scenes": {"base": "c0a4766790fe", "data": DATA}},
        "arms": arms,
        "kind": "ablation",
        "question": "",
        "baseline": "SARL",
        "order": ["SARL", "both"],
        "seeds": [0],
        "marks": {},
        "published": {},
    }
    storage.write(f"{tmp_path}/studies/components-demo.json", json.dumps(file).encode())
    context = DataContext("components-demo", demo, DATA)
    plan = AblationPlan(ablation, "demo", {"scenes": context})
    StudyRecord(str(tmp_path), plan).claim()
    content = storage.read(f"{tmp_path}/studies/components-demo.json")
    assert json.loads(content) == file
    assert [trial.key for trial in plan.planned_trials() if trial.phase == "stage1"] == [
        "stage1-s0-4db15aa28596-50fa63f061a5"
    ]
