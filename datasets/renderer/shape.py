"""Who a synthetic face is, what it does with its face, and where its 68 points then lie.

Lengths are in units of the distance between the eye centres, seen straight from the front: ``x``
grows to the image's right, ``y`` downwards, and the origin lies midway between the eyes. The
68 points follow the iBUG order (jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67).
"""

from dataclasses import dataclass

import numpy as np

# What tells one head from another: the lowest and highest value of each trait.
TRAITS = {
    "width": (1.10, 1.27),  # half width of the head at the ears
    "depth": (0.92, 1.08),  # factor on the profile's depth
    "skull": (0.92, 1.10),  # factor on everything above the eyes
    "lower": (0.90, 1.08),  # factor on everything below the eyes
    "jaw": (0.62, 1.02),  # small: a square jaw, large: a pointed one
    "eye_w": (0.20, 0.27),
    "eye_h": (0.075, 0.125),
    "eye_tilt": (-0.03, 0.05),
    "brow_y": (0.27, 0.39),
    "brow_arch": (0.02, 0.11),
    "brow_tilt": (-0.05, 0.06),
    "brow_thick": (0.030, 0.080),
    "brow_gap": (0.14, 0.24),
    "nose_len": (0.56, 0.74),
    "nose_w": (0.19, 0.31),
    "nose_out": (0.30, 0.52),
    "nose_x": (-0.025, 0.025),
    "mouth_gap": (0.40, 0.50),  # from the nose tip to the line between the lips
    "mouth_w": (0.36, 0.49),
    "mouth_x": (-0.02, 0.02),
    "lip_up": (0.055, 0.115),
    "lip_low": (0.080, 0.150),
    "cupid": (0.0, 0.35),
    "cheek": (0.0, 0.08),
}
EAR_Y = 0.12
CHIN_Y = 1.80
PARTING = (0.45, 0.33, 0.22)  # odds of lips closed, slightly parted, mouth open
# RGB, 0-255, a colour in each column, from light to dark skin.
_SKINS = [255, 245, 236, 222, 200, 170, 134, 98], [222, 205, 188, 170, 146, 116, 88, 64]
SKINS = np.array([*_SKINS, [200, 178, 156, 132, 108, 82, 62, 47]], dtype=float).T.copy()  # (8, 3)
_HAIRS = [28, 46, 82, 120, 150, 205, 150, 215], [24, 34, 56, 82, 78, 165, 146, 212]
HAIRS = np.array([*_HAIRS, [24, 28, 38, 50, 42, 105, 142, 208]], dtype=float).T.copy()  # (8, 3)
IRISES = np.array([(70, 44, 28), (96, 66, 36), (92, 110, 70), (84, 122, 156), (110, 118, 124)])
CLOTHS = np.array([(58, 66, 92), (128, 52, 50), (70, 92, 72), (150, 132, 104), (60, 58, 60)])
STYLES = (
    *("bald", "receding", "buzz", "short", "side", "fringe", "long", "long_fringe"),
    *("curly", "bun", "hat", "headscarf"),
)
STYLE_ODDS = (0.06, 0.07, 0.09, 0.14, 0.13, 0.09, 0.13, 0.07, 0.09, 0.05, 0.05, 0.03)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
BEARD_ODDS = (0.66, 0.11, 0.07, 0.06, 0.10)


@dataclass(frozen=True)
class Identity:
    """One person: what stays the same from image to image.

    Args:
        traits: The value of each of `TRAITS`.
        skin: RGB, 0-255.
        hair: RGB, 0-255.
        iris: RGB, 0-255.
        lip: RGB, 0-255.
        cloth: RGB of a hat or headscarf, 0-255.
        style: One of `STYLES`.
        beard: One of `BEARDS`.
        glasses: Whether this person tends to wear glasses.
    """

    traits: dict[str, float]
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lip: np.ndarray
    cloth: np.ndarray
    style: str
    beard: str
    glasses: bool


@dataclass(frozen=True)
class Expression:
    """What a face does in one image.

    Args:
        opening: Height of the gap between the lips, 0-0.42.
        smile: -0.4 (mouth corners down) to 1 (broad smile).
        brows: How far the brows are raised, -0.05 to 0.10.
        frown: How far the inner ends of the brows are lowered, 0-0.07.
        lids: Factor on the opening of the eyes, 0.06 (closed) to 1.25.
        gaze: Shift of the irises as a fraction of the eye's half width and half height, (x, y).
    """

    opening: float = 0.0
    smile: float = 0.0
    brows: float = 0.0
    frown: float = 0.0
    lids: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)


def _between(rng: np.random.Generator, colours: np.ndarray, spread: float) -> np.ndarray:
    """Return a colour between two neighbours, each channel off by ``spread`` times a normal."""
    place = rng.uniform(0, len(colours) - 1)
    low = int(place)
    mixed = colours[low] + (place - low) * (colours[low + 1] - colours[low])
    return np.clip(mixed * (1 + rng.normal(0, spread, 3)), 8, 250)


def sample_identity(rng: np.random.Generator) -> Identity:
    """Sample a person."""
    traits = {}
    for name, (low, high) in TRAITS.items():
        # Two samples averaged: the middle of the range is commoner than its ends.
        traits[name] = float(low + (high - low) * rng.uniform(size=2).mean())
    skin = _between(rng, SKINS, 0.02)
    lip = skin * rng.uniform((0.80, 0.50, 0.55), (1.0, 0.72, 0.80))
    if rng.random() < 0.2:
        lip = np.array([170, 36, 52]) * rng.uniform(0.75, 1.1)
    dark = skin.mean() < 140
    hairs = HAIRS[:2] if dark and rng.random() < 0.85 else HAIRS
    style = str(rng.choice(STYLES, p=STYLE_ODDS))
    beard = str(rng.choice(BEARDS, p=BEARD_ODDS))
    if style in ("long", "long_fringe", "bun", "headscarf"):
        beard = "none"
    return Identity(
        traits=traits,
        skin=skin,
        hair=_between(rng, hairs, 0.05),
        iris=IRISES[0 if dark else rng.integers(len(IRISES))].astype(float),
        lip=np.clip(lip, 0, 255),
        cloth=_between(rng, CLOTHS, 0.12),
        style=style,
        beard=beard,
        glasses=bool(rng.random() < 0.2),
    )


def sample_expression(rng: np.random.Generator) -> Expression:
    """Sample what a face does: mostly calm or smiling, at times eyes closed or mouth open."""
    opening = float(rng.choice([0.0, rng.uniform(0.02, 0.14), rng.uniform(0.12, 0.42)], p=PARTING))
    lids = float(rng.uniform(0.7, 1.25)) if rng.random() > 0.07 else float(rng.uniform(0.06, 0.3))
    return Expression(
        opening=opening,
        smile=float(np.clip(rng.normal(0.25, 0.4), -0.4, 1.0)),
        brows=float(rng.uniform(-0.05, 0.10)),
        frown=float(max(0.0, rng.normal(0.0, 0.03))),
        lids=lids,
        gaze=(float(rng.normal(0, 0.16)), float(rng.normal(0, 0.12))),
    )


def chin_y(identity: Identity, expression: Expression) -> float:
    """Return the height of the chin's lowest point, lower when the mouth is open."""
    return CHIN_Y * identity.traits["lower"] + 0.6 * expression.opening


def mouth_y(identity: Identity) -> float:
    """Return the height of the line between closed lips."""
    traits = identity.traits
    return (traits["nose_len"] + traits["mouth_gap"]) * traits["lower"]


def _eyes_and_brows(traits: dict[str, float], expression: Expression) -> tuple:
    """Return the left brow (5, 2) and the left eye (6, 2) about the middle of the face."""
    u = np.linspace(0, 1, 5)
    brow_x = -0.88 + u * (0.88 - traits["brow_gap"])
    arch = traits["brow_arch"] * np.sin(np.pi * (0.15 + 0.75 * u)) - traits["brow_tilt"] * (u - 0.5)
    brow_y = -traits["brow_y"] - expression.brows - arch + expression.frown * u**2
    w, h = traits["eye_w"], traits["eye_h"] * expression.lids
    eye_x = -0.5 + w * np.array([-1.0, -0.38, 0.36, 1.0, 0.40, -0.42])
    eye_y = h * np.array([0.0, -1.1, -1.05, 0.0, 0.80, 0.85])
    eye_y = eye_y + traits["eye_tilt"] * np.array([-1.0, -0.38, 0.36, 1.0, 0.40, -0.42])
    return np.stack([brow_x, brow_y], 1), np.stack([eye_x, eye_y], 1)


def _mouth(identity: Identity, expression: Expression) -> np.ndarray:
    """Return the 20 mouth points, (20, 2)."""
    traits, smile, gap = identity.traits, expression.smile, expression.opening
    width = traits["mouth_w"] * (1 + 0.16 * smile - 0.35 * gap)
    up = traits["lip_up"] * (1 - 0.2 * max(smile, 0))
    low = traits["lip_low"] * (1 - 0.2 * max(smile, 0))
    corner = -0.10 * smile + 0.45 * gap
    notch = up * (1 - traits["cupid"])
    sag = 0.25 * corner
    x = [-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.62, 0.25, 0, -0.25, -0.62]
    x += [-0.84, -0.36, 0, 0.36, 0.84, 0.36, 0, -0.36]
    bottom = gap + 0.86 * low
    y = [corner, sag - 0.75 * up, -up, -notch, -up, sag - 0.75 * up, corner]
    y += [bottom - 0.30 * low + sag, bottom, gap + low, bottom, bottom - 0.30 * low + sag]
    inner = 0.2 * (0.42 * up + sag)
    y += [corner, inner, 0.0, inner, corner, 0.86 * gap + inner, gap, 0.86 * gap + inner]
    return np.stack([np.array(x) * width + traits["mouth_x"], np.array(y) + mouth_y(identity)], 1)


def frontal_points(identity: Identity, expression: Expression) -> np.ndarray:
    """Return the 68 points, (68, 2), as seen straight from the front and from far away."""
    traits = identity.traits
    angle = np.radians(np.linspace(-78, 78, 17))
    bottom = chin_y(identity, expression) - EAR_Y
    jaw = np.stack(
        [traits["width"] * np.sin(angle), EAR_Y + bottom * np.cos(angle) ** traits["jaw"]], 1
    )
    brow, eye = _eyes_and_brows(traits, expression)
    mirror = np.array([-1.0, 1.0])
    tip = traits["nose_len"] * traits["lower"]
    slope = np.linspace(0, 1, 4)
    bridge = np.stack([traits["nose_x"] * slope, tip * slope], 1)
    side = np.array([-1, -0.5, 0, 0.5, 1.0])
    base_y = tip + 0.13 + np.array([-0.04, 0.01, 0.03, 0.01, -0.04])
    base = np.stack([traits["nose_x"] + 0.88 * traits["nose_w"] * side, base_y], 1)
    right_eye = eye[[3, 2, 1, 0, 5, 4]] * mirror
    parts = [jaw, brow, brow[::-1] * mirror, bridge, base, eye, right_eye]
    return np.concatenate([*parts, _mouth(identity, expression)])  # (68, 2)


def five_points(points: np.ndarray) -> np.ndarray:
    """Return the 5 points of CelebA, (5, 2), among the 68 of iBUG, (68, 2).

    Left eye, right eye, nose tip, left and right mouth corner, as the image shows them.
    """
    eyes = [points[36:42].mean(0), points[42:48].mean(0)]
    return np.stack([*eyes, points[30], points[48], points[54]])
