r"""Pre-training, end to end: the published loader and step against ours, in images a second.

  python -m benchmarks.pretrain --data_folder datasets/celeba
  python -m benchmarks.pretrain --data_folder datasets/celeba --what memory --model resnet50
  python -m benchmarks.pretrain --data_folder datasets/celeba --ways "+ image cache" \
    --num_workers 0 1 2 --threads 1 2

Each turn is an epoch over the same images: reading, views, step. The literal side decodes each
image for each epoch, samples views with torchvision's transforms and takes the published step. The
first epochs, in which kernels are compiled, aren't counted.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import literal, measure, steps
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import build_loader
from data_loader.storage.image_cache import cache_images
from engine.run.settings import choose_device
from utils.arguments import natural, positive_int

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
    size = {"rounds": 5, "images": 512, "batch_size": 64}
    parser = measure.build_parser(__doc__, data_folder=..., model="resnet18", **size)
    parser.add_argument("--what", choices=["speed", "memory"], default="speed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    numbers = {"--num_workers": (natural, 2), "--threads": (positive_int, torch.get_num_threads())}
    for flag, (kind, default) in numbers.items():
        more: dict[str, Any] = {"default": [default], "help": "of each way, in turns"}
        parser.add_argument(flag, nargs="+", type=kind, **more)
    args = parser.parse_args()
    title = f"{args.model}, {steps.SIDE} px, batch {args.batch_size}"
    if args.what == "memory":
        print(measure.machine())
        for name, recompute in {"without": False, "with --recompute": True}.items():
            given = (args.model, args.batch_size, recompute)
            before, after = measure.marks_of("benchmarks.steps:step_memory", *given)
            growth = after.memory - before.memory
            print(f"{title}, {name}: peak {after.memory:.0f} MB, of which a step {growth:.0f} MB")
        return
    frame = (measure.SIZE, measure.CROP)
    plain, cached = (measure.images_of(args.data_folder, args.images, *frame) for _ in range(2))
    ways: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache_images(cached, Path(folder), max(args.num_workers))
        for workers, threads in product(args.num_workers, args.threads):
            several = len(args.num_workers) * len(args.threads) > 1
            of = f", {workers} w, {threads} t" if several else ""
            loading = (args.model, args.batch_size, workers)
            ways[f"literal{of}"] = partial(on_threads, threads, literal_epoch(plain, *loading))
            for name in args.ways:
                options = dict(WAYS[name])
                dataset = cached if options.pop("cached", False) else plain
                ours = our_epoch(dataset, *loading, **options)
                ways[f"{name}{of}"] = partial(on_threads, threads, ours)
        measure.compare(f"{title}, end to end", ways, args.rounds, "images/s", len(plain))


def on_threads(threads: int, epoch: steps.Epoch) -> None:
    """Train for an epoch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    epoch()
    torch.set_num_threads(before)


def literal_epoch(
    dataset: LandmarkDataset, model: str, batch_size: int, workers: int
) -> steps.Epoch:
    """Return a function that trains for an epoch as published."""
    device, pairs, keep = choose_device("auto", None), literal.PairDataset(dataset), workers > 0
    loader = DataLoader(pairs, batch_size, True, num_workers=workers, persistent_workers=keep)
    ours = steps.build_moco(model, device)
    for encoder in (ours.query, ours.key):
        encoder.to(memory_format=torch.contiguous_format)
    trained = (ours.query, ours.key, ours.contrast, ours.optimizer)

    def epoch() -> None:
        for views in loader:
            literal.train_one_step(*trained, views.to(device), steps.ALPHA)

    return epoch


def our_epoch(
    dataset: LandmarkDataset,
    model: str,
    batch_size: int,
    workers: int,
    augment: bool = False,
    amp: str = "off",
    **acceleration: Any,
) -> steps.Epoch:
    """Return a function that trains for an epoch from the files as `train_moco.py` does."""
    device = choose_device("auto", None)
    items = Items(dataset, dataset.square_item if augment else dataset.pair_item)
    loading: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers, "seed": 0}
    loader = build_loader(items, **loading, shuffle=True, device=device)
    views = measure.batch_views(dataset) if augment else None
    objective = steps.build_moco(model, device, views, **acceleration)
    return steps.take_steps(objective, loader, device, amp)


if __name__ == "__main__":
    main()
