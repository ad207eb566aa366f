import numpy as np
import pytest
import scipy.io
import scipy.sparse

from data_loader.readers.matlab_files import (
    check_face_box,
    load_mat,
    read_face_boxes,
    read_mat,
    read_pts,
)
from tests.data_loader.layouts import box_cells, complaint, pts_lines, write_text
from tests.recipes import FACES, needs_faces


@pytest.fixture
def mat(tmp_path):
    return tmp_path / "a.mat"


READERS = [lambda path: read_mat(path, {"gt": (3, 2)}), read_face_boxes]


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


@pytest.mark.parametrize("packed", [False, True])
def test_all_kinds_are_read_as_scipy_reads_them(mat, packed):
    random = np.random.RandomState(0)
    arrays = {f"x{i}": (random.rand(3, 4, 2) * 99).astype(k) for i, k in enumerate("bBhHiIqQfd")}
    cells = box_cells({"\u00e9.jpg": (1, 2, 3, 4), "long name of an image.png": (-5, 6, 7, 8)})
    content = {**arrays, "flag": np.array([[True, False]]), "boxes": cells, "one": 2.5}
    scipy.io.savemat(mat, content, do_compression=packed)
    wanted = {*arrays, "flag", "boxes"}
    read, known = load_mat(mat, wanted), scipy.io.loadmat(mat)
    assert set(read) == wanted
    for name in (*arrays, "flag"):
        assert np.array_equal(read[name], known[name])
    for (cell,), known_cell in zip(read["boxes"], known["boxes"].ravel(), strict=True):
        assert cell["imgName"] == known_cell["imgName"].item().item()
        assert np.array_equal(cell["bb_ground_truth"], known_cell["bb_ground_truth"].item())


@pytest.mark.parametrize("value", [1j * np.ones((3, 2)), scipy.sparse.eye(3).tocsc()[:, :2]])
def test_other_kinds_of_numbers_are_refused_unless_unwanted(mat, value):
    scipy.io.savemat(mat, {"gt": np.ones((3, 2)), "other": value})
    assert np.array_equal(read_mat(mat, {"gt": (3, 2)})["gt"], np.ones((3, 2)))
    assert str(mat) in complaint(read_mat, mat, {"other": (3, 2)})


def test_packed_bombs_and_deep_cells_are_refused(mat):
    scipy.io.savemat(mat, {"gt": np.zeros((3000, 3000))}, do_compression=True)
    assert mat.stat().st_size < 10**6
    assert "too large" in complaint(read_mat, mat, {"gt": (3, 2)})
    cell = np.ones((1, 1))
    for _ in range(20):
        outer = np.empty((1, 1), dtype=object)
        outer[0, 0] = cell
        cell = outer
    scipy.io.savemat(mat, {"bounding_boxes": cell})
    assert "too deep" in complaint(read_face_boxes, mat)


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


GOOD = box_cells({"a.jpg": (1, 2, 3, 4)})
EMPTY = [(5, 1, 5, 9), (5, 1, 4, 9), (1, 9, 5, 9), (1, 9, 5, 2), (1, 1, np.nan, 4)]


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        *((box_cells({"a.jpg": (1, 2, 3, 4), "b.jpg": box}), "b.jpg") for box in EMPTY),
        (box_cells({"a.jpg": (1, 2, 3, 4), "b.jpg": (1, 1, np.inf, 4)}), "b.jpg"),
        (np.ones((3, 4)), "bb_ground_truth"),
        ("text", "bb_ground_truth"),
        (np.array([[{"imgName": "a", "bb_detector": np.ones((1, 4))}]]), "bb_ground_truth"),
        (np.array([[{"imgName": "a", "bb_ground_truth": np.ones((1, 3))}]]), "bb_ground_truth"),
        (np.array([[{"imgName": "a", "bb_ground_truth": "text"}]]), "bb_ground_truth"),
        (np.concatenate([GOOD, GOOD], axis=1), "a.jpg appears twice"),
    ],
)
def test_boxes_that_do_not_fit(mat, boxes, said):
    scipy.io.savemat(mat, {"bounding_boxes": boxes})
    message = complaint(read_face_boxes, mat)
    assert str(mat) in message and said in message
    scipy.io.savemat(mat, {"boxes": GOOD})
    assert "bb_ground_truth" in complaint(read_face_boxes, mat)


def test_boxes_may_be_partly_outside(tmp_path):
    check_face_box(tmp_path / "a.jpg", np.array([-20.0, -5, 180, 230]), (200, 150))
    check_face_box(tmp_path / "a.jpg", np.array([1.0, 1, 2, 2]), (1, 1))


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((1, 1, 2, 2), (5000, 5000)),  # scaled so that the face is 52 px wide: 130,000 px
        ((1, 1, 1e9, 50), (200, 100)),
        ((1000, 10, 1050, 60), (200, 100)),
        ((-1e300, 0, 50, 50), (100, 100)),
        ((1, 1, 400, 3), (200, 1)),
    ],
)
def test_boxes_that_can_not_be_of_their_image(tmp_path, box, size):
    message = complaint(check_face_box, tmp_path / "a.jpg", np.array(box, dtype=float), size)
    assert str(tmp_path / "a.jpg") in message and "face box" in message


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
        ("3.000000 4.500000", "3_0 1"),
        ("}\n", ""),
        ("}\n", "1 2\n}\n"),
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
