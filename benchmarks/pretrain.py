r"""Pre-training, end to end: the published loader and step against ours, in images a second.

  python -m benchmarks.pretrain --data_folder datasets/celeba
  python -m benchmarks.pretrain --data_folder datasets/celeba --what memory --model resnet50
  python -m benchmarks.pretrain --data_folder datasets/celeba --ways "+ image cache" \
    --num_workers 0 1 2 --threads 1 2

Each turn is an epoch over the same images: reading, views, step. The literal side decodes each
image for each epoch, samples views with torchvision's transforms and takes the published step. The
first epochs, in which kernels are compiled and the image cache is made, aren't counted.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import literal
from benchmarks.literal_views import PairDataset
from benchmarks.measure import (
    add_model_arguments,
    build_parser,
    compare,
    images_of,
    machine,
    peak_memory,
)
from benchmarks.moco_state import (
    ALPHA,
    DIM,
    QUEUE,
    SIDE,
    TEMPERATURE,
    build_moco,
    take_steps,
)
from data_loader.items import Items, PairItem
from data_loader.loaders import build_loader
from data_loader.storage.image_cache import cache_images
from data_loader.views.batch_views import BatchViews
from engine.pretraining.objective import Images
from models.encoders import build_random_encoder
from models.momentum import copy_parameters, set_key_mode
from utils.arguments import natural, positive_int

SIZE, CROP = 136, 20
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
    parser = build_parser(__doc__, rounds=5)
    add_model_arguments(parser, images=512, batch_size=64)
    parser.add_argument("--what", choices=["speed", "memory"], default="speed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument(
        "--num_workers", nargs="+", type=natural, default=[2], help="of each way, in turns"
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive_int,
        default=[torch.get_num_threads()],
        help="of the model, of each way and number of workers, in turns",
    )
    args = parser.parse_args()
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}"
    if args.what == "memory":
        print(machine())
        for recompute in (False, True):
            peak = peak_memory(step_memory, args.model, args.batch_size, recompute)
            name = "with --recompute" if recompute else "without"
            print(
                f"{title}, {name}: peak {peak.total:.0f} MB, of which a step {peak.growth:.0f} MB"
            )
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        ways = {}
        for workers, threads in product(args.num_workers, args.threads):
            loading = (args.data_folder, args.images, args.batch_size, workers, device)
            of = (
                f", {workers} w, {threads} t"
                if len(args.num_workers) * len(args.threads) > 1
                else ""
            )
            ways[f"literal{of}"] = with_threads(threads, literal_epochs(args.model, *loading))
            for name in args.ways:
                ours = our_epochs(args.model, *loading, Path(folder), **WAYS[name])
                ways[f"{name}{of}"] = with_threads(threads, ours)
        compare(f"{title}, end to end", ways, args.rounds, "images/s", args.images)


def with_threads(threads: int, epoch: Callable[[], None]) -> Callable[[], None]:
    """Return a function that trains for an epoch on so many threads."""

    def train() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        epoch()
        torch.set_num_threads(before)

    return train


def literal_epochs(
    model: str, root: str, count: int, batch_size: int, num_workers: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that trains for an epoch as published."""
    dataset = PairDataset(images_of(root, count, SIZE, CROP))
    keep = num_workers > 0
    loader = DataLoader(dataset, batch_size, True, num_workers=num_workers, persistent_workers=keep)
    query, key = (build_random_encoder(model, SIDE, 0).to(device) for _ in range(2))
    copy_parameters(query, key)
    query.train()
    set_key_mode(key)
    queue = literal.Queue(QUEUE, DIM, TEMPERATURE).to(device)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)

    def epoch() -> None:
        for views in loader:
            literal.train_one_step(query, key, queue, optimizer, views.to(device), ALPHA)

    return epoch


def our_epochs(
    model: str,
    root: str,
    count: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    cache: Path,
    *,
    cached: bool = False,
    compiled: bool = False,
    amp: str = "off",
    augment: bool = False,
) -> Callable[[], None]:
    """Return a function that trains for an epoch as `train_moco.py` does."""
    dataset = images_of(root, count, SIZE, CROP)
    if cached:
        cache_images(dataset, cache, num_workers)
    batch_views = BatchViews(SIZE, CROP, 0.2, dataset.mean, dataset.std) if augment else None
    loader = build_loader(
        Items(dataset, dataset.square_item if augment else dataset.pair_item),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=0,
        shuffle=True,
        device=device,
    )
    objective = build_moco(model, device, batch_views, compiled=compiled)
    return partial(take_steps, objective, loader, device, amp)


def moco_steps(
    model: str, batch_size: int, steps: int, device: torch.device, amp: str, **acceleration: Any
) -> Callable[[], None]:
    """Return a function that takes steps of `train_moco.py` on random views on the device."""
    objective = build_moco(model, device, **acceleration)
    pair: Images = PairItem(torch.randn(batch_size, 6, SIDE, SIDE, device=device), 0)
    return partial(take_steps, objective, [pair] * steps, device, amp)


def step_memory(model: str, batch_size: int, recompute: bool) -> Iterator[None]:
    """Take one step on random images; growth counts from the first yield on."""
    step = moco_steps(model, batch_size, 1, torch.device("cpu"), "off", recompute=recompute)
    yield
    step()


if __name__ == "__main__":
    main()
