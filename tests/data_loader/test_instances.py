"""Boxes around points, and the order of points in a mirror."""

import numpy as np

from data_loader.instances import best_box, boxes_of, extent_of, flip_order, with_boxes
from data_loader.readers.keypoint_files import read_keypoints
from tests.data_loader.layouts import complaint
from tests.data_loader.own_files import IMAGES, write_boxes, write_wide
from tests.data_loader.own_tables import NAMES


def test_boxes_around_points_and_none():
    points = np.array([[(10, 20), (30, 24), (99, 99)], [(5, 5), (7, 7), (0, 0)]], dtype=float)
    visible = np.array([[True, True, False], [True, False, False]])
    annotated = np.array([(1, 2, 3, 4), (np.nan,) * 4])
    np.testing.assert_array_equal(boxes_of("annotated", points, visible, annotated), annotated)
    assert np.isnan(boxes_of("image", points, visible, annotated)).all()
    # Four rows high at first: as much is added on both sides as makes half of the width.
    around = boxes_of("points", points, visible, annotated)
    np.testing.assert_allclose(around[0], (10, 17, 30, 27))
    assert np.isnan(around[1]).all()  # a single point has no size


def test_flip_orders():
    assert flip_order(NAMES, []) is None
    assert flip_order(NAMES, [("right_eye", "left_eye")]).tolist() == [0, 2, 1]
    assert "no point is named tail; there are nose" in complaint(
        flip_order, NAMES, [("nose", "tail")]
    )
    twice = [("left_eye", "right_eye"), ("nose", "left_eye")]
    assert "each point may be named once" in complaint(flip_order, NAMES, twice)
    assert "each point may be named once" in complaint(flip_order, NAMES, [("nose", "nose")])


def test_the_best_box_holds_most_points_and_then_overlaps_most():
    points, unknown = np.array([(10.0, 10), (20, 20), (40, 12)]), np.full(4, np.nan)
    boxes = np.array([(0.0, 0, 25, 25), (5, 5, 60, 60), (9, 9, 42, 21), (100, 100, 120, 120)])
    assert best_box(boxes, points, unknown).tolist() == [9, 9, 42, 21]
    assert best_box(boxes, points, np.array([4.0, 4, 62, 62])).tolist() == [5, 5, 60, 60]
    assert best_box(boxes[:1], points, unknown).tolist() == [0, 0, 25, 25]


def test_extents_are_of_the_annotated_points():
    points = np.array([[(10, 20), (30, 24), (99, 99)], [(5, 5), (7, 9), (0, 0)]], dtype=float)
    visible = np.array([[True, True, False], [True, True, False]])
    low, high = extent_of(points, visible)
    assert low.tolist() == [[10, 20], [5, 5]] and high.tolist() == [[30, 24], [7, 9]]


def test_boxes_of_a_file_take_the_place_of_annotated_ones(tmp_path):
    table = read_keypoints(write_wide(tmp_path), tmp_path)
    places = [(0, 0, 20, 25), (1, 1, 39, 29), (5, 0, 10, 10)]
    path = write_boxes(tmp_path / "boxes.json", list(zip(IMAGES, places, strict=True)))
    boxed = with_boxes(table, path, tmp_path)
    assert boxed.boxes.tolist() == [list(map(float, place)) for place in places]
    # Names may begin in another folder, as those of predictions on a folder above.
    names = [f"above/{name}" for name in IMAGES]
    path = write_boxes(tmp_path / "boxes.json", list(zip(names, places, strict=True)))
    boxed = with_boxes(table, path, tmp_path)
    assert boxed.boxes[2].tolist() == [5, 0, 10, 10]
    assert boxed.notices[-1].endswith("above/a.png is a.png")


def test_annotated_images_without_a_box_are_named(tmp_path):
    table = read_keypoints(write_wide(tmp_path), tmp_path)
    path = write_boxes(tmp_path / "boxes.json", [(IMAGES[0], (0, 0, 5, 5))])
    said = complaint(with_boxes, table, path, tmp_path)
    assert "has no box of 2 of the 3 annotated images: sub/b c.png, sub/d.jpg" in said
    said = complaint(with_boxes, table, tmp_path / "absent.json", tmp_path)
    assert said == f"{tmp_path / 'absent.json'}: no such file"
