"""Other people's tools against ours, in turns in one process.

  pip install -r benchmarks/requirements-peers.txt
  python -m benchmarks.peers --what lightly kornia torchvision --data_folder datasets/celeba
  python -m benchmarks.peers --what dlib --wings DIR --trained_model_path runs/wings/current.pth

lightly: its tutorial's loop of momentum contrast against `train_moco.py`. kornia: its augmentations
against `--augment device` and the views of `train_dense.py`. torchvision: transforms v2 against the
views that `train_moco.py` makes one by one. dlib: its shape predictor against `--regressor
finetune` on fly wings. A ratio is the peer's time by ours: above 1, ours is faster.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torchvision
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.literal_views import jpeg_noise
from benchmarks.measure import compare, images_of
from benchmarks.moco_state import (
    ALPHA,
    DIM,
    QUEUE,
    SIDE,
    TEMPERATURE,
    build_moco,
    take_steps,
)
from benchmarks.peer_points import add_wing_arguments, compare_points
from benchmarks.pretrain import CROP, SIZE, our_epochs
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.items import PairItem
from data_loader.views.batch_views import BatchViews
from data_loader.views.colour import BLUR_FRACTION, GREY_FRACTION, STRENGTH
from data_loader.views.dense_views import DenseViews
from data_loader.views.random_view import RandomView
from data_loader.views.similarity import Spread
from engine.acceleration import autocast
from utils.arguments import ArgumentParser, natural, positive_int

PACKAGES = {"lightly": "lightly", "kornia": "kornia", "torchvision": "torchvision"}
PACKAGES |= {"dlib": "dlib-bin"}
SMALLEST_SCALE, JITTER, JPEG = 0.2, 0.4, (30, 98)  # of the published views [spec 6]
MODEL, CPU = "resnet18", torch.device("cpu")


def main() -> None:
    """Measure what was asked for, as far as its peer is installed."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--what", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    parser.add_argument("--data_folder", help="a CelebA layout, of all but dlib")
    parser.add_argument("--rounds", type=positive_int, default=5, help="turns of each way")
    parser.add_argument("--images", type=positive_int, default=256, help="lightly: in an epoch")
    parser.add_argument("--batch_size", type=positive_int, default=64, help="lightly: of a step")
    parser.add_argument("--num_workers", type=natural, default=2, help="lightly: reader processes")
    parser.add_argument("--view_batches", type=positive_int, nargs="+", default=[32, 256])
    add_wing_arguments(parser)
    args = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "lightly": compare_pretraining,
        "kornia": compare_batch_views,
        "torchvision": compare_single_views,
        "dlib": compare_points,
    }
    for name in args.what:
        flag = "wings" if name == "dlib" else "data_folder"
        try:
            found = version(PACKAGES[name])
        except PackageNotFoundError:
            print(f"{name}: skipped, {PACKAGES[name]} isn't installed")
            continue
        if getattr(args, flag) is None:
            print(f"{name}: skipped, it needs --{flag}")
            continue
        print(f"\n{PACKAGES[name]} {found}")
        parts[name](args)


# ---- lightly ----


class FileViews(Dataset):
    """The views that a transform makes of images, which are read from their files anew."""

    def __init__(
        self, dataset: CelebAPrunedAligned_MAFLVal, transform: Callable[[Image.Image], list[Tensor]]
    ) -> None:
        self.paths = [dataset.path(index) for index in range(len(dataset))]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


class LightlyMoCo(nn.Module):
    """Momentum contrast put together of lightly's parts, as in its tutorial."""

    def __init__(self) -> None:
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import MoCoProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        self.query, self.key = (
            nn.Sequential(self.backbone(), MoCoProjectionHead(512, 512, DIM)) for _ in range(2)
        )
        self.key.load_state_dict(self.query.state_dict())
        deactivate_requires_grad(self.key)
        self.criterion = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(QUEUE, DIM))
        self.optimizer = torch.optim.SGD(
            self.query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4
        )

    @staticmethod
    def backbone() -> nn.Module:
        """Return a ResNet-18 that ends in its pooled features (B, 512)."""
        network = torchvision.models.resnet18()
        network.fc = nn.Identity()
        return network

    def step(self, view1: Tensor, view2: Tensor, amp: str) -> float:
        """Take a step on two views (B, 3, W, W) of each image; return the loss."""
        from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum

        update_momentum(self.query, self.key, m=ALPHA)
        with autocast(CPU, amp):
            q = self.query(view1)  # (B, D)
            with torch.no_grad():
                shuffled, order = batch_shuffle(view2)
                k = batch_unshuffle(self.key(shuffled), order)
        loss = self.criterion(q.float(), k.float())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def epoch(self, views: DataLoader | Sequence[tuple[Tensor, Tensor]], amp: str = "off") -> None:
        """Take a step a batch."""
        for view1, view2 in views:
            self.step(view1, view2, amp)


def compare_pretraining(args: argparse.Namespace) -> None:
    """Time steps on random images, then epochs from the image files."""
    print(
        f"lightly: torchvision's ResNet-18, MoCoProjectionHead(512, 512, {DIM}), NTXentLoss with "
        f"{QUEUE} keys, update_momentum, batch_shuffle.\nOurs: train_moco.py's, --nce_k {QUEUE}."
    )
    steps = max(args.images // args.batch_size, 1)
    views = torch.randn(2, args.batch_size, 3, SIDE, SIDE)
    batches = [(views[0], views[1])] * steps
    pairs = [PairItem(torch.cat([*views], dim=1), 0)] * steps
    count = steps * args.batch_size
    ways: dict[str, Callable[[], object]] = {
        "lightly": partial(LightlyMoCo().epoch, batches),
        "lightly, autocast bf16": partial(LightlyMoCo().epoch, batches, "bf16"),
    }
    for name, amp in {"ours": "off", "ours, --amp bf16": "bf16"}.items():
        ways[name] = partial(take_steps, build_moco(MODEL, CPU), pairs, CPU, amp)
    title = f"{MODEL}, {SIDE} px, batch {args.batch_size}"
    compare(f"{title}: the step alone", ways, args.rounds, "images/s", count)
    compare_epochs(args, title)


def compare_epochs(args: argparse.Namespace, title: str) -> None:
    """Time epochs: reading the same files with as many processes, views and steps."""
    from lightly.transforms import MoCoV2Transform

    print(
        f"MoCoV2Transform(input_size={SIDE}), 'crop and jitter': without its grey, blur, hue and "
        "flips, which ours hasn't;\nours has the published views, whose JPEG noise lightly hasn't"
    )
    plain: dict[str, Any] = {"cj_prob": 1.0, "cj_hue": 0.0, "hf_prob": 0.0}
    plain |= {"random_gray_scale": 0.0, "gaussian_blur": 0.0}
    dataset = images_of(args.data_folder, args.images, SIZE, CROP)
    loaders = {
        name: DataLoader(
            FileViews(dataset, MoCoV2Transform(input_size=SIDE, **options)),
            args.batch_size,
            shuffle=True,
            num_workers=args.num_workers,
            persistent_workers=args.num_workers > 0,
        )
        for name, options in {"plain": plain, "v2": {}}.items()
    }
    ways: dict[str, Callable[[], object]] = {
        "lightly, crop and jitter": partial(LightlyMoCo().epoch, loaders["plain"]),
        "lightly, MoCo v2's views": partial(LightlyMoCo().epoch, loaders["v2"]),
        "the former, bf16": partial(LightlyMoCo().epoch, loaders["plain"], "bf16"),
    }
    loading = (args.data_folder, args.images, args.batch_size, args.num_workers, CPU)
    for name, amp in {"ours": "off", "ours, --amp bf16": "bf16"}.items():
        ways[name] = our_epochs(MODEL, *loading, dataset.folder, amp=amp)
    compare(f"{title}: end to end", ways, args.rounds, "images/s", len(dataset))


# ---- kornia ----


def compare_batch_views(args: argparse.Namespace) -> None:
    """Time views of whole batches, dense ones and those of momentum contrast."""
    print(
        "dense: RandomAffine, CenterCrop, ColorJiggle without hue, RandomGrayscale, "
        "RandomGaussianBlur 3x3, Normalize,\nagainst DenseViews, which stretch and change each "
        "colour's gain, too; contrast: RandomJPEG, RandomResizedCrop, ColorJiggle, Normalize,\n"
        "CenterCrop, against BatchViews, which resize before and after JPEG, too"
    )
    generator = torch.Generator().manual_seed(0)
    for batch_size in args.view_batches:
        dataset = images_of(args.data_folder, batch_size, SIZE, CROP)
        images = torch.stack(
            [TF.pil_to_tensor(dataset.base_item(i % len(dataset))[0]) for i in range(batch_size)]
        )  # (B, 3, S, S)
        colours = (dataset.mean, dataset.std)
        dense = DenseViews(SIZE, CROP, *colours, Spread())
        contrast = BatchViews(SIZE, CROP, SMALLEST_SCALE, *colours)
        for title, peer, ours in (
            ("dense views", kornia_dense(*colours), dense),
            ("views of momentum contrast", kornia_contrast(*colours), contrast),
        ):
            ways = {
                "kornia": partial(augment, peer, images),
                "ours": partial(ours, images, generator),
            }
            title = f"{title}, batch {batch_size}, {SIZE} px to {SIDE}"
            compare(title, ways, args.rounds, "views/s", batch_size)


@torch.no_grad()
def augment(transform: nn.Module, images: Tensor) -> Tensor:
    """Return kornia's views of images (B, 3, S, S), uint8."""
    return transform(images.float() / 255)


def kornia_dense(mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return kornia's nearest to the views of dense contrast."""
    import kornia.augmentation as K

    spread = Spread()
    scale = torch.tensor([-spread.scale, spread.scale]).exp().tolist()
    return nn.Sequential(
        K.RandomAffine(
            spread.rotation,
            translate=(spread.shift / 2, spread.shift / 2),  # of the whole side
            scale=(scale[0], scale[1]),
            padding_mode="reflection",
            p=1.0,
        ),
        K.CenterCrop((SIDE, SIDE)),
        K.ColorJiggle(STRENGTH, STRENGTH, STRENGTH, 0.0, p=1.0),
        K.RandomGrayscale(p=GREY_FRACTION),
        K.RandomGaussianBlur((3, 3), (1.0, 1.0), p=BLUR_FRACTION),
        K.Normalize(torch.tensor(mean), torch.tensor(std)),
    )


def kornia_contrast(mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return kornia's nearest to the views of momentum contrast."""
    import kornia.augmentation as K

    return nn.Sequential(
        K.RandomJPEG((float(JPEG[0]), float(JPEG[1])), p=1.0),
        K.RandomResizedCrop((SIZE, SIZE), scale=(SMALLEST_SCALE, 1.0)),
        K.ColorJiggle(JITTER, JITTER, JITTER, 0.0, p=1.0),
        K.Normalize(torch.tensor(mean), torch.tensor(std)),
        K.CenterCrop((SIDE, SIDE)),
    )


# ---- torchvision ----


def compare_single_views(args: argparse.Namespace) -> None:
    """Time views of images that are decoded, one by one on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(
        "v2: JPEG noise, RandomResizedCrop, ColorJitter, ToDtype, Normalize, CenterCrop; on "
        "tensors JPEG without resizing,\non Pillow images the published JPEG noise, which ours has"
    )
    dataset = images_of(args.data_folder, args.images, SIZE, CROP)
    images = [dataset.base_item(i)[0] for i in range(len(dataset))]
    tensors = [TF.pil_to_tensor(image) for image in images]
    changes = [
        v2.RandomResizedCrop(SIZE, scale=(SMALLEST_SCALE, 1.0), antialias=True),
        v2.ColorJitter(JITTER, JITTER, JITTER),
    ]
    ending = [
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(dataset.mean, dataset.std),
        v2.CenterCrop(SIDE),
    ]
    of_tensors = v2.Compose([v2.JPEG(JPEG), *changes, *ending])
    of_images = v2.Compose([jpeg_noise, *changes, v2.ToImage(), *ending])
    ours = RandomView(SIZE, SMALLEST_SCALE, CROP, dataset.mean, dataset.std)
    ways = {
        "torchvision v2, Pillow": lambda: [of_images(image) for image in images],
        "torchvision v2, tensors": lambda: [of_tensors(image) for image in tensors],
        "ours": lambda: [ours(image) for image in images],
    }
    compare(f"{SIZE} px to {SIDE}", ways, args.rounds, "views/s", len(images))
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
