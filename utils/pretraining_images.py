"""The batches of pre-training: from a cache or not, bad pictures replaced or not."""

import argparse
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from data_loader.bad_images import BadImages, guarded
from data_loader.device_augmentation import BatchViews
from data_loader.image_cache import BaseImages, cache_images
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import build_loader
from utils.log import RunLog


def open_images(
    args: argparse.Namespace,
    dataset: LandmarkDataset,
    folder: Path,
    resumed: bool,
    device: torch.device,
    log: RunLog,
) -> tuple[DataLoader, BatchViews | None, BadImages | None]:
    """Return the batches, what draws their views if the loader doesn't, and what counts bad ones.

    Args:
        args: the options.
        dataset: the pictures.
        folder: the run's.
        resumed: whether the run goes on with what it left there.
        device: of the model.
        log: is told.
    """
    if args.image_cache is not None:
        cache = Path(args.image_cache or f"{args.model_path}_cache")
        log.line(cache_images(dataset, cache, args.num_workers))
    augment = None
    if args.augment == "device":
        augment = BatchViews(args.image_size, args.image_crop, args.crop, dataset.mean, dataset.std)
    items, bad_images = guarded(
        BaseImages(dataset) if augment else dataset, dataset, folder, resumed, log.line
    )
    loader = build_loader(
        items,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        shuffle=True,
        device=device,
    )
    return loader, augment, bad_images
