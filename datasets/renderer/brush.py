"""Small tools to paint with: smooth curves, pieces of noise, colours."""

from functools import cache

import numpy as np
from PIL import Image


def curve(points: np.ndarray, closed: bool = False, steps: int = 4) -> np.ndarray:
    """Return a smooth (Catmull-Rom) curve through all the points.

    Args:
        points: (n, d).
        closed: Whether the last point is joined to the first.
        steps: Points of the result per given point.

    Returns:
        (n * steps, d) if closed, else ((n - 1) * steps + 1, d).
    """
    points = np.asarray(points, dtype=float)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    u = (np.arange(steps) / steps)[:, None, None]
    bent = (2 * before - 5 * start + 4 * end - after) * u**2
    bent = bent + (3 * start - 3 * end + after - before) * u**3
    path = start + 0.5 * ((end - before) * u + bent)  # (steps, segments, d)
    path = path.transpose(1, 0, 2).reshape(-1, points.shape[1])
    return path if closed else np.concatenate([path, points[-1:]])


@cache
def noise_tile(across: float, along: float) -> Image.Image:
    """Return the 1024 x 1024 image ("L", mean 128) of noise with a blur, in pixels."""
    noise = np.random.default_rng(20).normal(0, 1, (1024, 1024)).astype(np.float32)
    coarse = Image.fromarray(noise).resize(
        (int(1024 / across), int(1024 / along)), Image.Resampling.BOX
    )
    wide = np.asarray(coarse.resize((1024, 1024), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(128 + 48 * wide / wide.std(), 0, 255).astype(np.uint8))


def noise(
    rng: np.random.Generator, size: tuple[int, int], across: float, along: float
) -> Image.Image:
    """Return a random piece of `noise_tile` of the size (width, height), each at most 1024."""
    x, y = (int(rng.integers(0, 1025 - length)) for length in size)
    return noise_tile(across, along).crop((x, y, x + size[0], y + size[1]))


def tint(colour: np.ndarray) -> tuple[int, int, int]:
    """Return a colour as Pillow wants it: three integers from 0 to 255."""
    red, green, blue = (min(max(round(value), 0), 255) for value in np.asarray(colour).tolist())
    return red, green, blue
