"""The random views of contrastive pre-training [spec 6; Thewlis et al. 2019].

All random samples come from torch's default generator, so one seed fixes a view. The stages are
those of torchvision's RandomResizedCrop, ColorJitter, ToTensor and Normalize with the same samples,
and give bitwise identical numbers (benchmarks/literal.py is the oracle). They take less time
because what the network doesn't see is cut off as early as that allows, see `colour_jitter`, and
because each modifies the last one's result without checking or copying it.

Letters: S the side of the square image, W that of the view, S - 2 * crop.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.framing import Window
from data_loader.geometry import resize_square
from data_loader.views.jpeg import MCU
from data_loader.views.view_parameters import BRIGHTNESS, CONTRAST, SATURATION, sample_view

FACE_MEAN, FACE_STD = (0.5084, 0.4224, 0.3769), (0.2599, 0.2371, 0.2323)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RandomView:
    """The random pipeline from a square RGB image to a view (3, W, W), standardised.

    Args:
        side: S; an image of another size is resized to it by the random crop.
        smallest_scale: least fraction of the image's area that the random crop keeps.
        crop: pixels cut off each side at the end.
        mean: of each colour in [0, 1].
        std: of each colour in [0, 1].
    """

    def __init__(
        self,
        side: int,
        smallest_scale: float,
        crop: int = 0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        self.side, self.smallest_scale, self.crop = side, smallest_scale, crop
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a new view of the image, which stays as it is."""
        sampled = sample_view(image.width, self.smallest_scale)
        image = jpeg_noise(image, sampled.jpeg_side, sampled.jpeg_quality, sampled.box)
        image = resize_square(image, self.side)
        image = colour_jitter(image, sampled.order, sampled.factors, self.crop)
        view = channels(image).float().div_(255)  # (3, W, W)
        return view.add_(sampled.colour).sub_(self.mean).div_(self.std)


def jpeg_noise(image: Image.Image, jpeg_side: int, quality: int, box: Window) -> Image.Image:
    """Shrink or enlarge a square, compress it as JPEG, come back to the first size, and crop.

    Only the blocks that reach into the box are compressed: they don't depend on the others.
    """
    side = image.width
    spans = (source_span(box[axis], box[axis + 2], jpeg_side, side) for axis in (0, 1))
    # Pixels depend on their own JPEG block, and on that of the next colour.
    (left, right), (top, bottom) = (
        (max((first - 1) // MCU, 0) * MCU, min(-((end + 1) // -MCU) * MCU, jpeg_side))
        for first, end in spans
    )
    resized = resized_window(image, (0, 0), side, jpeg_side, (left, top, right, bottom))
    with io.BytesIO() as buffer:
        resized.save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as compressed:
            return resized_window(compressed, (left, top), jpeg_side, side, box)


def resized_window(
    image: Image.Image, at: tuple[int, int], frame: int, side: int, window: Window
) -> Image.Image:
    """Return the window of a (frame, frame) image resized to (side, side).

    Pillow resizes along the rows, then along the columns, and rounds in between. So each can be
    left out where the window doesn't need it, and every number stays the same. (That isn't so with
    Pillow's own ``box``, which it rounds to float32.)

    Args:
        image: the part of the image that is at hand; all that the window depends on.
        at: (x, y) of that part in the image.
        frame: side of the image.
        side: what that is resized to.
        window: of the resized image.
    """
    left, top, right, bottom = window
    first, end = source_span(top, bottom, frame, side)
    # Outside of an image Pillow's crop puts zeros, here where nothing depends on them.
    rows = image.crop((-at[0], first - at[1], frame - at[0], end - at[1]))
    rows = rows.resize((side, end - first), Image.Resampling.BILINEAR)
    columns = rows.crop((left, -first, right, frame - first))
    columns = columns.resize((right - left, side), Image.Resampling.BILINEAR)
    return columns.crop((0, top, right - left, bottom))


def source_span(first: int, end: int, frame: int, side: int) -> tuple[int, int]:
    """Return from where to where ``frame`` pixels determine some of ``side`` resized ones."""
    scale = frame / side
    reach = max(scale, 1)  # of the triangle that Pillow's bilinear resize weights by
    low, high = math.floor((first + 0.5) * scale - reach), math.ceil((end - 0.5) * scale + reach)
    return max(low, 0), min(high, frame)


def colour_jitter(
    image: Image.Image, order: Sequence[int], factors: Sequence[float], crop: int
) -> Image.Image:
    """Blend (S, S) with black, with its mean grey and with itself in grey, in the given order.

    Factor 1 leaves it as it is. Pixels change one by one, but for the contrast, whose mean is that
    of the whole square: only what comes before it has to work on more than the (W, W) that are
    returned.
    """
    inside = (crop, crop, image.width - crop, image.height - crop)
    for stage in order:
        if stage == BRIGHTNESS:
            image = Image.blend(Image.new("RGB", image.size), image, factors[stage])
        elif stage == CONTRAST:
            grey = np.frombuffer(image.convert("L").tobytes(), dtype=np.uint8)
            mean = int(int(grey.sum(dtype=np.int64)) / grey.size + 0.5)  # as Pillow rounds it
            image = image.crop(inside)
            other = Image.new("RGB", image.size, (mean, mean, mean))
            image = Image.blend(other, image, factors[stage])
        elif stage == SATURATION:
            image = Image.blend(image.convert("L").convert("RGB"), image, factors[stage])
    return image


def channels(image: Image.Image) -> Tensor:
    """Return an RGB image's bytes as (3, H, W), uint8."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).contiguous()
