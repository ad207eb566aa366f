"""What surrounds a synthetic face: backdrop, body, back of the head, glasses, things in the way.

Everything is drawn in place on a Pillow canvas; a `Pose` given here already maps to its pixels.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.renderer.brush import curve, tint
from datasets.renderer.hair import HAIRLINES
from datasets.renderer.surface import Pose, Surface

# Few families of calm colours, so that a backdrop does not tell one image from all others.
PALETTE = np.array(
    [(196, 190, 180), (150, 160, 170), (96, 104, 112), (122, 108, 92), (104, 120, 98), (64, 62, 66)]
)
GARMENTS = np.array(
    [(52, 56, 70), (196, 196, 200), (120, 54, 52), (70, 92, 116), (88, 98, 76), (34, 34, 38)]
)
BACKDROPS = ("plain", "clouds", "panels", "bokeh", "bricks", "outdoors")
OCCLUDERS = ("hand", "card", "bars", "scarf", "microphone")


def backdrop(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw one of `BACKDROPS`, RGB, of the size (width, height) in pixels."""
    small = (96, 96 * size[1] // size[0])
    first, second = (PALETTE[rng.integers(len(PALETTE), size=2)] + rng.normal(0, 9, (2, 3))).clip(0)
    ramp = rng.uniform(0, 1, (3, 2, 1)) * 0.6
    colours = np.clip(first * (1 - ramp) + second * ramp, 0, 255).astype(np.uint8)
    image = Image.fromarray(colours).resize(small, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if kind == "clouds":
        mask = Image.fromarray(rng.integers(0, 256, (7, 6), dtype=np.uint8))
        image.paste(tint(second), (0, 0), mask.resize(small, Image.Resampling.BICUBIC))
    elif kind == "panels":
        edges = np.cumsum(rng.integers(8, 30, 8))
        for left, right in zip(edges[::2], edges[1::2], strict=False):
            draw.rectangle([left, 0, right, small[1]], fill=tint(second * rng.uniform(0.7, 1.1)))
        draw.rectangle([0, int(small[1] * rng.uniform(0.7, 1.0)), *small], fill=tint(0.7 * first))
    elif kind == "bokeh":
        for x, y, r in rng.uniform((0, 0, 3), (*small, 11), (14, 3)):
            glow = tint(second * rng.uniform(0.8, 1.5))
            draw.ellipse([x - r, y - r, x + r, y + r], fill=glow)
    elif kind == "bricks":
        tall = int(rng.integers(9, 15))
        for row, y in enumerate(range(0, small[1], tall)):
            for x in range(-(row % 2) * tall, small[0], 2 * tall):
                brick = tint(second * rng.uniform(0.85, 1.1))
                draw.rectangle([x + 1, y + 1, x + 2 * tall - 1, y + tall - 1], fill=brick)
    elif kind == "outdoors":
        x = np.linspace(0, small[0], 12)
        y = small[1] * rng.uniform(0.3, 0.8) + rng.normal(0, 4, 12)
        hills = [*zip(x.tolist(), y.tolist(), strict=True), small, (0, small[1])]
        draw.polygon(hills, fill=tint(0.8 * PALETTE[4] * rng.uniform(0.6, 1.1)))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.5)))
    return image.resize(size, Image.Resampling.BILINEAR)


class Scenery:
    """Draws what belongs to the person but not to the head's front surface.

    Args:
        canvas: RGB image to draw on.
        surface: The head.
        pose: The head's pose in the canvas's pixels.
        shade: Maps unit normals (n, 3) in the camera's axes to factors on the colour, (n, 3).
        rng: Samples clothes, glasses and what else the scene leaves open.
    """

    def __init__(
        self,
        canvas: Image.Image,
        surface: Surface,
        pose: Pose,
        shade: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
    ):
        self.canvas, self.surface, self.pose, self.rng = canvas, surface, pose, rng
        self.shade = shade
        self.identity = surface.identity
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.body = replace(pose, yaw=0.4 * pose.yaw, pitch=0.2 * pose.pitch, roll=0.6 * pose.roll)

    def _lit(self, colour: np.ndarray, normal: tuple) -> np.ndarray:
        unit = np.array([normal]) / np.linalg.norm(normal)
        return colour * self.shade(unit)[0]

    def _polygon(self, path: np.ndarray, colour: np.ndarray, alpha: int = 255) -> None:
        self.draw.polygon(path.ravel().tolist(), fill=(*tint(colour), alpha))

    def _disc(self, middle: np.ndarray, radius: float, colour: np.ndarray) -> None:
        box = np.concatenate([middle - radius, middle + radius])
        self.draw.ellipse(box.tolist(), fill=tint(colour))

    def _fill(self, pose: Pose, points: np.ndarray, colour: np.ndarray, alpha: int = 255) -> None:
        self._polygon(pose.project(points), colour, alpha)

    def _line(self, points: np.ndarray, colour: np.ndarray, width: float) -> None:
        path = self.pose.project(points).ravel().tolist()
        wide = max(2, round(width * self.pose.scale))
        self.draw.line(path, fill=tint(colour), width=wide, joint="curve")

    def behind(self) -> None:
        """Draw what the head hides in part: long hair, neck, clothes, skull and the far ear."""
        if self.identity.style in ("long", "long_fringe", "headscarf"):
            self._long_hair()
        self._neck_and_clothes()
        self._skull()
        if self._ears_show():
            self._ear(1 if self.pose.yaw > 0 else -1)

    def before(self, glasses: str) -> None:
        """Draw what lies over the head: the near ear and glasses ("none", "clear", "dark")."""
        if self._ears_show():
            self._ear(-1 if self.pose.yaw > 0 else 1)
        if glasses != "none":
            self._glasses(glasses)

    def _ears_show(self) -> bool:
        return self.identity.style not in ("long", "long_fringe", "headscarf", "curly")

    def _hair_colour(self) -> np.ndarray:
        identity = self.identity
        if identity.style == "bald":
            return identity.skin
        return identity.cloth if identity.style in ("hat", "headscarf") else identity.hair

    def _long_hair(self) -> None:
        length = self.rng.uniform(1.9, 3.0)
        side = [(1.15, -0.7), (1.36, 0.1), (1.42, 0.9), (1.4, 0.75 * length), (1.2, length)]
        right = np.array(side) + self.rng.normal(0, 0.05, (5, 2))
        left = (np.array(side) + self.rng.normal(0, 0.05, (5, 2)))[::-1] * [-1, 1]
        outline = curve(np.concatenate([right, left]), closed=True)
        pose = replace(self.body, yaw=0.7 * self.pose.yaw, roll=0.8 * self.pose.roll)
        space = np.concatenate([outline, np.full((len(outline), 1), -0.45)], 1)
        colour = self._lit(0.8 * self._hair_colour(), (0, 0, 1))
        self._fill(pose, space, colour)
        for x, tone in self.rng.uniform((-1.35, 0.7), (1.35, 1.3), (14, 2)):
            strand = np.array([[x, 0.2, -0.4], [x * 1.03, 1.2, -0.4], [x, 0.95 * length, -0.4]])
            path = pose.project(curve(strand)).ravel().tolist()
            self.draw.line(path, fill=tint(tone * colour), width=max(2, int(0.05 * pose.scale)))

    def _neck_and_clothes(self) -> None:
        skin, pose = self._lit(self.identity.skin, (0, 0.3, 1)), self.body
        half = 0.52 * self.surface.width
        for step in np.linspace(0, 1, 8):
            top, wide, low = 0.9 + 1.1 * step, half * (1 + 0.12 * step), 1.25 * half
            corners = [(-wide, top), (wide, top), (low, 4.0), (-low, 4.0)]
            strip = np.array([(x, y, -0.2) for x, y in corners])
            self._fill(pose, strip, (0.45 + 0.5 * step) * skin)
        cloth = self._lit(GARMENTS[self.rng.integers(len(GARMENTS))], (0, -0.4, 1))
        cloth = cloth * self.rng.uniform(0.85, 1.15)
        slope, neck = self.rng.uniform(2.5, 2.9), self.rng.uniform(0.05, 0.9)
        right = np.array([(0, 2.45 + neck), (0.9 * half, 2.3), (1.3 * half, 2.1), (1.9, slope)])
        right = np.concatenate([right, [(2.6, slope + 0.5), (3.0, slope + 7.0)]])
        path = np.concatenate([right, right[:0:-1] * [-1, 1]])
        self._fill(pose, np.concatenate([path, np.full((len(path), 1), -0.15)], 1), cloth)
        for side in (-1, 1):
            lapel = [(0.0, 2.5 + neck), (side * 0.95 * half, 2.28), (side * 0.8, 2.9)]
            space = np.concatenate([lapel, np.full((3, 1), -0.1)], 1)
            self._fill(pose, space, 0.8 * cloth)

    def _skull(self) -> None:
        """Draw the back of the head: the outline that an ellipsoid has on the screen."""
        style, pose = self.identity.style, self.pose
        puff = HAIRLINES[style][3] if style != "bald" else 0.0
        traits = self.identity.traits
        radii = np.array([traits["width"], 1.38 * traits["skull"], 1.30 * traits["depth"]]) + puff
        middle = np.array([[0.0, -0.40, -0.22]])
        turned = pose.rotation()[:2] * radii
        factor = np.linalg.cholesky(turned @ turned.T)
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        wobble = 1 + (0.03 * self.rng.normal(size=60) if style == "curly" else 0)
        ring = factor @ (np.stack([np.cos(angle), np.sin(angle)]) * wobble)
        path = ring.T * pose.scale + pose.project(middle)
        colour = self._lit(0.85 * self._hair_colour(), (0, -0.6, 0.6))
        self._polygon(path, colour)
        if style == "bun":
            bun = pose.project(np.array([0, -1.95 * traits["skull"], -0.5]))
            self._disc(bun, 0.45 * pose.scale, colour)

    def _ear(self, side: int) -> None:
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        wide = self.surface.width
        lobe = np.stack([0 * angle, 0.22 - 0.30 * np.cos(angle), 0.17 * np.sin(angle)], 1)
        lobe[:, 0] = side * (wide - 0.03 + 0.10 * (0.5 - 0.5 * np.sin(angle)))
        skin = self._lit(self.identity.skin * [1.0, 0.92, 0.92], tuple(self.pose.rotation()[:, 0]))
        skin = 0.5 * skin + 0.5 * self._lit(self.identity.skin, (side * 0.5, 0, 1))
        self._fill(self.pose, lobe, 0.92 * skin)
        middle = lobe.mean(0)
        self._fill(self.pose, middle + 0.55 * (lobe - middle), 0.68 * skin)

    def _glasses(self, kind: str) -> None:
        rng, points = self.rng, self.surface.points
        front = self.surface.positions(np.array([[0.0, 0.0]]))[0, 2] + 0.10
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        power = rng.uniform(0.45, 1.0)
        wide, tall = rng.uniform(0.32, 0.39), rng.uniform(0.23, 0.33)
        unit = np.stack([np.cos(angle), np.sin(angle)], 1)
        unit = np.sign(unit) * np.abs(unit) ** power * [wide, tall]
        frame = np.array([(24, 22, 22), (92, 60, 40), (140, 140, 146)][rng.integers(3)])
        thick = rng.uniform(0.035, 0.075)
        for side, lens in ((-1, points[36:42]), (1, points[42:48])):
            middle = np.array([*(lens.mean(0) + [side * 0.03, 0.04]), front])
            rim = np.concatenate([unit, -0.35 * side * unit[:, :1]], 1) + middle
            self._fill(self.pose, rim, np.array([16, 16, 20]), 215 if kind == "dark" else 26)
            glare = middle + np.array([[-0.2, 0.1, 0], [0.02, -0.2, 0], [0.1, -0.2, 0]])
            self._fill(self.pose, glare, np.array([255, 255, 255]), 40)
            self._line(np.concatenate([rim, rim[:2]]), frame, thick)
            if side * self.pose.yaw < 0.14:
                hinge = middle + [side * wide, -0.06, -0.12]
                self._line(np.array([hinge, (side * self.surface.width, 0, 0)]), frame, thick)
        bridge = np.array([[-0.17, 0, front], [0, -0.04, front + 0.03], [0.17, 0, front]])
        self._line(curve(bridge), frame, thick)

    def occlude(self, kind: str) -> None:
        """Draw one of `OCCLUDERS` in front of the face; the points stay where they are."""
        rng, unit, on = self.rng, self.pose.scale, self.surface.points
        where = self.pose.project(self.surface.positions(on[rng.integers(0, 68, 1)]))[0]
        if kind == "hand":
            self._hand(where, unit)
        elif kind == "card":
            turn = rng.uniform(0, np.pi)
            half = unit * rng.uniform(0.25, 0.75, 2)
            corner = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
            c, s = np.cos(turn), np.sin(turn)
            path = corner @ np.array([[c, s], [-s, c]]) + where
            self._polygon(path, PALETTE[rng.integers(6)])
        elif kind == "bars":
            turn, tone = rng.uniform(-0.5, 0.5), tint(PALETTE[rng.integers(6)] * 0.8)
            across = np.array([np.cos(turn), np.sin(turn)])
            along = 20 * unit * across[::-1] * [-1, 1]
            for k in range(-4, 5):
                middle = where + k * 0.85 * unit * across
                path = [*(middle - along).tolist(), *(middle + along).tolist()]
                self.draw.line(path, fill=tone, width=max(2, int(0.13 * unit)))
        elif kind == "scarf":
            top = on[[1, 2, rng.choice([33, 51, 57]), 14, 15]]
            edge = self.surface.positions(curve(top)) + [0, 0, 0.06]
            self._fill(self.pose, edge, PALETTE[rng.integers(6)] * 0.9)
            body = np.concatenate([edge, [(1.5, 3.2, 0.3), (-1.5, 3.2, 0.3)]])
            self._fill(self.pose, body, GARMENTS[rng.integers(6)] * 0.9)
        else:
            self._line(np.array([(0.1, 1.5, 1.9), (0.5, 3.6, 1.9)]), np.array([40, 40, 42]), 0.12)
            head = self.pose.project(np.array([0.1, 1.35, 1.9]))
            self._disc(head, 0.24 * unit, np.array([58, 58, 62]))

    def _hand(self, where: np.ndarray, unit: float) -> None:
        rng = self.rng
        skin = self._lit(self.identity.skin, (0, 0, 1)) * rng.uniform(0.85, 1.0)
        turn = rng.uniform(-0.8, 0.8)
        up = np.array([np.sin(turn), -np.cos(turn)])
        across = np.array([up[1], -up[0]])
        for k, length in enumerate((0.75, 0.95, 1.0, 0.8)):
            root = where + (k - 1.5) * 0.22 * unit * across
            end = root + length * unit * up + (k - 1.5) * 0.06 * unit * across
            for tone, wide in ((0.62, 0.25), (1.0, 0.21)):
                path = [*root.tolist(), *end.tolist()]
                self.draw.line(path, fill=tint(tone * skin), width=int(wide * unit))
                self._disc(end, wide * unit / 2, tone * skin)
        palm = [(-1.6, 0.0), (1.6, 0.0), (1.7, -3.2), (1.2, -14), (-1.2, -14), (-1.7, -3.2)]
        outline = where + unit * np.array([0.28 * a * across + 0.25 * b * up for a, b in palm])
        self._polygon(outline, 0.94 * skin)
