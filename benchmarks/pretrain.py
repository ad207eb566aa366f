"""Pre-training, end to end: the published loader and step against ours, in images a second.

  python -m benchmarks.pretrain --data_folder datasets/celeba
  python -m benchmarks.pretrain --data_folder datasets/celeba --what memory --model resnet50

Each turn is an epoch over the same images: reading, views, step. The literal side decodes each
image for each epoch, draws views with torchvision's transforms and takes the published step. The
first epochs, in which kernels are compiled and the image cache is made, aren't counted.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import literal
from benchmarks.literal_views import PairDataset
from benchmarks.measure import interleaved, machine, peak_memory, report
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.items import PairItem
from data_loader.storage.image_cache import cache_images
from data_loader.views.batch_views import BatchViews
from engine.acceleration import gradient_scaler
from engine.pretraining_images import Views, build_views
from engine.pretraining_state import MoCoState, Position, build_encoders
from models.encoders import RESNETS, build_random_encoder
from models.momentum import copy_parameters, set_key_mode
from models.nce import MemoryMoCo
from train_moco import train_one_epoch
from utils.arguments import ArgumentParser, natural, positive_int
from utils.log import RunLog

SIZE, CROP, SIDE = 136, 20, 96
QUEUE, TEMPERATURE, ALPHA, DIM = 4096, 0.07, 0.999, 128
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
    parser = ArgumentParser(__doc__)
    parser.add_argument("--data_folder", required=True, help="a CelebA layout")
    parser.add_argument("--model", choices=list(RESNETS), default="resnet18")
    parser.add_argument("--what", choices=["speed", "memory"], default="speed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--images", type=positive_int, default=512, help="images an epoch")
    parser.add_argument("--batch_size", type=positive_int, default=64)
    parser.add_argument("--num_workers", type=natural, default=2)
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine())
    if args.what == "memory":
        for recompute in (False, True):
            peak = peak_memory(step_memory, args.model, args.batch_size, recompute)
            name = "with --recompute" if recompute else "without"
            print(
                f"{args.model}, {SIDE} px, batch {args.batch_size}, {name}: "
                f"peak {peak.total:.0f} MB, of which a step {peak.growth:.0f} MB"
            )
        return
    with tempfile.TemporaryDirectory() as folder:
        loading = (args.data_folder, args.images, args.batch_size, args.num_workers, device)
        ways = {"literal": literal_epochs(args.model, *loading)}
        for name in args.ways:
            ways[name] = our_epochs(args.model, *loading, Path(folder), **WAYS[name])
        seconds = interleaved(ways, args.rounds)
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}, end to end"
    for name in args.ways:
        pair = {"literal": seconds["literal"], name: seconds[name]}
        report(title, pair, "images/s", args.images)


def images_of(root: str, count: int) -> CelebAPrunedAligned_MAFLVal:
    """Return the first images of a CelebA layout."""
    dataset = CelebAPrunedAligned_MAFLVal(root, imwidth=SIZE, crop=CROP)
    dataset.select(range(min(count, len(dataset))))
    return dataset


def literal_epochs(
    model: str, root: str, count: int, batch_size: int, num_workers: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that trains for an epoch as published."""
    dataset = PairDataset(images_of(root, count))
    loader = DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
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


def state_of(model: str, device: torch.device, amp: str, **acceleration: Any) -> MoCoState:
    """Return what `train_moco.py` trains."""
    query, key = build_encoders(model, SIDE, 0, device, **acceleration)
    contrast = MemoryMoCo(DIM, 0, QUEUE, TEMPERATURE, use_softmax=True).to(device)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    return MoCoState(query, key, contrast, optimizer, gradient_scaler(device, amp))


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
    dataset = images_of(root, count)
    if cached:
        cache_images(dataset, cache, num_workers)
    views = build_views(
        dataset,
        BatchViews(SIZE, CROP, 0.2, dataset.mean, dataset.std) if augment else None,
        None,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=0,
        device=device,
    )
    state = state_of(model, device, amp, compiled=compiled)
    return partial(our_epoch, views, state, len(dataset), batch_size, amp)


def our_epoch(views: Views, state: MoCoState, images: int, batch_size: int, amp: str) -> None:
    """Train for an epoch as `train_moco.py` does."""
    device = next(state.query.parameters()).device
    position = Position(torch.zeros(2, device=device), images, batch_size)
    # A line of the log every so many steps: never.
    train_one_epoch(
        views, state.query, state, position, ALPHA, amp, images + 1, RunLog(), lambda position: None
    )


def step_memory(model: str, batch_size: int, recompute: bool) -> Iterator[None]:
    """Take one step on random images; growth counts from the first yield on."""
    state = state_of(model, torch.device("cpu"), "off", recompute=recompute)
    yield
    batch = PairItem(torch.randn(batch_size, 6, SIDE, SIDE), 0)
    loader: DataLoader = DataLoader([batch], batch_size=None)  # type: ignore[arg-type]  # a list will do
    our_epoch(Views(loader, None, None), state, batch_size, batch_size, "off")


if __name__ == "__main__":
    main()
