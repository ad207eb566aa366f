"""What the names of points tell: which of them a mirror swaps, and COCO's spread of each."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_loader.readers.annotation_files import repeated
from utils.errors import InputError
from utils.files import printable

MOST_NAMES = 10_000  # an object has fewer points; a wrong column has more
LONGEST_SHOWN = 200  # characters
WORDS = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
# An l or L that stands for left: no letter beside it ("l_eye", "L1"), or only a word's other case
# ("eyeL", "wingL2", "LEye").
LETTER = re.compile(
    r"(?<![^\W\d_])[lL](?![^\W\d_])|(?<=[a-z])L(?![a-z])|(?<![^\W\d_])[lL](?=[A-Z])"
)
# Standard deviation of annotators' clicks, as a fraction of the square root of the instance's area
# [cocodataset.org, keypoints evaluation].
COCO_SIGMAS = {
    **{"nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035},
    **{"right_ear": 0.035, "left_shoulder": 0.079, "right_shoulder": 0.079},
    **{"left_elbow": 0.072, "right_elbow": 0.072, "left_wrist": 0.062, "right_wrist": 0.062},
    **{"left_hip": 0.107, "right_hip": 0.107, "left_knee": 0.087, "right_knee": 0.087},
    **{"left_ankle": 0.089, "right_ankle": 0.089},
}


def shown(name: str) -> str:
    """Return a name as an error's one line may hold it."""
    name = printable(name)
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."


def shown_list(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and that there are more."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise an `InputError` unless there are points, and each name is there once.

    Args:
        place: file, and line if there is one, for the error.
        names: of the points.
    """
    if not names:
        raise InputError(f"{place}: names no point")
    if len(names) > MOST_NAMES:
        raise InputError(f"{place}: names {len(names):,} points, more than {MOST_NAMES:,}")
    if "" in names:
        raise InputError(f"{place}: a point has no name")
    if twice := repeated(names):
        raise InputError(f"{place}: the point {shown(twice)} is named twice")


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which points a mirror swaps: names that differ by left and right, or by L and R.

    "left_eye" and "right_eye", "eyeL" and "eyeR", "l_ear" and "r_ear", "LeftPaw" and "RightPaw".
    """
    left = set(names)  # those that are in no pair
    pairs = []
    for name in names:
        found = next((other for other in _mirrored(name) if other in left), None)
        if found is not None and name in left:
            pairs.append((name, found))
            left -= {name, found}
    return pairs


def _mirrored(name: str) -> list[str]:
    """Return what the other side of a point on the left may be called."""
    others = [name.replace(left, right) for left, right in WORDS.items() if left in name]
    for match in LETTER.finditer(name):
        right = "r" if match[0] == "l" else "R"
        others.append(name[: match.start()] + right + name[match.end() :])
    return others


def find_sigmas(names: Sequence[str]) -> np.ndarray | None:
    """Return COCO's sigmas (A,) if the points are its 17 of a person, else None."""
    if set(names) != set(COCO_SIGMAS) or len(names) != len(COCO_SIGMAS):
        return None
    return np.array([COCO_SIGMAS[name] for name in names])


def pairs_of_indices(path: Path, names: Sequence[str], indices: object) -> list[tuple[str, str]]:
    """Return the pairs that a file's ``flip_indices`` say: of each point the mirrored one's place.

    Raises:
        InputError: if they aren't a swap of the A points.
    """
    fits = isinstance(indices, list) and all(type(i) is int for i in indices)
    if not fits or sorted(indices) != list(range(len(names))):  # type: ignore[call-overload]
        raise InputError(
            f"{path}: flip_indices aren't the numbers 0 to {len(names) - 1}, each once"
        )
    places: list[int] = indices  # type: ignore[assignment]
    if any(places[other] != place for place, other in enumerate(places)):
        raise InputError(f"{path}: flip_indices don't swap points in pairs")
    return [(names[a], names[b]) for a, b in enumerate(places) if a < b]
