"""Dense contrast, steps of `train_dense.py` against the first trial's, in image pairs a second.

  python -m benchmarks.dense --data_folder datasets/celeba

Images are in memory for both. A turn makes the views and takes the steps. The literal side is the
trial's arithmetic: float32, torchvision's ResNet, a convolution for each of its maps, whose results
are resized and added, and 96 places of one view that are sought in the other. Ours seeks 256, in
both ways. Letters: B images, W the side of a view, D channels, M cells of its grid, N places.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.measure import CROP, SIZE, build_parser, compare, decoded
from benchmarks.steps import (
    DENSE_DIM,
    DENSE_TEMPERATURE,
    RADIUS,
    RATE,
    SIDE,
    Epoch,
    as_items,
    build_dense,
    take_steps,
)
from data_loader.image_set import ImageSet
from data_loader.views.dense_views import LUMA
from data_loader.views.similarity import Spread, sample_maps, to_image, to_view, warp
from models.dense_contrast import cell_centres

GRID, PLACES = 24, 96  # cells a side, queries of the first view


def main() -> None:
    """Time steps of the trial and of ours, in turns."""
    parser = build_parser(
        __doc__, data_folder=..., rounds=7, model="resnet18", images=128, batch_size=32
    )
    args = parser.parse_args()
    dataset, _, squares = decoded(args.data_folder, args.images, SIZE, CROP)
    batches = squares.split(args.batch_size)
    ways = {
        "the trial, float32": literal_epoch(args.model, batches, dataset),
        "ours, float32": take_steps(build_dense(args.model), as_items(batches)),
        "ours, bf16": take_steps(build_dense(args.model), as_items(batches), amp="bf16"),
    }
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}"
    compare(f"{title}, dense contrast", ways, args.rounds, "pairs/s", args.images)


def literal_epoch(model: str, batches: Sequence[Tensor], dataset: ImageSet) -> Epoch:
    """Return a function that takes a step of the trial's a batch of squares (B, 3, S, S)."""
    network = getattr(torchvision.models, model)(weights=None)
    network = create_feature_extractor(network, [f"layer{stage}" for stage in range(1, 5)])
    network.train().to(memory_format=torch.channels_last)
    with torch.no_grad():
        widths = [maps.shape[1] for maps in network(torch.zeros(2, 3, SIDE, SIDE)).values()]
    heads = nn.ModuleList(nn.Conv2d(width, DENSE_DIM, 1) for width in widths)
    optimizer = torch.optim.AdamW([*network.parameters(), *heads.parameters()], RATE)

    def embed(images: Tensor) -> Tensor:
        levels = zip(heads, network(images).values(), strict=True)
        resized = [F.interpolate(head(m), (GRID, GRID), mode="bilinear") for head, m in levels]
        return F.normalize(torch.stack(resized).sum(0), dim=1)

    def epoch() -> None:
        for batch in batches:
            images = batch.float() / 255
            (view1, map1), (view2, map2) = (literal_view(images, dataset) for _ in range(2))
            maps = embed(torch.cat((view1, view2)).contiguous(memory_format=torch.channels_last))
            embedding1, embedding2 = maps.chunk(2)
            loss = literal_loss(embedding1, embedding2, map1, map2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def literal_view(images: Tensor, dataset: ImageSet) -> tuple[Tensor, Tensor]:
    """Return random views (B, 3, W, W) and their maps (B, 2, 3) to the images."""

    def factor(strength: float, channels: int = 1) -> Tensor:
        return 1 + strength * (2 * torch.rand(len(images), channels, 1, 1) - 1)

    maps = sample_maps(len(images), SIDE / SIZE, Spread(), torch.default_generator)
    views = warp(images, maps, SIDE) * factor(0.4)
    average = views.mean((1, 2, 3), keepdim=True)
    views = average + (views - average) * factor(0.4)
    grey = (views * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    coloured = torch.rand(len(images), 1, 1, 1) >= 0.3
    views = grey + (views - grey) * factor(0.4) * coloured
    views = views * factor(0.2, 3)
    if torch.rand(()) < 0.5:
        views = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return dataset.normalize(views.clamp(0, 1)), maps


def literal_loss(embedding1: Tensor, embedding2: Tensor, map1: Tensor, map2: Tensor) -> Tensor:
    """Return the cross-entropy of finding random places of the first views in the second.

    Args:
        embedding1: (B, D, GRID, GRID).
        embedding2: the same of the second views.
        map1: (B, 2, 3), from view to image.
        map2: the same of the second views.
    """
    centres = cell_centres(GRID, GRID)  # (M, 2)
    here = centres[torch.randint(len(centres), (len(map1), PLACES))]  # (B, N, 2)
    image = to_image(map1, here)
    there = to_view(map2, image)  # (B, N, 2)
    counts = (image.abs() < 1).all(-1) & (there.abs() < 0.96).all(-1)
    q, k = (
        F.normalize(F.grid_sample(maps, places[:, :, None], align_corners=False)[..., 0].mT, dim=-1)
        for maps, places in ((embedding1, here), (embedding2, there))
    )  # (B, N, D)
    negative = q @ embedding2.flatten(2) / DENSE_TEMPERATURE  # (B, N, M)
    near = (there[:, :, None] - centres).norm(dim=-1) < RADIUS
    positive = (q * k).sum(-1, keepdim=True) / DENSE_TEMPERATURE
    logits = torch.cat((positive, negative.masked_fill(near, -1e9)), -1)[counts]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


if __name__ == "__main__":
    main()
