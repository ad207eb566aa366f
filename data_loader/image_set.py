"""Images as squares and as views of them: what files and shards have in common.

Letters: S the side of the square that an image becomes (``imwidth``), W the side of the network
input, S - 2 * crop.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data_loader.geometry import centre_crop, resize_square
from data_loader.items import PairItem, SquareItem
from data_loader.readers.images import FULL_RANGE, Levels, check_size, open_image
from data_loader.views.random_view import FACE_MEAN, FACE_STD, RandomView, channels
from utils.errors import ImageError, InputError

Colours = tuple[float, float, float]  # of red, green and blue, in [0, 1]


def as_colours(values: Iterable[float]) -> Colours:
    """Return three numbers as plain ones."""
    red, green, blue = values
    return float(red), float(green), float(blue)


def as_levels(values: Iterable[int]) -> Levels:
    """Return two 16-bit values as plain ones; others are a ValueError."""
    low, high = values
    if not 0 <= low <= high <= FULL_RANGE[1]:
        raise ValueError("out of range")
    return int(low), int(high)


def spread(total: int, count: int) -> list[int]:
    """Return up to so many places from all over ``total`` of them."""
    return np.unique(np.linspace(0, total - 1, min(count, total), dtype=int)).tolist()


def standardise(images: Tensor, *colours: Colours) -> Tensor:
    """Return images (..., 3, H, W) in [0, 1] less a mean of each colour, divided by a deviation."""
    mean, std = (torch.tensor(values).to(images)[:, None, None] for values in colours)
    return (images - mean) / std


class ImageSet(Dataset):
    """Images that become squares, and views of these.

    Subclasses read the files, may say in `square` how an image becomes a square, and name its
    colour statistics.

    Args:
        imwidth: S.
        crop: pixels cut off each side of the square.
        smallest_scale: see `RandomView`; None for views that aren't random.
        skip_bad: images may be absent or damaged; see `bad_images`.
    """

    mean: Colours = FACE_MEAN
    std: Colours = FACE_STD
    levels = FULL_RANGE  # what 16-bit values become black and white
    folder: Path  # of the images
    oriented = False  # whether a file's note that it was turned is heeded, see `open_image`
    file_size: tuple[int, int] | None = None  # width and height of all files, if they have one

    def __init__(
        self, imwidth: int, crop: int, smallest_scale: float | None = 0.2, skip_bad: bool = False
    ) -> None:
        if imwidth - 2 * crop < 1:
            raise InputError(f"an image of {imwidth} px has nothing left after cropping {crop} px")
        self.imwidth, self.crop, self.skip_bad = imwidth, crop, skip_bad
        self.smallest_scale, self.notices = smallest_scale, list[str]()

    def __len__(self) -> int:
        raise NotImplementedError

    def path(self, index: int) -> Path:
        """Return where an image lies."""
        raise NotImplementedError

    def square(self, image: Image.Image, index: int) -> Image.Image:
        """Return an image, of the expected size, as a square (S, S): resized as a rule."""
        return resize_square(image, self.imwidth)

    def expected_size(self, index: int) -> tuple[int, int] | None:
        """Return the width and height that an image must have; None if any will do."""
        return self.file_size

    def open_file(self, path: Path, data: bytes | None, index: int) -> Image.Image:
        """Return an image as it is in its file, or in the bytes of one; see `open_image`."""
        image = open_image(path, data, self.oriented, self.levels)
        check_size(path, image.size, self.expected_size(index))
        return image

    def read_square(self, index: int) -> Image.Image:
        """Return an image's square (S, S), or raise an `ImageError` if it can't be read."""
        raise NotImplementedError

    def count_notice(self) -> list[str]:
        """Return lines for the log on what was left out, masked, or differs in number."""
        return self.notices

    def order_name(self) -> str:
        """Return what an epoch's order depends on beyond options; a resumed run compares it."""
        return f"{len(self)} images"

    def digest(self) -> str:
        """Return a hash that differs for other images or annotations."""
        raise NotImplementedError

    @property
    def side(self) -> int:
        """W, the side of the network input in pixels."""
        return self.imwidth - 2 * self.crop

    def make_pair(self, image: Image.Image, index: int) -> PairItem:
        """Return two views of a square."""
        return PairItem(torch.cat([self.view(image), self.view(image)]), index)

    def make_square(self, pixels: np.ndarray, index: int) -> SquareItem:
        """Return a square (S, S, 3), and a seed for its views from torch's generator."""
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return SquareItem(image, torch.randint(2**62, ()), index)

    def view(self, image: Image.Image) -> Tensor:
        """Return a view (3, W, W) of a square, at random if asked for."""
        if self.smallest_scale is None:
            return self.normalize(centre_crop(channels(image), self.crop).float() / 255)
        frame = (self.imwidth, self.smallest_scale, self.crop)
        return RandomView(*frame, self.mean, self.std)(image)

    def standardise_by(self, mean: Colours, std: Colours, levels: Levels = FULL_RANGE) -> None:
        """Take other colour statistics than the class's, in [0, 1], for items made from now on."""
        self.mean, self.std, self.levels = mean, std, levels

    def forgive(self, error: ImageError) -> None:
        """Raise the error of an image that can't be read, unless such images are skipped."""
        if not self.skip_bad:
            raise error

    def noted_colours(self) -> dict[str, dict[str, Any]]:
        """Return a checkpoint's entry on the colours, empty if they are the class's own."""
        kind = type(self)
        if (self.mean, self.std, self.levels) == (kind.mean, kind.std, kind.levels):
            return {}
        return {"colours": {"mean": self.mean, "std": self.std, "levels": self.levels}}

    def some_files(self, count: int) -> Iterator[tuple[Path, bytes | None, int]]:
        """Yield up to so many files from all over the set, as `open_file` takes them."""
        for index in spread(len(self), count):
            yield self.path(index), None, index

    def normalize(self, image: Tensor) -> Tensor:
        """Standardise the colours of (..., 3, H, W) in [0, 1]."""
        return standardise(image, self.mean, self.std)

    def denormalize(self, images: Tensor) -> Tensor:
        """Undo `normalize` for (..., 3, H, W); returns values in [0, 1]."""
        mean, std = (torch.tensor(v).to(images)[:, None, None] for v in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)
