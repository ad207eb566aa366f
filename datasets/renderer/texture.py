"""Paints the skin, features and hair of a synthetic head onto its unrolled surface."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from datasets.renderer.brush import curve, noise, tint
from datasets.renderer.hair import paint_beard, paint_hair
from datasets.renderer.surface import Surface, bump

TEETH = np.array([232.0, 226.0, 212.0])
TONGUE = np.array([150.0, 62.0, 66.0])


class FacePainter:
    """Paints one head's surface.

    Args:
        surface: The head.
        size: Width (along ``s``) and height (along ``t``) of the painting in pixels.
        rng: Generator of everything random.
    """

    def __init__(self, surface: Surface, size: tuple[int, int], rng: np.random.Generator):
        self.surface, self.size, self.rng = surface, size, rng
        self.identity, self.expression = surface.identity, surface.expression
        self.points = surface.points
        # Pixels per unit of length, across and down, in the middle of the face.
        corner = self.at(np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, 0.7]]))
        self.unit = corner[1, 0] - corner[0, 0]
        self.image = Image.new("RGB", size)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return where Pillow draws the points of a front view, (n, 2)."""
        # Less half a pixel, since whole numbers are pixel centres, plus one half, since Pillow
        # cuts off what follows the decimal point.
        return self.surface.parameters(points) * self.size

    def fill(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Fill the polygon around the front-view points (n, 2)."""
        self.draw.polygon(self.at(points).ravel().tolist(), fill=tint(colour))

    def line(self, points: np.ndarray, colour: np.ndarray, width: float) -> None:
        """Draw a line of the given width (units of length) along the front-view points."""
        pixels = max(1, round(width * self.unit))
        path = self.at(points).ravel().tolist()
        self.draw.line(path, fill=tint(colour), width=pixels, joint="curve")

    def paint(self, x: np.ndarray, y: np.ndarray) -> Image.Image:
        """Return the painting, RGB; (x, y) is the coarse grid's front view, (rows, columns)."""
        self._skin(x, y)
        for side in (0, 1):
            self._brow(self.points[17 + 5 * side : 22 + 5 * side])
            self._eye(self.points[36 + 6 * side : 42 + 6 * side])
        self._nose()
        self._mouth()
        grain = noise(self.rng, self.size, 1.0, 1.0)
        speckle = grain.point([int(255 - 0.16 * abs(v - 128)) for v in range(256)])
        self.image = ImageChops.multiply(self.image, Image.merge("RGB", [speckle] * 3))
        paint_beard(self.image, self.surface, x, y, self.rng)
        paint_hair(self.image, self.surface, self.rng)
        return self.image

    def _skin(self, x: np.ndarray, y: np.ndarray) -> None:
        identity, skin = self.identity, self.identity.skin
        traits, away = identity.traits, np.abs(x)
        tip = traits["nose_len"] * traits["lower"]
        red = np.array([0.02, -0.16, -0.13])
        layers = [
            (self.rng.uniform(0.2, 1.0) * red, bump(away, y, (0.62, 0.55), (0.28, 0.24))),
            (self.rng.uniform(0.2, 0.8) * red, bump(x, y, (0, tip), (0.20, 0.16))),
            (-0.20 * np.array([0.8, 1.0, 0.9]), bump(away, y, (0.47, -0.10), (0.27, 0.16))),
            (-0.13 * np.array([1, 1, 0.9]), bump(away, y, (0.45, 0.17), (0.20, 0.07))),
            (-0.30 * np.ones(3), bump(x, y, (traits["nose_x"], tip + 0.17), (0.24, 0.06))),
            (-0.20 * np.ones(3), bump(away, y, (traits["nose_w"] + 0.05, tip), (0.06, 0.12))),
            (0.06 * np.ones(3), bump(x, y, (0, -0.7), (0.5, 0.25))),
            (0.10 * np.ones(3), np.exp(-((x / 0.05) ** 2)) * (y > 0.1) * (y < tip)),
        ]
        factor = 1 + sum(hill[..., None] * colour for colour, hill in layers)
        small = Image.fromarray(self.rng.normal(1, 0.025, (8, 7)).astype(np.float32))
        blotch = np.asarray(small.resize(x.shape[::-1], Image.Resampling.BICUBIC))
        albedo = np.clip(skin * factor * blotch[..., None], 0, 255)
        coarse = Image.fromarray(np.rint(albedo).astype(np.uint8))
        self.image = coarse.resize(self.size, Image.Resampling.BILINEAR)
        self.draw = ImageDraw.Draw(self.image)

    def _brow(self, middle: np.ndarray) -> None:
        thick = self.identity.traits["brow_thick"]
        colour = 0.72 * self.identity.hair + 0.12 * self.identity.skin
        outer_first = middle[0, 0] < 0
        taper = np.array([0.35, 0.8, 1.0, 1.05, 0.85])[:, None] * thick
        taper = taper if outer_first else taper[::-1]
        path, half = curve(middle, steps=3), curve(taper, steps=3)
        up = np.concatenate([0 * half, half], 1)
        self.fill(np.concatenate([path - up, (path + up)[::-1]]), colour)
        for _ in range(5):
            place = self.rng.integers(1, len(path) - 1)
            tip = path[place] + [np.sign(path[place, 0]) * 0.05, -1.3 * half[place, 0]]
            self.line(np.stack([path[place], tip]), colour, 0.015)

    def _eye(self, lids: np.ndarray) -> None:
        """Paint one eye, given its six points from the image's left corner clockwise."""
        skin, expression = self.identity.skin, self.expression
        upper, lower = curve(lids[:4]), curve(lids[[3, 4, 5, 0]])
        half = np.ptp(lids[:, 0]) / 2
        lash = 0.25 * np.minimum(self.identity.hair, 60) + 0.06 * skin
        self.fill(np.concatenate([upper + [0, -0.055], upper[::-1]]), 0.82 * skin)
        self.line(upper + [0, -0.045] + [0, -0.012], 0.62 * skin, 0.018)
        outline = self.at(np.concatenate([upper, lower[1:-1]]))
        low = np.floor(outline.min(0)).astype(int) - 2
        wide, tall = (int(v) for v in np.ceil(outline.max(0)) - low + 3)
        size = (wide, tall)
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon((outline - low).ravel().tolist(), fill=255)
        clean = self.identity.traits["cheek"] / 0.08  # of the white of the eye, 0-1
        ball = Image.new("RGB", size, tint(np.array([226, 222, 216]) * (0.82 + 0.18 * clean)))
        pen = ImageDraw.Draw(ball)
        middle = lids.mean(0) + np.array(expression.gaze) * [half, self.identity.traits["eye_h"]]

        def disc(shift: tuple, radius: float, colour: np.ndarray) -> None:
            turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
            ring = middle + shift + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
            pen.polygon((self.at(ring) - low).ravel().tolist(), fill=tint(colour))

        disc((0, 0), 0.118, 0.45 * self.identity.iris)
        disc((0, 0), 0.098, self.identity.iris)
        disc((0, 0), 0.055, np.array([12, 10, 10]))
        disc((-0.035, -0.04), 0.022, np.array([250, 250, 250]))
        shade = self.at(np.concatenate([upper, (upper + [0, 0.03])[::-1]]))
        pen.polygon((shade - low).ravel().tolist(), fill=tint(0.5 * skin * 0.6))
        self.image.paste(ball, (int(low[0]), int(low[1])), mask)
        self.line(lower, 0.62 * skin, 0.016)
        self.line(upper, lash, 0.040)
        corner = lids[0] if lids[0, 0] < -0.5 else lids[3]
        wing = corner + [np.sign(corner[0]) * 0.05, -0.035]
        self.line(np.stack([corner, wing]), lash, 0.025)

    def _nose(self) -> None:
        skin, points = self.identity.skin, self.points
        base, wide = points[31:36], self.identity.traits["nose_w"]
        for side, edge, hole in ((-1, base[0], base[1]), (1, base[4], base[3])):
            wing = np.array([[-0.2, 0.12], [0.25, 0.02], [0.35, -0.10], [0.0, -0.18]])
            wing = edge + wing * [side * wide * 0.5, 1]
            self.line(curve(wing), 0.62 * skin, 0.022)
            turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            ring = np.stack([0.30 * wide * np.cos(turn), 0.038 * np.sin(turn)], 1)
            self.fill(hole + [0, -0.02] + ring, 0.25 * skin)
        self.line(curve(base[1:4] + [0, 0.02]), 0.66 * skin, 0.02)

    def _mouth(self) -> None:
        skin, lip, p = self.identity.skin, self.identity.lip, self.points
        left, right = p[48], p[54]
        upper, under = curve(p[48:55]), curve(np.concatenate([p[54:60], p[48:49]]))
        inner_up = curve(np.concatenate([[left], p[60:65], [right]]))
        inner_low = curve(np.concatenate([[right], p[64:68], p[60:61], [left]]))
        self.fill(np.concatenate([under, inner_low[::-1]]), 1.06 * lip)
        self.fill(np.concatenate([upper, inner_up[::-1]]), 0.88 * lip)
        gap = self.expression.opening
        if gap > 0.015:
            self.fill(np.concatenate([inner_up, inner_low]), np.array([52, 18, 20]))
            if gap > 0.22:
                low = p[[65, 66, 67]] + [0, -0.015]
                high = low[::-1] + [0, -0.3 * gap]
                self.fill(curve(np.concatenate([low, high]), closed=True), TONGUE)
            deep = np.array([0, min(0.55 * gap, 0.10)])
            teeth = p[60:65] * [0.86, 1]
            edge = np.concatenate([teeth[:1], teeth[1:4] + deep, teeth[4:]])
            self.fill(np.concatenate([curve(teeth), curve(edge)[::-1]]), TEETH)
        dark = 0.35 * lip
        self.line(inner_up, dark, 0.02)
        self.line(inner_low, dark, 0.014 if gap > 0.015 else 0.02)
        self.line(np.stack([left - [0.02, 0], left + [0.03, 0]]), 0.5 * skin, 0.03)
        self.line(np.stack([right - [0.03, 0], right + [0.02, 0]]), 0.5 * skin, 0.03)
        for side, corner in ((-1, left), (1, right)):
            start = self.points[31 if side < 0 else 35] + [side * 0.07, -0.02]
            fold = np.stack([start, start + [side * 0.12, 0.14], corner + [side * 0.10, -0.05]])
            self.line(curve(fold), (0.86 - 0.10 * max(self.expression.smile, 0)) * skin, 0.02)
