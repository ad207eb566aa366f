"""Random views a second: the published transforms, one image at a time, against whole batches.

Images are decoded beforehand, and one process makes the views.
tests/data_loader/views/test_batch_views.py compares their pixels.
"""

import torch

from benchmarks.literal import published_views
from benchmarks.measure import CROP, SIZE, batch_views, build_parser, compare, decoded
from engine.run.settings import choose_device
from utils.script import run_script


def main() -> None:
    """Measure and print."""
    parser = build_parser(__doc__, data_folder=..., rounds=7, batch_size=256, device="cpu")
    args = parser.parse_args()
    count, device = args.batch_size, choose_device(args.device, None)
    dataset, squares, images = decoded(args.data_folder, count)
    published, whole = published_views(dataset), batch_views(dataset)
    generator = torch.Generator()
    images = images.to(device)
    ways = {
        "published": lambda: torch.stack([published(square) for square in squares]),
        "one by one": lambda: torch.stack([dataset.view(square) for square in squares]),
        f"whole batch, {device.type}": lambda: whole(images, generator),
    }
    compare(f"views of {count} images, {SIZE} px, crop {CROP}", ways, args.rounds, "views/s", count)


if __name__ == "__main__":
    run_script(main)
