"""The random views of `random_view` for whole batches, on a CPU or a GPU [spec 6].

The same steps with the same distributions and, given the same parameters, the same pixels but for
a few in a million (of JPEG, by a level). Parameters are sampled on the CPU, by a generator of the
caller's, and nothing waits for the device. Letters: B images, S their side, W = S - 2 * crop;
lines as in `data_loader.views.resampling`.
"""

import torch
from torch import Tensor

from data_loader.geometry import centre_crop
from data_loader.views import jpeg
from data_loader.views.resampling import most_taps, resize, triangle_reach, triangle_taps, turn
from data_loader.views.view_parameters import CONTRAST, SATURATION, ViewParameters, sample_views

MARGIN = 1  # pixels around those wanted, whose chroma mixes with theirs
# About how many compressed pixels are worked on at once [ours]: what stays in a processor's cache,
# or keeps a GPU busy. Results don't depend on it.
CACHE_PIXELS, GPU_PIXELS = 1 << 18, 1 << 22


def to_device(device: torch.device, *values: Tensor) -> tuple[Tensor, ...]:
    """Return copies on the device, without waiting for it."""
    if device.type == "cuda":
        values = tuple(v.pin_memory() for v in values)
    return tuple(v.to(device, non_blocking=True) for v in values)


def compressed_windows(sides: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return which part of the compressed squares the crops depend on.

    JPEG's blocks don't know of each other, so what no crop will show needs no compression. Squares
    of ``sides`` (B,) are compressed; the crops are ``boxes`` (B, 4) of images (side, side).

    Returns:
        The first columns and rows (B, 2), multiples of 16, and the widths and heights (B, 2).
    """
    start, size = boxes[:, :2], boxes[:, 2:]
    sides, side_after = sides[:, None], torch.tensor(side)
    first = triangle_reach(start, sides, side_after)[0]
    stop = triangle_reach(start + size - 1, sides, side_after)[1]
    first = (first - MARGIN).clamp(min=0) // jpeg.MCU * jpeg.MCU
    return first, (stop + MARGIN).minimum(sides) - first


def jpeg_noise(columns: Tensor, sides: Tensor, qualities: Tensor, boxes: Tensor) -> Tensor:
    """Shrink or enlarge, compress as JPEG, come back to the first size, and crop.

    Args:
        columns: (B, 3, S, S), planes of columns, whole levels.
        sides: (B,), on the CPU, of the squares that are compressed.
        qualities: (B,), on the CPU, of the JPEGs.
        boxes: (B, 4), on the CPU, left, top, width and height of the crops.

    Returns:
        (B, 3, most rows, most columns of a crop), planes of rows; smaller crops repeat their edge.
    """
    side, device = columns.shape[2], columns.device
    starts, lengths = compressed_windows(sides, boxes, side)
    num_noisy = [-(-most // jpeg.MCU) * jpeg.MCU for most in lengths.amax(dim=0).tolist()]
    num_out = boxes[:, 2:].amax(dim=0).tolist()
    taps_there, taps_back = most_taps(side, int(sides.min())), most_taps(int(sides.max()), side)
    steps = jpeg.quantisation_tables()[qualities]
    sides, boxes, starts, steps = to_device(device, sides, boxes, starts, steps)
    noisy_size = sides[:, None].expand(-1, 2)
    full_size = torch.full_like(noisy_size, side)

    there = triangle_taps(full_size, noisy_size, starts, noisy_size - 1, num_noisy, taps_there)
    columns = jpeg.compress(resize(columns, *there), noisy_size - starts, steps)
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1
    across, down = triangle_taps(
        noisy_size, full_size, first, last, num_out, taps_back, origin=starts
    )
    return resize(columns, across, down._replace(index=jpeg.place_of_row(down.index, num_noisy[1])))


def enlarge(columns: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Resize crops to (B, 3, side, side), planes of rows.

    The crops are planes of columns (B, 3, X, Y), whole levels, and start at their first pixel; the
    width and height in ``boxes`` (B, 4), on the CPU, are at most ``side``.
    """
    (size,) = to_device(columns.device, boxes[:, 2:])
    after = torch.full_like(size, side)
    first, last = torch.zeros_like(after), after - 1
    taps = triangle_taps(size, after, first, last, [side, side], most_taps(1, 1))
    return resize(columns, *taps)


def color_jitter(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation in place, exactly as Pillow's ImageEnhance.

    The images (B, 3, H, W) have whole levels; order and factors are as in `ViewParameters`, on the
    images' device.
    """
    pixels = images[0, 0].numel()
    for step in order.unbind(dim=1):
        factor = factors.gather(1, step[:, None]).view(-1, 1, 1, 1)
        step = step.view(-1, 1, 1)
        grey = jpeg.luma(images)  # (B, H, W)
        # float32 holds the sum of a line exactly, that of an image perhaps not.
        mean = (grey.sum(dim=2).double().sum(dim=1) / pixels + 0.5).floor().float()
        # What the image is blended with: black, an even grey, or its own greys.
        other = grey.mul_(step == SATURATION).add_((step == CONTRAST) * mean.view(-1, 1, 1))
        other = other.unsqueeze(1)
        # No fused form: what is cut off below must come of Pillow's own roundings.
        images.sub_(other).mul_(factor).add_(other).clamp_(0, 255).floor_()
    return images


class BatchViews:
    """The random pipeline from a batch of squares to normalised, cropped views.

    Args:
        side: S; as for the next four, see `RandomView`.
    """

    def __init__(
        self,
        side: int,
        crop: int,
        smallest_scale: float,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        self.side, self.crop, self.smallest_scale = side, crop, smallest_scale
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return one random view (B, 3, W, W), float32, of each image (B, 3, S, S), uint8.

        The views are on the images' device, the generator of their parameters on the CPU.
        """
        parameters = sample_views(len(images), self.side, self.smallest_scale, generator)
        return self.render(images, parameters)

    @torch.no_grad()
    def render(self, images: Tensor, parameters: ViewParameters) -> Tensor:
        """Return the views (B, 3, W, W) that the parameters describe; see `__call__`."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.side, self.side):
            raise ValueError(
                f"expected uint8 (B, 3, {self.side}, {self.side}), not {images.dtype} "
                f"{tuple(images.shape)}"
            )
        device, inside = images.device, self.side - 2 * self.crop
        places, counts = self.groups(parameters, images.is_cuda)
        on_device, back = to_device(device, places, places.argsort())
        views = torch.empty(len(images), 3, inside, inside, device=device)
        groups = zip(*(v.split(counts) for v in (places, on_device, views)), strict=True)
        with torch.autocast(device.type, enabled=False):
            for rows, rows_on_device, out in groups:
                group = images.index_select(0, rows_on_device)
                self.one_group(group, parameters.select(rows), out)
            return views.index_select(0, back)

    def groups(self, parameters: ViewParameters, gpu: bool) -> tuple[Tensor, list[int]]:
        """Sort the views by the shape of their compressed parts; return how many go together."""
        limit = GPU_PIXELS if gpu else CACHE_PIXELS
        lengths = compressed_windows(parameters.sides, parameters.boxes, self.side)[1]
        blocks = -(-lengths // jpeg.MCU)
        order = (blocks.amax(dim=1) * (1 << 16) + blocks[:, 0]).argsort(stable=True)
        counts: list[int] = []
        width = height = 0
        for x, y in blocks[order].tolist():
            width, height = max(width, x), max(height, y)
            if counts and (counts[-1] + 1) * width * height * jpeg.MCU**2 <= limit:
                counts[-1] += 1
            else:
                counts.append(1)
                width, height = x, y
        return order, counts

    def one_group(self, images: Tensor, parameters: ViewParameters, out: Tensor) -> None:
        """Write the views of a few images into ``out``."""
        sides, qualities, boxes = parameters[:3]
        order, factors, colours, mean, std = to_device(
            images.device, *parameters[3:], self.mean, self.std
        )
        columns = turn(images).float()
        columns = turn(jpeg_noise(columns, sides, qualities, boxes))
        images = color_jitter(enlarge(columns, boxes, self.side), order, factors)
        torch.mul(centre_crop(images, self.crop), (1 / (255 * std)).view(3, 1, 1), out=out)
        out.add_(((colours - mean) / std)[:, :, None, None])
