"""Images of one's own: any folder of them, framed as asked and the right way up."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_loader.framing import FITS, Box, Framing, box_or_none
from data_loader.image_set import Colours, ImageSet, as_colours, spread
from data_loader.named_images import HEADERS, UnlabelledImages
from data_loader.readers.coco_keypoints import read_coco_boxes
from data_loader.readers.images import Levels, value_range
from data_loader.readers.keypoint_files import locate, read_sizes
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from utils.arguments import unit_interval
from utils.errors import ImageError, InputError
from utils.process_group import is_first_rank

MEASURED_IMAGES = 500  # that colour statistics are measured on, at most


class OwnImages(ImageSet):
    """What all sets of one's own images have: a framing, their orientation, and colours.

    Each image is turned as a note in its file says (EXIF), as annotation tools show it. Colour
    statistics are ImageNet's unless others are set.

    Args:
        fit: see `Framing`.
        margin: around a box, see `Framing`.
        options: the arguments of what the images are read by.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    oriented = True
    annotations: dict[str, np.ndarray] = {}  # with ``boxes`` (N, 4), NaN for a whole image, if any

    def __init__(
        self, *images: Any, fit: str = "stretch", margin: float = 0.0, **options: Any
    ) -> None:
        self.fit, self.margin = fit, margin
        super().__init__(*images, **options)

    @property
    def framing(self) -> Framing:
        """How an image, or a box of it, becomes the square."""
        return Framing(self.fit, self.imwidth, self.margin)

    def box(self, index: int) -> Box | None:
        """Return the part of an image that is shown, in its pixels; None for all of it."""
        boxes = self.annotations.get("boxes")
        return None if boxes is None else box_or_none(boxes[index])

    def square(self, image: Image.Image, index: int) -> Image.Image:
        """Frame an image."""
        try:
            return self.framing.to_square(image, self.box(index))[0]
        except ImageError as error:  # of a box beside its image, which doesn't know the file
            raise ImageError(f"{self.path(index)}: {error}") from None


class Folder(OwnImages, UnlabelledImages):
    """Images of one's own without annotation: all below a folder, or those of a list or of boxes.

    Args:
        root: see `UnlabelledImages`.
        boxes: a COCO file; each of its boxes is an image of its own.
        options: the other arguments of `UnlabelledImages` and `OwnImages`.
    """

    def __init__(self, root: str | Path, boxes: str | Path | None = None, **options: Any) -> None:
        self.boxes = boxes
        super().__init__(root, **options)

    def read(self, root: Path, train: bool) -> tuple[Path, Sequence[str], dict[str, np.ndarray]]:
        """Find the images below the folder, those of the list, or those that have boxes."""
        if self.boxes is None:
            _, distinct, annotations = super().read(root, train)
            filenames = distinct
        elif self.imagelist is not None:
            raise InputError("--imagelist and --boxes exclude each other")
        else:
            names, boxes, _ = read_coco_boxes(Path(self.boxes))
            filenames, moved = locate(Path(self.boxes), root, names)
            distinct, annotations = list(dict.fromkeys(filenames)), {"boxes": boxes}
            self.notices += moved
        if is_first_rank():
            # Of many images, some from all over the set are looked at.
            total, chosen = len(distinct), [distinct[i] for i in spread(len(distinct), HEADERS)]
            looked_at = "" if len(chosen) == total else f" looked at, of {total:,},"
            self.notices += count_turned(read_sizes(root, chosen)[1].sum(), len(chosen), looked_at)
        return root, filenames, annotations

    def digested(self, facts: object) -> object:
        """Return what `digest` hashes beside names and boxes: the framing, too."""
        return [self.framing, facts]


def count_turned(turned: int, total: int, looked_at: str = "") -> list[str]:
    """Return a line on images that are turned, if any are."""
    how = "are turned as a note in their file says (EXIF)"
    return [f"{turned:,} of {total:,} images{looked_at} {how}"] if turned else []


def add_cutout_arguments(
    group: argparse._ActionsContainer, fit: str | None = "stretch", margin: float | None = 0.1
) -> None:
    """Declare how one's own images, or boxes of them, become squares; given are the defaults."""
    group.add_argument(
        "--fit",
        choices=FITS,
        default=fit,
        help="how one's own image, or a box of it, becomes a square: stretch changes its "
        "proportions, as published; pad adds what lies around the box, and black beyond the "
        "image's edges; crop cuts off the longer side at both ends",
    )
    group.add_argument(
        "--boxes",
        metavar="FILE",
        help="COCO's JSON, such as predict.py --windows writes: of one's own images, annotated "
        "instances are cut out by its boxes in place of their own; without annotations, each box "
        "is an image of its own",
    )
    group.add_argument(
        "--box_margin",
        type=unit_interval,
        default=margin,
        metavar="FRACTION",
        help="added to a box on each side, of its width and height",
    )


def measure_colours(dataset: ImageSet) -> tuple[Colours, Colours, Levels]:
    """Return mean and standard deviation of each colour, over the pixels of some squares.

    Also the range of 16-bit values, which the data set reads its images by from now on.
    """
    ends: list[int] = []
    for path, data, _ in dataset.some_files(MEASURED_IMAGES):
        with suppress(ImageError):  # which is heeded below
            ends += value_range(path, data, dataset.oriented) or ()
    if ends:
        dataset.levels = min(ends), max(ends)
        dataset.notices.append(f"16-bit values: {min(ends):,} is black, {max(ends):,} white")
    sums, count = np.zeros((2, 3)), 0  # of the values in [0, 1], and of their squares
    for path, data, index in dataset.some_files(MEASURED_IMAGES):
        try:
            square = dataset.square(dataset.open_file(path, data, index), index)
        except ImageError as error:
            dataset.forgive(error)
            continue
        pixels = np.asarray(square, dtype=np.float64).reshape(-1, 3) / 255
        sums += pixels.mean(axis=0), (pixels**2).mean(axis=0)
        count += 1
    if not count:
        raise InputError(f"{dataset.folder}: no image can be read to measure colours on")
    mean, square_mean = sums / count
    # Not 0 where all images have one value of a colour.
    std = np.sqrt(np.maximum(square_mean - mean**2, 1e-4))
    return as_colours(mean), as_colours(std), dataset.levels
