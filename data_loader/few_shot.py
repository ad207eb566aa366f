"""Training on a few annotated images [Cheng et al. 2020, Sec. 4.3; spec 6]."""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.landmark_dataset import LandmarkDataset
from data_loader.readers.annotation_files import read_lines
from utils.arguments import integer, positive_int
from utils.errors import InputError
from utils.files import quoted, write_text
from utils.process_group import is_first_rank

INDEX_FILE, NAME_FILE = "datalist.txt", "namelist.txt"


class Picks(NamedTuple):
    """The images picked: their places in the whole training set, and their names."""

    places: list[int]
    names: list[str]


def add_few_shot_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of training on few annotations."""
    group = parser.add_argument_group("few annotations")
    group.add_argument(
        "--restrict_annos",
        type=integer(-1),
        default=-1,
        metavar="N",
        help="train on this many images, sampled by --seed; -1 takes all",
    )
    group.add_argument(
        "--repeat", action="store_true", help="go through the sampled images several times an epoch"
    )
    group.add_argument(
        "--num_per_epoch",
        type=positive_int,
        default=1000,
        help="with --repeat: at most so many images an epoch",
    )
    group.add_argument(
        "--TPS_aug",
        action="store_true",
        help="warp each training image anew by a random thin-plate spline",
    )


def save_picks(folder: Path, picks: Picks | None) -> None:
    """Write the picks' places and names beside the checkpoints, one a line; the first rank does."""
    if picks is not None and is_first_rank():
        write_text(folder / INDEX_FILE, "".join(f"{place}\n" for place in picks.places))
        write_text(folder / NAME_FILE, "".join(f"{quoted(name)}\n" for name in picks.names))


def load_picks(folder: Path, dataset: LandmarkDataset) -> np.ndarray:
    """Return the places in the data set of the images that ``namelist.txt`` names."""
    places = {quoted(name): place for place, name in enumerate(dataset.item_names())}
    names = read_lines(folder / NAME_FILE)
    if not names:
        raise InputError(f"{folder / NAME_FILE}: empty, expected one image a line")
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise InputError(f"{folder / NAME_FILE}: {unknown} is no training image of this data set")
    return np.array([places[name] for name in names])


def restrict(
    dataset: LandmarkDataset,
    count: int,
    *,
    repeat: bool,
    num_per_epoch: int,
    seed: int,
    noted_in: Path | None,
) -> Picks | None:
    """Keep a few images of a training set; return which, to be noted beside the checkpoints.

    Args:
        dataset: loses the other images.
        count: images to keep; all are kept if it is negative.
        repeat: repeat them floor(min(num_per_epoch, N) / count) times.
        num_per_epoch: so many images at most, unless a single round has more.
        seed: of the picks.
        noted_in: folder of a run that resumes, whose noted picks are taken instead.

    Raises:
        InputError: if there aren't so many images, or the noted ones aren't there.
    """
    if count < 0:
        return None
    total = len(dataset)
    if noted_in is not None and (noted_in / NAME_FILE).is_file():
        places = load_picks(noted_in, dataset)
    elif not 1 <= count <= total:
        raise InputError(f"--restrict_annos {count}: there are {total} annotated images")
    else:
        places = np.random.RandomState(seed % 2**32).choice(total, count, replace=False)
    item_names = dataset.item_names()
    picks = Picks(places.tolist(), [item_names[i] for i in places])
    rounds = max(1, min(num_per_epoch, total) // len(places)) if repeat else 1
    dataset.select(np.tile(places, rounds).tolist())
    dataset.check_landmarks()
    return picks
