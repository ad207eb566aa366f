"""Windows of one size around what a first pass found, for a second one to look at [spec 18].

Letters: A points.
"""

import argparse
from pathlib import Path

import numpy as np

from data_loader.framing import Box
from data_loader.readers.prediction_files import Prediction
from data_loader.unannotated import ImageSource
from engine.prediction.predictor import Frame
from utils.arguments import positive_int
from utils.errors import InputError

# A window is so many times as large as annotated points reach, and holds points that were found if
# they reach no further than this part of it: 1.2 times as far as annotated ones do.
ENLARGED, FILLED = 1.75, 1.2 / 1.75
OTHER_SCALE = 1.5  # times larger or smaller than most training boxes is worth a line


def add_window_arguments(group: argparse._ActionsContainer) -> None:
    """Declare that windows are written, and their size."""
    group.add_argument(
        "--windows",
        type=Path,
        metavar="FILE.json",
        help="write COCO's JSON of a square window around the points of each image, all of one "
        "size, for --boxes of all scripts: a second pass that sees a small object large",
    )
    group.add_argument(
        "--window_size",
        type=positive_int,
        metavar="PX",
        help=f"their side, in pixels of the images [{ENLARGED} times as far as the points of nine "
        "of ten annotated objects reach, as the checkpoint notes]",
    )


def window_side(frame: Frame, given: int | None) -> int:
    """Return the side of a window in pixels of the images: as given, or as annotations tell.

    Raises:
        InputError: if neither does.
    """
    if given is not None:
        return given
    if frame.seen is None or not frame.seen.span:  # a single point reaches nowhere
        raise InputError(
            "--windows: give --window_size PX; the checkpoint doesn't tell how far points reach"
        )
    return max(1, round(ENLARGED * frame.seen.span))


def place_window(found: Prediction, side: int) -> Box:
    """Return a square of whole pixels, ``side`` of them, around those points that belong together.

    Points are taken by falling confidence, as long as they reach no further than `FILLED` of the
    side: one that was found far from the others, and is less sure than they are, doesn't count.
    Near the image's edge the window is moved inside; it is no wider and no higher than the image.
    """
    first, *others = found.points[np.argsort(-found.confidence, kind="stable")]
    low = high = first
    for point in others:
        with_it = np.minimum(low, point), np.maximum(high, point)
        if (with_it[1] - with_it[0]).max() <= FILLED * side:
            low, high = with_it
    spans = np.minimum(side, found.size)
    begin = np.floor((low + high) / 2 - spans / 2 + 1)
    left, top = np.clip(begin, 0, np.array(found.size) - spans) - 0.5
    return float(left), float(top), float(left + spans[0]), float(top + spans[1])


def box_notices(frame: Frame, source: ImageSource) -> list[str]:
    """Return a line if a readout is shown boxes and was trained on whole images, or the reverse.

    Also if the boxes are of quite another size than those of its training.
    """
    seen = frame.seen
    if seen is None or not source.count:
        return []
    boxes = [source.shown(index).box for index in range(source.count)]
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in boxes if box is not None]
    if sides and not seen.boxed:
        return ["the readout was trained on whole images: boxes show it things at another scale"]
    if not sides and seen.boxed == 1:
        return [
            "the readout was trained on boxes, and whole images show it things at another scale: "
            "give --boxes FILE"
        ]
    low, high = seen.box_sides or (0.0, np.inf)
    if not sides or low / OTHER_SCALE <= (median := float(np.median(sides))) <= high * OTHER_SCALE:
        return []
    return [
        f"the boxes' longer side is {median:.0f} pixels (median); in training most had "
        f"{low:.0f} to {high:.0f}: things are shown at another scale"
    ]
