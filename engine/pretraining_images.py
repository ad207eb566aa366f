"""The unlabelled images of pre-training, and who draws their random views [spec 6]."""

import argparse
import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.bad_images import (
    BadImages,
    Replacing,
    add_bad_image_argument,
    count_bad_images,
)
from data_loader.data_loaders_animal import InatAve
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.items import Items, PairItem, SquareItem, SubstitutedItem
from data_loader.landmark_dataset import LandmarkDataset, add_image_arguments
from data_loader.loaders import build_loader
from data_loader.storage.image_cache import cache_images
from data_loader.storage.sharded_images import (
    FromShards,
    ShardedCelebA,
    ShardedImages,
    ShardedInatAve,
    build_sharded_loader,
)
from data_loader.storage.shards import find_shards, holds_shards
from data_loader.views.batch_views import BatchViews
from engine.acceleration import as_channels_last
from utils.arguments import fraction
from utils.collectives import BatchSplit, all_gather_rows, broadcast_from_first
from utils.errors import InputError
from utils.log import RunLog
from utils.process_group import rank, world_size

Batch = PairItem | SquareItem | SubstitutedItem  # each field stacked over b images


def add_unlabelled_arguments(parser) -> None:
    """Declare which images to pre-train on, and how their views are drawn."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=["CelebA", "InatAve"],
        default="CelebA",
        help="CelebA without MAFL, or the birds of iNaturalist",
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
        help="InatAve: file with one image path a line; all of --data_folder/*/*.jpg without it",
    )
    group.add_argument(
        "--crop",
        type=fraction,
        default=0.2,
        help="smallest share of an image's area that a random view shows",
    )
    group.add_argument(
        "--augment",
        choices=["pillow", "device"],
        default="pillow",
        help="draw the random views one by one in the reader processes, as published, or a batch "
        "at a time on the model's device, with the same distribution",
    )
    group.add_argument(
        "--image_cache",
        nargs="?",
        const="",
        metavar="DIR",
        help="decode, crop and resize each image once, into one file in DIR ({model_path}_cache "
        "if not named), and read it from there from then on",
    )
    add_image_arguments(group, image_size=100, image_crop=15)
    add_bad_image_argument(group)


def build_unlabelled_dataset(args: argparse.Namespace) -> LandmarkDataset:
    """Return the pairs of views that the options ask for.

    Raises:
        InputError: if an option doesn't go with shards; or as the data sets do.
    """
    frame = {"imwidth": args.image_size, "crop": args.image_crop, "smallest_scale": args.crop}
    frame["skip_bad"] = args.on_bad_image == "skip"
    root = args.data_folder
    if holds_shards(root):
        for option in ("imagelist", "image_cache"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option} doesn't go with shards, which {root} stands for")
        sharded = ShardedInatAve if args.dataset == "InatAve" else ShardedCelebA
        return sharded(broadcast_from_first(lambda: find_shards(root)), **frame)
    if args.dataset == "InatAve":
        return InatAve(root, imagelist=args.imagelist, **frame)
    return CelebAPrunedAligned_MAFLVal(root, **frame)


def order_name(dataset: LandmarkDataset) -> str:
    """Return what an epoch's order depends on beyond options; a run that goes on in it asks."""
    if not isinstance(dataset, FromShards):
        return f"{len(dataset)} images"
    counts = repr([(shard.path.name, shard.count) for shard in dataset.shards])
    return (
        f"{len(dataset)} images in {len(dataset.shards)} shards "
        f"({hashlib.sha256(counts.encode()).hexdigest()[:8]}) for {world_size()} processes"
    )


class Views(NamedTuple):
    """Where a run's pairs of random views come from, and what keeps count of bad images.

    ``augment`` draws the views of the squares that the loader yields, each with a seed; where it
    is None the loader draws them itself, and stacks them on channels.
    """

    loader: DataLoader
    augment: BatchViews | None
    bad_images: BadImages | None

    def pair(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return two random views of a batch's images, (b, 3, H, W) each, on a device."""
        items = batch.item if isinstance(batch, SubstitutedItem) else batch
        if isinstance(items, PairItem):
            view1, view2 = items.views.to(device, non_blocking=True).split(3, dim=1)
        else:
            images = items.image.to(device, non_blocking=True)
            generator = torch.Generator().manual_seed(items.seed[0].item())
            view1, view2 = self.augment(images, generator), self.augment(images, generator)
        return as_channels_last(view1), as_channels_last(view2)

    def note_bad_images(self, batch: Batch, batch_split: BatchSplit) -> None:
        """Take down what was replaced in the batches of all ranks: see `BadImages`."""
        if self.bad_images is not None:
            self.bad_images.note(all_gather_rows(batch.substituted, batch_split))


def build_views(
    args: argparse.Namespace,
    dataset: LandmarkDataset,
    folder: Path,
    resumed: bool,
    device: torch.device,
    log: RunLog,
) -> Views:
    """Return where the pairs of views come from.

    Args:
        args: the options.
        dataset: the images.
        folder: the run's.
        resumed: whether the run goes on with what it left there.
        device: of the model.
        log: is told.
    """
    augment = None
    if args.augment == "device":
        augment = BatchViews(args.image_size, args.image_crop, args.crop, dataset.mean, dataset.std)
    if args.image_cache is not None:
        cache = Path(args.image_cache or f"{args.model_path}_cache")
        log.line(cache_images(dataset, cache, args.num_workers, log.line))
    bad_images = count_bad_images(dataset, folder, resumed, log.line)
    if isinstance(dataset, FromShards):
        images = ShardedImages(
            dataset,
            squares=augment is not None,
            seed=args.seed,
            batch_size=args.batch_size,
            rank=rank(),
            ranks=world_size(),
        )
        loader = build_sharded_loader(images, num_workers=args.num_workers, device=device)
        return Views(loader, augment, bad_images)
    items = Items(dataset, dataset.square_item if augment else dataset.pair_item)
    loader = build_loader(
        Replacing(items, dataset) if bad_images else items,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        shuffle=True,
        device=device,
    )
    return Views(loader, augment, bad_images)
