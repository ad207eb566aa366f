"""The unlabelled images of pre-training: which they are, and in which steps they come [spec 6]."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from data_loader.bad_images import BadImages, add_image_arguments, image_options, replacing
from data_loader.data_loaders_animal import InatAve
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.folder import MEASURED_IMAGES, Folder, add_cutout_arguments, measure_colours
from data_loader.items import Items
from data_loader.loaders import build_loader, set_epoch
from data_loader.named_images import NamedImages
from data_loader.storage.sharded_images import (
    ShardedCelebA,
    ShardedFolder,
    ShardedImages,
    ShardedInatAve,
    ShardedSet,
    build_sharded_loader,
)
from data_loader.storage.shards import find_shards, holds_shards
from engine.pretraining.checkpoint import Position
from engine.pretraining.objective import Images
from engine.run.settings import Settings
from utils.arguments import ArgumentParser, allow_change
from utils.collectives import BatchSplit, all_gather_rows, broadcast_from_first, split_over_ranks
from utils.errors import InputError
from utils.log import progress
from utils.process_group import rank, world_size

UnlabelledSet = NamedImages | ShardedSet
SHARDED: dict[str, type[ShardedSet]] = {"InatAve": ShardedInatAve, "Folder": ShardedFolder}
CELEBA_FOLDERS = ("Anno", "Img", "Eval", "MAFL")
PUBLISHED_CROP = 15  # pixels, of --image_crop [spec 8]


@dataclass(frozen=True)
class ImageSettings(Settings):
    """Which images to pre-train on, how they become squares, and in which batches they come."""

    dataset: str
    data_folder: str
    imagelist: str | None
    image_cache: str | None
    fit: str
    boxes: str | None
    box_margin: float
    colours: str
    image_size: int
    image_crop: int
    on_bad_image: str
    batch_size: int
    num_workers: int
    seed: int


def add_unlabelled_arguments(parser: ArgumentParser) -> argparse._ArgumentGroup:
    """Declare which images to pre-train on; return the group."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=["CelebA", "InatAve", "Folder"],
        default="CelebA",
        help="CelebA without MAFL, the birds of iNaturalist, or any images: all that are below "
        "--data_folder, if that has neither the folders of CelebA nor shards",
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
    add_cutout_arguments(group)
    group.add_argument(
        "--colours",
        choices=["published", "measured"],
        default="published",
        help="standardise by the colour statistics that belong to the data set (of Folder, as of "
        f"InatAve, ImageNet's), or by those of up to {MEASURED_IMAGES} of the images, which the "
        "checkpoint notes for the scripts that use the encoder; so also the range of 16-bit values",
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
    shown = f" [{PUBLISHED_CROP}; of Folder, 0]"
    add_image_arguments(group, image_size=100, image_crop=None, default_crop=shown)
    parser.choose_default(
        "dataset", lambda options: "Folder" if is_plain(options.data_folder) else None
    )
    parser.choose_default(
        "image_crop", lambda options: 0 if options.dataset == "Folder" else PUBLISHED_CROP
    )
    return group


def is_plain(root: str) -> bool:
    """Whether a folder is neither CelebA's nor one of shards."""
    if not os.path.isdir(root) or holds_shards(root):
        return False
    return not any(os.path.isdir(os.path.join(root, part)) for part in CELEBA_FOLDERS)


def open_images(settings: ImageSettings, smallest_scale: float = 0.2) -> UnlabelledSet:
    """Return the images that pairs of views are made of.

    ``smallest_scale`` is that of random views, where the readers make them.

    Raises:
        InputError: if an option doesn't go with the data set or with shards; or as the data sets
            do.
    """
    name, root, boxes = settings.dataset, settings.data_folder, settings.boxes
    if name != "Folder" and (settings.fit != "stretch" or boxes is not None):
        wish = f"--fit {settings.fit}" if boxes is None else "--boxes"
        raise InputError(f"{wish}: only of --dataset Folder")
    frame = image_options(settings.image_size, settings.image_crop, settings.on_bad_image)
    frame["smallest_scale"] = smallest_scale
    if name == "Folder":
        frame["fit"] = settings.fit
    dataset: UnlabelledSet
    if holds_shards(root):
        for option in ("imagelist", "image_cache", "boxes"):
            if getattr(settings, option) is not None:
                raise InputError(f"--{option} doesn't go with shards, which {root} stands for")
        sharded = SHARDED.get(name, ShardedCelebA)
        dataset = sharded(broadcast_from_first(lambda: find_shards(root)), **frame)
    elif name == "Folder":
        frame |= {"boxes": boxes, "margin": settings.box_margin}
        dataset = Folder(root, imagelist=settings.imagelist, **frame)
    elif name == "InatAve":
        dataset = InatAve(root, imagelist=settings.imagelist, **frame)
    else:
        dataset = CelebAPrunedAligned_MAFLVal(root, **frame)
    if settings.colours == "measured":
        dataset.standardise_by(*broadcast_from_first(lambda: measure_colours(dataset)))
    return dataset


def build_unlabelled_loader(
    settings: ImageSettings, dataset: UnlabelledSet, sees_squares: bool, device: torch.device
) -> DataLoader:
    """Return the loader of squares, or else of pairs of views, for a model on a device."""
    loading: dict[str, Any] = {"num_workers": settings.num_workers, "device": device}
    batches: dict[str, Any] = {"batch_size": settings.batch_size, "seed": settings.seed}
    if isinstance(dataset, ShardedSet):
        place = {"rank": rank(), "ranks": world_size()}
        images = ShardedImages(dataset, squares=sees_squares, **batches, **place)
        return build_sharded_loader(images, **loading)
    make = dataset.square_item if sees_squares else dataset.pair_item
    items = Items(dataset, partial(replacing, dataset, make))
    return build_loader(items, shuffle=True, **batches, **loading)


def rest_of_epoch(
    loader: DataLoader, bad_images: BadImages, position: Position, most: int
) -> Iterator[tuple[Images, BatchSplit]]:
    """Yield this rank's images of each step that is left of an epoch, and how its batch is split.

    No more steps are made than ``most``.
    What was replaced in the batches of all ranks is taken down: see `BadImages`.
    """
    set_epoch(loader, position.epochs + 1, skip=position.images)
    steps = islice(loader, most)
    for images in progress(steps, f"epoch {position.epochs + 1}", min(most, len(loader))):
        left = position.images_an_epoch - position.images
        batch_split = split_over_ranks(min(position.batch_size, left))
        if bad_images.dataset.skip_bad:
            found = torch.stack([torch.as_tensor(images.index), torch.as_tensor(images.bad)], dim=1)
            bad_images.note(all_gather_rows(found, batch_split))
        yield images, batch_split
    bad_images.report()
