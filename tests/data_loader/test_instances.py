"""Boxes around points, and the order of points in a mirror."""

import numpy as np

from data_loader.instances import boxes_of, flip_order
from tests.data_loader.layouts import complaint
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
    assert "a point has one partner" in complaint(flip_order, NAMES, twice)
    assert "a point has one partner" in complaint(flip_order, NAMES, [("nose", "nose")])
