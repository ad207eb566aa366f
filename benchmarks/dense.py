"""Dense contrast, steps of `train_dense.py` against the first trial's, in image pairs a second.

  python -m benchmarks.dense --data_folder datasets/celeba

Images are in memory for both. A turn makes the views and takes the steps. The literal side is the
trial's arithmetic: float32, torchvision's ResNet, a convolution for each of its maps, whose results
are resized and added, and 96 places of one view that are sought in the other. Ours seeks 256, in
both ways.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet

from benchmarks.measure import add_model_arguments, build_parser, compare, images_of
from benchmarks.moco_state import SIDE, take_steps
from benchmarks.pretrain import CROP, SIZE
from data_loader.items import SquareItem
from data_loader.views.colour import LUMA
from data_loader.views.dense_views import DenseViews
from data_loader.views.similarity import Spread
from engine.acceleration import accelerate
from models.dense_contrast import DenseEmbedding
from models.encoders import build_random_encoder
from models.resnet import InsResNet
from train_dense import DenseContrast

GRID, PLACES, DIM = 24, 96, 64  # cells a side, queries of the first view, channels
TEMPERATURE, RADIUS, RATE = 0.1, 0.12, 0.001
SPREAD = Spread()  # as the trial
CPU = torch.device("cpu")


def main() -> None:
    """Time steps of the trial and of ours, in turns."""
    parser = build_parser(__doc__, rounds=7)
    add_model_arguments(parser, images=128, batch_size=32)
    args = parser.parse_args()
    dataset = images_of(args.data_folder, args.images, SIZE, CROP)
    squares = torch.stack([dataset.square_item(n).image for n in range(len(dataset))])
    batches = squares.split(args.batch_size)
    mean, std = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.std))
    views = DenseViews(SIZE, CROP, dataset.mean, dataset.std, SPREAD)
    ways: dict[str, Callable[[], None]] = {
        "the trial, float32": literal_steps(args.model, batches, mean, std),
        "ours, float32": our_steps(args.model, batches, views, "off"),
        "ours, bf16": our_steps(args.model, batches, views, "bf16"),
    }
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}"
    compare(f"{title}, dense contrast", ways, args.rounds, "pairs/s", len(squares))


def our_steps(
    model: str, batches: tuple[Tensor, ...], views: DenseViews, amp: str, device: torch.device = CPU
) -> Callable[[], None]:
    """Return a function that takes a step of `train_dense.py` a batch of squares (B, 3, S, S)."""
    encoder = cast(InsResNet, build_random_encoder(model, SIDE, 0))
    embedding = DenseEmbedding(encoder, DIM).to(device).train()
    accelerate(embedding.encoder, compiled=False, recompute=False)
    optimizer = torch.optim.AdamW(embedding.parameters(), RATE, fused=True)
    objective = DenseContrast(
        embedding,
        optimizer,
        views,
        places=256,
        detail=0.0,
        temperature=TEMPERATURE,
        radius=RADIUS,
    )
    items = [SquareItem(b, torch.full((len(b),), n), 0) for n, b in enumerate(batches)]
    return partial(take_steps, objective, items, device, amp)


def dense_steps(
    model: str, batch_size: int, steps: int, device: torch.device, amp: str
) -> Callable[[], None]:
    """Return a function that takes steps of `train_dense.py`, views included, on random squares."""
    square = torch.randint(256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    views = DenseViews(SIZE, CROP, (0.5,) * 3, (0.25,) * 3, SPREAD)
    return our_steps(model, (square,) * steps, views, amp, device)


def literal_steps(
    model: str, batches: tuple[Tensor, ...], mean: Tensor, std: Tensor
) -> Callable[[], None]:
    """Return a function that takes a step of the trial's a batch."""
    network = getattr(torchvision.models, model)(weights=None)
    network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        widths = [m.shape[1] for m in literal_maps(network, torch.zeros(1, 3, SIDE, SIDE))]
    heads = nn.ModuleList(nn.Conv2d(width, DIM, 1) for width in widths)
    optimizer = torch.optim.AdamW([*network.parameters(), *heads.parameters()], RATE)
    centres = literal_grid(torch.eye(2, 3)[None], GRID).view(-1, 2)  # (M, 2)

    def embed(images: Tensor) -> Tensor:
        total: Tensor | int = 0
        for head, maps in zip(heads, literal_maps(network, images), strict=True):
            total = total + F.interpolate(head(maps), (GRID, GRID), mode="bilinear")
        assert isinstance(total, Tensor)
        return F.normalize(total, dim=1)

    def steps() -> None:
        for batch in batches:
            images = batch.float() / 255
            (view1, map1), (view2, map2) = (literal_view(images, mean, std) for _ in range(2))
            maps = embed(torch.cat((view1, view2)).contiguous(memory_format=torch.channels_last))
            embedding1, embedding2 = maps.chunk(2)
            loss = literal_loss(embedding1, embedding2, map1, map2, centres)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def literal_maps(network: ResNet, images: Tensor) -> list[Tensor]:
    """Return the maps of torchvision's ResNet after each stage."""
    maps = [network.maxpool(network.relu(network.bn1(network.conv1(images))))]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        maps.append(stage(maps[-1]))
    return maps[1:]


def literal_grid(maps: Tensor, side: int) -> Tensor:
    """Return where the pixels of square views lie (B, side, side, 2) under maps (B, 2, 3)."""
    return F.affine_grid(maps, [len(maps), 1, side, side], align_corners=False)


def literal_view(images: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return random views (B, 3, SIDE, SIDE) and their maps (B, 2, 3) to the images."""
    count = len(images)

    def factor(strength: float, channels: int = 1) -> Tensor:
        return 1 + strength * (2 * torch.rand(count, channels, 1, 1) - 1)

    turn, stretch, aspect, *shift = (2 * torch.rand(5, count) - 1).unbind()
    angle = turn * math.radians(SPREAD.rotation)
    scale = SIDE / SIZE * torch.exp(stretch * SPREAD.scale)
    ratio = torch.exp(aspect * SPREAD.aspect)
    across = torch.stack((scale * angle.cos() * ratio, -scale * angle.sin()), 1)
    down = torch.stack((scale * angle.sin(), scale * angle.cos() / ratio), 1)
    places = SPREAD.shift * torch.stack(shift, 1)[:, :, None]
    maps = torch.cat((torch.stack((across, down), 1), places), 2)
    views = F.grid_sample(
        images, literal_grid(maps, SIDE), padding_mode="reflection", align_corners=False
    )
    views = views * factor(0.4)
    average = views.mean((1, 2, 3), keepdim=True)
    views = average + (views - average) * factor(0.4)
    grey = (views * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    views = grey + (views - grey) * factor(0.4) * (torch.rand(count, 1, 1, 1) >= 0.3)
    views = views * factor(0.2, 3)
    if torch.rand(()) < 0.5:
        views = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (views.clamp(0, 1) - mean) / std, maps


def literal_loss(
    embedding1: Tensor, embedding2: Tensor, map1: Tensor, map2: Tensor, centres: Tensor
) -> Tensor:
    """Return the cross-entropy of finding random places of the first views in the second."""
    here = centres[torch.randint(len(centres), (len(map1), PLACES))]  # (B, N, 2)
    image = here @ map1[:, :, :2].transpose(1, 2) + map1[:, None, :, 2]
    inverse = torch.linalg.inv(map2[:, :, :2]).transpose(1, 2)
    there = (image - map2[:, None, :, 2]) @ inverse  # (B, N, 2)
    counts = (image.abs() < 1).all(-1) & (there.abs() < 0.96).all(-1)
    q, k = (
        F.normalize(F.grid_sample(maps, places[:, :, None], align_corners=False)[..., 0].mT, dim=-1)
        for maps, places in ((embedding1, here), (embedding2, there))
    )
    negative = q @ embedding2.flatten(2) / TEMPERATURE  # (B, N, M)
    near = (there[:, :, None] - centres).norm(dim=-1) < RADIUS
    positive = (q * k).sum(-1, keepdim=True) / TEMPERATURE
    logits = torch.cat((positive, negative.masked_fill(near, -1e9)), -1)[counts]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


if __name__ == "__main__":
    main()
