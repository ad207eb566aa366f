"""Splits of annotated images that never part what belongs together.

Letters: N instances.
"""

import math
import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from utils.errors import InputError

Groups = Sequence[str] | np.ndarray  # of N instances
FOLDER = "folder"  # in place of a regular expression


def group_names(images: Sequence[str], group_by: str | None) -> list[str]:
    """Return for each of N instances what it belongs to: at least its image.

    Args:
        images: the N images' names.
        group_by: ``folder``, the one that an image lies in; or a regular expression, whose first
            group (or, without groups, whole match) in the image's name is what it belongs to.

    Raises:
        InputError: if that is no regular expression, or an image's name doesn't match it.
    """
    if group_by is None:
        return list(images)
    if group_by == FOLDER:
        return [PurePath(image).parent.as_posix() for image in images]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(f"--group_by {group_by}: no regular expression ({error})") from None
    names = []
    for image in images:
        found = pattern.search(image)
        name = found[min(pattern.groups, 1)] if found else None
        if name is None:
            raise InputError(f"--group_by {group_by}: doesn't match {image}")
        names.append(name)
    return names


def split_off(groups: Groups, share: float, seed: int) -> np.ndarray:
    """Return which of N instances are held out, bool (N,): whole groups, in a random order.

    As many groups are taken as come nearest to the share of the instances, but one at least is
    taken and one left.

    Args:
        groups: of the N instances.
        share: fraction of the instances to hold out, above 0.
        seed: of the order.

    Raises:
        InputError: if there is but one group.
    """
    names, sizes = _shuffled(groups, seed)
    taken = np.abs(np.cumsum(sizes) - share * len(groups)).argmin() + 1
    held_out = set(names[: min(taken, len(names) - 1)])
    return np.array([group in held_out for group in groups])


def folds(groups: Groups, count: int, seed: int) -> np.ndarray:
    """Return the fold of each of N instances, (N,) from 0: whole groups, of about equal sizes.

    Raises:
        InputError: if there are fewer groups than folds.
    """
    names, sizes = _shuffled(groups, seed)
    if len(names) < count:
        raise InputError(f"--folds {count}: there are {len(names)} annotated images or groups")
    filled, fold_of = np.zeros(count), {}
    # The largest first, each into the fold that has least.
    for place in np.argsort(-sizes, kind="stable").tolist():
        fold_of[names[place]] = int(filled.argmin())
        filled[fold_of[names[place]]] += sizes[place]
    return np.array([fold_of[group] for group in groups])


def _shuffled(groups: Groups, seed: int) -> tuple[list[str], np.ndarray]:
    """Return the distinct groups in a random order that depends on the seed, and their sizes."""
    names, sizes = np.unique(np.array(groups), return_counts=True)
    if len(names) < 2:
        said = f"the {len(groups):,} annotated instances are of one image or group"
        if len(groups) == 1:
            said = "there is 1 annotated image"
        raise InputError(
            f"{said}, which can't be split into training and test; give --test_annotations FILE, "
            "or --test_share 0 to train on all"
        )
    order = np.random.RandomState(seed % 2**32).permutation(len(names))
    return names[order].tolist(), sizes[order]


def check_share(test_share: float, val_share: float) -> None:
    """Raise an `InputError` if nothing is left to train on."""
    if math.fsum((test_share, val_share)) >= 1:
        raise InputError(
            f"--test_share {test_share:g} and --val_share {val_share:g} leave nothing to train on"
        )
