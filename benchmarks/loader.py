"""Items of pre-training, two views an image each: the published pipeline against ours.

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

from benchmarks.literal import published_pairs
from benchmarks.measure import CROP, SIZE, build_parser, compare, images_of, largest_difference
from data_loader.storage.image_cache import cache_images
from utils.script import run_script


def main() -> None:
    """Measure and print."""
    frame = {"image_size": SIZE, "image_crop": CROP}
    args = build_parser(__doc__, data_folder=..., rounds=9, **frame, images=200).parse_args()
    torch.set_num_threads(1)
    size, crop = args.image_size, args.image_crop
    decoding, cached = (images_of(args.data_folder, args.images, size, crop) for _ in range(2))

    def pairs(item: Callable[[int], Tensor]) -> Iterator[Tensor]:
        """Yield the pairs of views (6, W, W) of all images, each from its own seed."""
        for index in range(len(cached)):
            torch.manual_seed(index)
            yield item(index)

    items: dict[str, Callable[[int], Tensor]] = {
        "published": published_pairs(decoding).__getitem__,
        "ours, no cache": lambda index: decoding.pair_item(index).views,
        "ours, image cache": lambda index: cached.pair_item(index).views,
    }
    # A queue of no length samples all pairs and keeps none.
    ways = {name: partial(lambda item: deque(pairs(item), 0), item) for name, item in items.items()}
    title = f"pairs a second and core: {size} px less {crop} a side, {len(cached)} images"
    with tempfile.TemporaryDirectory() as folder:
        print(cache_images(cached, Path(folder), num_workers=0))
        compare(title, ways, args.rounds, "pairs/s", len(cached))
        published, *ours = (torch.stack(list(pairs(item))) for item in items.values())
    for name, views in zip(list(items)[1:], ours, strict=True):
        print(f"{name}: largest difference {largest_difference(views, published)}")


if __name__ == "__main__":
    run_script(main)
