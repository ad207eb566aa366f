"""Items of pre-training, two views an image each: the published pipeline against ours.

In pairs of views a second, in one process on one core, as a loader's worker processes work. The
literal side decodes the image for every item and samples its views with torchvision's transforms;
ours samples the same views, from the image's file and from the image cache.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.literal import published_pairs
from benchmarks.measure import CROP, SIZE, build_parser, compare, images_of
from data_loader.storage.image_cache import cache_images
from utils.script import run_script


def main() -> None:
    """Measure and print."""
    args = build_parser(__doc__, data_folder=..., rounds=9, images=200).parse_args()
    torch.set_num_threads(1)
    decoding, cached = (images_of(args.data_folder, args.images) for _ in range(2))

    def sample(item: Callable[[int], Tensor]) -> None:
        """Sample the pairs of views (6, W, W) of all images, each from its own seed."""
        for index in range(len(cached)):
            torch.manual_seed(index)
            item(index)

    ways = {
        "published": partial(sample, published_pairs(decoding).__getitem__),
        "ours, no cache": partial(sample, lambda index: decoding.pair_item(index).views),
        "ours, image cache": partial(sample, lambda index: cached.pair_item(index).views),
    }
    title = f"pairs a second and core: {SIZE} px less {CROP} a side, {len(cached)} images"
    with tempfile.TemporaryDirectory() as folder:
        print(cache_images(cached, Path(folder), num_workers=0))
        compare(title, ways, args.rounds, "pairs/s", len(cached))


if __name__ == "__main__":
    run_script(main)
