"""Items of pre-training, two views an image each: the published pipeline against ours.

  python -m benchmarks.loader --data_folder datasets/celeba
  python -m benchmarks.loader --data_folder datasets/celeba --image_size 96 --image_crop 0

In pairs of views a second, in one process on one core, as a loader's worker processes work. The
literal side decodes the image for every item and samples its views with torchvision's transforms;
ours samples the same views, from the image's file and from the image cache.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.literal import PairDataset
from benchmarks.measure import CROP, SIZE, build_parser, compare, images_of, largest_difference
from data_loader.storage.image_cache import cache_images


def main() -> None:
    """Measure and print."""
    frame = {"image_size": SIZE, "image_crop": CROP}
    parser = build_parser(__doc__, data_folder=..., rounds=9, **frame, images=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    published, decoding, cached = (
        images_of(args.data_folder, args.images, args.image_size, args.image_crop) for _ in range(3)
    )
    count = len(cached)
    items: dict[str, Callable[[int], Tensor]] = {
        "published": PairDataset(published).__getitem__,
        "ours, no cache": lambda index: decoding.pair_item(index).views,
        "ours, image cache": lambda index: cached.pair_item(index).views,
    }
    # A queue of no length samples all pairs and keeps none.
    ways = {
        name: partial(lambda item: deque(pairs(item, count), 0), i) for name, i in items.items()
    }
    title = f"pairs a second and core: {args.image_size} px less {args.image_crop} a side"
    with tempfile.TemporaryDirectory() as folder:
        print(cache_images(cached, Path(folder), num_workers=0))
        compare(f"{title}, {count} images", ways, args.rounds, "pairs/s", count)
        views = {name: torch.stack(list(pairs(item, count))) for name, item in items.items()}
    for name, ours in list(views.items())[1:]:
        print(f"{name}: largest difference {largest_difference(ours, views['published'])}")


def pairs(item: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    """Yield the pairs of views (6, W, W) of the first images, each from its own seed."""
    for index in range(count):
        torch.manual_seed(index)
        yield item(index)


if __name__ == "__main__":
    main()
