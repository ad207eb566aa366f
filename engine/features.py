"""Features of a data set, batch by batch: kept, made anew each epoch, or of warped images.

All three kinds have the same three members: ``len(images)`` batches an epoch,
``images.batches(epoch)`` and ``images.annotations()``. Letters: N images, M distinct ones among
them, B of a batch, A landmarks.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from data_loader.geometry import normalize_points
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import (
    SeededSampler,
    available_cores,
    build_loader,
    seeded,
    set_epoch,
)
from engine.feature_cache import FeatureCache, Storage, Stored, features_key, in_bytes
from models.encoders import Features, as_maps, encode
from utils.distributed import (
    broadcast_from_first,
    gather_rows,
    is_first_rank,
    split_over_ranks,
    world_size,
)
from utils.log import RunLog, Stopwatch, progress
from utils.tps import WarperSingle


class Batch(NamedTuple):
    """What a regressor is trained and tested on.

    Args:
        features: of B images.
        points: (B, A, 2), in [-1, 1].
        visible: (B, A), bool; False where a landmark isn't annotated.
    """

    features: Features
    points: Tensor
    visible: Tensor


class Encoding:
    """A frozen encoder, and which of its maps are wanted.

    Args:
        encoder: frozen, in eval mode.
        digest: of its weights.
        layer: see `models.resnet`.
        use_hypercol: see `models.resnet`.
    """

    def __init__(self, encoder: nn.Module, digest: str, layer: int, use_hypercol: bool) -> None:
        self.encoder, self.digest = encoder, digest
        self.layer, self.use_hypercol = layer, use_hypercol
        self.device = next(encoder.parameters()).device

    def __call__(self, images: Tensor) -> Features:
        """Return the features of (B, 3, H, W) on the encoder's device."""
        images = images.to(self.device, non_blocking=True)
        return encode(self.encoder, images, self.layer, self.use_hypercol)

    def facts(self) -> dict[str, object]:
        """Return what the features depend on beside weights and images."""
        device = self.device.type
        return {"layer": self.layer, "use_hypercol": self.use_hypercol, "device": device}

    def blank(self, side: int) -> Features:
        """Return the features of one blank image, for their shapes."""
        return self(torch.zeros(1, 3, side, side))


class StreamedImages:
    """The images of a loader, encoded whenever they are asked for."""

    def __init__(self, encoding: Encoding, dataset: LandmarkDataset, loader: DataLoader) -> None:
        self.encoding, self.dataset, self.loader = encoding, dataset, loader

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the loader's sampler."""
        set_epoch(self.loader, epoch)
        device = self.encoding.device
        for item in self.loader:
            features = self.encoding(item.image)
            yield Batch(features, item.points_norm.to(device), item.visible.to(device))

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.dataset.annotation_tensors()


class StoredImages:
    """Images whose features are kept.

    Args:
        stored: of M images.
        rows: (N,), the one of them that each image of the data set is.
        sampler: of the N images.
        batch_size: B.
        is_dense: whether the features are one dense map rather than a pyramid.
        device: of the regressor.
    """

    def __init__(
        self,
        stored: Stored,
        rows: Tensor,
        sampler: SeededSampler,
        batch_size: int,
        is_dense: bool,
        device: torch.device,
    ) -> None:
        self.stored, self.rows, self.sampler = stored, rows, sampler
        self.batch_size, self.is_dense, self.device = batch_size, is_dense, device

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        self.sampler.set_epoch(epoch)
        order = torch.tensor([index for index, _ in self.sampler])
        for rows in self.rows[order].split(self.batch_size):
            maps = tuple(
                m[rows.to(m.device)].to(self.device, non_blocking=True).permute(0, 3, 1, 2)
                for m in self.stored.maps
            )
            points, visible = self.stored.points[rows], self.stored.visible[rows]
            features = maps[0] if self.is_dense else maps
            yield Batch(features, points.to(self.device), visible.to(self.device))

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.stored.points[self.rows], self.stored.visible[self.rows]


class WarpedImages:
    """Images warped anew each epoch, a batch at a time on the encoder's device.

    The random warps are those that the data set's own items would make.

    Args:
        encoding: of the warped images.
        dataset: its images are read once, and held as they are before the warp.
        sampler: of the N images.
        batch_size: B.
        num_workers: processes that read the images.
    """

    def __init__(
        self,
        encoding: Encoding,
        dataset: LandmarkDataset,
        sampler: SeededSampler,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self.encoding, self.dataset, self.sampler = encoding, dataset, sampler
        self.batch_size = batch_size
        self.warper: WarperSingle = dataset.warper.to(encoding.device)
        chosen, self.rows = distinct(dataset)
        loader = DataLoader(
            Subset(Items(dataset, dataset.base_tensors), chosen),
            batch_size=None,
            num_workers=min(num_workers, available_cores()),
            generator=torch.Generator(),  # its own, not the training's
        )
        images, points = zip(*progress(loader, "reading"), strict=True)
        images = torch.stack(images).permute(0, 3, 1, 2)  # (M, 3, S, S) uint8
        self.images = images.contiguous().to(encoding.device)
        self.points_px = torch.stack(points)  # (M, A, 2) float64

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        self.sampler.set_epoch(epoch)
        keys, device, size = list(self.sampler), self.encoding.device, self.batch_size
        for batch in (keys[first : first + size] for first in range(0, len(keys), size)):
            indices = [index for index, _ in batch]
            rows = self.rows[indices]
            weights = torch.stack([self._draw(seed) for _, seed in batch])  # (B, P + 3, 2)
            images, points_px = self.warper.warp(
                self.images[rows.to(device)].float(),
                self.points_px[rows].numpy(),
                weights,
                self.dataset.crop,
            )
            images = self.dataset.normalize(images.to(torch.uint8).float() / 255)
            points_px = torch.as_tensor(points_px, dtype=torch.float32)  # (B, A, 2)
            points = normalize_points(points_px, self.dataset.side)
            visible = torch.stack([self.dataset.visible(index) for index in indices])
            yield Batch(self.encoding(images), points.to(device), visible.to(device))

    def _draw(self, seed: int) -> Tensor:
        with seeded(seed):
            return self.warper.draw()

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.dataset.annotation_tensors()


EncodedImages = StreamedImages | StoredImages | WarpedImages


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
    sampler = SeededSampler(len(dataset), seed, shuffle)
    if dataset.warper is not None:
        if not is_first_rank():
            return None
        if world_size() > 1:
            log.line("warped images: encoded by the first process alone")
        return WarpedImages(encoding, dataset, sampler, batch_size, num_workers)
    chosen, rows = distinct(dataset)
    blank = encoding.blank(dataset.side)
    needed = len(chosen) * sum(m.nbytes for m in as_maps(blank))
    items = Items(dataset, dataset.annotated_item)
    load = partial(
        build_loader,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        device=encoding.device,
    )
    loader = load(Subset(items, chosen), shuffle=False)
    if not is_first_rank():
        if broadcast_from_first(lambda: True):  # the first rank's word: whether it encodes
            encode_into(None, encoding, loader, rows, len(chosen))
        return None

    def encode_with_all(storage: Storage) -> None:
        broadcast_from_first(lambda: True)
        encode_into(storage, encoding, loader, rows, len(chosen))

    stored, was_encoded = keep_features(
        encoding, dataset, chosen, needed, cache, encode_with_all, log
    )
    if not was_encoded:  # they were found, or fit nowhere
        broadcast_from_first(lambda: False)
    if stored is None:
        loader = load(items, shuffle=shuffle, shared=False)
        return StreamedImages(encoding, dataset, loader)
    is_dense = isinstance(blank, Tensor)
    return StoredImages(stored, rows, sampler, batch_size, is_dense, encoding.device)


def keep_features(
    encoding: Encoding,
    dataset: LandmarkDataset,
    chosen: list[int],
    needed: int,
    cache: FeatureCache,
    encode_with_all: Callable[[Storage], None],
    log: RunLog,
) -> tuple[Stored | None, bool]:
    """Return the features of a data set's distinct images, and whether they had to be encoded.

    Args:
        encoding: of the images.
        dataset: unwarped images.
        chosen: see `distinct`.
        needed: bytes of the features.
        cache: where they go; None is returned where it has no room for them.
        encode_with_all: fills a storage, helped by all ranks.
        log: says what was found or encoded.
    """
    watch = Stopwatch()
    what = f"features of {len(chosen)} images, {in_bytes(needed)}"
    key = ""
    if may_hold := cache.may_hold():  # the key needs all images to be read
        key = features_key(dataset, chosen, encoding.digest, **encoding.facts())
        if (stored := cache.find(key)) is not None:
            log.line(f"{what}: found in {cache.folder}")
            return stored, False
    place = cache.place(needed)
    if place is None:
        alone = " by the first process alone" if world_size() > 1 else ""
        why = "" if cache.mode == "off" else "more than memory and disk have room for; "
        if why or alone:
            log.line(f"{what}: {why}encoded anew each epoch{alone}")
        return None, False
    if place == "disk" and not may_hold:
        key = features_key(dataset, chosen, encoding.digest, **encoding.facts())
    stored, was_encoded = cache.keep(place, needed, key, encode_with_all)
    where = f"on disk, in {cache.folder}" if place == "disk" else f"in memory ({place})"
    log.line(f"{what}: encoded in {watch.seconds():.1f} s, kept {where}")
    return stored, was_encoded


def encode_into(
    storage: Storage | None, encoding: Encoding, loader: DataLoader, rows: Tensor, count: int
) -> None:
    """Encode the images of a loader into a storage, in the data set's order.

    All ranks call it: each encodes its chunks of the batches, the first one stores them.

    Args:
        storage: of the first rank; None in the others.
        encoding: of the images.
        loader: yields this rank's chunks.
        rows: (N,), the row of the storage for each image of the data set.
        count: M, the images to be encoded.
    """
    batch_size = loader.batch_sampler.batch_size
    for step, item in enumerate(progress(loader, "encoding")):
        batch_split = split_over_ranks(min(batch_size, count - step * batch_size))
        # Channels last, as the regressor's products want them: (B, h, w, C).
        maps = [m.permute(0, 2, 3, 1) for m in as_maps(encoding(item.image))]
        parts = {f"map{i}": m for i, m in enumerate(maps)}
        parts |= {"points": item.points_norm, "visible": item.visible}
        parts = {name: gather_rows(part, batch_split) for name, part in parts.items()}
        indices = gather_rows(item.index, batch_split)
        if storage is None:
            continue
        for name, part in parts.items():
            if name not in storage.tensors:
                storage.allocate(name, (count, *part.shape[1:]), part.dtype)
            tensor = storage.tensors[name]
            tensor[rows[indices].to(tensor.device)] = part.to(tensor.device)


def distinct(dataset: LandmarkDataset) -> tuple[list[int], Tensor]:
    """Return the places of a data set's M distinct images, and which of them each one is, (N,).

    Images that are repeated for training on few annotations need to be encoded but once.
    """
    first: dict[tuple, int] = {}
    places, rows = [], []
    for place, filename in enumerate(dataset.filenames):
        annotations = [values[place].tobytes() for values in dataset.annotations.values()]
        row = first.setdefault((filename, *annotations), len(first))
        if row == len(places):
            places.append(place)
        rows.append(row)
    return places, torch.tensor(rows)
