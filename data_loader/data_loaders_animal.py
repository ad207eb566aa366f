"""The bird benchmarks: iNaturalist Aves for pre-training, CUB for landmarks [spec 6].

`LandmarkDataset` says what their arguments and items are. Letters: N images, A = 15 parts.
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from data_loader.bad_images import add_bad_image_argument
from data_loader.geometry import Square, resize_square
from data_loader.image_set import ImageSet
from data_loader.landmark_dataset import LandmarkDataset, add_image_arguments
from data_loader.names import Names
from data_loader.readers.annotation_files import iterate_lines, read_names
from data_loader.readers.cub_annotations import PARTS, read_part_annotations
from data_loader.readers.images import SUFFIXES
from data_loader.views.random_view import BIRD_MEAN, BIRD_STD
from utils.arguments import allow_change
from utils.errors import InputError


class Birds(ImageSet):
    """What all have: colour statistics, and a resize to a square."""

    mean, std = BIRD_MEAN, BIRD_STD

    def square(self, image: Image.Image, points_orig: np.ndarray, index: int) -> Square:
        """Resize to a square; points are fractions of the image's width and height."""
        return resize_square(image, self.imwidth), points_orig * self.imwidth


class InatAve(Birds, LandmarkDataset):
    """Images of birds without annotation: all below a folder, or those of a list.

    Args:
        root: holds the images, at any depth; hidden files and folders, and macOS's, are ignored.
        train: unused, there is one split.
        pair_image: see `LandmarkDataset`, also for the rest.
        imagelist: a file with one path a line, tried as given, then under ``root``, then beside
            the list, then up to two folders above either.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        pair_image: bool = True,
        imwidth: int = 224,
        crop: int = 0,
        do_augmentations: bool = True,
        imagelist: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.imagelist = imagelist
        if imagelist is not None and not Path(root).is_dir():
            root = Path(imagelist).parent  # a list of absolute paths needs no root
        super().__init__(root, train, pair_image, imwidth, crop, do_augmentations, **options)

    def read(self, root: Path, train: bool) -> tuple[Path, Sequence[str], dict[str, np.ndarray]]:
        """See `LandmarkDataset.read`; there are no points."""
        if self.imagelist is None:
            filenames, left_out = find_images(root)
            if left_out:
                total = sum(left_out.values())
                kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common(9))
                self.notices.append(f"{root}: {total:,} files or folders left out: {kinds}")
        else:
            imagelist = Path(self.imagelist)
            # Lists are often relative to a folder above the one that holds them.
            near = [root, imagelist.parent]
            above = [folder for path in near for folder in path.absolute().parents[:2]]
            folders = [Path(), *near, *above]
            filenames = resolve_listed(imagelist, folders, root if self.skip_bad else None)
        return root, filenames, {"keypoints": np.empty((len(filenames), 0, 2))}


def find_images(root: Path) -> tuple[Names, Counter[str]]:
    """Return the sorted paths of the images below a folder, and why other files were left out.

    Links are followed, to each folder once. Folders that can't be read are passed over. Others
    are counted by kind.

    Raises:
        InputError: if there is no image.
    """
    inside, left_out, seen = dict[str, str](), Counter[str](), set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        hidden = [name for name in subfolders if name.startswith(".") or name == "__MACOSX"]
        subfolders[:] = sorted(set(subfolders) - set(hidden))
        left_out.update({"hidden": len(hidden)} if hidden else {})
        images = []
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                left_out["hidden"] += 1
            elif suffix[1:] in SUFFIXES:
                images.append(name)
            else:
                left_out[f"*{suffix}" if suffix else "without suffix"] += 1
        below = os.path.relpath(folder, root)
        below = "" if below == os.curdir else below + os.sep
        # No name holds a zero; one string takes less memory than many.
        inside[below] = "\0".join([*images, *(name + os.sep for name in subfolders)])
    found = Names(_in_order(inside))
    if not len(found):
        raise InputError(
            f"{root}: holds no image, at any depth, named *.{', *.'.join(sorted(SUFFIXES))}"
        )
    return found, left_out


def _in_order(inside: dict[str, str]) -> Iterator[str]:
    """Yield the sorted paths of all files, given the names in each folder, joined by zeros.

    A folder's name, and its key, ends with a separator; the first one's is empty.
    """
    left = [""]
    while left:
        path = left.pop()
        if not path or path.endswith(os.sep):
            names = inside.get(path)
            left += (
                sorted((path + name for name in names.split("\0")), reverse=True) if names else []
            )
        else:
            yield path


def resolve_listed(imagelist: Path, folders: list[Path], absent_in: Path | None) -> Names:
    """Return the absolute paths of a list's images, each in the first folder that has it.

    Windows' separators are replaced where that finds an image. If no folder has one, that is an
    error, or it gets its path in the folder ``absent_in``.
    """
    paths = Names(_resolve_lines(imagelist, folders, absent_in))
    if not len(paths):
        raise InputError(f"{imagelist}: empty, expected one image a line")
    return paths


def _resolve_lines(imagelist: Path, folders: list[Path], absent_in: Path | None) -> Iterator[str]:
    """Yield the paths of `resolve_listed`."""
    places = list(dict.fromkeys(str(folder.absolute()) for folder in folders))
    is_in = lru_cache(2**12)(_subfolder)  # few, of many lines, most of which most places lack
    for number, line in enumerate(iterate_lines(imagelist), 1):
        names = dict.fromkeys([line, line.replace("\\", "/")] if line else [])
        parts = [os.path.split(name.rstrip("/")) for name in names]
        folders_in = ((is_in(place, below), name) for below, name in parts for place in places)
        tried = (os.path.join(folder, name) for folder, name in folders_in if folder)
        # os.path.isfile is False, where Path.is_file raises, for a line too long to be a path.
        if found := next(filter(os.path.isfile, tried), None):
            yield found
        elif line and absent_in is not None:
            yield str((absent_in / line).absolute())
        else:
            sought = ", ".join(dict.fromkeys(map(str, folders)))
            raise InputError(f"{imagelist}, line {number}: no image {line[:200]!r} in {sought}")


def _subfolder(place: str, below: str) -> str | None:
    """Return the path of a folder below another, without needless dots; None if there is none."""
    path = os.path.join(place, below)
    return str(Path(path)) if os.path.isdir(path) else None


class CUB(Birds, LandmarkDataset):
    """CUB-200-2011 with 15 parts, some of them invisible.

    Args:
        root: holds ``images``, ``split`` and the annotations.
        train: this split; exactly one of the three.
        val: likewise.
        test: likewise.
        imagelist: replaces ``split/train.txt`` for training.
        pair_image: see `LandmarkDataset`, also for the rest.
    """

    num_landmarks = PARTS
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
        """See `LandmarkDataset.read`; points are fractions of the image's width and height."""
        path = Path(self.imagelist or root / "split" / f"{self.split_name}.txt")
        # Listed paths carry other people's prefixes: what counts is what follows "/images/".
        filenames = [re.split(r"[/\\]images[/\\]", name)[-1] for name in read_names(path)]
        filenames = self.check_listed(root / "images", filenames, path)
        if self.imagelist is not None:
            self.published_counts = None  # a list of one's own may be of any length
        keypoints, visible = read_part_annotations(root, filenames, self.skip_bad)
        return root / "images", filenames, {"keypoints": keypoints, "visible": visible}

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return (data, visible, keypoints_normalized, index), or a pair as all data sets do."""
        if self.pair_image:
            return super().__getitem__(index)
        item = self.annotated_item(index)
        return item.image, item.visible, item.points_norm, item.index

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
        help="the benchmark, or images of one's own with named points",
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
    allow_change("data_folder", keeps_results=False)
    add_image_arguments(group, image_size=96, image_crop=0)
    add_bad_image_argument(group)


def build_animal_dataset(
    root: str | None, split: str, *, image_size: int, image_crop: int, **options: Any
) -> CUB:
    """Return images of a split, ``train``, ``val`` or ``test``; ``options`` are `CUB`'s."""
    if root is None:
        root = next((r for r in CUB_ROOTS if Path(r).is_dir()), CUB_ROOTS[0])
    options[split] = True
    return CUB(root, imwidth=image_size, crop=image_crop, **options)
