"""Pre-training, end to end: the published loader and step against ours, in images a second.

Each turn is an epoch over the same images: reading, views, step. The literal side decodes each
image for each epoch, samples views with torchvision's transforms and takes the published step. The
first epochs, in which kernels are compiled, aren't counted.
"""

import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.literal import published_pairs
from benchmarks.measure import batch_views, build_parser, compare, images_of, machine, memory_of
from benchmarks.steps import ALPHA, SIDE, Epoch, build_moco, step_memory, take_steps
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import build_loader
from data_loader.storage.image_cache import cache_images
from engine.run.settings import choose_device
from models.nce import NCESoftmaxLoss
from utils.script import run_script

WAYS: dict[str, dict[str, Any]] = {
    "channels last": {},
    "+ image cache": {"cached": True},
    "+ compiled": {"cached": True, "compiled": True},
    "+ cache, bf16": {"cached": True, "amp": "bf16"},
    "+ cache, device views": {"cached": True, "augment": True},
    "+ all": {"cached": True, "compiled": True, "amp": "bf16", "augment": True},
}


def main() -> None:
    """Measure what was asked for."""
    kinds = {"what": ("speed", "memory"), "ways": list(WAYS), "model": "resnet18"}
    size = {"rounds": 5, "images": 512, "batch_size": 64}
    cores = {"num_workers": [2], "threads": [torch.get_num_threads()]}
    args = build_parser(__doc__, data_folder=..., **kinds, **size, **cores).parse_args()
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}"
    if args.what == "memory":
        print(machine())
        for name, recompute in {"without": False, "with --recompute": True}.items():
            peak, growth = memory_of(step_memory, args.model, args.batch_size, recompute)
            print(f"{title}, {name}: peak {peak:.0f} MB, of which a step {growth:.0f} MB")
        return
    plain, cached = (images_of(args.data_folder, args.images) for _ in range(2))
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        cache_images(cached, Path(folder), max(args.num_workers))
        combinations = list(product(args.num_workers, args.threads))
        for workers, threads in combinations:
            loading = (args.model, args.batch_size, workers)
            epochs = {"literal": literal_epoch(plain, *loading)}
            for name in args.ways:
                options = dict(WAYS[name])
                dataset = cached if options.pop("cached", False) else plain
                epochs[name] = our_epoch(dataset, *loading, **options)
            of = f", {workers} w, {threads} t" if len(combinations) > 1 else ""
            for name, epoch in epochs.items():
                ways[f"{name}{of}"] = partial(on_threads, threads, epoch)
        compare(f"{title}, end to end", ways, args.rounds, "images/s", len(plain))


def on_threads(threads: int, work: Epoch) -> None:
    """Train for an epoch, or do other work, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    work()
    torch.set_num_threads(before)


def literal_epoch(dataset: LandmarkDataset, model: str, batch_size: int, workers: int) -> Epoch:
    """Return a function that trains for an epoch as published [spec 4]."""
    device, pairs, keep = choose_device("auto", None), published_pairs(dataset), workers > 0
    loader = DataLoader(pairs, batch_size, True, num_workers=workers, persistent_workers=keep)
    moco, criterion = build_moco(model, device), NCESoftmaxLoss()
    query, key = (m.to(memory_format=torch.contiguous_format) for m in (moco.query, moco.key))

    def epoch() -> None:
        for views in loader:
            view1, view2 = views.to(device).split(3, dim=1)  # (B, 3, W, W) each
            q = query(view1.contiguous())
            with torch.no_grad():
                order = torch.randperm(len(view2), device=device)
                k = key(view2.contiguous()[order])[torch.argsort(order)]
            # The queue compares with a copy of all keys, then writes the new ones.
            loss = criterion(moco.contrast(q, k))
            moco.optimizer.zero_grad()
            loss.backward()
            moco.optimizer.step()
            for new, slow in zip(query.parameters(), key.parameters(), strict=True):
                slow.data.mul_(ALPHA).add_(new.detach().data, alpha=1 - ALPHA)
            loss.item()  # read at once

    return epoch


def our_epoch(
    dataset: LandmarkDataset,
    model: str,
    batch_size: int,
    workers: int,
    augment: bool = False,
    amp: str = "off",
    **acceleration: Any,
) -> Epoch:
    """Return a function that trains for an epoch from the files as `train_moco.py` does."""
    device = choose_device("auto", None)
    items = Items(dataset, dataset.square_item if augment else dataset.pair_item)
    how: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers, "device": device}
    views = batch_views(dataset) if augment else None
    objective = build_moco(model, device, views, **acceleration)
    loader = build_loader(items, seed=0, shuffle=True, **how)
    return take_steps(objective, loader, device, amp)


if __name__ == "__main__":
    run_script(main)
