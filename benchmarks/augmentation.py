"""Random views a second: the published transforms, one image at a time, against whole batches.

  python -m benchmarks.augmentation --data_folder datasets/celeba
  python -m benchmarks.augmentation --data_folder datasets/celeba --device cuda --batch_size 1024

Images are decoded beforehand, and one process makes the views.
tests/data_loader/views/test_batch_views.py compares their pixels.
"""

import torch
import torchvision.transforms.functional as TF

from benchmarks.literal_views import PairDataset
from benchmarks.measure import build_parser, compare
from data_loader.data_loaders_face import MAFLAligned
from data_loader.geometry import centre_crop
from data_loader.landmark_dataset import add_image_arguments
from data_loader.views.batch_views import BatchViews
from data_loader.views.random_view import RandomView
from utils.arguments import positive_int

SMALLEST_SCALE = 0.2


def main() -> None:
    """Measure and print."""
    parser = build_parser(__doc__, rounds=7, root="a CelebA layout, with MAFL's lists")
    add_image_arguments(parser, image_size=136, image_crop=20)
    parser.add_argument("--batch_size", type=positive_int, default=256)
    parser.add_argument("--device", default="cpu", help="device of the batches")
    args = parser.parse_args()
    size, crop = args.image_size, args.image_crop
    dataset = MAFLAligned(args.data_folder, imwidth=size, crop=crop, do_augmentations=False)
    source_images = [dataset.base_item(i % len(dataset))[0] for i in range(args.batch_size)]
    images = torch.stack([TF.pil_to_tensor(image) for image in source_images]).to(args.device)
    literal = PairDataset(dataset).transform
    single = RandomView(size, SMALLEST_SCALE, crop, dataset.mean, dataset.std)
    whole = BatchViews(size, crop, SMALLEST_SCALE, dataset.mean, dataset.std)
    generator = torch.Generator()
    ways = {
        "published": lambda: torch.stack(
            [centre_crop(literal(image), crop) for image in source_images]
        ),
        "one by one": lambda: torch.stack([single(image) for image in source_images]),
        f"whole batch, {args.device}": lambda: whole(images, generator),
    }
    title = f"views of {len(images)} images, {size} px, crop {crop}"
    compare(title, ways, args.rounds, "views/s", len(images))


if __name__ == "__main__":
    main()
