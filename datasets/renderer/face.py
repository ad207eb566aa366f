"""Draws one synthetic face, with the exact place of its 68 points."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from datasets.renderer.hair import hair_relief
from datasets.renderer.sampling import Finish, Scene
from datasets.renderer.scene import Scenery, backdrop
from datasets.renderer.surface import Pose, Surface, normals
from datasets.renderer.texture import FacePainter

FINE = 2  # drawn this many times larger, then averaged
DENSITY = 1.15  # painted pixels per drawn pixel, along each side
# The nose's steep sides need more painted pixels than the rest: its part of the surface, factor.
NOSE = ((0.41, 0.42, 0.59, 0.66), 2)


class Wrapping:
    """Lays the painting of an unrolled surface where the camera sees its points.

    Args:
        size: Width and height of the image in pixels.
        places: Image coordinates of the coarse grid's points, (rows, columns, 2).
        facing: Positive where the surface faces the camera, (rows, columns).
        pose: Decides which points are far: they are laid first, near ones over them.
    """

    def __init__(self, size: tuple[int, int], places: np.ndarray, facing: np.ndarray, pose: Pose):
        self.size = size
        planes = np.moveaxis(places.astype(np.float32), -1, 0)
        self._planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]
        sign = np.clip(128 + 300 * facing / np.abs(facing).max(), 0, 255)
        self._facing = Image.fromarray(sign.astype(np.uint8))
        steps = (1 if pose.pitch <= 0 else -1, 1 if pose.yaw <= 0 else -1)
        self._order = tuple(slice(None, None, step) for step in steps)
        # One more pixel takes what falls outside the image or faces away.
        self._pixels = np.zeros(size[0] * size[1] + 1, np.uint32)

    def lay(self, painting: Image.Image, box: tuple[float, ...], factor: float) -> None:
        """Lay a part of the painting.

        Args:
            painting: All of the surface, RGBA.
            box: Bounds of the part: s0, t0, s1, t1, each 0-1.
            factor: On the number of the painting's pixels along each side.
        """
        width, height = self.size
        bounds = np.array(box) * (2 * painting.size)
        wide, tall = np.rint(factor * (bounds[2:] - bounds[:2])).astype(int).tolist()
        if factor != 1:
            painting = painting.resize((wide, tall), Image.Resampling.BILINEAR, tuple(bounds))
        colour = np.asarray(painting).view(np.uint32)[..., 0]
        part = tuple(np.array(box) * (2 * self._facing.size))
        x, y = (
            np.asarray(plane.resize((wide, tall), Image.Resampling.BICUBIC, part))
            for plane in self._planes
        )
        front = np.asarray(self._facing.resize((wide, tall), Image.Resampling.BILINEAR, part)) > 128
        column, row = np.rint(x).astype(np.int32), np.rint(y).astype(np.int32)
        inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = np.where(inside, row * width + column, width * height)
        self._pixels[index[self._order].ravel()] = colour[self._order].ravel()

    def image(self) -> Image.Image:
        """Return all that was laid, RGBA of the image's size, without gaps of one pixel."""
        pixels = self._pixels[:-1].reshape(self.size[::-1])
        for axis in (0, 1):
            one, other = np.roll(pixels, 1, axis), np.roll(pixels, -1, axis)
            pixels = np.where((pixels == 0) & (one != 0) & (other != 0), one, pixels)
        return Image.frombuffer("RGBA", self.size, pixels.tobytes(), "raw", "RGBA", 0, 1)


def _head(
    canvas: Image.Image, surface: Surface, scene: Scene, pose: Pose, rng: np.random.Generator
) -> None:
    """Paint the head's front surface and lay it over the canvas."""
    s, t, bare = surface.grid()
    space = hair_relief(surface, s, t, bare, rng)
    normal = normals(space) @ pose.rotation().T
    seen = pose.view(space)
    facing = (normal * (np.array([0, 0, pose.distance]) - seen)).sum(-1)
    size = (int(DENSITY * pose.scale * 3.9), int(DENSITY * pose.scale * 4.3))
    painting = FacePainter(surface, size, rng).paint(bare[..., 0], bare[..., 1])
    shade = np.rint(255 * scene.light.shade(normal)).astype(np.uint8)
    painting = ImageChops.multiply(
        painting, Image.fromarray(shade).resize(size, Image.Resampling.BICUBIC)
    )
    gloss = np.rint(255 * scene.light.gloss(normal)).astype(np.uint8)
    band = Image.fromarray(gloss).resize(size, Image.Resampling.BILINEAR)
    painting = ImageChops.add(painting, Image.merge("RGB", [band] * 3))
    painting = painting.convert("RGBA")
    wrapping = Wrapping(canvas.size, pose.project(space), facing, pose)
    wrapping.lay(painting, (0, 0, 1, 1), 1)
    wrapping.lay(painting, *NOSE)
    layer = wrapping.image()
    canvas.paste(layer, (0, 0), layer)


def _develop(image: Image.Image, finish: Finish, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera makes of an image: uint8 (height, width, 3)."""
    if finish.blur:
        image = image.filter(ImageFilter.GaussianBlur(finish.blur))
    pixels = np.array(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(finish.slope[0])
    down = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(finish.slope[1])
    field = np.float32(finish.gain * finish.contrast) * (1 + across + down[:, None])
    grey = (pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) * np.float32(
        (1 - finish.saturation) / 3
    )
    pixels *= np.float32(finish.saturation)
    pixels += grey[..., None]
    pixels *= field[..., None]
    pixels += np.float32(118 * (1 - finish.contrast) + 0.5)
    if finish.noise:
        grain = rng.standard_normal(pixels.shape, dtype=np.float32)
        grain *= np.float32(finish.noise)
        pixels += grain
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def render_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene: the image, uint8 (height, width, 3), and the 68 points in its pixels, (68, 2).

    Whole numbers are pixel centres. Points that something hides have their true place.
    """
    rng = np.random.default_rng(scene.seed)
    width, height = scene.size
    canvas = backdrop(scene.backdrop, (FINE * width, FINE * height), rng)
    surface = Surface(scene.identity, scene.expression)
    x, y = (FINE * value + (FINE - 1) / 2 for value in scene.pose.offset)
    pose = replace(scene.pose, scale=FINE * scene.pose.scale, offset=(x, y))
    scenery = Scenery(canvas, surface, pose, scene.light.shade, rng)
    scenery.behind()
    _head(canvas, surface, scene, pose, rng)
    scenery.before(scene.glasses)
    if scene.occluder != "none":
        scenery.occlude(scene.occluder)
    pixels = _develop(canvas.reduce(FINE), scene.finish, rng)
    return pixels, scene.pose.project(surface.landmarks())
