"""The encoding of a data set, once and by all ranks, into wherever its features are kept.

Letters: N images of the data set, M distinct ones among them, A landmarks, C channels, h and w
rows and columns of a map.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import SeededSampler, build_loader
from engine.features.cache import (
    FeatureCache,
    features_key,
    in_bytes,
    read_features,
    write_features,
)
from engine.features.images import (
    EncodedImages,
    Encoding,
    Stored,
    StoredImages,
    StreamedImages,
    WarpedImages,
    find_distinct,
)
from utils.collectives import broadcast_from_first, gather_rows, split_over_ranks
from utils.locks import find_or_build
from utils.log import RunLog, Stopwatch, progress
from utils.process_group import is_first_rank, world_size


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
    if (warper := dataset.warper) is not None:
        if not is_first_rank():
            return None
        if world_size() > 1:
            log.line("warped images: encoded by the first process alone")
        warper = warper.to(encoding.device)
        return WarpedImages(sampler, batch_size, encoding, dataset, warper, num_workers)
    chosen, rows = find_distinct(dataset)
    items = Items(dataset, dataset.annotated_item)
    load = partial(
        build_loader,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        device=encoding.device,
    )
    loader = load(Subset(items, chosen), shuffle=False)
    batches = encode_batches(encoding, loader, len(chosen), batch_size)
    if not is_first_rank():
        if broadcast_from_first(bool):  # the first rank says whether it encodes
            list(batches)  # of no rows here
        return None
    blank = encoding(torch.zeros(1, 3, dataset.side, dataset.side))
    like = shapes_of(blank, len(chosen), dataset.annotations["keypoints"].shape[1])
    make_key = partial(features_key, dataset, chosen, encoding)
    stored = store_features(like, batches, make_key, cache, log)
    if stored is None:
        loader = load(items, shuffle=shuffle, shared=False)
        return StreamedImages(sampler, batch_size, encoding, dataset, loader)
    return StoredImages(sampler, batch_size, stored, rows, encoding.device)


def channels_last(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return maps (B, C, h, w) as (B, h, w, C)."""
    return [level.permute(0, 2, 3, 1) for level in maps]


def shapes_of(blank: Sequence[Tensor], count: int, landmarks: int) -> Stored:
    """Return tensors without data, of the shapes and types that the features of M images have."""
    points = torch.zeros(1, landmarks, 2)
    parts = [*channels_last(blank), points, points[..., 0] > 0]
    return [part.new_empty(count, *part.shape[1:], device="meta") for part in parts]


def store_features(
    like: Stored,
    batches: Iterable[Stored],
    make_key: Callable[[], str],
    cache: FeatureCache,
    log: RunLog,
) -> Stored | None:
    """Return features that were found on disk or encoded, None where there is no room for them.

    Called in the first rank; the others wait to hear whether they are to help with the batches.
    A key is made, for which all images are read, only where features may be on disk.
    """
    needed, watch = sum(part.nbytes for part in like), Stopwatch()
    what = f"features of {len(like[0])} images, {in_bytes(needed)}"
    place, path = cache.place(needed), Path()
    if place == "disk" or cache.may_hold():
        path = cache.folder / f"features-{make_key()}"
        place = "disk" if read_features(path) is not None else place
    stored, built = None, place is not None
    if place == "disk":
        find, write = partial(read_features, path), partial(write_features, like, batches)
        stored, built = find_or_build(path, "features", needed, find, write, log.line)
    elif place is not None:
        stored = cache.hold(like, batches, place)
    if built:
        where = f"on disk, in {cache.folder}" if place == "disk" else f"in memory ({place})"
        log.line(f"{what}: encoded in {watch.seconds():.1f} s, kept {where}")
        return stored
    broadcast_from_first(lambda: False)
    alone = " by the first process alone" if world_size() > 1 else ""
    why = "" if cache.mode == "off" else "more than memory and disk have room for; "
    if stored is not None:
        log.line(f"{what}: found in {cache.folder}")
    elif why or alone:
        log.line(f"{what}: {why}encoded anew each epoch{alone}")
    return stored


def encode_batches(
    encoding: Encoding, loader: DataLoader, count: int, batch_size: int
) -> Iterator[Stored]:
    """Yield the features of M images, in their order; of no image in other ranks than the first.

    All ranks call it, each with a loader of its rows of every batch.
    """
    if is_first_rank():
        broadcast_from_first(lambda: True)  # the others have heard it when they call this
    for first, item in zip(range(0, count, batch_size), progress(loader, "encoding"), strict=True):
        batch_split = split_over_ranks(min(batch_size, count - first))
        parts = [*channels_last(encoding(item.image)), item.points_norm, item.visible]
        gathered = [gather_rows(part, batch_split) for part in parts]
        yield [part for part in gathered if part is not None]
