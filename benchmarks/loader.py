"""Items of pre-training, two views an image each: the published pipeline against ours.

  python -m benchmarks.loader --data_folder datasets/celeba
  python -m benchmarks.loader --data_folder datasets/celeba --image_size 96 --image_crop 0

In pairs of views a second, in one process on one core, as a loader's worker processes work. The
literal side decodes the image for every item and draws its views with torchvision's transforms;
ours draws the same views, from the image's file and from the image cache.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.literal_views import PairDataset
from benchmarks.measure import interleaved, largest_difference, machine, report
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.landmark_dataset import add_image_arguments
from data_loader.storage.image_cache import cache_images
from utils.arguments import ArgumentParser, positive_int


def main() -> None:
    """Measure and print."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--data_folder", required=True, help="a CelebA layout")
    add_image_arguments(parser, image_size=136, image_crop=20)
    parser.add_argument("--images", type=positive_int, default=200, help="in a turn")
    parser.add_argument("--rounds", type=positive_int, default=9, help="turns of each way")
    args = parser.parse_args()
    torch.set_num_threads(1)

    def dataset() -> CelebAPrunedAligned_MAFLVal:
        options = {"imwidth": args.image_size, "crop": args.image_crop}
        images = CelebAPrunedAligned_MAFLVal(args.data_folder, **options)
        images.select(range(min(args.images, len(images))))
        return images

    with tempfile.TemporaryDirectory() as folder:
        published, decoding, cached = PairDataset(dataset()), dataset(), dataset()
        print(cache_images(cached, Path(folder), num_workers=0))
        count = len(cached)
        items = {
            "published": published.__getitem__,
            "ours, no cache": lambda index: decoding[index][0],
            "ours, image cache": lambda index: cached[index][0],
        }
        print(machine())
        ways = {name: partial(draw_all, item, count) for name, item in items.items()}
        seconds = interleaved(ways, args.rounds)
        views = {name: torch.stack(list(pairs(item, count))) for name, item in items.items()}

    sizes = f"{args.image_size} px less {args.image_crop} a side, {count} images"
    for name in ("ours, no cache", "ours, image cache"):
        pair = {key: seconds[key] for key in ("published", name)}
        report(f"pairs a second and core: {sizes}", pair, unit="pairs/s", count=count)
        print(f"  largest difference       {largest_difference(views[name], views['published'])}")


def draw_all(item: Callable[[int], Tensor], count: int) -> None:
    """Draw all pairs and keep none."""
    for _ in pairs(item, count):
        pass


def pairs(item: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    """Yield the pairs of views (6, W, W) of the first images, each drawn from its own seed."""
    for index in range(count):
        torch.manual_seed(index)
        yield item(index)


if __name__ == "__main__":
    main()
