"""The bird benchmarks: iNaturalist Aves for pre-training, CUB for landmarks [spec 6].

`LandmarkDataset` says what their arguments and items are. Letters: N images, A = 15 parts.
"""

import argparse
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.bad_images import PASSED, add_image_arguments
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.named_images import UnlabelledImages
from data_loader.readers.annotation_files import read_names
from data_loader.readers.cub_annotations import PARTS, read_part_annotations
from data_loader.readers.images import image_size
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from utils.errors import ImageError


class InatAve(UnlabelledImages):
    """Images of birds without annotation."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD


class CUB(LandmarkDataset):
    """CUB-200-2011 with 15 parts, some invisible: (data, visible, keypoints_normalized, index).

    Args:
        root: holds ``images``, ``split`` and the annotations.
        train: this split; exactly one of the three.
        val: likewise.
        test: likewise.
        imagelist: replaces ``split/train.txt`` for training.
        pair_image: see `LandmarkDataset`, also for the rest.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    num_landmarks = PARTS
    points_frame = (1, 1)  # of fractions
    second_field = "visible"
    published_counts: dict[str, int] | None = {"train": 1_241, "val": 382, "test": 383}

    def __init__(
        self,
        root: str | Path,
        train: bool = False,
        val: bool = False,
        test: bool = False,
        imagelist: str | Path | None = None,
        pair_image: bool = False,
        imwidth: int = 224,
        crop: int = 0,
        **options: Any,
    ) -> None:
        if train + val + test != 1:
            raise ValueError("CUB takes exactly one of train, val and test")
        self.split_name = "train" if train else "val" if val else "test"
        self.imagelist = imagelist if train else None
        super().__init__(root, train, pair_image, imwidth, crop, do_augmentations=False, **options)

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Read the list and the parts, which are fractions of an image's width and height."""
        path = Path(self.imagelist or root / "split" / f"{self.split_name}.txt")
        # Listed paths carry other people's prefixes: what counts is what follows "/images/".
        filenames = [re.split(r"[/\\]images[/\\]", name)[-1] for name in read_names(path)]
        filenames = self.check_listed(root / "images", filenames, path)
        if self.imagelist is not None:
            self.published_counts = None  # a list of one's own may be of any length
        keypoints, visible = read_part_annotations(root, filenames, self.size_of)
        return root / "images", filenames, {"keypoints": keypoints, "visible": visible}

    def size_of(self, path: Path) -> tuple[float, float]:
        """Return an image's width and height; NaN if it can't be read and may be skipped."""
        try:
            return image_size(path)
        except ImageError as error:
            self.forgive(error)
            return math.nan, math.nan

    def square_points(self, size: tuple[int, int], index: int) -> np.ndarray:
        """Return an image's points in its square; NaN ones are of a size that couldn't be read."""
        points = super().square_points(size, index)
        if np.isnan(points).any():
            raise ImageError(f"{self.path(index)}: {PASSED}")
        return points

    def check_landmarks(self) -> None:
        """Accept lists whose images show only some of the parts."""


# Both spellings of CUB's folder are in use [spec 8].
CUB_ROOTS = ("datasets/CUB_200_2011", "datasets/CUB-200-2011")


def add_animal_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which benchmark to read, and from where."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=["CUB", "Keypoints"],
        default="CUB",
        help="the benchmark, or images of one's own with named points, as --annotations says, too",
    )
    group.add_argument(
        "--data_folder",
        metavar="DIR",
        help=f"root of the benchmark, by default {CUB_ROOTS[0]}; or of one's own images, by "
        "default the folder of --annotations",
    )
    group.add_argument(
        "--imagelist",
        metavar="FILE",
        help="CUB: list of the training images, in place of split/train.txt",
    )
    add_image_arguments(group, image_size=96, image_crop=0)


def build_animal_dataset(root: str | None, split: str, **options: Any) -> CUB:
    """Return images of a split, ``train``, ``val`` or ``test``; ``options`` are `CUB`'s."""
    if root is None:
        root = next((r for r in CUB_ROOTS if Path(r).is_dir()), CUB_ROOTS[0])
    options[split] = True
    return CUB(root, **options)
