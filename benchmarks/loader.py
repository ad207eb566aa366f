"""Items of pre-training, two views an image each: the published pipeline against ours.

  python -m benchmarks.loader --data_folder datasets/celeba
  python -m benchmarks.loader --data_folder datasets/celeba --image_size 96 --image_crop 0

In pairs of views a second, in one process on one core, as a loader's worker processes work. The
literal side decodes the image for every item and samples its views with torchvision's transforms;
ours samples the same views, from the image's file and from the image cache.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.literal_views import PairDataset
from benchmarks.measure import build_parser, compare, images_of, largest_difference
from data_loader.landmark_dataset import add_image_arguments
from data_loader.storage.image_cache import cache_images
from utils.arguments import positive_int


def main() -> None:
    """Measure and print."""
    parser = build_parser(__doc__, rounds=9)
    add_image_arguments(parser, image_size=136, image_crop=20)
    parser.add_argument("--images", type=positive_int, default=200, help="in a turn")
    args = parser.parse_args()
    torch.set_num_threads(1)
    published, decoding, cached = (
        images_of(args.data_folder, args.images, args.image_size, args.image_crop) for _ in range(3)
    )
    count = len(cached)
    with tempfile.TemporaryDirectory() as folder:
        print(cache_images(cached, Path(folder), num_workers=0))
        items = {
            "published": PairDataset(published).__getitem__,
            "ours, no cache": lambda index: decoding[index][0],
            "ours, image cache": lambda index: cached[index][0],
        }
        title = f"pairs a second and core: {args.image_size} px less {args.image_crop} a side"
        ways = {name: partial(sample_all, item, count) for name, item in items.items()}
        compare(f"{title}, {count} images", ways, args.rounds, "pairs/s", count)
        views = {name: torch.stack(list(pairs(item, count))) for name, item in items.items()}
    for name in ("ours, no cache", "ours, image cache"):
        print(f"{name}: largest difference {largest_difference(views[name], views['published'])}")


def sample_all(item: Callable[[int], Tensor], count: int) -> None:
    """Sample all pairs and keep none."""
    for _ in pairs(item, count):
        pass


def pairs(item: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    """Yield the pairs of views (6, W, W) of the first images, each from its own seed."""
    for index in range(count):
        torch.manual_seed(index)
        yield item(index)


if __name__ == "__main__":
    main()
