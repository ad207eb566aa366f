"""The face benchmarks, on tiny ones written here and on the photographs where they are."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_loader import data_loaders_face as faces
from data_loader.bad_images import image_options
from data_loader.data_loaders_face import (
    AFLW,
    AFLW_MTFL,
    CelebAPrunedAligned_MAFLVal,
    MAFLAligned,
    ThreeHundredW,
)
from tests.data_loader.layouts import (
    AFLW_SIZES,
    CELEBA_MAFL,
    CELEBA_PARTS,
    CELEBA_POINTS,
    CSV_HEADER,
    FACE_WRITERS,
    assert_published,
    box_cells,
    bright_spot,
    complaint,
    pts_lines,
    write_300w,
    write_aflw,
    write_celeba,
    write_mtfl,
    write_text,
)
from tests.recipes import FACES, needs_faces

SINGLE = {"pair_image": False, "do_augmentations": False, "imwidth": 100, "crop": 15}
NAMES_300W = {
    "afw": ["b_1.jpg", "a_2.jpg"],
    "helen/trainset": ["h.3_1.jpg", "a_2.jpg"],
    "lfpw/trainset": ["image_0001.png", "image_0000.png", "k.png"],
    "helen/testset": ["t_2.jpg", "t_1.jpg"],
    "lfpw/testset": ["u_2.png"],
    "ibug": ["image_009_1.jpg", "indoor_001.jpg", "image_002.jpg", "xenon_image.jpg"],
}
TEST_FILES_300W = [
    "helen/testset/t_2.jpg",
    "helen/testset/t_1.jpg",
    "lfpw/testset/u_2.png",
    "ibug/image_009_1.jpg",
    "ibug/image_002.jpg",
]


# ---- which images, in which order ----


@pytest.fixture
def celeba(tmp_path):
    write_celeba(tmp_path, CELEBA_PARTS, **CELEBA_MAFL)
    return tmp_path


@pytest.mark.parametrize(
    ("train", "val_split", "places"),
    [
        (True, "celeba", [1, 8]),  # partition 0 without MAFL, in the annotations' order
        (False, "celeba", [3, 5]),  # partition 2 without MAFL
        (True, "mafl", [1, 8]),
        (False, "mafl", [6, 7]),  # the test images of MAFL
    ],
)
def test_celeba_is_a_partition_without_mafl(celeba, train, val_split, places):
    dataset = CelebAPrunedAligned_MAFLVal(celeba, train=train, val_split=val_split, **SINGLE)
    assert dataset.filenames == [list(CELEBA_PARTS)[place] for place in places]
    points = [CELEBA_POINTS + (place % 7, -(place % 4)) for place in places]
    assert np.array_equal(dataset.annotations["keypoints"], points)


def test_celeba_validation_is_the_first_2000_of_those(tmp_path):
    names = [f"{i:06d}.jpg" for i in range(2010)]
    write_celeba(
        tmp_path,
        dict.fromkeys(names, 2) | {"000001.jpg": 0},
        mafl_train=["000000.jpg"],
        mafl_test=["000005.jpg"],
        images=False,
    )
    dataset = CelebAPrunedAligned_MAFLVal(tmp_path, train=False, **SINGLE)
    wanted = [n for n in names if n not in ("000000.jpg", "000001.jpg", "000005.jpg")]
    assert len(dataset) == 2000
    assert dataset.filenames == wanted[:2000]


def test_mafl_is_its_lists_in_the_annotations_order(tmp_path):
    points = write_celeba(tmp_path, CELEBA_PARTS, **CELEBA_MAFL)
    train = MAFLAligned(tmp_path, train=True, **SINGLE)
    test = MAFLAligned(tmp_path, train=False, **SINGLE)
    assert train.filenames == ["000009.jpg", "000001.jpg"]  # the list has them the other way
    assert train.eyes == (0, 1)
    assert test.filenames == ["000005.jpg", "000004.jpg"]
    assert np.array_equal(train.annotations["keypoints"], points[[0, 4]])


def test_aflw_keeps_the_order_of_its_lists(tmp_path):
    names, points = write_aflw(tmp_path)
    for split in ("train", "test"):
        dataset = AFLW(tmp_path, train=split == "train", **SINGLE)
        assert dataset.filenames == names[split]
        assert np.allclose(dataset.annotations["keypoints"], points)


def test_mtfl_trains_on_the_rows_of_set_1_and_tests_on_the_list(tmp_path):
    write_mtfl(tmp_path, sets=(1, 2, 1, 0, 1))
    train, test = AFLW_MTFL(tmp_path, **SINGLE), AFLW_MTFL(tmp_path, train=False, **SINGLE)
    assert train.filenames == ["crops/00000.jpg", "crops/00002.jpg", "crops/00004.jpg"]
    assert train.folder == tmp_path / "aflw_cropped"
    assert test.filenames == [f"AFLW/{9 - i}-image{20 + i}.jpg" for i in range(5)]
    assert test.folder == tmp_path / "MTFL"


def test_mtfl_refuses_a_training_image_that_is_tested_on(tmp_path):
    write_mtfl(tmp_path, sets=(1, 2, 1), tests=2)
    testing = tmp_path / "MTFL/testing.txt"
    change(testing, "image20.jpg", "image89.jpg")  # the row of set 2
    assert len(AFLW_MTFL(tmp_path, **SINGLE)) == 2
    change(testing, "9-image89.jpg", "some-thing-image88.jpg")
    message = complaint(AFLW_MTFL, tmp_path, **SINGLE)
    assert "image88.jpg" in message and str(testing) in message and "facedata_cropped" in message


def test_300w_joins_its_parts_in_the_boxes_order_and_takes_only_image_of_ibug(tmp_path):
    points = write_300w(tmp_path, NAMES_300W)
    train, test = ThreeHundredW(tmp_path, **SINGLE), ThreeHundredW(tmp_path, False, **SINGLE)
    assert train.filenames == [
        "afw/b_1.jpg",
        "afw/a_2.jpg",
        "helen/trainset/h.3_1.jpg",
        "helen/trainset/a_2.jpg",
        "lfpw/trainset/image_0001.png",
        "lfpw/trainset/image_0000.png",
        "lfpw/trainset/k.png",
    ]
    assert test.filenames == TEST_FILES_300W and test.eyes == (36, 45)  # the outer corners
    for dataset in (train, test):
        expected = np.array([points[name] for name in dataset.filenames])
        assert np.allclose(dataset.annotations["keypoints"], expected, atol=1e-5)


# ---- the dot is found under the point ----


def assert_dots(dataset, shown, scale, margin=0.12):
    """Hold each item's dot against its point.

    Resizing puts pixel x, whose centre is at x + 1/2, at s (x + 1/2) - 1/2, where the benchmarks'
    points go to s x: (s - 1) / 2 lies between the two, by the published conventions.
    """
    checked = 0
    for i, landmark in enumerate(shown):
        data, points, points_norm, index = dataset[i]
        assert index == i and data.shape == (3, dataset.side, dataset.side)
        assert points.shape == points_norm.shape == (dataset.num_landmarks, 2)
        spot, point = bright_spot(data, dataset), points[landmark].numpy()
        assert np.abs(spot - point).max() < 0.6
        assert np.abs(spot - point - (np.asarray(scale(i)) - 1) / 2).max() < margin
        checked += 1
    assert checked == len(dataset)


@pytest.mark.parametrize(("side", "crop"), [(100, 15), (136, 20), (178, 9)])
def test_celeba_dot_under_its_point(tmp_path, side, crop):
    names = {f"{i}.jpg": 0 for i in range(5)}
    write_celeba(tmp_path, names)
    options = SINGLE | {"imwidth": side, "crop": crop}
    dataset = CelebAPrunedAligned_MAFLVal(tmp_path, **options)
    assert_dots(dataset, range(5), lambda i: side / 178)


@pytest.mark.parametrize("train", [True, False])
def test_dots_of_aflw_are_under_their_points_though_not_all_images_are_squares(tmp_path, train):
    write_aflw(tmp_path / "aflw")
    dataset = AFLW(tmp_path / "aflw", train=train, **SINGLE)
    assert_dots(dataset, range(5), lambda i: 100 / np.array(AFLW_SIZES[i]))
    write_mtfl(tmp_path / "mtfl", sets=(1, 1, 1, 1, 1))
    dataset = AFLW_MTFL(tmp_path / "mtfl", train=train, **SINGLE)
    assert_dots(dataset, range(5), lambda i: 100 / 150)


def test_300w_dot_under_its_point(tmp_path):
    names = {part: [f"image_{i}.png" for i in range(4)] for part in ("afw", "ibug")}
    write_300w(tmp_path, names)
    # One pixel of the file is f of the window, and the window's frame starts at its first pixel:
    # f x - x0 for the point, f (x - 1/2) - 1/2 - (x0 - 1) for the dot of a 1-based x.
    factors = [52 / 52, 52 / 104, 52 / 70, 52 / 61.5]
    for train in (True, False):
        dataset = ThreeHundredW(tmp_path, train=train, **SINGLE)
        spread = {}
        for i, landmark in enumerate((0, 36, 45, 67)):
            data, points, _, _ = dataset[i]
            offset = bright_spot(data, dataset) - points[landmark].numpy()
            spread[i] = np.abs(offset - (1 - factors[i]) / 2).max()
            assert np.abs(offset).max() < 0.6
        # int(w * f) rounds the first resize: at most 1 in 100 of a place within 100 px.
        assert max(spread.values()) < 0.5
        assert spread[0] < 0.05  # f = 1: nothing is rounded


# ---- files that are wrong ----


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


ANNO, EVAL = "Anno/list_landmarks_align_celeba.txt", "Eval/list_eval_partition.txt"
CROPS = "aflw_cropped/facedata_cropped.csv"


@pytest.mark.parametrize(
    ("benchmark", "gone"),
    [
        *(("CelebA", name) for name in (ANNO, EVAL, "MAFL/training.txt", "MAFL/testing.txt")),
        ("CelebA", "Img/img_align_celeba_hq/000002.jpg"),
        *(("AFLW", f"aflw_train_{name}") for name in ("keypoints.mat", "images.txt")),
        *(("MTFL", name) for name in (CROPS, "MTFL/testing.txt", "aflw_cropped/crops/00003.jpg")),
        *(("300W", name) for name in ("afw/1.pts", "afw/2.jpg")),
        ("300W", "Bounding Boxes/bounding_boxes_afw.mat"),
        ("AFLW", "output/train_9.jpg"),
    ],
)
def test_an_absent_file_is_named(tmp_path, benchmark, gone):
    cls, write = FACE_WRITERS[benchmark]
    write(tmp_path)
    (tmp_path / gone).unlink()
    assert f"{tmp_path / gone}: no such" in complaint(cls, tmp_path, **SINGLE)


MAFL_TRAIN, MTFL_TEST = "MAFL/training.txt", "MTFL/testing.txt"
CLASSES = {ANNO: MAFLAligned, EVAL: CelebAPrunedAligned_MAFLVal, MAFL_TRAIN: MAFLAligned}


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (ANNO, "9\n", "10\n", "says 10 images, has 9"),
        (ANNO, "9\n", "9" * 5000 + "\n", "says 999"),  # more digits than int() reads
        (ANNO, "9\n", "nine\n", "expected a count"),
        (ANNO, "9\n", "²\n", "expected a count"),
        (ANNO, "righteye_x ", "", "expected a count, a header"),
        (ANNO, "000002.jpg   61", "000002.jpg", "line 4"),
        (ANNO, "000002.jpg   61", "000002.jpg   61,", "line 4"),
        (ANNO, "000002.jpg   61", "000002.jpg   inf", "line 4"),
        (ANNO, "000009.jpg   60", "000009.jpg   NaN", "point 1 of 000009.jpg has one coordinate"),
        (ANNO, "000002.jpg", "", "line 4"),
        (ANNO, "000002.jpg", "000007.jpg", "000007.jpg appears twice"),
        (ANNO, "000001.jpg   64", "000001.jpg 6464", "point 1 of 000001.jpg is at (6464, 100)"),
        (MAFL_TRAIN, "000009.jpg", "000001.jpg", "000001.jpg appears twice"),
        (EVAL, "000006.jpg 2\n", "", "000006.jpg of " + ANNO),
        (EVAL, "000002.jpg 0", "000002.jpg", "line 2"),
        (EVAL, "000002.jpg 0", "000002.jpg zero", "line 2"),
        (EVAL, "000002.jpg 0", "000001.jpg 0", "000001.jpg appears twice"),
        (CROPS, CSV_HEADER, CSV_HEADER.replace("crop_file", "file"), "expected a header"),
        (CROPS, CSV_HEADER + "\n", "", "expected a header"),
        (CROPS, ",x5,y5", "", "expected a header"),
        (CROPS, ",1,", ",one,", "line 2"),
        (CROPS, ",1,", ",", "line 2"),
        (CROPS, "55.2500", "nan", "one coordinate alone"),
        (CROPS, "55.2500", "x", "line 2"),
        (CROPS, "70.5000", "70500", "further outside"),
        (CROPS, "0,image90", '0,"image90', "unexpected end of data"),
        (CROPS, "1,image89", "1," + "x" * 200_000, "line 3"),  # beyond the csv reader's limit
        (CROPS, CSV_HEADER, "x" * 200_000, "line 1"),
        (CROPS, "crops/00002.jpg", "crops/00000.jpg", "crops/00000.jpg appears twice"),
        (MTFL_TEST, "55.2500 ", "70500 ", "point 1 of AFLW/9-image20.jpg"),
    ],
)
def test_texts_that_do_not_fit(tmp_path, file, old, new, said):
    write_mtfl(tmp_path)
    write_celeba(tmp_path, CELEBA_PARTS, **CELEBA_MAFL)
    change(tmp_path / file, old, new)
    how = {"train": False, "skip_bad": True} if file == MTFL_TEST else {}
    message = complaint(CLASSES.get(file, AFLW_MTFL), tmp_path, **how)
    assert str(tmp_path / file) in message and said in message


def test_celebas_count_may_begin_with_zeros(celeba):
    change(celeba / ANNO, "9", "009")
    assert CelebAPrunedAligned_MAFLVal(celeba, **SINGLE).filenames == ["000002.jpg", "000003.jpg"]


def test_mafl_names_an_image_without_annotation_and_an_empty_list(celeba):
    path = celeba / "MAFL/testing.txt"
    for lines, said in (
        (["000005.jpg", "999999.jpg"], f"{path}: 999999.jpg"),
        (["", ""], f"{path}: empty"),
        (["000005.jpg", "", "000004.jpg"], f"{path}, line 2"),
    ):
        write_text(path, *lines)
        assert said in complaint(MAFLAligned, celeba, train=False, **SINGLE)


def test_celeba_without_a_image_of_the_split(tmp_path):
    write_celeba(tmp_path, {"a.jpg": 1}, mafl_train=["a.jpg"], mafl_test=["a.jpg"])
    assert str(tmp_path) in complaint(CelebAPrunedAligned_MAFLVal, tmp_path, **SINGLE)


@pytest.mark.parametrize("cls", [MAFLAligned, AFLW, AFLW_MTFL, ThreeHundredW])
def test_an_absent_or_empty_root_is_named(tmp_path, cls):
    assert str(tmp_path / "gone") in complaint(cls, tmp_path / "gone", **SINGLE)
    (tmp_path / "file").write_text("a file")
    assert str(tmp_path / "file") in complaint(cls, tmp_path / "file", **SINGLE)
    assert str(tmp_path) in complaint(cls, tmp_path, **SINGLE)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gt": np.ones((5, 5, 2))}, "'hw'"),
        ({"gt": np.ones((4, 5, 2)), "hw": np.ones((4, 2))}, "(4, 5, 2)"),
        ({"gt": np.ones((5, 2, 5)), "hw": np.ones((5, 2))}, "(5, 2, 5)"),
        ({"gt": np.ones((5, 5, 2)) * (np.nan, 1), "hw": np.ones((5, 2))}, "one coordinate alone"),
        ({"gt": np.ones((5, 5, 2)), "hw": np.full((5, 2), np.nan)}, "finite"),
        ({"gt": np.ones((5, 5, 2)), "hw": np.zeros((5, 2))}, "size of 0 x 0"),
        ({"gt": np.full((5, 5, 2), 9.0), "hw": np.ones((5, 2))}, "point 1 of train_9.jpg is at"),
    ],
)
def test_aflw_points_that_do_not_fit(tmp_path, values, said):
    write_aflw(tmp_path)
    path = tmp_path / "aflw_train_keypoints.mat"
    scipy.io.savemat(path, values)
    message = complaint(AFLW, tmp_path, **SINGLE)
    assert str(path) in message and said in message


def test_mtfl_test_lists_that_do_not_fit(tmp_path):
    write_mtfl(tmp_path, tests=0)
    assert str(tmp_path) in complaint(AFLW_MTFL, tmp_path, train=False, **SINGLE)
    write_text(tmp_path / MTFL_TEST, "a.jpg" + 9 * " 70.5")
    for train in (True, False):
        message = complaint(AFLW_MTFL, tmp_path, train=train, **SINGLE)
        assert f"{tmp_path / MTFL_TEST}, line 1" in message


def test_300w_files_that_do_not_fit(tmp_path):
    write_300w(tmp_path / "none", {})
    assert str(tmp_path / "none") in complaint(ThreeHundredW, tmp_path / "none", **SINGLE)
    points = write_300w(tmp_path, {"afw": ["image_0.jpg"]})
    pts = tmp_path / "afw/image_0.pts"
    write_text(pts, *pts_lines(points["afw/image_0.jpg"][:67]))
    assert str(pts) in complaint(ThreeHundredW, tmp_path, **SINGLE)
    boxes = tmp_path / "Bounding Boxes/bounding_boxes_afw.mat"
    scipy.io.savemat(boxes, {"bounding_boxes": box_cells({"image_0.jpg": (5, 5, 5, 90)})})
    assert str(boxes) in complaint(ThreeHundredW, tmp_path, **SINGLE)


# ---- from the command line ----


def test_build_face_dataset_reads_the_default_root_or_the_given_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"on_unannotated": "skip", "train": True, **image_options(50, 4, "stop")}
    assert "datasets/celeba" in complaint(faces.build_face_dataset, "MAFLAligned", None, **options)
    write_celeba(tmp_path / "datasets/celeba", CELEBA_PARTS, **CELEBA_MAFL)
    dataset = faces.build_face_dataset("MAFLAligned", None, **options)
    assert dataset.filenames == ["000009.jpg", "000001.jpg"] and dataset.warper is None
    assert dataset[0][0].shape == (3, 42, 42) and dataset[0][1].shape == (5, 2)
    assert not dataset.skip_bad
    write_aflw(tmp_path / "other")
    options |= {"train": False, "TPS_aug": True, **image_options(50, 4, "skip")}
    dataset = faces.build_face_dataset("AFLW", tmp_path / "other", **options)
    assert dataset.filenames[0] == "test_9.jpg" and dataset.warper is not None
    assert dataset.skip_bad


# ---- the photographs ----


@needs_faces
def test_photographs_as_the_published_loaders_give_them():
    roots = {"MAFLAligned": "celeba", "AFLW": "aflw", "AFLW_MTFL": "aflw-mtfl"}
    items = 0
    for name, root in (roots | {"ThreeHundredW": "300w"}).items():
        for train in (True, False):
            options = SINGLE | {"imwidth": 136, "crop": 20}
            dataset = getattr(faces, name)(FACES / root, train=train, **options)
            items += assert_published(dataset, f"{name}/{train}")
    assert items == 24


# ---- what can't be ----


def test_a_image_too_small_for_its_face_and_a_point_far_outside_are_named(tmp_path):
    write_300w(tmp_path, {"afw": ["a.jpg"]})
    dataset = ThreeHundredW(tmp_path, **SINGLE)
    dataset.annotations["keypoints"][0, 3] = 7000
    said = f"{tmp_path / 'afw/a.pts'}: point 4 of a.jpg"
    assert said in complaint(dataset.__getitem__, 0)
    Image.new("RGB", (1, 1)).save(tmp_path / "afw/a.jpg")
    assert str(tmp_path / "afw/a.") in complaint(ThreeHundredW(tmp_path, **SINGLE).__getitem__, 0)


def test_a_face_of_aflw_that_is_there_twice_with_other_points(tmp_path):
    names, _ = write_aflw(tmp_path)
    write_text(tmp_path / "aflw_train_images.txt", *names["train"][:-1], names["train"][0])
    assert f"{names['train'][0]} appears twice" in complaint(AFLW, tmp_path, **SINGLE)


# ---- points that are missing, images of another size ----


def celeba_with(root, old, new):
    """Write MAFL with some numbers of 000001.jpg (trained on) replaced."""
    write_celeba(root, CELEBA_PARTS, **CELEBA_MAFL)
    path = root / ANNO
    lines = path.read_text().splitlines()
    (row,) = (i for i, line in enumerate(lines) if line.startswith("000001.jpg"))
    words = lines[row].split()
    lines[row] = " ".join([words[0], *(new if i in old else w for i, w in enumerate(words[1:]))])
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("gap", ["-1", "nan"])
def test_missing_points_are_masked_and_counted(tmp_path, gap):
    celeba_with(tmp_path, (4, 5), gap)
    dataset = MAFLAligned(tmp_path, **SINGLE)
    row = dataset.filenames.index("000001.jpg")
    item = dataset.annotated_item(row)
    assert item.visible.tolist() == [True, True, False, True, True]
    assert item.points_px.isfinite().all()
    assert dataset.annotated_item(1 - row).visible.all()
    assert dataset.count_notice()[0] == "MAFLAligned train: 1 of 10 points aren't annotated, masked"
    assert "visible" not in MAFLAligned(tmp_path, train=False, **SINGLE).annotations


@pytest.mark.parametrize("number", ["0", "-1", "nan"])
def test_images_without_any_point_are_refused_or_left_out(tmp_path, number):
    celeba_with(tmp_path, range(10), number)
    message = complaint(MAFLAligned, tmp_path, **SINGLE)
    assert "/000001.jpg: no point of it is annotated" in message
    assert "1 of 2 images" in message and "--on_unannotated skip" in message
    dataset = MAFLAligned(tmp_path, skip_unannotated=True, **SINGLE)
    assert dataset.filenames == ["000009.jpg"] and "visible" not in dataset.annotations
    said = "MAFLAligned train: 1 of 2 images have no annotated point, left out"
    assert dataset.count_notice()[0] == said
    # Pre-training needs no points.
    pairs = CelebAPrunedAligned_MAFLVal(tmp_path, val_split="mafl", train=False)
    assert len(pairs) == 2 and MAFLAligned(tmp_path).filenames == ["000009.jpg", "000001.jpg"]


def test_a_landmark_that_no_training_image_has_is_refused(tmp_path):
    celeba_with(tmp_path, (4, 5), "-1")
    write_text(tmp_path / "MAFL/training.txt", "000001.jpg")
    message = complaint(MAFLAligned, tmp_path, **SINGLE)
    assert "none of the 1 training images has landmark 3 annotated" in message


def test_missing_points_of_the_other_benchmarks(tmp_path):
    write_aflw(tmp_path / "aflw")
    path = tmp_path / "aflw/aflw_train_keypoints.mat"
    mat = scipy.io.loadmat(path)
    mat["gt"][1, 2], mat["gt"][2, 0] = np.nan, -1
    scipy.io.savemat(path, {"gt": mat["gt"], "hw": mat["hw"]})
    visible = AFLW(tmp_path / "aflw", **SINGLE).annotations["visible"]
    assert np.argwhere(~visible).tolist() == [[1, 2], [2, 0]]

    write_mtfl(tmp_path / "mtfl")
    change(tmp_path / "mtfl/aflw_cropped/facedata_cropped.csv", "55.2500,62.5000", ",")
    change(tmp_path / "mtfl/MTFL/testing.txt", "55.2500", "-1")
    change(tmp_path / "mtfl/MTFL/testing.txt", "62.5000", "-1")
    for train in (True, False):
        visible = AFLW_MTFL(tmp_path / "mtfl", train=train, **SINGLE).annotations["visible"]
        assert np.argwhere(~visible).tolist() == [[0, 0]]

    write_300w(tmp_path / "300w", {"afw": ["1.jpg", "2.jpg"]})
    path = tmp_path / "300w/afw/1.pts"
    lines = path.read_text().splitlines()
    lines[5] = "-1 -1"
    path.write_text("\n".join(lines))
    visible = ThreeHundredW(tmp_path / "300w", **SINGLE).annotations["visible"]
    assert np.argwhere(~visible).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [("MAFL", "178x218"), ("CelebA", "178x218"), ("AFLW", "90x140"), ("MTFL", "150x150")],
)
def test_images_of_another_size_are_refused_at_the_start_or_when_read(
    tmp_path, benchmark, expected
):
    cls, write = FACE_WRITERS[benchmark]
    write(tmp_path)
    dataset = cls(tmp_path, **SINGLE)
    path = dataset.path(0)
    Image.new("RGB", (256, 128)).save(path, format="PNG")
    said = f"{path}: 256x128 pixels, expected {expected}"
    assert complaint(cls, tmp_path, **SINGLE).startswith(said)
    assert complaint(dataset.base_item, 0).startswith(said)


def test_16_bit_images_with_12_bit_values_are_noted(tmp_path):
    write_celeba(tmp_path, CELEBA_PARTS, **CELEBA_MAFL)
    dataset = MAFLAligned(tmp_path, **SINGLE)
    for top, said in ((4095, 1), (4096, 0)):
        grey = np.full((218, 178), 7, dtype=np.uint16)
        grey[5, 5] = top
        Image.fromarray(grey).save(dataset.path(0), format="PNG")
        notices = MAFLAligned(tmp_path, **SINGLE).count_notice()
        assert sum("nearly black" in notice for notice in notices) == said
