"""The unlabelled images of pre-training, and what makes their random views [spec 6]."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.bad_images import (
    BadImages,
    add_bad_image_argument,
    replacing,
)
from data_loader.data_loaders_animal import InatAve
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.folder import (
    MEASURED_IMAGES,
    Folder,
    add_boxes_argument,
    add_fit_argument,
    add_margin_argument,
    measure_colours,
)
from data_loader.items import Items, PairItem, SquareItem
from data_loader.landmark_dataset import add_image_arguments
from data_loader.loaders import build_loader
from data_loader.named_images import NamedImages
from data_loader.storage.image_cache import cache_images
from data_loader.storage.sharded_images import (
    ShardedCelebA,
    ShardedFolder,
    ShardedImages,
    ShardedInatAve,
    ShardedSet,
    build_sharded_loader,
)
from data_loader.storage.shards import find_shards, holds_shards
from data_loader.views.batch_views import BatchViews
from data_loader.views.dense_views import DenseViews, MappedView
from utils.arguments import ArgumentParser, allow_change, fraction
from utils.collectives import BatchSplit, all_gather_rows, broadcast_from_first
from utils.errors import InputError
from utils.log import RunLog
from utils.process_group import rank, world_size

UnlabelledSet = NamedImages | ShardedSet
SHARDED: dict[str, type[ShardedSet]] = {"InatAve": ShardedInatAve, "Folder": ShardedFolder}
PUBLISHED_CROP = 15  # pixels, of --image_crop [spec 8]
Batch = PairItem | SquareItem  # each field stacked over b images


class Cutout(NamedTuple):
    """What of images of one's own is a square, see the flags and `Framing`."""

    fit: str
    boxes: str | None
    margin: float


def add_unlabelled_arguments(parser: ArgumentParser) -> argparse._ArgumentGroup:
    """Declare which images to pre-train on; return the group."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=["CelebA", "InatAve", "Folder"],
        default="CelebA",
        help="CelebA without MAFL, the birds of iNaturalist, or any images: all that are below "
        "--data_folder",
    )
    group.add_argument(
        "--data_folder",
        default="./datasets/celeba",
        metavar="DIR",
        help="root of the data set; or shards of images, as WebDataset writes them: a folder of "
        "tar files, a pattern such as birds-{000000..000099}.tar, or a .json index of them",
    )
    group.add_argument(
        "--imagelist",
        metavar="FILE",
        help="InatAve, Folder: file with one image path a line; without it, all images below "
        "--data_folder",
    )
    add_fit_argument(group)
    add_boxes_argument(group)
    add_margin_argument(group, default=0.1)
    group.add_argument(
        "--colours",
        choices=["published", "measured"],
        default="published",
        help="standardise by the colour statistics that belong to the data set (of Folder, as of "
        f"InatAve, ImageNet's), or by those of up to {MEASURED_IMAGES} of the images, which the "
        "checkpoint notes for the scripts that use the encoder",
    )
    group.add_argument(
        "--image_cache",
        nargs="?",
        const="",
        metavar="DIR",
        help="decode, crop and resize each image once, into one file in DIR ({model_path}_cache "
        "if not named), and read it from there afterwards",
    )
    allow_change("image_cache")
    allow_change("data_folder", keeps_results=False)
    shown = f" [{PUBLISHED_CROP}; of Folder, 0]"
    add_image_arguments(group, image_size=100, image_crop=None, default_crop=shown)
    parser.choose_default(
        "image_crop", lambda options: 0 if options.dataset == "Folder" else PUBLISHED_CROP
    )
    add_bad_image_argument(group)
    return group


def add_view_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare how the random views of momentum contrast are made."""
    group.add_argument(
        "--crop",
        type=fraction,
        default=0.2,
        help="smallest fraction of an image's area that a random view shows",
    )
    group.add_argument(
        "--augment",
        choices=["pillow", "device"],
        default="pillow",
        help="make the random views one by one in the worker processes, as published, or a batch "
        "at a time on the model's device, with the same distribution",
    )


def build_unlabelled_dataset(
    name: str,
    root: str,
    *,
    imagelist: str | None,
    image_cache: str | None,
    cutout: Cutout,
    colours: str = "published",
    **frame: Any,
) -> UnlabelledSet:
    """Return the images that pairs of views are made of.

    ``root`` is the data set's folder, or stands for shards; ``frame`` is what all data sets take:
    size, crop, smallest view, and whether bad images are skipped. For the others see
    `add_unlabelled_arguments`.

    Raises:
        InputError: if an option doesn't go with the data set or with shards; or as the data sets
            do.
    """
    dataset = _open_unlabelled(name, root, imagelist, image_cache, cutout, frame)
    if colours == "measured":
        dataset.standardise_by(*broadcast_from_first(lambda: measure_colours(dataset)))
    return dataset


def _open_unlabelled(
    name: str,
    root: str,
    imagelist: str | None,
    image_cache: str | None,
    cutout: Cutout,
    frame: dict[str, Any],
) -> UnlabelledSet:
    fit, boxes, _ = cutout
    if name != "Folder" and (fit != "stretch" or boxes is not None):
        wish = f"--fit {fit}" if boxes is None else "--boxes"
        raise InputError(f"{wish}: only of --dataset Folder")
    if holds_shards(root):
        frame = {**frame, "fit": fit} if name == "Folder" else frame
        single = {"imagelist": imagelist, "image_cache": image_cache, "boxes": boxes}
        for option, value in single.items():
            if value is not None:
                raise InputError(f"--{option} doesn't go with shards, which {root} stands for")
        sharded = SHARDED.get(name, ShardedCelebA)
        return sharded(broadcast_from_first(lambda: find_shards(root)), **frame)
    if name == "Folder":
        return Folder(root, imagelist=imagelist, **cutout._asdict(), **frame)
    if name == "InatAve":
        return InatAve(root, imagelist=imagelist, **frame)
    return CelebAPrunedAligned_MAFLVal(root, **frame)


def keep_squares(
    dataset: UnlabelledSet, image_cache: str | None, runs: Path, num_workers: int, log: RunLog
) -> None:
    """Read the images from one file of squares from now on, if ``--image_cache`` asks for it.

    Args:
        dataset: shards have no such file.
        image_cache: folder of the file; empty for one beside the folder of all runs.
        runs: folder of all runs.
        num_workers: processes that fill it.
        log: receives lines.
    """
    if image_cache is not None and isinstance(dataset, NamedImages):
        folder = Path(image_cache or f"{runs}_cache")
        log.line(cache_images(dataset, folder, num_workers, log.line))


class PairLoader(NamedTuple):
    """A run's loader of pairs of random views, and what keeps count of bad images.

    ``augment`` makes the views of the squares that the loader yields, each with a seed; where it
    is None the loader makes them itself, and stacks them on channels.
    """

    loader: DataLoader
    augment: BatchViews | DenseViews | None
    bad_images: BadImages | None

    def pair(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return two random views of a batch's images, (b, 3, H, W) each, on a device."""
        if isinstance(batch, PairItem):
            view1, view2 = batch.views.to(device, non_blocking=True).split(3, dim=1)
        else:
            assert isinstance(self.augment, BatchViews)
            images, generator = self.squares(batch, device)
            view1, view2 = self.augment(images, generator), self.augment(images, generator)
        return as_channels_last(view1), as_channels_last(view2)

    def mapped_pair(
        self, batch: Batch, device: torch.device
    ) -> tuple[MappedView, MappedView, torch.Generator]:
        """Return two random views under known maps, and a generator for what else is random."""
        assert isinstance(self.augment, DenseViews)
        images, generator = self.squares(batch, device)
        return self.augment(images, generator), self.augment(images, generator), generator

    def squares(self, batch: Batch, device: torch.device) -> tuple[Tensor, torch.Generator]:
        """Return a batch's images (b, 3, S, S), uint8, and a generator that belongs to them."""
        assert isinstance(batch, SquareItem)
        generator = torch.Generator().manual_seed(int(batch.seed[0]))
        return batch.image.to(device, non_blocking=True), generator

    def note_bad_images(self, batch: Batch, batch_split: BatchSplit) -> None:
        """Take down what was replaced in the batches of all ranks: see `BadImages`."""
        if self.bad_images is not None:
            found = torch.stack([torch.as_tensor(batch.index), torch.as_tensor(batch.bad)], dim=1)
            self.bad_images.note(all_gather_rows(found, batch_split))


def as_channels_last(images: Tensor) -> Tensor:
    """Return images in the memory layout that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last)


def build_pair_loader(
    dataset: UnlabelledSet,
    augment: BatchViews | DenseViews | None,
    bad_images: BadImages | None,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    device: torch.device,
) -> PairLoader:
    """Return the loader of pairs of views.

    Args:
        dataset: the images.
        augment: see `PairLoader`.
        bad_images: see `PairLoader`.
        batch_size: images a step, over all ranks.
        num_workers: processes that read images.
        seed: of order and views.
        device: of the model.
    """
    if isinstance(dataset, ShardedSet):
        images = ShardedImages(
            dataset,
            squares=augment is not None,
            seed=seed,
            batch_size=batch_size,
            rank=rank(),
            ranks=world_size(),
        )
        loader = build_sharded_loader(images, num_workers=num_workers, device=device)
        return PairLoader(loader, augment, bad_images)
    make = dataset.square_item if augment else dataset.pair_item
    loader = build_loader(
        Items(dataset, partial(replacing, dataset, make)),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        shuffle=True,
        device=device,
    )
    return PairLoader(loader, augment, bad_images)
