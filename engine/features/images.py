"""A data set's images as batches of features, which are kept or made anew each epoch.

Letters: N images, M distinct ones among them, B of a batch, A landmarks, C channels, h and w rows
and columns of a map.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import SeededSampler, build_loader
from engine.features.cache import FeatureCache
from engine.features.squares import AnnotatedSquares, Batch, find_distinct
from models.encoders import Levels, encode
from models.timm_encoder import timm_encoders
from utils.collectives import all_gather_rows, broadcast_from_first, split_over_ranks
from utils.log import RunLog, progress
from utils.process_group import is_first_rank, world_size

FORMAT = 2  # of features on disk; raised when those of an earlier version wouldn't fit any more


@dataclass(frozen=True)
class Encoding:
    """A frozen encoder in eval mode, the digest of its weights, and which maps are wanted.

    Of an encoder that is still in training, these are the pixels, which depend on no weights.
    """

    encoder: nn.Module
    digest: str
    levels: Levels

    @property
    def device(self) -> torch.device:
        """Of the encoder."""
        return next(self.encoder.parameters()).device

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the maps of images (B, 3, H, W), deepest first, on the encoder's device."""
        images = images.to(self.device, non_blocking=True)
        return encode(self.encoder, images, self.levels.numbers)


@dataclass(eq=False)
class EncodedImages(ABC):
    """N images in batches of features, in an order of its own each epoch."""

    dataset: LandmarkDataset
    sampler: SeededSampler  # of the images' numbers
    batch_size: int  # the last batch may be smaller
    encoding: Encoding

    def __post_init__(self) -> None:
        self.points, self.visible = self.dataset.annotation_tensors()

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.points, self.visible

    def order(self, epoch: int) -> Tensor:
        """Return the places of an epoch's images in the data set, in their order, (N,)."""
        self.sampler.set_epoch(epoch)
        return self.sampler.keys()[0]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        self.sampler.set_epoch(epoch)
        return self.make(*(keys.split(self.batch_size) for keys in self.sampler.keys()))

    @abstractmethod
    def make(self, numbers: Sequence[Tensor], seeds: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches of these images; a random sample belongs to each one's seed, (B,) each."""


@dataclass(eq=False)
class StoredImages(EncodedImages):
    """Images whose features are kept."""

    stored: list[Tensor]  # of M images, (M, h, w, C): see `FeatureCache.keep`
    rows: Tensor  # (N,), the one of them that each image of the data set is

    def make(self, numbers: Sequence[Tensor], seeds: Sequence[Tensor]) -> Iterator[Batch]:
        """Look the features up; see `EncodedImages.make`."""
        device = self.encoding.device
        for places in numbers:
            rows = self.rows[places]
            maps = [level[rows.to(level.device)].to(device) for level in self.stored]
            parts = (part[places].to(device) for part in self.annotations())
            yield Batch([level.permute(0, 3, 1, 2) for level in maps], *parts)


@dataclass(eq=False)
class StreamedImages(EncodedImages):
    """Images that are encoded whenever they are asked for, since they are warped or too many."""

    squares: AnnotatedSquares

    def make(self, numbers: Sequence[Tensor], seeds: Sequence[Tensor]) -> Iterator[Batch]:
        """Cut or warp the squares, and encode them; see `EncodedImages.make`."""
        device = self.encoding.device
        if self.dataset.warper is None:
            batches = self.squares.centres(numbers, device)
        else:
            batches = self.squares.warped(numbers, seeds, device)
        for batch in batches:
            yield batch._replace(features=self.encoding(*batch.features))


def encode_dataset(
    encoding: Encoding,
    dataset: LandmarkDataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    shuffle: bool,
    cache: FeatureCache,
    log: RunLog,
) -> EncodedImages | None:
    """Return a data set as batches of features, in the first rank; None in the others.

    Images that aren't warped are encoded once, by all ranks, and their features kept where the
    cache has room for them.
    """
    (chosen, rows), stored = find_distinct(dataset), None
    if dataset.warper is None:
        loader = build_loader(
            Subset(Items(dataset, dataset.annotated_item), chosen),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            shuffle=False,
            device=encoding.device,
        )
        batches = encode_batches(encoding, loader, len(chosen), batch_size)
        if is_first_rank():
            blank = encoding(torch.zeros(1, 3, dataset.side, dataset.side))
            shapes = [(len(chosen), *level.shape[1:]) for level in stored_as(blank)]
            make_key = partial(features_key, dataset, chosen, encoding)
            stored = cache.keep(shapes, batches, make_key, log)
        elif broadcast_from_first(bool):  # the first rank says whether it encodes
            for _ in batches:
                pass
    elif world_size() > 1:
        log.line("warped images: encoded by the first process alone")
    if not is_first_rank():
        return None
    common = dataset, SeededSampler(len(dataset), seed, shuffle), batch_size, encoding
    if stored is None:
        return StreamedImages(*common, AnnotatedSquares(dataset, num_workers))
    return StoredImages(*common, stored, rows)


def encode_batches(
    encoding: Encoding, loader: DataLoader, count: int, batch_size: int
) -> Iterator[list[Tensor]]:
    """Yield the maps of M images, in their order, as they are stored.

    All ranks call it, each with a loader of its rows of every batch.
    """
    if is_first_rank():
        broadcast_from_first(lambda: True)  # the others have heard it when they call this
    for first, item in zip(range(0, count, batch_size), progress(loader, "encoding"), strict=True):
        batch_split = split_over_ranks(min(batch_size, count - first))
        yield [all_gather_rows(level, batch_split) for level in stored_as(encoding(item.image))]


def stored_as(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return maps (B, C, h, w) as (B, h, w, C), as a regressor's products want them."""
    return [level.permute(0, 2, 3, 1) for level in maps]


def features_key(dataset: LandmarkDataset, chosen: Sequence[int], encoding: Encoding) -> str:
    """Return a hash of all that the features of a data set's chosen images depend on.

    The images count by their files' content, too: reading them costs far less than encoding them,
    and an image that changed under its old name, size or date is noticed.
    """
    numbers, shape = encoding.levels
    facts: dict[str, object] = {
        "format": FORMAT,
        "torch": torch.__version__,
        "device": encoding.device.type,
        "encoder": encoding.digest,
        # As the flags say it, by which features on disk have always been found.
        "layer": numbers[0] if shape is None else len(numbers),
        "use_hypercol": shape is not None,
        "class": type(dataset).__qualname__,
        "imwidth": dataset.imwidth,
        "crop": dataset.crop,
        "colours": [dataset.mean, dataset.std],
    }
    for network in timm_encoders(encoding.encoder):
        facts["timm"] = network.version

    return dataset.digest(sorted(facts.items()), chosen, Path.read_bytes)[:32]
