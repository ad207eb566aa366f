"""Which of one's own annotated images are trained on, and which are held out."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine.points.splits
from data_loader.splits import group_names, split_off
from engine.points.splits import (
    KeypointSettings,
    add_keypoint_arguments,
    annotation_files,
    count_folds,
    keypoint_splits,
)
from tests.data_loader.layouts import complaint, write_text
from tests.data_loader.own_tables import NAMES, write_dots
from tests.recipes import SHARED
from utils.arguments import ArgumentParser


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The tables that annotation files of some names hold: 9 instances, 3 in each of 3 folders.

    From so few on there are no folds by default.
    """
    monkeypatch.setattr(engine.points.splits, "FOLDS_BELOW", 9)
    held = {"all": write_dots(tmp_path, 9)}
    monkeypatch.setattr(
        engine.points.splits, "read_keypoints", lambda paths, folder, **_: held[paths[0].name]
    )
    return held


@pytest.fixture
def settings(tables, tmp_path):
    return settings_of("--annotations", str(tmp_path / "all"))


def settings_of(*flags) -> KeypointSettings:
    parser = ArgumentParser("")
    add_keypoint_arguments(parser)
    options = parser.parse_args(list(flags))
    for name, value in {
        **{"data_folder": None, "seed": 0, "imagelist": None},
        **{"image_size": 32, "image_crop": 0, "on_bad_image": "stop"},
    }.items():
        setattr(options, name, value)
    return KeypointSettings.from_options(options)


def images_of(splits) -> dict[str, list[str]]:
    held_out = {split: dataset.filenames for split, dataset in splits.held_out.items()}
    return {"train": splits.train.filenames, **held_out}


def only(settings, **changes):
    (splits,) = keypoint_splits(replace(settings, **changes))
    return splits


def part(table, rows):
    return engine.points.splits.select(table, np.isin(np.arange(len(table.images)), rows))


def test_three_tenths_are_tested_on_unless_something_else_is_said(settings, tables):
    found = images_of(only(settings))
    assert {split: len(images) for split, images in found.items()} == {"train": 6, "Test": 3}
    assert sorted(sum(found.values(), [])) == sorted(tables["all"].images)
    assert found == images_of(only(settings)) != images_of(only(settings, seed=1))


def test_shares_of_validation_and_test(settings, tables):
    """A run that is repeated has to find the same ones: their seed is one more than the tests'."""
    found = images_of(only(settings, test_share=0.3, val_share=0.2, seed=3))
    assert {k: len(v) for k, v in found.items()} == {"train": 4, "Val": 2, "Test": 3}
    assert list(found) == ["train", "Val", "Test"]
    names = np.array(tables["all"].images)
    test = split_off(names, 0.3, 3)
    rest = names[~test]
    assert found["Test"] == names[test].tolist()
    assert found["Val"] == rest[split_off(rest, 0.2 * len(names) / len(rest), 4)].tolist()
    assert "leave nothing" in complaint(only, settings, test_share=0.5, val_share=0.6)


def test_folders_stay_together(settings):
    for seed in range(3):
        found = images_of(only(settings, group_by="folder", seed=seed))
        assert not {n[:4] for n in found["train"]} & {n[:4] for n in found["Test"]}


def test_folds_test_each_image_once(settings, tables):
    splits = list(keypoint_splits(replace(settings, folds=4)))
    assert [s.fold for s in splits] == [1, 2, 3, 4, None]
    tested = [name for s in splits[:4] for name in s.held_out["Test"].filenames]
    assert sorted(tested) == sorted(tables["all"].images)
    everything = dict.fromkeys(("train", "All"), tables["all"].images)
    assert images_of(splits[4]) == everything == images_of(only(settings, folds=0))
    assert images_of(only(settings, folds=4, fold=2)) == images_of(splits[1])


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 3),
        ({"group_by": "folder"}, 3),
        ({"group_by": "[/2]"}, 2),  # two folders together, and the third
        ({"test_share": 0.3}, 0),
        ({"val_share": 0.3}, 0),
        ({"test_annotations": "x"}, 0),
        ({"val_annotations": "x"}, 0),
        ({"folds": 0}, 0),
        ({"folds": 5}, 5),
    ],
)
def test_few_images_are_judged_by_folds_unless_something_else_is_said(
    settings, tables, monkeypatch, changes, count
):
    settings = replace(settings, **changes)
    groups = group_names(tables["all"].images, settings.group_by)
    monkeypatch.setattr(engine.points.splits, "FOLDS_BELOW", 10)
    assert count_folds(settings, groups) == count
    monkeypatch.setattr(engine.points.splits, "FOLDS_BELOW", 9)
    assert count_folds(settings, groups) == (settings.folds or 0)
    assert count_folds(settings, ["one"] * 3) == (settings.folds or 0)


def test_folds_may_lack_a_point_that_one_image_has(settings, tables, monkeypatch, tmp_path):
    monkeypatch.setattr(engine.points.splits, "FOLDS_BELOW", 10)
    tables["all"].points[1:, 1] = np.nan
    *parts, last = keypoint_splits(settings)
    assert sorted(len(part.train.point_names) for part in parts) == [2, 3, 3]
    assert last.train.point_names == NAMES
    tables["all"].points[:, 1] = np.nan
    said = complaint(lambda: next(keypoint_splits(settings)))  # before the first fold
    assert said.startswith(f"{tmp_path / 'all'}: none of the 9 training instances has left_eye")


def test_with_nothing_held_out_all_are_trained_on_and_shown(settings, tables):
    found = images_of(only(settings, test_share=0.0))
    assert found == {"train": tables["all"].images, "All": tables["all"].images}


def test_files_of_their_own(settings, tables, tmp_path):
    tables |= {name: part(tables["all"], rows) for name, rows in {"a": [0, 1], "b": [2, 3]}.items()}
    order = [2, 0, 1]
    tables["b"] = tables["b"]._replace(
        names=[NAMES[i] for i in order], points=tables["b"].points[:, order]
    )
    files = {"annotations": str(tmp_path / "a"), "test_annotations": str(tmp_path / "b")}
    splits = only(settings, **files)
    assert images_of(splits) == {"train": tables["a"].images, "Test": tables["b"].images}
    test = splits.held_out["Test"]
    assert test.point_names == NAMES
    np.testing.assert_array_equal(test.annotations["keypoints"], tables["all"].points[[2, 3]])
    tables["b"] = tables["b"]._replace(names=["nose", "left_eye", "tail"])
    said = complaint(only, settings, **files)
    assert said.startswith(f"{tmp_path / 'b'}: its points aren't those of {tmp_path / 'a'}: ")
    assert "right_eye, tail are in one of them alone" in said


def test_flags_keep_one_file_as_it_is_and_several_as_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("parts/a.csv", "parts/b.tps", "one/c.json"):
        write_text(Path(name))
    for given, kept in (
        (["one/x.csv"], "one/x.csv"),
        (["one"], "one/c.json"),
        (["one/x.csv", "parts"], ["one/x.csv", "parts/a.csv", "parts/b.tps"]),
    ):
        for flag in ("annotations", "val_annotations", "test_annotations"):
            settings = settings_of(f"--{flag}", *given)
            assert vars(settings.options)[flag] == kept
        assert settings_of("--annotations", *given).folder == Path("one")


def test_the_annotation_files_of_a_folder(tmp_path):
    names = ["b.CSV", "a.json", "c.txt", "a.png", "._a.csv", "points", "a.csv.bak", ".json"]
    for name in names:
        write_text(tmp_path / name)
    assert annotation_files(str(tmp_path)) == [
        str(tmp_path / name) for name in ("a.json", "b.CSV", "c.txt")
    ]
    assert annotation_files("absent") == ["absent"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(argparse.ArgumentTypeError, match="empty: holds no .* named .*csv, .*json"):
        annotation_files(str(tmp_path / "empty"))


def test_an_image_that_is_trained_and_tested_on_is_refused(settings, tables, tmp_path):
    tables |= {"a": part(tables["all"], [0, 1, 2]), "b": part(tables["all"], [2, 3])}
    tables["b"] = tables["b"]._replace(images=["./day2/../day2/2.png", "day0/3.png"])
    for flag, split in (("test_annotations", "test"), ("val_annotations", "val")):
        files = {"annotations": str(tmp_path / "a"), flag: str(tmp_path / "b")}
        said = complaint(only, settings, **files)
        place = (tmp_path / "day2/2.png").resolve()
        assert said.startswith(f"{place}: among the training images and the {split} images")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": None}, "--dataset Keypoints: give --annotations FILE"),
        ({"imagelist": "x"}, "--imagelist: not with --dataset Keypoints"),
        ({"test_share": 0.1, "folds": 2}, "--test_share and --folds exclude each other"),
        (
            {"test_annotations": "x", "test_share": 0.1},
            "--test_annotations and --test_share exclude each other",
        ),
        (
            {"val_annotations": "x", "val_share": 0.1},
            "--val_annotations and --val_share exclude each other",
        ),
        ({"y_up": True, "y_down": True}, "--y_up and --y_down exclude each other"),
        ({"fold": 1}, "--fold 1: there are no --folds"),
        ({"fold": 3, "folds": 2}, "--fold 3: there are 2 --folds"),
        ({"folds": 10}, "--folds 10: there are 9 annotated images or groups"),
        ({"flip_pairs": [("nose", "x")]}, "--flip_pairs: no point is named x"),
    ],
)
def test_flags_that_dont_fit(settings, changes, said):
    assert complaint(only, settings, **changes).startswith(said)


def test_one_annotated_image_cant_be_split(settings, tables):
    tables["all"] = part(tables["all"], [4])
    assert complaint(only, settings).startswith("there is 1 annotated image, which can't be split")
    assert len(only(settings, test_share=0.0).train) == 1


def test_which_points_a_mirror_swaps(settings, tables):
    def flip_order(**changes):
        train = only(settings, **changes).train
        return None if train.flip_order is None else train.flip_order.tolist()

    assert flip_order() == flip_order(mirror="off") == [0, 2, 1]
    assert flip_order(flip_pairs=[("nose", "left_eye")]) == [1, 0, 2]
    tables["all"] = tables["all"]._replace(flip_pairs=[])
    assert flip_order() is None
    assert flip_order(mirror="on") == [0, 1, 2]


def test_the_readers_lines_are_handed_on(settings):
    assert only(settings).train.count_notice() == ["a line of the reader's"]


def test_a_point_that_no_training_image_has_is_named_or_left_out(settings, tables, tmp_path):
    tables["all"].points[:, 1] = np.nan
    tables["all"].points[2, 2] = np.nan
    assert complaint(only, settings) == (
        f"{tmp_path / 'all'}: none of the 6 training instances has left_eye (1 of 3 points); "
        "--on_missing_point skip leaves such points out"
    )
    splits = only(settings, on_missing_point="skip")
    for dataset in (splits.train, splits.held_out["Test"]):
        assert dataset.point_names == ["nose", "right_eye"] and dataset.num_landmarks == 2
        assert dataset.annotations["keypoints"].shape[1:] == (2, 2)
        assert dataset.flip_order is None
    said = "left out, as no training image has them: left_eye"
    assert splits.train.count_notice()[-1] == said
    given = only(settings, on_missing_point="skip", flip_pairs=[("left_eye", "right_eye")])
    assert given.train.flip_order is None


OWN = SHARED / "data/own"
FILES = {
    "wings": (["--annotations", "wings/landmarks.csv", "--y_up"], 12, 58),
    "wings of tpsDig": (["--annotations", "wings/landmarks.tps"], 12, 58),
    "mouse": (["--annotations", "mouse/labeled-data/m4s1/CollectedData_Pranav.csv"], 4, 116),
    "people": (["--annotations", "coco/people/test_coco.json"], 17, 12),
    "ap10k": (["--annotations", "coco/ap10k/test_ap10k.json"], 16, 2),
    "animalpose": (["--annotations", "coco/animalpose/test_animalpose.json"], 17, 2),
    "fly": (["--annotations", "coco/fly/test_fly.json"], 32, 2),
}


@pytest.mark.skipif(not OWN.is_dir(), reason="the files of ../shared/data/own aren't here")
@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("name", list(FILES))
def test_points_of_real_files_lie_in_their_squares(monkeypatch, name, fit):
    monkeypatch.chdir(OWN)
    flags, points, count = FILES[name]
    settings = settings_of(*flags, "--fit", fit, "--test_share", "0", "--on_missing_point", "skip")
    dataset = only(replace(settings, image_size=96)).train
    assert (len(dataset.point_names), len(dataset)) == (points, count)
    light = []  # around the points, relative to the image's own
    for index in range(0, len(dataset), 6):
        item = dataset.annotated_item(index)
        shown = item.points_px[item.visible]
        assert ((shown > -1) & (shown < 96)).all()
        back = dataset.to_original(item.points_norm, index)[item.visible]
        truth = dataset.annotations["keypoints"][index][item.visible]
        # In float32, an image of 1,000 pixels is resolved to less than 0.001 of them.
        np.testing.assert_allclose(back, truth, atol=0.01)
        grey = dataset.denormalize(item.image).mean(dim=0)
        column, row = shown.round().long().clamp(0, 95).T
        light.append(float(grey[row, column].mean() / grey[24:72, 24:72].mean()))
    if name.startswith(("wings", "mouse")):  # veins and the mouse are dark, backgrounds aren't
        assert np.mean(light) < 0.85
