"""Windows of one size: where they lie, and which points they are put around."""

import numpy as np

from data_loader.framing import Framing
from data_loader.readers.prediction_files import Prediction
from data_loader.unannotated import Shown
from engine.prediction.predictor import Frame, Seen
from engine.prediction.windows import ENLARGED, box_notices, place_window, window_side
from tests.data_loader.layouts import complaint

POINTS = np.array([(100, 60), (120, 60), (110, 70)], dtype=float)


class Boxes:
    """A source of images that are shown by these boxes."""

    def __init__(self, *boxes):
        self.boxes, self.count = boxes, len(boxes)

    def shown(self, index):
        return Shown("a.png", self.boxes[index])


def frame(seen):
    return Frame(["nose"], Framing("stretch", 32), 0, (0, 0, 0), (1, 1, 1), seen=seen)


def window(points, sure, size, side):
    return place_window(Prediction("a.png", size, points, sure), side)


def test_windows_are_centred_on_the_points_and_stay_inside():
    sure = np.array([0.9, 0.8, 0.7])
    assert window(POINTS, sure, (640, 480), 40) == (90.5, 45.5, 130.5, 85.5)
    assert Framing("stretch", 32).window((640, 480), (90.5, 45.5, 130.5, 85.5)) == (91, 46, 131, 86)
    corner = POINTS - (100, 60)  # moved to the image's edges, not made smaller
    assert window(corner, sure, (640, 480), 40) == (-0.5, -0.5, 39.5, 39.5)
    far = POINTS + (519, 409)
    assert window(far, sure, (640, 480), 40) == (599.5, 439.5, 639.5, 479.5)
    assert window(POINTS, sure, (640, 30), 40) == (90.5, -0.5, 130.5, 29.5)


def test_a_point_far_from_surer_ones_does_not_count():
    sure = np.array([0.9, 0.8, 0.7, 0.1])
    astray = np.concatenate([POINTS, [(400, 300)]])
    assert window(astray, sure, (640, 480), 40) == (90.5, 45.5, 130.5, 85.5)
    # The window is where the surest point is, though others agree on another place.
    left, top, right, bottom = window(astray, sure[::-1], (640, 480), 40)
    assert left < 400 < right and top < 300 < bottom


def test_the_size_is_what_annotations_tell_or_given():
    assert window_side(frame(None), 50) == 50
    assert window_side(frame(Seen(0.0, None, 100.0)), None) == round(100 * ENLARGED)
    for unknown in (None, Seen(0.0, None, 0.0)):
        assert "give --window_size" in complaint(window_side, frame(unknown), None)


def test_boxes_unlike_those_of_training_are_told():
    box = (0, 0, 50, 40)
    whole, boxed = Seen(0.0, None, 30.0), Seen(1.0, (45.0, 55.0), 30.0)
    assert box_notices(frame(None), Boxes(box)) == []
    assert box_notices(frame(whole), Boxes(None)) == []
    assert "trained on whole images" in box_notices(frame(whole), Boxes(box))[0]
    assert "give --boxes" in box_notices(frame(boxed), Boxes(None))[0]
    assert box_notices(frame(boxed), Boxes(box)) == []
    assert "median" in box_notices(frame(boxed), Boxes((0, 0, 10, 20)))[0]
    assert "median" in box_notices(frame(boxed), Boxes((0, 0, 10, 90)))[0]


def test_points_count_as_long_as_they_reach_no_further_than_most_of_the_window():
    """1.2 / 1.75 of it: as the readout was trained, with the rest around the points."""
    sure = np.array([0.9, 0.8])
    for reach, counts in ((27, True), (28, False)):
        left, *_ = window(np.array([(100.0, 60.0), (100.0 + reach, 60.0)]), sure, (640, 480), 40)
        assert left == (100 + (reach if counts else 0) / 2 - 20 + 1) // 1 - 0.5
