"""COCO: the right data, or an error that names the file and what is wrong in it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sadcl.config import Data
from sadcl.data.load import load, resolve
from sadcl.errors import UserError
from tests.data.readers.layouts import refused

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def box(image, category, **more):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [1, 1, 4, 4],
        "area": 16,
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def copy(tmp_path):
    """A valid copy of COCO 2017, where image i is i.jpg.

    Returns its root and a function that changes one of its JSON files.
    """
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    labels = {
        "train": [
            box(5, 3),
            box(5, 3),
            box(2, 1, iscrowd=1),
            box(9, 90, area=0, bbox=[0, 0, 0, 0]),
            box(9, 1),
        ],
        "val": [box(7, 90)],
    }
    for part, identities in (("train", (9, 2, 5, 4)), ("val", (8, 7))):
        (root / f"{part}2017").mkdir()
        images = [{"id": i, "file_name": f"{i}.jpg", "width": 8, "height": 8} for i in identities]
        for image in images:
            Image.new("RGB", (8, 8), (image["id"], 0, 0)).save(
                root / f"{part}2017" / image["file_name"]
            )
        content = {
            "info": {},
            "images": images,
            "annotations": labels[part],
            "categories": CATEGORIES,
        }
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))

    def change(part, function):
        path = root / "annotations" / f"instances_{part}2017.json"
        content = json.loads(path.read_text())
        content = function(content) or content
        path.write_text(json.dumps(content))

    return root, change


ALL = Data(name="coco", holdout=0)


def test_labels_and_images_in_the_order_of_their_ids(copy):
    data = load(ALL, copy[0])
    assert data.name == "coco17"
    assert data.labels == ("dog", "cat", "toothbrush")
    assert data.train.files.to_pylist() == ["2.jpg", "4.jpg", "5.jpg", "9.jpg"]
    # crowd boxes and boxes without area count, twice is once, an image without a label stays
    assert data.train.targets.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert data.train.targets.dtype == np.int8
    assert data.test.targets.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert data.train.path(0) == f"{copy[0]}/train2017/2.jpg"
    assert len(data.val) == 0


@pytest.mark.parametrize(("policy", "value"), [("negative", 0), ("ignore", -1), ("positive", 1)])
def test_crowds(copy, policy, value):
    root, change = copy
    change(
        "train", add("annotations", box(5, 3, iscrowd=1))
    )  # beside boxes of its own: 1 in any case
    targets = load(ALL.model_copy(update={"crowd": policy}), root).train.targets
    assert targets.tolist() == [[value, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_images_without_a_label_can_be_dropped(copy):
    data = load(ALL.model_copy(update={"unlabelled": "drop"}), copy[0])
    assert data.train.files.to_pylist() == ["2.jpg", "5.jpg", "9.jpg"]
    assert data.test.files.to_pylist() == ["7.jpg"]


def test_the_digest_is_of_the_content(copy, tmp_path):
    root, change = copy
    digest = load(ALL, root).digest
    shutil.copytree(root, tmp_path / "elsewhere")
    change(
        "train",
        lambda c: c["images"].reverse() or c["annotations"].reverse() or c["categories"].reverse(),
    )
    assert load(ALL, tmp_path / "elsewhere").digest == digest
    change("val", lambda c: c["categories"].reverse())
    assert load(ALL, root).digest == digest
    change("train", lambda c: c["annotations"].append(box(4, 3)))
    assert load(ALL, root).digest != digest


def test_2014_is_read_too_and_comes_first(copy):
    root, _ = copy
    for part in ("train", "val"):
        shutil.copytree(root / f"{part}2017", root / f"{part}2014")
        shutil.copy(
            root / f"annotations/instances_{part}2017.json",
            root / f"annotations/instances_{part}2014.json",
        )
    assert resolve(ALL, root).name == "coco14"
    data = load(ALL, str(root))
    assert data.name == "coco14"
    assert data.train.folder == str(root / "train2014")
    assert load(Data(name="coco17", holdout=0), root).test.folder == str(root / "val2017")


def drop(key):
    return lambda content: content.pop(key) and None


def put(key, value):
    return lambda content: content.update({key: value})


def add(key, value):
    return lambda content: content[key].append(value)


@pytest.mark.parametrize(
    ("part", "function", "message"),
    [
        (
            "train",
            drop("annotations"),
            r"instances_train2017.json' has no list 'annotations': found 'info', 'images'",
        ),
        ("val", drop("categories"), r"instances_val2017.json' has no list 'categories'"),
        ("val", lambda c: [c], r"instances_val2017.json' has no list 'images': found a list"),
        ("train", put("images", 3), r"has no list 'images'"),
        ("train", put("categories", []), r"lists no categories"),
        ("train", put("images", []), r"lists no images: the train split of coco17 is empty"),
        ("val", put("images", []), r"lists no images: the val split of coco17 is empty"),
        ("train", put("annotations", []), r"4 images and none has a label"),
        (
            "train",
            add("annotations", box(5, 77)),
            r"annotation with category_id 77, which it does not list",
        ),
        (
            "train",
            add("annotations", box(55, 3)),
            r"annotation with image_id 55, which it does not list \(4 images",
        ),
        (
            "val",
            add("annotations", {"image_id": 7}),
            r"without a usable 'category_id' \(int is needed, found None\)",
        ),
        (
            "val",
            add("annotations", box("7", 3)),
            r"without a usable 'image_id' \(int is needed, found '7'\)",
        ),
        ("val", add("annotations", 3), r"without a usable 'image_id'"),
        ("train", add("images", {"id": 6}), r"without a usable 'file_name'"),
        ("train", add("images", {"id": 6, "file_name": "2.jpg"}), r"lists an image twice"),
        ("train", add("images", {"id": 2, "file_name": "x.jpg"}), r"lists an image twice"),
        ("train", add("categories", {"id": 4, "name": "cat"}), r"lists a category twice"),
        (
            "val",
            add("categories", {"id": 4, "name": "cow"}),
            r"3 categories in train, 4 in val, and 'cow'",
        ),
        (
            "train",
            add("images", {"id": 6, "file_name": "6.jpg"}),
            r"1 of 5 images .* missing in '.*', first '6.jpg'",
        ),
    ],
)
def test_wrong_annotations(copy, part, function, message):
    root, change = copy
    change(part, function)
    with pytest.raises(UserError, match=message) as caught:
        load(ALL, root)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_json_cut_in_the_middle(copy, share):
    path = copy[0] / "annotations" / "instances_train2017.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        UserError, match=r"instances_train2017.json' \([\d,]+ bytes\) is not valid JSON.*cut short"
    ):
        load(ALL, copy[0])


def test_a_second_list_of_one_name_does_not_hide_the_first(copy):
    path = copy[0] / "annotations/instances_train2017.json"
    path.write_text(f'{path.read_text()[:-1]}, "annotations": []}}')
    with pytest.raises(UserError, match="two lists 'annotations', of which one would be lost"):
        load(ALL, copy[0])


def test_wrong_roots(copy, tmp_path):
    root, _ = copy
    with pytest.raises(UserError, match=r"'coco' needs images: give their folder with --data-root"):
        load(ALL)
    with pytest.raises(UserError, match=r"nowhere' does not exist"):
        load(ALL, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is a file, not a folder"):
        load(ALL, root / "train2017" / "2.jpg")
    with pytest.raises(
        UserError,
        match=r"looked for annotations/instances_train2014.json or .*2017.json, found coco in",
    ):
        load(ALL, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"found nothing"):
        load(ALL, tmp_path / "empty")
    with pytest.raises(
        UserError, match=r"looked for annotations/instances_train2014.json, .*It holds coco17"
    ):
        load(Data(name="coco14"), root)


def test_one_annotation_file_is_missing(copy):
    (copy[0] / "annotations" / "instances_train2017.json").unlink()
    with pytest.raises(UserError, match=r"instances_train2017.json' cannot be read: No such file"):
        load(ALL, copy[0])


def test_images_that_are_not_there(copy):
    root, _ = copy
    (root / "train2017" / "4.jpg").unlink()
    (root / "train2017" / "9.jpg").unlink()
    with pytest.raises(
        UserError,
        match=r"2 of 4 images that instances_train2017.json lists are missing .*first '4.jpg'",
    ):
        load(ALL, root)
    shutil.rmtree(root / "val2017")
    shutil.copytree(root / "train2017", root / "x")
    for name in ("4.jpg", "9.jpg"):
        shutil.copy(root / "x" / "2.jpg", root / "train2017" / name)
    with pytest.raises(
        UserError, match=r"lists 2 images, but their folder '.*val2017' cannot be read"
    ):
        load(ALL, root)


def test_a_holdout_or_test_split_of_no_images(copy):
    root, change = copy
    with pytest.raises(
        UserError, match=r"data.holdout = 0.1 of 1 training images of coco17 is no image"
    ):
        load(Data(name="coco", holdout=0.1, limit_train=1, split_seed=1, unlabelled="drop"), root)
    change("val", put("annotations", []))
    with pytest.raises(UserError, match=r"test split of coco17 .* has no image with a label"):
        load(Data(name="coco", holdout=0, unlabelled="drop"), root)


def test_real_photographs(photographs):
    data = load(Data(name="coco", holdout=0.1), photographs)
    assert data.name == "coco17"
    assert (data.labels[0], data.labels[79], len(data.labels)) == ("person", "toothbrush", 80)
    assert (len(data.train) + len(data.val), len(data.test)) == (286, 141)
    content = json.loads((photographs / "annotations" / "instances_val2017.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    shown = {i["file_name"]: set() for i in content["images"]}
    files = {i["id"]: i["file_name"] for i in content["images"]}
    for annotation in content["annotations"]:
        shown[files[annotation["image_id"]]].add(names[annotation["category_id"]])
    for i, name in enumerate(data.test.files.to_pylist()):
        assert {data.labels[j] for j in np.flatnonzero(data.test.targets[i])} == shown[name]
    both = (data.train.targets.sum(axis=0) > 0) & (data.val.targets.sum(axis=0) > 0)
    twice = data.train.targets.sum(axis=0) + data.val.targets.sum(axis=0) >= 2
    assert both[twice].mean() > 0.95


@pytest.mark.parametrize(
    ("images", "crowd", "message"),
    [
        (
            ["../val2014/a.jpg"],
            0,
            r"lists the file '../val2014/a.jpg'; the plain name of a file in .*train2014",
        ),
        (["/a.jpg"], 0, r"lists the file '/a.jpg'"),
        (["./a.jpg"], 0, r"lists the file './a.jpg'"),
        (["\ud800.jpg"], 0, r"has a file_name with the character .ud800"),
        (["a\0.jpg"], 0, r"has a file_name with the character .x00"),
        (["a.jpg"], "0", r"annotation of image_id 0 with iscrowd = '0'; 0 or 1 is possible"),
        (["a.jpg"], 2, r"iscrowd = 2; 0 or 1"),
        (["a.jpg"], None, r"iscrowd = None; 0 or 1"),
    ],
)
def test_coco_files_and_crowds_that_are_wrong(layout_copy, images, crowd, message):
    root, read = layout_copy("coco14")
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    content["images"] = [{"id": i, "file_name": name} for i, name in enumerate(images)]
    content["annotations"] = [{"image_id": 0, "category_id": 10, "iscrowd": crowd}]
    path.write_text(json.dumps(content))
    refused(read, message)


def test_coco_with_both_splits_in_one_folder(layout_copy):
    root, read = layout_copy("coco17")
    for path in (root / "val2017").iterdir():
        path.unlink()
    (root / "val2017").rmdir()
    (root / "val2017").symlink_to(root / "train2017")
    refused(
        read,
        r"4 images are in instances_train2017.json and in instances_val2017.json .* must not train",
    )


def test_paths_that_windows_wrote(layout_copy):
    root, read = layout_copy("coco14")
    before = read()
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    (root / "train2014/sub").mkdir()
    for image in content["images"]:
        (root / "train2014" / image["file_name"]).rename(
            root / "train2014/sub" / image["file_name"]
        )
        image["file_name"] = f"sub\\{image['file_name']}"
    path.write_text(json.dumps(content))
    train = read().train
    assert train.files.to_pylist() == [f"sub/{name}" for name in before.train.files.to_pylist()]
    assert train.targets.tolist() == before.train.targets.tolist()
