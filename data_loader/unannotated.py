"""Images that landmarks are to be predicted on: a folder, a file, a list or a video of them.

They are turned as a note in their file says (EXIF). Nothing is read before it is asked for.
Letters: W the side of the network input.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from data_loader.framing import Box, box_or_none
from data_loader.items import Items
from data_loader.readers.annotation_files import read_lines, replace_backslashes
from data_loader.readers.coco_keypoints import read_coco_boxes
from data_loader.readers.image_names import find_images, resolve_listed
from data_loader.readers.images import FULL_RANGE, OWN_SUFFIXES, open_image
from data_loader.readers.keypoint_files import outside_notice
from data_loader.readers.videos import VIDEOS, read_frames
from utils.errors import ImageError, InputError
from utils.files import printable, quoted


class Shown(NamedTuple):
    """One image, or a box of it.

    Attributes:
        name: of the image, as predictions name it, see `quoted`.
        box: left, top, right and bottom in its pixels; None for the whole image.
        instance: which of several boxes of an image, if there are boxes.
    """

    name: str
    box: Box | None = None
    instance: str = ""


class InputItem(NamedTuple):
    """What the network sees of one image."""

    image: Tensor  # (3, W, W), float32, normalised
    # (2, 2), float64: by which pixels of the image are multiplied to become those of its square,
    # x before y, and what is added then
    affine: Tensor
    size: Tensor  # (2,), int64, width and height of the image
    index: int  # type: ignore[assignment]
    reason: str  # why it can't be read; empty if it could


# An image, or a box of it, to the input (3, W, W) and the map (2, 2) of `InputItem`.
Prepare = Callable[[Image.Image, Box | None], tuple[Tensor, Tensor]]


class ImageFiles:
    """Image files.

    Args:
        folder: that the paths are relative to.
        paths: in their order.
        boxes: what is shown of each image (N, 4), NaN for all of it; whole images without it.
        ids: of the boxes.
        names: of the images, if they aren't the paths.
        notices: lines for the log.
    """

    levels = FULL_RANGE  # see `open_image`

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        boxes: np.ndarray | None = None,
        ids: Sequence[str] = (),
        names: Sequence[str] = (),
        notices: Sequence[str] = (),
    ) -> None:
        self.folder, self._paths, self._boxes, self._ids = folder, paths, boxes, ids
        self._names, self.notices = names, notices
        self.count = len(paths)

    def shown(self, index: int) -> Shown:
        """Return which image, and what of it."""
        name = self._names[index] if self._names else quoted(self._paths[index])
        if self._boxes is None:
            return Shown(name)
        return Shown(name, box_or_none(self._boxes[index]), self._ids[index])

    def path(self, index: int) -> Path:
        """Return where an image lies."""
        return self.folder / self._paths[index]

    def items(self, prepare: Prepare, side: int, first: int) -> Dataset:
        """Return a data set of `InputItem` from one image on."""
        items = Items(self._paths, partial(self._item, prepare, side))
        return Subset(items, range(first, len(items)))

    def _item(self, prepare: Prepare, side: int, index: int) -> InputItem:
        path, reason = self.path(index), ""
        size, affine = torch.ones(2).long(), torch.ones(2, 2, dtype=torch.float64)
        pixels = torch.zeros(3, side, side)
        try:
            image = open_image(path, oriented=True, levels=self.levels)
            pixels, affine = prepare(image, self.shown(index).box)
            size = torch.tensor(image.size)
        except ImageError as error:
            reason = printable(str(error).removeprefix(f"{path}: "))
        return InputItem(pixels, affine, size, index, reason)

    def open(self, indices: list[int]) -> Iterator[tuple[int, Image.Image]]:
        """Yield the images of ascending numbers, those that can be read, with their numbers."""
        for index in indices:
            try:
                yield index, open_image(self.path(index), oriented=True, levels=self.levels)
            except ImageError:
                continue

    def identity(self) -> Iterator[str]:
        """Yield what tells these images from others, and from themselves before a change."""
        for index in range(len(self._paths)):
            yield f"{tuple(self.shown(index))} {_stamp(self.path(index))}"


class VideoFrames:
    """The frames of a video, which are named after it and their number, from 0."""

    count: int | None = None  # not known
    notices: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path

    def shown(self, index: int) -> Shown:
        """Return a frame's name."""
        return Shown(f"{quoted(self.path.name)}/{index:06d}")

    def items(self, prepare: Prepare, side: int, first: int) -> Dataset:
        """Return a data set of `InputItem` from one frame on."""
        return _FrameItems(self.path, prepare, first)

    def open(self, indices: list[int]) -> Iterator[tuple[int, Image.Image]]:
        """Yield the frames of ascending numbers, those that can be decoded, with these."""
        wanted, last = set(indices), max(indices, default=-1)
        frames = islice(enumerate(read_frames(self.path)), last + 1)
        yield from ((n, image) for n, image in frames if n in wanted and image is not None)

    def identity(self) -> Iterator[str]:
        """Yield what tells this video from others, and from itself before a change."""
        yield f"{self.path.name} {_stamp(self.path)}"


class _FrameItems(IterableDataset):
    def __init__(self, path: Path, prepare: Prepare, first: int) -> None:
        self.path, self.prepare, self.first = path, prepare, first

    def __iter__(self) -> Iterator[InputItem]:
        size = 1, 1  # of the frame before, for one that can't be decoded
        # Decoded from the beginning: not all files can be entered at any frame.
        for index, image in enumerate(read_frames(self.path)):
            shown, reason = (image, "") if image else (Image.new("RGB", size), "can't be decoded")
            size = shown.size
            if index >= self.first:
                yield InputItem(*self.prepare(shown, None), torch.tensor(size), index, reason)


def _stamp(path: Path) -> str:
    """Return a file's size and time of change; nothing if it isn't there."""
    return f"{(at := path.stat()).st_size} {at.st_mtime_ns}" if os.path.isfile(path) else ""


ImageSource = ImageFiles | VideoFrames  # images by number, in an order that doesn't change


def open_source(images: Path, boxes: Path | None) -> ImageSource:
    """Return the images that a path leads to.

    Args:
        images: a folder, of which all images at any depth are taken; an image; a video; or a text
            file of one image a line.
        boxes: a COCO file; its boxes of the images in the folder are taken one by one.

    Raises:
        InputError: if there is nothing, or boxes are given for something else than a folder.
    """
    if boxes is not None:
        if not images.is_dir():
            raise InputError(f"--boxes: --images must be the folder that {boxes}'s images are in")
        names, places, ids = read_coco_boxes(boxes)
        names = replace_backslashes(images, names)
        return ImageFiles(images, names, places, ids, notices=outside_notice(boxes, images, names))
    if images.is_dir():
        found, notices = find_images(images, own=True)
        return ImageFiles(images, found, notices=notices)
    suffix = images.suffix.lower()[1:]
    if not images.is_file():
        raise InputError(f"{images}: no such folder, image, list or video")
    if suffix in VIDEOS:
        return VideoFrames(images)
    if suffix in OWN_SUFFIXES:
        return ImageFiles(images.parent, [images.name])
    near = images.absolute().parent
    paths = resolve_listed(images, near, may_be_absent=True)
    names = [line.replace("\\", "/") for line in read_lines(images)]
    return ImageFiles(near, paths, names=names)
