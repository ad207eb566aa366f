"""The skin and hair of a synthetic head as a surface in space, and the camera that looks at it.

A head is spanned by two parameters, both in [0, 1]: ``s`` runs from the left ear over the face to
the right ear, ``t`` from the crown down the profile to below the chin. Space has the axes of
`datasets.renderer.shape` and ``z`` towards the camera.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from datasets.renderer.shape import (
    CHIN_Y,
    EAR_Y,
    Expression,
    Identity,
    chin_y,
    frontal_points,
    mouth_y,
)

SPAN = np.radians(88.0)
# The profile of an average head without its nose, from behind the crown to the throat: (y, z).
_PROFILE = np.array(
    [
        *((-1.74, -0.35), (-1.80, 0.05), (-1.72, 0.45), (-1.50, 0.83), (-1.15, 1.11)),
        *((-0.75, 1.26), (-0.30, 1.33), (0.00, 1.28), (0.30, 1.29), (0.70, 1.32)),
        *((1.05, 1.35), (1.40, 1.35), (1.66, 1.30), (1.80, 1.14), (1.79, 0.90)),
        *((1.74, 0.60), (1.66, 0.35)),
    ]
)
_ARC = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(_PROFILE, axis=0).T))])
_CURVE = PchipInterpolator(_ARC / _ARC[-1], _PROFILE)
_T = np.linspace(0, 1, 400)
_TABLE = _CURVE(_T)  # (400, 2)
_TOP, _BOTTOM = int(_TABLE[:, 0].argmin()), int(_TABLE[:, 0].argmax())
SKULL_EXPONENT = 0.8
ROWS, COLUMNS = 64, 56
CENTRE = np.array([0.0, 0.35, 0.3])


def smoothstep(value: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 (value <= 0) to 1 (value >= 1)."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def bump(x: np.ndarray, y: np.ndarray, centre: tuple, size: tuple) -> np.ndarray:
    """Return a Gaussian hill of height 1 about ``centre``, of widths ``size``, both (x, y)."""
    return np.exp(-(((x - centre[0]) / size[0]) ** 2) - ((y - centre[1]) / size[1]) ** 2)


@dataclass(frozen=True)
class Pose:
    """How the head is turned and where the image has it.

    Args:
        yaw: Turn in radians; positive points the nose to the image's right.
        pitch: Nod in radians; positive points the nose down.
        roll: In-plane rotation in radians, clockwise on the screen.
        distance: From the camera to the head, in units of the distance between the eyes.
        scale: Pixels per unit.
        offset: Image coordinates of the head's centre, pixels, (x, y).
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    distance: float = 12.0
    scale: float = 40.0
    offset: tuple[float, float] = (88.5, 100.0)

    def rotation(self) -> np.ndarray:
        """Return the matrix (3, 3) that turns the head; it acts on column vectors."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        nod = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ nod @ turn

    def view(self, space: np.ndarray) -> np.ndarray:
        """Turn points (..., 3) in space to the camera's axes, about the head's centre."""
        return (space - CENTRE) @ self.rotation().T

    def project(self, space: np.ndarray) -> np.ndarray:
        """Return where points (..., 3) in space are in the image, (..., 2) pixels."""
        seen = self.view(space)
        zoom = self.scale * self.distance / (self.distance - seen[..., 2:])
        return seen[..., :2] * zoom + np.asarray(self.offset)


class Surface:
    """The surface of one head, and its 68 ``points`` (68, 2) seen from the front."""

    def __init__(self, identity: Identity, expression: Expression):
        self.identity = identity
        self.expression = expression
        traits = identity.traits
        self.width, self.jaw = traits["width"], traits["jaw"]
        self.points = frontal_points(identity, expression)
        lower = chin_y(identity, expression) / CHIN_Y
        # The average profile with this person's proportions, (400,) each.
        self._y = _TABLE[:, 0] * np.where(_TABLE[:, 0] < 0, traits["skull"], lower)
        self._z = _TABLE[:, 1] * traits["depth"]

    def row(self, y: np.ndarray) -> np.ndarray:
        """Return the ``t`` at which the midline reaches the height ``y``, from crown to chin."""
        part = slice(_TOP, _BOTTOM + 1)
        return np.interp(y, self._y[part], _T[part])

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """Return the ``s`` and ``t``, (n, 2), of points (n, 2) of a front view."""
        x, y = points.T
        angle = np.arcsin(np.clip(x / self.width, -0.9986, 0.9986))
        above = y - EAR_Y
        exponent = np.where(above < 0, SKULL_EXPONENT, self.jaw)
        middle = EAR_Y + above / np.cos(angle) ** exponent
        return np.stack([0.5 + angle / (2 * SPAN), self.row(middle)], 1)

    def smooth_positions(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return the points in space of the head without nose, lips and hair, (..., 3)."""
        angle = (s - 0.5) * (2 * SPAN)
        y, z = np.interp(t, _T, self._y), np.interp(t, _T, self._z)
        above = y - EAR_Y
        cosine = np.cos(angle)
        y = EAR_Y + above * cosine ** np.where(above < 0, SKULL_EXPONENT, self.jaw)
        return np.stack([self.width * np.sin(angle), y, z * cosine], -1)

    def relief(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how far nose, brows, lips, cheeks and chin protrude at ``x`` and ``y``."""
        traits, smile = self.identity.traits, max(self.expression.smile, 0)
        tip, mouth = traits["nose_len"] * traits["lower"], mouth_y(self.identity)
        away, off = np.abs(x), np.abs(x - traits["nose_x"])
        ridge = smoothstep((y + 0.2) / (tip + 0.2)) ** 1.2 * smoothstep((tip + 0.2 - y) / 0.2)
        wide = 0.11 + 0.09 * np.clip(y / tip, 0, 1.2)
        gap = self.expression.opening
        hills = [
            (1.0, traits["nose_out"] * ridge * np.exp(-((off / wide) ** 2))),
            (0.14, bump(off, y, (0.7 * traits["nose_w"], tip + 0.05), (0.10, 0.11))),
            (-0.12, bump(away, y, (0.42, -0.04), (0.20, 0.16))),
            (0.05, bump(away, y, (0.5, 0.0), (0.17, 0.11))),
            (0.06, bump(away, y, (0.42, 0.03 - traits["brow_y"]), (0.35, 0.10))),
            (traits["cheek"], bump(away, y, (0.72, 0.42), (0.20, 0.25))),
            (0.06 * smile, bump(away, y, (0.58, 0.72), (0.18, 0.20))),
            (0.08, bump(x, y, (0, mouth + 0.4 * gap), (0.32, 0.15 + 0.4 * gap))),
            (-0.05, bump(x, y, (0, mouth + gap + 0.25), (0.30, 0.07))),
            (0.07, bump(x, y, (0, mouth + gap + 0.45), (0.25, 0.16))),
        ]
        return sum(height * hill for height, hill in hills)

    def positions(self, points: np.ndarray) -> np.ndarray:
        """Return the points in space, (n, 3), of points (n, 2) of a front view: x and y stay."""
        space = self.smooth_positions(*self.parameters(points).T)
        space[:, 2] += self.relief(*points.T)
        return space

    def landmarks(self) -> np.ndarray:
        """Return the 68 points in space, (68, 3)."""
        return self.positions(self.points)

    def grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the whole surface without hair on a coarse grid.

        Returns:
            ``s`` and ``t`` (ROWS, COLUMNS), cell centres of the unit square, and the points in
            space (ROWS, COLUMNS, 3).
        """
        s, t = np.meshgrid((np.arange(COLUMNS) + 0.5) / COLUMNS, (np.arange(ROWS) + 0.5) / ROWS)
        space = self.smooth_positions(s, t)
        # Relief belongs to the face's front: below the chin the surface runs back again.
        front = smoothstep((_T[_BOTTOM] + 0.05 - t) / 0.05)
        space[..., 2] += self.relief(space[..., 0], space[..., 1]) * front
        return s, t, space


def normals(space: np.ndarray) -> np.ndarray:
    """Return the outward unit normals of a grid (rows, columns, 3) of points in space.

    Rows run downwards and columns to the right.
    """
    down, right = np.gradient(space, axis=0), np.gradient(space, axis=1)
    normal = np.cross(right, down)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
