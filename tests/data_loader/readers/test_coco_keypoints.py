"""COCO's keypoints JSON: what is left out, and how it can be wrong."""

import json

import numpy as np
import pytest

from data_loader.readers.keypoint_files import read_keypoints
from data_loader.readers.keypoint_table import COCO_SIGMAS
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint


def read(folder, content, category=None):
    return read_keypoints(own.write_coco(folder, content), folder, category=category)


def refusal(folder, content, category=None) -> str:
    path = own.write_coco(folder, content)
    message = complaint(read_keypoints, path, folder, category=category)
    assert message.startswith(f"{path}: ")
    return message


def instance(number, image, category=7, **more):
    content = {"id": number, "image_id": image, "category_id": category}
    return {**content, "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0], **more}


def test_boxes_areas_and_ids(tmp_path):
    content = own.coco_content()
    content["annotations"][1] |= {"bbox": [0, 0, 0, 0], "area": None}
    del content["annotations"][2]["bbox"], content["annotations"][2]["area"]
    table = read(tmp_path, content)
    assert table.boxes[0].tolist() == [1, 2, 31, 22]
    assert np.isnan(table.boxes[1:]).all()
    assert table.areas[0] == 250.5 and np.isnan(table.areas[1:]).all()
    assert table.ids == ["100", "101", "102"]


def test_several_instances_crowds_and_images_without(tmp_path):
    content = own.coco_content()
    nothing = [0] * 9
    content["annotations"] = [
        *[instance(1, 0), instance(2, 1, iscrowd=1), instance(3, 0, bbox=[5, 5, 10, 10])],
        *[instance(4, 1, keypoints=nothing), instance(5, 2, keypoints=[]), instance(6, 2)],
    ]
    del content["annotations"][4]["keypoints"]
    table = read(tmp_path, content)
    assert table.images == ["a.png", "a.png", "sub/d.jpg"] and table.ids == ["1", "3", "6"]
    assert table.points[0, 1].tolist() == [3, 4]  # seen or hidden, it is annotated
    assert np.isnan(table.points[:, 2]).all()
    path = tmp_path / "points.json"
    assert [notice.removeprefix(f"{path}: ") for notice in table.notices] == [
        "1 crowds left out",
        "2 annotations without points left out",
        "1 images without such annotations left out",
        "no instance has beak",
    ]


def with_categories(*names_of_points):
    content = own.coco_content()
    content["categories"] = [
        {"id": number, "name": f"kind {number}", "keypoints": names}
        for number, names in enumerate(names_of_points)
    ]
    content["annotations"] = [
        instance(number, 0, number, keypoints=[5, 6, 2] * len(names or []))
        for number, names in enumerate(names_of_points)
    ]
    return content


def test_categories(tmp_path):
    alike = with_categories(["a", "b"], ["a", "b"])
    assert read(tmp_path, alike).ids == ["0", "1"]
    assert read(tmp_path, alike, "kind 1").ids == ["1"]
    differ = with_categories(["a", "b"], ["a", "c"], None)
    assert "kind 0 and kind 1 have other points; choose by --category" in refusal(tmp_path, differ)
    table = read(tmp_path, differ, "kind 1")
    assert table.names == ["a", "c"]
    assert "2 annotations of other categories left out" in table.notices[0]
    message = refusal(tmp_path, differ, "bird")
    assert "has no category bird (--category); it has kind 0, kind 1, kind 2" in message
    assert "no annotation with points" in refusal(tmp_path, differ, "kind 2")


@pytest.mark.parametrize("names", [None, []])
def test_points_without_names_are_numbered(tmp_path, names):
    content = own.coco_content()
    content["categories"][0]["keypoints"] = names
    table = read(tmp_path, content)
    assert table.names == ["1", "2", "3"]
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    path = tmp_path / "points.json"
    assert table.notices == [f"{path}: its category names no points; they are 1 to 3"]
    content["annotations"][1]["keypoints"] += [1, 2, 2]
    assert "annotation 101 has keypoints that aren't 9 numbers" in refusal(tmp_path, content)
    content["annotations"] = [instance(1, 0, keypoints="abc")]
    assert "category bird: names no point" in refusal(tmp_path, content)


def test_a_category_is_cocos_alone(tmp_path):
    path = own.write_wide(tmp_path)
    assert "--category" in complaint(read_keypoints, path, tmp_path, category="bird")


def test_flip_indices_go_before_names(tmp_path):
    content = own.coco_content()
    content["categories"][0]["flip_indices"] = [2, 1, 0]
    assert read(tmp_path, content).flip_pairs == [("left_eye", "beak")]
    for wrong in ([1, 2, 0], [0, 1], [0, 0, 1], [0, 1, 5], "ab", [0.0, 1.0, 2.0]):
        content["categories"][0]["flip_indices"] = wrong
        assert "flip_indices" in refusal(tmp_path, content)


def test_sigmas_of_the_person_in_any_order(tmp_path):
    names = [*COCO_SIGMAS][::-1]
    table = read(tmp_path, with_categories(names))
    assert table.sigmas.tolist() == [COCO_SIGMAS[name] for name in names]
    assert read(tmp_path, with_categories([*names[:16], "tail"])).sigmas is None


def spoil(part, place, **entries):
    def change(content):
        content[part][place] |= entries

    return change


def again(part, **entries):
    return lambda content: content[part].append(content[part][0] | entries)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda content: content.pop("categories"), "not COCO's JSON"),
        (lambda content: content.update(images={}), "not COCO's JSON"),
        (lambda content: content["images"].append(5), "images holds something else"),
        (lambda content: content["annotations"].clear(), "no annotation with points"),
        (again("images"), "images has the id 0 twice"),
        (again("annotations"), "annotations has the id 100 twice"),
        (again("annotations", id="100"), "annotations has the id 100 twice"),
        (again("annotations", id=True), "entry 4 of annotations has no id"),
        (spoil("images", 0, id=[1]), "entry 1 of images has no id"),
        (spoil("images", 1, file_name="a.png"), "the image a.png is there twice"),
        (spoil("images", 1, file_name=3), "image 1 has no file_name"),
        (spoil("images", 1, file_name="\ud800.png"), "not a JSON file"),
        (spoil("annotations", 0, id="\udce9"), "not a JSON file"),
        (spoil("categories", 0, keypoints=["a", "b", "\udfff"]), "not a JSON file"),
        (spoil("images", 1, width=50), "sub/b c.png has 40 x 30 pixels, annotated with 50 x 30"),
        (spoil("annotations", 0, image_id=9), "annotation 100 has the image_id 9, which isn't"),
        (spoil("annotations", 0, category_id={}), "annotation 100 has the category_id {}"),
        (spoil("annotations", 0, keypoints=[1, 2, 2]), "that aren't 9 numbers"),
        (spoil("annotations", 0, keypoints="ab"), "that aren't 9 numbers"),
        (spoil("annotations", 0, keypoints=[[1]] * 9), "that aren't 9 numbers"),
        (spoil("annotations", 0, keypoints=["x", 2, 2] * 3), "that aren't 9 numbers"),
        (spoil("annotations", 0, keypoints=[10**400, 2, 2] * 3), "that aren't 9 numbers"),
        (spoil("annotations", 0, keypoints=[float("inf"), 2, 2] * 3), "no finite number"),
        (spoil("annotations", 0, keypoints=[None, 2, 2] * 3), "no finite number"),
        (spoil("annotations", 0, bbox=[1, 2, 3]), "a bbox that isn't 4 numbers"),
        (spoil("categories", 0, keypoints="abc"), "category bird has no list"),
        (spoil("categories", 0, keypoints=["a", "b", "a"]), "the point a is named twice"),
        (spoil("categories", 0, keypoints=["a", "b", ""]), "a point has no name"),
    ],
)
def test_bad_content(tmp_path, change, said):
    content = own.coco_content()
    change(content)
    assert said in refusal(tmp_path, content)


def test_no_json(tmp_path):
    path = own.write_coco(tmp_path)
    for text in ("{", '{"a": 1} x', "[" * 100_000, json.dumps([1])):
        path.write_text(text)
        assert "JSON" in complaint(read_keypoints, path, tmp_path)


def test_both_halves_of_a_character_are_one(tmp_path):
    content = own.coco_content()
    content["categories"][0]["keypoints"][0] = "\U0001f426"
    assert read(tmp_path, content).names[0] == "\U0001f426"
