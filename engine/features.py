"""The encoding of a data set, once and by all ranks, into wherever its features are kept.

Letters: N images of the data set, M distinct ones among them, A landmarks, C channels, h and w
rows and columns of a map.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import SeededSampler, build_loader
from engine.encoded_images import (
    EncodedImages,
    Encoding,
    StoredImages,
    StreamedImages,
    WarpedImages,
    find_distinct,
)
from engine.feature_cache import (
    FeatureCache,
    Stored,
    allocate_files,
    as_stored,
    commit_files,
    features_key,
    in_bytes,
)
from models.timm_encoder import timm_encoders
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
    if dataset.warper is not None:
        if not is_first_rank():
            return None
        if world_size() > 1:
            log.line("warped images: encoded by the first process alone")
        return WarpedImages(encoding, dataset, dataset.warper, sampler, batch_size, num_workers)
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
    fill = partial(encode_into, encoding, loader, len(chosen), batch_size)
    if not is_first_rank():
        if broadcast_from_first(bool):  # the first rank says whether it encodes
            fill(None)
        return None
    blank = encoding(torch.zeros(1, 3, dataset.side, dataset.side))
    like = shapes_of(blank, len(chosen), dataset.annotations["keypoints"].shape[1])
    needed = sum(level.nbytes for level in like.maps)
    key = None
    if cache.may_hold() or cache.place(needed) == "disk":  # else no need to read all images for it
        numbers, shape = encoding.levels
        # As the flags say it, by which features on disk have always been found.
        how: dict[str, object] = {
            "layer": numbers[0] if shape is None else len(numbers),
            "use_hypercol": shape is not None,
        }
        for network in timm_encoders(encoding.encoder):
            how["timm"] = network.version
        key = features_key(dataset, chosen, encoding.digest, **how, device=encoding.device.type)
    stored = store_features(fill, like, needed, key, cache, log)
    if stored is None:
        loader = load(items, shuffle=shuffle, shared=False)
        return StreamedImages(encoding, dataset, loader)
    return StoredImages(stored, rows, sampler, batch_size, encoding.device)


def shapes_of(blank: Sequence[Tensor], count: int, landmarks: int) -> Stored:
    """Return tensors without data, of the shapes and types that the features of M images have."""
    maps = [level.permute(0, 2, 3, 1).to("meta") for level in blank]
    return Stored(
        # Channels last, as the regressor's products want them.
        [level.new_empty(count, *level.shape[1:]) for level in maps],  # (M, h, w, C)
        torch.empty(count, landmarks, 2, device="meta"),
        torch.empty(count, landmarks, dtype=torch.bool, device="meta"),
    )


def store_features(
    fill: Callable[[Stored | None], None],
    like: Stored,
    needed: int,
    key: str | None,
    cache: FeatureCache,
    log: RunLog,
) -> Stored | None:
    """Return features that were found on disk or encoded, None where there is no room for them.

    Called in the first rank; the others wait to hear whether they are to help `fill` what was
    allocated in the shapes of ``like``. The key is None if the features can't be on disk.
    """
    watch, what = Stopwatch(), f"features of {len(like.points)} images, {in_bytes(needed)}"
    stored = cache.find(key) if key is not None else None
    place = cache.place(needed) if stored is None else None
    if place is None:
        broadcast_from_first(lambda: False)
        alone = " by the first process alone" if world_size() > 1 else ""
        why = "" if cache.mode == "off" else "more than memory and disk have room for; "
        if stored is not None:
            log.line(f"{what}: found in {cache.folder}")
        elif why or alone:
            log.line(f"{what}: {why}encoded anew each epoch{alone}")
        return stored

    def write(folder: Path) -> None:
        arrays = allocate_files(folder, like)
        broadcast_from_first(lambda: True)
        fill(as_stored(arrays))
        commit_files(folder, arrays)

    if place == "disk" and key is not None:
        path, find = cache.folder / f"features-{key}", partial(cache.find, key)
        stored, built = find_or_build(path, "features", needed, find, write, log.line)
        if not built:  # another run did
            broadcast_from_first(lambda: False)
    else:
        stored = cache.allocate(like, needed, place)
        broadcast_from_first(lambda: True)
        fill(stored)
    where = f"on disk, in {cache.folder}" if place == "disk" else f"in memory ({place})"
    log.line(f"{what}: encoded in {watch.seconds():.1f} s, kept {where}")
    return stored


def encode_into(
    encoding: Encoding, loader: DataLoader, count: int, batch_size: int, stored: Stored | None
) -> None:
    """Encode M images in their order into tensors, which only the first rank has.

    All ranks call it, each with a loader of its rows of every batch.
    """
    for first, item in zip(range(0, count, batch_size), progress(loader, "encoding"), strict=True):
        batch_split = split_over_ranks(min(batch_size, count - first))
        maps = [level.permute(0, 2, 3, 1) for level in encoding(item.image)]
        parts = [*maps, item.points_norm, item.visible]
        parts = [gather_rows(part, batch_split) for part in parts]
        if stored is not None:
            for tensor, part in zip([*stored.maps, *stored[1:]], parts, strict=True):
                tensor[first : first + batch_size] = part
