"""Samples everything that decides a synthetic image, except for the small brush strokes."""

from dataclasses import dataclass, replace

import numpy as np

from datasets.renderer.scene import BACKDROPS, OCCLUDERS
from datasets.renderer.shape import Expression, Identity, five_points, sample_expression
from datasets.renderer.surface import Pose, Surface

BACKDROP_ODDS = (0.26, 0.24, 0.14, 0.12, 0.10, 0.14)


@dataclass(frozen=True)
class FaceFraming:
    """Where in an image a face may lie.

    Args:
        size: Width and height in pixels.
        window: Bounds of the 5 points in pixels: x0, y0, x1, y1.
        eyes: Smallest and largest distance between the eye centres in pixels.
        spread: Standard deviation of the face's place about the window's middle, pixels.
        whole: Whether all 68 points must lie in the image.
    """

    size: tuple[int, int]
    window: tuple[float, float, float, float]
    eyes: tuple[float, float]
    spread: float
    whole: bool = False

    def holds(self, points: np.ndarray) -> bool:
        """Return whether the face with these 68 points (68, 2) lies where it may."""
        five, (low, high) = five_points(points), np.array(self.window).reshape(2, 2)
        fits = ((five >= low) & (five <= high)).all()
        if self.whole:
            fits &= ((points >= 0) & (points <= np.array(self.size) - 1)).all()
        return bool(fits)


@dataclass(frozen=True)
class Light:
    """One distant lamp and the light from everywhere.

    Args:
        direction: Unit vector to the lamp in the camera's axes, (3,).
        ambient: RGB factor of the light from everywhere, 0-1.
        lamp: RGB factor of the lamp, 0-1.
    """

    direction: np.ndarray
    ambient: np.ndarray
    lamp: np.ndarray

    def shade(self, normal: np.ndarray) -> np.ndarray:
        """Return RGB factors, 0-1, for unit normals (..., 3) in the camera's axes."""
        facing = np.clip(0.15 + 0.85 * (normal @ self.direction), 0, 1)[..., None]
        return np.clip(self.ambient + self.lamp * facing, 0, 1)

    def gloss(self, normal: np.ndarray) -> np.ndarray:
        """Return the brightness, 0-1, that the lamp's reflection adds for unit normals (..., 3)."""
        half = self.direction + np.array([0.0, 0.0, 1.0])
        half = half / np.linalg.norm(half)
        return 0.22 * self.lamp.mean() * np.clip(normal @ half, 0, 1) ** 14


@dataclass(frozen=True)
class Finish:
    """What the camera does to an image.

    Args:
        gain: Factor on the brightness.
        contrast: Factor on the distance from middle grey.
        saturation: Factor on the distance from grey of the same brightness.
        slope: Change of the brightness from the middle to an edge, (x, y), as a fraction.
        blur: Standard deviation of the blur in pixels.
        noise: Standard deviation of the sensor noise in grey levels.
    """

    gain: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    slope: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything that decides an image of ``size`` (width, height) pixels."""

    size: tuple[int, int]
    identity: Identity
    expression: Expression
    pose: Pose
    light: Light
    backdrop: str  # one of `BACKDROPS`
    glasses: str  # "none", "clear" or "dark"
    occluder: str  # "none" or one of `OCCLUDERS`
    finish: Finish
    seed: int  # decides the small strokes


# Of an unaligned CelebA: what remains of a 178 x 218 image when rows 30-208 are kept, resized to
# 136 x 136 and cut by 20 pixels on each side, less a margin of 3 pixels.
CELEBA_FRAMING = FaceFraming((178, 218), (29.5, 59.5, 148.5, 178.5), (22.0, 50.0), 9.0)


def _truncated(rng: np.random.Generator, sigma: float, limit: float) -> float:
    """Sample a normal variable of mean 0, anew until it is within ``limit``."""
    while True:
        value = rng.normal(0, sigma)
        if abs(value) <= limit:
            return float(value)


def sample_pose(
    rng: np.random.Generator, identity: Identity, expression: Expression, framing: FaceFraming
) -> Pose:
    """Sample a pose that keeps the face where the framing wants it."""
    degrees = [_truncated(rng, *limits) for limits in ((15, 35), (8, 20), (17, 40))]
    yaw, pitch, roll = np.radians(degrees)
    pose = Pose(yaw, pitch, roll, rng.uniform(9, 22), 1.0, (0.0, 0.0))
    points = pose.project(Surface(identity, expression).landmarks())
    five = five_points(points)
    middle = five.mean(0)
    wanted = framing.eyes[0] + rng.beta(2.0, 2.0) * np.ptp(framing.eyes)
    scale = wanted / np.linalg.norm(five[1] - five[0])
    low, high = np.array(framing.window).reshape(2, 2)
    while True:
        place = (low + high) / 2 + rng.normal(0, framing.spread, 2)
        offset = place - middle * scale
        if framing.holds(points * scale + offset):
            return replace(pose, scale=float(scale), offset=tuple(offset.tolist()))


def _sample_light(rng: np.random.Generator) -> Light:
    """Sample a lamp, mostly from above and from the front or the side."""
    turn, rise = rng.normal(0, 0.75), rng.normal(0.45, 0.35)
    direction = np.array([np.sin(turn) * np.cos(rise), -np.sin(rise), np.cos(turn) * np.cos(rise)])
    ambient = rng.uniform(0.30, 0.60)
    warm = 1 + 0.10 * rng.normal() * np.array([1.0, 0.1, -1.0])
    cool = 1 + 0.06 * rng.normal() * np.array([1.0, 0.1, -1.0])
    return Light(direction, ambient * cool, (1.02 - ambient) * rng.uniform(0.8, 1.1) * warm)


def _sample_finish(rng: np.random.Generator) -> Finish:
    """Sample a camera: mostly sharp and clean, sometimes blurred, noisy or nearly grey."""
    return Finish(
        gain=float(rng.uniform(0.85, 1.22)),
        contrast=float(rng.uniform(0.75, 1.2)),
        saturation=float(rng.uniform(0.6, 1.2) if rng.random() > 0.06 else 0.0),
        slope=tuple(rng.normal(0, 0.14, 2).clip(-0.35, 0.35).tolist()),
        blur=float(rng.uniform(0.4, 1.1) if rng.random() < 0.35 else 0.0),
        noise=float(rng.uniform(1.0, 7.0)),
    )


def sample_scene(rng: np.random.Generator, identity: Identity, framing: FaceFraming) -> Scene:
    """Sample everything that decides an image of a person."""
    expression = sample_expression(rng)
    pose = sample_pose(rng, identity, expression, framing)
    wears = rng.random() < (0.8 if identity.glasses else 0.03)
    glasses = str(rng.choice(["clear", "dark"], p=[0.85, 0.15])) if wears else "none"
    occluder = str(rng.choice(OCCLUDERS)) if rng.random() < 0.13 else "none"
    return Scene(
        size=framing.size,
        identity=identity,
        expression=expression,
        pose=pose,
        light=_sample_light(rng),
        backdrop=str(rng.choice(BACKDROPS, p=BACKDROP_ODDS)),
        glasses=glasses,
        occluder=occluder,
        finish=_sample_finish(rng),
        seed=int(rng.integers(2**31)),
    )
