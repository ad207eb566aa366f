import numpy as np
import pytest
import scipy.io

from data_loader.matlab_files import read_face_boxes, read_mat, read_pts
from tests.data_loader.layouts import box_cells, complaint, pts_lines, write_text
from tests.recipes import FACES, needs_faces


@pytest.fixture
def mat(tmp_path):
    return tmp_path / "a.mat"


READERS = [lambda path: read_mat(path, {"gt": (3, 2)}), read_face_boxes]


def test_arrays_come_as_float64_in_their_shape(mat):
    gt = np.arange(6, dtype=np.uint16).reshape(3, 2)
    scipy.io.savemat(mat, {"gt": gt, "hw": gt * 0.5, "other": "text"})
    arrays = read_mat(mat, {"gt": (3, 2), "hw": (3, 2)})
    assert list(arrays) == ["gt", "hw"]
    assert arrays["gt"].dtype == arrays["hw"].dtype == np.float64
    assert np.array_equal(arrays["gt"], gt) and np.array_equal(arrays["hw"], gt / 2)


@pytest.mark.parametrize("read", READERS)
def test_absent_mat_files_are_said_to_be_absent(mat, read):
    assert f"{mat}: no such file" in complaint(read, mat)
    mat.mkdir()
    assert str(mat) in complaint(read, mat)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content",
    [b"", b"text " * 100, b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"x" * 400],
    ids=["empty", "text", "HDF5"],
)
def test_files_that_are_not_mat(mat, read, content):
    mat.write_bytes(content)
    assert f"{mat}: unreadable .mat file" in complaint(read, mat)


def test_mat_files_cut_short(mat):
    scipy.io.savemat(mat, {"gt": np.random.RandomState(0).rand(3, 2), "x": np.ones(40)})
    whole = mat.read_bytes()
    for length in range(4, len(whole) - 400, 16):
        mat.write_bytes(whole[:length])
        assert str(mat) in complaint(read_mat, mat, {"gt": (3, 2), "x": (1, 40)})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no variable 'gt'"),
        (np.ones((2, 3)), "(2, 3), expected (3, 2)"),
        (np.array([[1, 2], [3, np.inf], [4, 5]]), "finite"),
        (np.array([[1, 2], [3, np.nan], [4, 5]]), "finite"),
        ("words", "numeric"),
        ({"a": 1}, "numeric"),
    ],
)
def test_variables_that_do_not_fit(mat, value, said):
    scipy.io.savemat(mat, {"other": 1} if value is None else {"gt": value})
    message = complaint(read_mat, mat, {"gt": (3, 2)})
    assert str(mat) in message and said in message


# ---- face boxes ----


def test_boxes_are_the_ground_truth_in_the_files_order(mat):
    boxes = {"b.jpg": (1, 2.5, 30, 40), "a.jpg": (-5, -6, 7, 8), "image_3.png": (9, 1, 12, 3)}
    scipy.io.savemat(mat, {"bounding_boxes": box_cells(boxes)})
    read = read_face_boxes(mat)
    assert list(read) == list(boxes)
    for name, box in boxes.items():
        assert read[name].tolist() == list(box)


def test_a_single_box(mat):
    scipy.io.savemat(mat, {"bounding_boxes": box_cells({"b.jpg": (1, 2, 3, 4)})})
    assert read_face_boxes(mat)["b.jpg"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "box",
    [(5, 1, 5, 9), (5, 1, 4, 9), (1, 9, 5, 9), (1, 9, 5, 2), (1, 1, np.nan, 4), (1, 1, np.inf, 4)],
)
def test_empty_boxes_name_their_picture(mat, box):
    scipy.io.savemat(mat, {"bounding_boxes": box_cells({"a.jpg": (1, 2, 3, 4), "b.jpg": box})})
    message = complaint(read_face_boxes, mat)
    assert str(mat) in message and "b.jpg" in message


@pytest.mark.parametrize(
    "values",
    [
        {"boxes": box_cells({"a.jpg": (1, 2, 3, 4)})},
        {"bounding_boxes": np.ones((3, 4))},
        {"bounding_boxes": "text"},
        {"bounding_boxes": np.array([[{"imgName": "a", "bb_detector": np.ones((1, 4))}]])},
        {"bounding_boxes": np.array([[{"imgName": "a", "bb_ground_truth": np.ones((1, 3))}]])},
        {"bounding_boxes": np.array([[{"imgName": "a", "bb_ground_truth": "text"}]])},
    ],
    ids=["other name", "numbers", "text", "no truth", "3 numbers", "words"],
)
def test_variables_that_are_no_boxes(mat, values):
    scipy.io.savemat(mat, values)
    message = complaint(read_face_boxes, mat)
    assert str(mat) in message and "bb_ground_truth" in message


@needs_faces
def test_boxes_and_points_of_the_photographs():
    root = FACES / "300w"
    boxes = read_face_boxes(root / "Bounding Boxes/bounding_boxes_ibug.mat")
    present = {p.name for p in (root / "ibug").iterdir() if p.suffix != ".pts"}
    assert {name for name in boxes if name.startswith("image")} == present
    boxes = {name: box for name, box in boxes.items() if name in present}
    for name, (xmin, ymin, xmax, ymax) in boxes.items():
        points = read_pts((root / "ibug" / name).with_suffix(".pts"), 68)
        # The ground-truth box is the points' own, to about a pixel.
        assert np.abs(points.min(axis=0) - (xmin, ymin)).max() < 1.5
        assert np.abs(points.max(axis=0) - (xmax, ymax)).max() < 1.5


# ---- .pts ----

POINTS = np.arange(8).reshape(4, 2) * 1.5


def test_points_follow_the_brace(tmp_path):
    path = tmp_path / "a.pts"
    write_text(path, *pts_lines(POINTS))
    assert np.array_equal(read_pts(path, 4), POINTS)
    # A longer header, blanks around, Windows' line ends.
    lines = ["version: 1", "n_points:  4", "comment", "", " { ", *pts_lines(POINTS)[3:]]
    write_text(path, *lines, end="\r\n")
    assert np.array_equal(read_pts(path, 4), POINTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{\n", ""),
        ("3.000000 4.500000\n", ""),
        ("3.000000 4.500000", "3.000000"),
        ("3.000000 4.500000", "3.000000 4.500000 1"),
        ("3.000000 4.500000", "3.000000 nan"),
        ("3.000000 4.500000", "inf 1"),
        ("3.000000 4.500000", "x y"),
        ("3.000000 4.500000", ""),
    ],
)
def test_points_that_do_not_fit(tmp_path, old, new):
    path = tmp_path / "a.pts"
    write_text(path, *pts_lines(POINTS))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    message = complaint(read_pts, path, 4)
    assert str(path) in message and "4 points" in message


def test_no_points_at_all(tmp_path):
    path = tmp_path / "a.pts"
    assert str(path) in complaint(read_pts, path, 68)
    path.write_text("")
    assert str(path) in complaint(read_pts, path, 68)
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert str(path) in complaint(read_pts, path, 68)
