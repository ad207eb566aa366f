"""The published arithmetic, step by step [spec 2, 4, 5, 6]: what ours is compared with.

Letters: B images, A landmarks, I virtual points, H = W = 48; V the side of a view.
"""

import io
from collections.abc import Iterable, Sequence

import torch
import torchvision.transforms as tv_transforms
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from data_loader.geometry import centre_crop
from data_loader.landmark_dataset import LandmarkDataset
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss
from models.nce import MemoryMoCo, NCESoftmaxLoss

HYPERCOLUMN = (48, 48)


def predict(regressor: IntermediateKeypointPredictor, features: Tensor) -> Tensor:
    """Return the landmarks (B, A, 2) of dense features (B, C, H, W)."""
    scores = regressor.inner_conv(features) * regressor.softargmax_mul  # (B, A * I, H, W)
    b, k, height, width = scores.shape
    heat = scores.view(b, k, -1).softmax(dim=-1).view(b, k, height, width)
    rows = torch.linspace(-1, 1, height).to(heat).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).to(heat).view(1, 1, 1, width)
    x = (heat * columns).sum(dim=(2, 3))  # (B, A * I)
    y = (heat * rows).sum(dim=(2, 3))
    points = torch.stack([x, y], dim=-1)  # (B, A * I, 2)
    pred = regressor.reg_conv(points.reshape(b, -1, 1, 1))
    return pred.view(b, -1, 2)


def train_one_epoch(
    encoder: nn.Module,
    regressor: IntermediateKeypointPredictor,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    layer: int,
) -> None:
    """Take one step a batch, each on a hypercolumn made anew."""
    regressor.train()
    for images, points in batches:
        with torch.no_grad():
            features = encoder(images, layer, True, HYPERCOLUMN)  # (B, C, H, W)
        loss = regression_loss(predict(regressor, features), points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def momentum_update(query: nn.Module, key: nn.Module, alpha: float) -> None:
    """Move each key parameter towards the query's, one after the other."""
    for q, k in zip(query.parameters(), key.parameters(), strict=True):
        k.data.mul_(alpha).add_(q.detach().data, alpha=1 - alpha)


def train_one_step(
    query: nn.Module,
    key: nn.Module,
    queue: MemoryMoCo,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    alpha: float,
) -> float:
    """Take one step of momentum contrast on (B, 6, H, W); return the loss, read at once.

    The queue is called as published: it compares with a copy of all keys, then writes the new ones.
    """
    view1, view2 = views.split(3, dim=1)
    q = query(view1.contiguous())
    with torch.no_grad():
        order = torch.randperm(len(view2), device=view2.device)
        back = torch.argsort(order)
        k = key(view2.contiguous()[order])[back]
    loss = NCESoftmaxLoss()(queue(q, k))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    momentum_update(query, key, alpha)
    return loss.item()


# ---- random views, by torchvision's transforms: the oracle for ours ----


class PairDataset(Dataset):
    """Two views of each image, (6, V, V): decoded and resized anew, by torchvision's transforms."""

    def __init__(self, dataset: LandmarkDataset) -> None:
        self.dataset = dataset
        self.transform = published_view(dataset.imwidth, 0.2, dataset.mean, dataset.std)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        square, _ = self.dataset.base_item(index)
        return torch.cat([self.view(square), self.view(square)])

    def view(self, square: Image.Image) -> Tensor:
        """Return a random view (3, V, V) of a square."""
        return centre_crop(self.transform(square), self.dataset.crop)


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
