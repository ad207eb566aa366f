"""The published random views [spec 6], by torchvision's transforms: the oracle for ours."""

import io
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torchvision.transforms as tv_transforms
from PIL import Image
from torch import Tensor

from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset


def published_pairs(dataset: LandmarkDataset) -> Items:
    """Return two views of each image, (6, V, V): decoded and resized anew."""
    return Items(dataset, partial(_pair, dataset, published_views(dataset)))


def _pair(dataset: LandmarkDataset, view: Callable[[Image.Image], Tensor], index: int) -> Tensor:
    square, _ = dataset.base_item(index)
    return torch.cat([view(square), view(square)])


def published_views(dataset: LandmarkDataset) -> tv_transforms.Compose:
    """Return the transforms from a square to a random view (3, V, V)."""
    whole = published_view(dataset.imwidth, 0.2, dataset.mean, dataset.std)
    return tv_transforms.Compose([whole, tv_transforms.CenterCrop(dataset.side)])


def published_view(
    side: int, smallest_scale: float, mean: Sequence[float], std: Sequence[float]
) -> tv_transforms.Compose:
    """Return the transforms from an image to a view (3, side, side), whose border is to be cut."""
    return tv_transforms.Compose(
        [
            jpeg_noise,
            tv_transforms.RandomResizedCrop(side, scale=(smallest_scale, 1.0)),
            tv_transforms.ColorJitter(0.4, 0.4, 0.4),
            tv_transforms.ToTensor(),
            colour_noise,
            tv_transforms.Normalize(mean, std),
        ]
    )


def jpeg_noise(image: Image.Image) -> Image.Image:
    """Resize, compress as JPEG and resize back, all at random [spec 6]."""
    side = image.width
    scaled = max(int(0.8 * side), int(side * (1 + 0.5 * torch.randn(1).item())))
    quality = int(torch.randint(30, 99, (1,)))
    buffer = io.BytesIO()
    image.resize((scaled, scaled), Image.Resampling.BILINEAR).save(
        buffer, format="JPEG", quality=quality
    )
    return Image.open(buffer).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)


def colour_noise(image: Tensor) -> Tensor:
    """Add a random colour along the principal components of natural images [spec 6]."""
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    vectors = torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    alpha = 0.1 * torch.randn(3)
    return image + (vectors @ (alpha * values)).view(3, 1, 1)
