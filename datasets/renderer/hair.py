"""Hair, hats and beards of a synthetic head: where they grow, how they stand off, their paint."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from datasets.renderer.brush import noise, tint
from datasets.renderer.shape import chin_y, mouth_y
from datasets.renderer.surface import Surface, bump, smoothstep

# Hairline of each style: midline height in front and at the sides, the fraction of the half turn
# (from, to) over which it changes, how far the hair stands off, and how jagged its edge is.
HAIRLINES = {
    "receding": (-1.32, 0.55, (0.30, 0.80), 0.03, 0.03),
    "buzz": (-1.02, 0.50, (0.55, 0.85), 0.02, 0.02),
    "short": (-1.04, 0.60, (0.52, 0.85), 0.14, 0.08),
    "side": (-1.02, 0.60, (0.55, 0.85), 0.20, 0.06),
    "fringe": (-0.56, 0.80, (0.52, 0.85), 0.16, 0.12),
    "long": (-1.10, 3.20, (0.46, 0.75), 0.18, 0.03),
    "long_fringe": (-0.54, 3.20, (0.48, 0.74), 0.17, 0.08),
    "curly": (-0.96, 0.90, (0.45, 0.80), 0.30, 0.10),
    "bun": (-1.12, 0.55, (0.50, 0.85), 0.05, 0.02),
    "hat": (-0.74, 0.00, (0.55, 0.95), 0.14, 0.00),
    "headscarf": (-0.98, 4.00, (0.35, 0.70), 0.09, 0.00),
}
# Size of the strands (across, along) in pixels where it is not (2, 22).
GRAINS = {"curly": (5, 5), "hat": (3, 14), "headscarf": (30, 40)}


def hairline(surface: Surface, s: np.ndarray) -> np.ndarray:
    """Return the ``t`` above which there is hair, at each ``s``."""
    style = surface.identity.style
    front, side, (start, end), _, _ = HAIRLINES[style]
    turn = 2 * s - 1
    away = np.abs(turn)
    y = front + (side - front) * smoothstep((away - start) / (end - start))
    if style == "side":
        y = y + 0.35 * turn * smoothstep((0.6 - away) / 0.3)
    elif style == "long":  # parted in the middle
        y = y - 0.25 * np.exp(-((turn / 0.12) ** 2))
    return surface.row(y)


def hair_relief(
    surface: Surface, s: np.ndarray, t: np.ndarray, space: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the points in space, (rows, columns, 3), where hair, or else the skin, is seen.

    ``s``, ``t`` and ``space`` are the head's coarse grid; curls are random.
    """
    style = surface.identity.style
    if style == "bald":
        return space
    height = HAIRLINES[style][3] * smoothstep((hairline(surface, s) - t) / 0.07)
    if style == "curly":
        lumps = Image.fromarray(rng.normal(0, 1, (10, 9)).astype(np.float32))
        rows, columns = s.shape
        relief = np.asarray(lumps.resize((columns, rows), Image.Resampling.BICUBIC))
        height = height * (1 + 0.15 * relief)
    away = space - np.array([0, -0.3, 0.0])
    return space + height[..., None] * away / np.linalg.norm(away, axis=-1, keepdims=True)


def paint_hair(image: Image.Image, surface: Surface, rng: np.random.Generator) -> None:
    """Paint hair, hat or headscarf onto the painting of an unrolled head."""
    identity = surface.identity
    if identity.style == "bald":
        return
    s = np.linspace(0, 1, 90)
    edge = hairline(surface, s) + 0.12 * HAIRLINES[identity.style][4] * rng.normal(size=s.size)
    path = np.stack([s, edge], 1) * image.size - 0.5
    outline = np.concatenate([path, [[image.size[0], -1], [-1, -1]]])
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(outline.ravel().tolist(), fill=255)
    cloth = identity.style in ("hat", "headscarf")
    if not cloth:
        mask = mask.filter(ImageFilter.BoxBlur(1.5))
    colour = identity.cloth if cloth else identity.hair
    strands = noise(rng, image.size, *GRAINS.get(identity.style, (2, 22)))
    low, high = 0.55 * colour, 1.45 * colour + (0 if cloth else 10)
    ramp = np.clip(np.linspace(low, high, 256), 0, 255).astype(int)
    bands = [strands.point(ramp[:, band].tolist()) for band in range(3)]
    image.paste(Image.merge("RGB", bands), (0, 0), mask)


def paint_beard(
    image: Image.Image, surface: Surface, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> None:
    """Paint a beard onto the painting of an unrolled head.

    (x, y) is the front view of the coarse grid, (rows, columns).
    """
    identity, opening = surface.identity, surface.expression.opening
    if identity.beard == "none":
        return
    mouth, away = mouth_y(identity), np.abs(x)
    chin = chin_y(identity, surface.expression)
    lips = bump(x, y, (0, mouth + 0.5 * opening), (0.36, 0.12 + 0.5 * opening)) > 0.5
    cheek_line = mouth - 0.15 - 0.9 * np.maximum(away - 0.45, 0)
    full = smoothstep((y - cheek_line) / 0.2)
    upper = bump(away, y, (0.18, mouth - 0.19), (0.30, 0.085)) * 1.6
    goatee = bump(x, y, (0, chin - 0.15), (0.34, 0.30)) * 1.5
    fields = {
        "stubble": 0.5 * np.maximum(full, upper),
        "moustache": upper,
        "goatee": np.maximum(upper, goatee),
        "full": np.maximum(full, upper),
    }
    alpha = np.clip(fields[identity.beard], 0, 1) * ~lips * 0.9
    mask = Image.fromarray(np.rint(255 * alpha).astype(np.uint8))
    strands = noise(rng, image.size, 1.5, 5.0).point([min(255, 80 + v) for v in range(256)])
    mask = ImageChops.multiply(mask.resize(image.size, Image.Resampling.BILINEAR), strands)
    image.paste(tint(0.8 * identity.hair), (0, 0), mask)
