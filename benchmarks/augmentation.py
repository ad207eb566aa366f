"""Random views: the published transforms, one image at a time, against whole batches.

  python -m benchmarks.augmentation --data_folder datasets/celeba
  python -m benchmarks.augmentation --data_folder datasets/celeba --device cuda --batch_size 1024

Images are decoded beforehand. Printed are the views a second of one process; how far the views
are apart with the same parameters; and the pixels' statistics after each stage with random
parameters, beside how much two runs of the published transforms differ in them.
"""

import io
from collections.abc import Iterator

import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from benchmarks.literal_views import PairDataset
from benchmarks.measure import interleaved, largest_difference, machine, report
from data_loader.data_loaders_face import MAFLAligned
from data_loader.geometry import centre_crop
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.views.batch_views import BatchViews, color_jitter, enlarge, jpeg_noise
from data_loader.views.random_view import RandomView
from data_loader.views.resampling import turn
from data_loader.views.view_parameters import ViewParameters, sample_views
from utils.arguments import ArgumentParser, natural, positive_int

SMALLEST_SCALE = 0.2
STAGES = ("JPEG noise", "random crop", "colour jitter", "colour noise")
ADJUST = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
BINS = 32  # of a histogram, over [0, 1]


def main() -> None:
    """Measure and print."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--data_folder", required=True, help="a CelebA layout, with MAFL's lists")
    parser.add_argument("--image_size", type=positive_int, default=136)
    parser.add_argument("--image_crop", type=natural, default=20)
    parser.add_argument("--batch_size", type=positive_int, default=256)
    parser.add_argument("--device", default="cpu", help="device of the batches")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument(
        "--draws", type=positive_int, default=1024, help="views that statistics are from"
    )
    args = parser.parse_args()
    print(machine())
    dataset = MAFLAligned(
        args.data_folder,
        train=True,
        pair_image=False,
        imwidth=args.image_size,
        crop=args.image_crop,
        do_augmentations=False,
    )
    source_images = [dataset.base_item(i % len(dataset))[0] for i in range(args.batch_size)]
    compare_speed(dataset, source_images, torch.device(args.device), args.rounds)
    compare_views(dataset, source_images, torch.device(args.device))
    compare_statistics(dataset, source_images, -(-args.draws // args.batch_size))


def batch_views(dataset: LandmarkDataset) -> BatchViews:
    """Return what makes views of batches."""
    return BatchViews(dataset.imwidth, dataset.crop, SMALLEST_SCALE, dataset.mean, dataset.std)


def batch(source_images: list[Image.Image]) -> Tensor:
    """Return images as (B, 3, S, S), uint8."""
    return torch.stack([TF.pil_to_tensor(source_image) for source_image in source_images])


def compare_speed(
    dataset: LandmarkDataset, source_images: list[Image.Image], device: torch.device, rounds: int
) -> None:
    """Print views a second, one view of each image a turn."""
    literal = PairDataset(dataset).transform
    single = RandomView(dataset.imwidth, SMALLEST_SCALE, dataset.crop, dataset.mean, dataset.std)
    whole, generator = batch_views(dataset), torch.Generator()
    images = batch(source_images).to(device)
    ways = {
        "published": lambda: torch.stack(
            [centre_crop(literal(source_image), dataset.crop) for source_image in source_images]
        ),
        "one by one": lambda: torch.stack([single(source_image) for source_image in source_images]),
        f"whole batch, {device}": lambda: whole(images, generator),
    }
    title = f"views of {len(images)} images, {dataset.imwidth} px, crop {dataset.crop}"
    report(title, interleaved(ways, rounds), "views/s", len(source_images))


def compare_views(
    dataset: LandmarkDataset, source_images: list[Image.Image], device: torch.device
) -> None:
    """Print how far the views are apart if both sides are given the same parameters."""
    generator = torch.Generator().manual_seed(0)
    parameters = sample_views(len(source_images), dataset.imwidth, SMALLEST_SCALE, generator)
    ours = batch_views(dataset).render(batch(source_images).to(device), parameters).cpu()
    published = torch.stack(
        [literal_view(dataset, p, parameters, row) for row, p in enumerate(source_images)]
    )
    unequal = ((ours - published).abs() > 1e-4).float().mean().item()
    print(f"with the same parameters: largest difference {largest_difference(ours, published)};")
    print(f"  unequal beyond float32's rounding: {unequal:.1e} of all values")


def literal_view(
    dataset: LandmarkDataset, image: Image.Image, parameters: ViewParameters, row: int
) -> Tensor:
    """Return the view (3, W, W) that a row of parameters describes, by Pillow."""
    bilinear, side = Image.Resampling.BILINEAR, image.width
    quality, box, order, factors, colour = (v[row].tolist() for v in parameters[1:])
    scaled, (left, top, width, height) = int(parameters.sides[row]), box
    with io.BytesIO() as buffer:
        image.resize((scaled, scaled), bilinear).save(buffer, format="JPEG", quality=quality)
        image = Image.open(buffer).convert("RGB").resize((side, side), bilinear)
    image = image.crop((left, top, left + width, top + height)).resize((side, side), bilinear)
    for step in order:
        image = ADJUST[step](image, factors[step])
    tensor = TF.to_tensor(image) + torch.tensor(colour).view(3, 1, 1)
    return centre_crop(TF.normalize(tensor, dataset.mean, dataset.std), dataset.crop)


# ---- statistics ----


def compare_statistics(
    dataset: LandmarkDataset, source_images: list[Image.Image], repeats: int
) -> None:
    """Print mean, std and histogram of each stage's pixels, by channel."""
    sides = {"published": literal_stages, "again": literal_stages, "batch": batch_stages}
    torch.manual_seed(0)
    found = {}
    for name, stages in sides.items():
        figures = [measure_statistics(values) for values in stages(dataset, source_images, repeats)]
        # One row a view, stages in turns: (stages, views, 3, 2 + BINS)
        found[name] = torch.stack(figures).unflatten(0, (-1, len(STAGES))).transpose(0, 1)
        found[name] = found[name].flatten(1, 2).double()
    count = found["published"].shape[1]
    print(f"{count} views a side, [0, 1], red green blue; z: difference / its standard error")
    print(f"  {'':<14}{'':<11}{'mean':<22}{'std':<22}distance of histograms")
    for stage, title in enumerate(STAGES):
        for name, figures in found.items():
            mean, std = (figures[stage, :, :, i].mean(dim=0) for i in (0, 1))
            gaps = figures[stage] - found["published"][stage]
            error = gaps[:, :, :2].std(dim=0) / count**0.5
            z = (gaps[:, :, :2].mean(dim=0) / error).abs().max().item()
            # Total variation: the fraction of pixels that would have to move to another bin.
            distance = gaps[:, :, 2:].mean(dim=0).abs().sum(dim=1) / 2
            line = f"  {title:<14}{name:<11}{format_numbers(mean)}  {format_numbers(std)}  "
            print(
                line + ("" if name == "published" else f"{format_numbers(distance)}  z <= {z:.1f}")
            )
            title = ""


def format_numbers(values: Tensor) -> str:
    """Format three numbers."""
    return " ".join(f"{value:.4f}" for value in values.tolist())


def measure_statistics(images: Tensor) -> Tensor:
    """Return each image's mean, std and histogram: (B, 3, 2 + BINS)."""
    flat = images.flatten(2)
    places = (flat * BINS).long().clamp_(0, BINS - 1)
    counts = flat.new_zeros(*flat.shape[:2], BINS)
    counts.scatter_add_(2, places, torch.full_like(flat, 1 / flat.shape[2]))
    moments = torch.stack([flat.mean(dim=2), flat.std(dim=2)], dim=2)
    return torch.cat([moments, counts], dim=2)


def batch_stages(
    dataset: LandmarkDataset, source_images: list[Image.Image], repeats: int
) -> Iterator[Tensor]:
    """Yield what each stage makes of the images, in [0, 1]."""
    images, generator, whole = batch(source_images), torch.Generator(), batch_views(dataset)
    side = dataset.imwidth
    for _ in range(repeats):
        parameters = sample_views(len(source_images), side, SMALLEST_SCALE, generator)
        stages = torch.empty(3, len(source_images), 3, side, side)
        places, counts = whole.groups(parameters, gpu=False)
        for rows in places.split(counts):
            sides, qualities, boxes, order, factors, _ = parameters.select(rows)
            squares = turn(images[rows]).float()
            everything = torch.tensor([0, 0, side, side]).expand_as(boxes)
            stages[0, rows] = jpeg_noise(squares, sides, qualities, everything)
            crops = turn(jpeg_noise(squares, sides, qualities, boxes))
            stages[1, rows] = enlarge(crops, boxes, side)
            stages[2, rows] = color_jitter(stages[1, rows], order, factors)
        yield from stages / 255
        yield undo_standardisation(dataset, whole.render(images, parameters))


def literal_stages(
    dataset: LandmarkDataset, source_images: list[Image.Image], repeats: int
) -> Iterator[Tensor]:
    """Yield what each stage of the published transforms makes of the images, in [0, 1]."""
    noise, crop, jitter, *rest = PairDataset(dataset).transform.transforms
    for _ in range(repeats):
        first = [noise(source_image) for source_image in source_images]
        second = [crop(source_image) for source_image in first]
        third = [jitter(source_image) for source_image in second]
        for stage in (first, second, third):
            yield batch(stage) / 255
        views = []
        for view in third:
            for transform in rest:
                view = transform(view)
            views.append(centre_crop(view, dataset.crop))
        yield undo_standardisation(dataset, torch.stack(views))


def undo_standardisation(dataset: LandmarkDataset, views: Tensor) -> Tensor:
    """Undo the standardisation; unlike `denormalize`, keep what lies outside of [0, 1]."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (dataset.mean, dataset.std))
    return views * std + mean


if __name__ == "__main__":
    main()
