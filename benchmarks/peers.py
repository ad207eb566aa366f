"""Other people's tools against ours, in turns in one process.

lightly: its tutorial's loop of momentum contrast against `train_moco.py`. kornia: its augmentations
against `--augment device` and the views of `train_dense.py`. torchvision: transforms v2 against the
views that `train_moco.py` makes one by one. dlib: its shape predictor against `--regressor
finetune` on fly wings, with whatever flags of `eval_animal.py` are given besides.
A ratio is the peer's time by ours: above 1, ours is faster.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.literal import jpeg_noise
from benchmarks.measure import (
    CPU,
    CROP,
    SIZE,
    SMALLEST_SCALE,
    batch_views,
    build_parser,
    compare,
    decoded,
    images_of,
)
from benchmarks.peer_points import compare_points
from benchmarks.pretrain import on_threads, our_epoch
from benchmarks.steps import ALPHA, DIM, QUEUE, SIDE, TEMPERATURE, build_moco, build_sgd, take_steps
from data_loader.items import Items, PairItem
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.views.dense_views import BLUR_FRACTION, GREY_FRACTION, STRENGTH, DenseViews
from data_loader.views.random_view import FACE_MEAN, FACE_STD
from data_loader.views.similarity import Spread
from engine.run.acceleration import autocast
from utils.script import run_script

PACKAGES = {name: name for name in ("lightly", "kornia", "torchvision")} | {"dlib": "dlib-bin"}
JITTER, JPEG = 0.4, (30, 98)  # of the published views [spec 6]
MODEL, VIEW_BATCHES = "resnet18", (32, 256)
OURS = {"ours": "off", "ours, --amp bf16": "bf16"}
Views = Iterable[Sequence[Tensor]]  # batches, two views (B, 3, W, W) of each


def main() -> None:
    """Measure what was asked for, as far as its peer is installed."""
    size = {"rounds": 5, "images": 256, "batch_size": 64, "num_workers": 2}
    parser = build_parser(__doc__, data_folder=None, wings=None, what=list(PACKAGES), **size)
    args, flags = parser.parse_known_args()
    if flags and "dlib" not in args.what:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "lightly": compare_pretraining,
        "kornia": compare_batch_views,
        "torchvision": compare_single_views,
        "dlib": partial(compare_points, flags=flags),
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


def lightly_epoch(views: Views, amp: str = "off") -> Callable[[], None]:
    """Return a function that trains for an epoch, by lightly's parts as in its tutorial."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum

    def build() -> nn.Module:
        network = torchvision.models.resnet18()
        network.fc = nn.Identity()  # it ends in its pooled features (B, 512)
        return nn.Sequential(network, MoCoProjectionHead(512, 512, DIM))

    query, key = build(), build()
    key.load_state_dict(query.state_dict())
    key.requires_grad_(False)
    criterion = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(QUEUE, DIM))
    optimizer = build_sgd(query.parameters())

    def epoch() -> None:
        for view1, view2 in views:  # (B, 3, W, W) each
            update_momentum(query, key, m=ALPHA)
            with autocast(CPU, amp):
                q = query(view1)  # (B, D)
                with torch.no_grad():
                    shuffled, order = batch_shuffle(view2)
                    k = batch_unshuffle(key(shuffled), order)
            loss = criterion(q.float(), k.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def read_views(dataset: LandmarkDataset, transform: Callable[..., Any], index: int) -> Any:
    """Return what a transform makes of an image, which is read from its file anew."""
    with Image.open(dataset.path(index)) as image:
        return transform(image.convert("RGB"))


def compare_pretraining(args: argparse.Namespace) -> None:
    """Time steps on random images, then epochs from the image files, with as many processes."""
    from lightly.transforms import MoCoV2Transform

    title, batch_size = f"{MODEL}, {SIDE} px, batch {args.batch_size}", args.batch_size
    steps, workers = max(args.images // batch_size, 1), args.num_workers
    views = torch.randn(2, batch_size, 3, SIDE, SIDE)
    pairs = [PairItem(torch.cat([*views], dim=1), 0)] * steps
    batches = [tuple(views)] * steps
    precisions = {"lightly": "off", "lightly, autocast bf16": "bf16"}
    ways = {name: lightly_epoch(batches, amp) for name, amp in precisions.items()}
    ways |= {name: take_steps(build_moco(MODEL), pairs, amp=amp) for name, amp in OURS.items()}
    compare(f"{title}: the step alone", ways, args.rounds, "images/s", steps * batch_size)

    print(
        f"MoCoV2Transform(input_size={SIDE}), 'crop and jitter': without its grey, blur, hue and "
        "flips, which ours hasn't;\nours has the published views, whose JPEG noise lightly hasn't"
    )
    dataset = images_of(args.data_folder, args.images)

    def load(**options: float) -> DataLoader:
        """Return the loader of lightly's views."""
        make = partial(read_views, dataset, MoCoV2Transform(input_size=SIDE, **options))
        how = {"num_workers": workers, "persistent_workers": workers > 0}
        return DataLoader(Items(dataset, make), batch_size, shuffle=True, **how)

    plain = load(cj_prob=1.0, cj_hue=0.0, hf_prob=0.0, random_gray_scale=0.0, gaussian_blur=0.0)
    ways = {
        "lightly, crop and jitter": lightly_epoch(plain),
        "lightly, MoCo v2's views": lightly_epoch(load()),
        "the former, bf16": lightly_epoch(plain, "bf16"),
    }
    for name, amp in OURS.items():
        ways[name] = our_epoch(dataset, MODEL, batch_size, workers, amp=amp)
    compare(f"{title}: end to end", ways, args.rounds, "images/s", len(dataset))


# ---- kornia ----


def compare_batch_views(args: argparse.Namespace) -> None:
    """Time views of whole batches, dense ones and those of momentum contrast."""
    import kornia.augmentation as K

    print(
        "dense: RandomAffine, CenterCrop, ColorJiggle without hue, RandomGrayscale, "
        "RandomGaussianBlur 3x3, Normalize,\nagainst DenseViews, which stretch and change each "
        "colour's gain, too; contrast: RandomJPEG, RandomResizedCrop, ColorJiggle, Normalize,\n"
        "CenterCrop, against BatchViews, which resize before and after JPEG, too"
    )
    spread, always, generator = Spread(), {"p": 1.0}, torch.Generator().manual_seed(0)
    scale = tuple(torch.tensor([-spread.scale, spread.scale]).exp().tolist())
    shift = (spread.shift / 2,) * 2  # of the whole side
    ending = [K.Normalize(torch.tensor(FACE_MEAN), torch.tensor(FACE_STD))]
    ending.append(K.CenterCrop((SIDE, SIDE)))
    dense = nn.Sequential(
        K.RandomAffine(spread.rotation, shift, scale, padding_mode="reflection", **always),
        ending[1],  # before the changes of colour, which take less time then
        K.ColorJiggle(STRENGTH, STRENGTH, STRENGTH, 0.0, **always),
        K.RandomGrayscale(p=GREY_FRACTION),
        K.RandomGaussianBlur((3, 3), (1.0, 1.0), p=BLUR_FRACTION),
        ending[0],
    )
    contrast = nn.Sequential(
        K.RandomJPEG(tuple(map(float, JPEG)), **always),
        K.RandomResizedCrop((SIZE, SIZE), scale=(SMALLEST_SCALE, 1.0)),
        K.ColorJiggle(JITTER, JITTER, JITTER, 0.0, **always),
        *ending,
    )
    for batch_size in VIEW_BATCHES:
        dataset, _, images = decoded(args.data_folder, batch_size)
        dense_views = DenseViews(SIZE, CROP, FACE_MEAN, FACE_STD, Spread())
        pairs: dict[str, tuple[nn.Module, Callable[..., object]]] = {
            "dense views": (dense, dense_views),
            "views of momentum contrast": (contrast, batch_views(dataset)),
        }
        for name, (peer, ours) in pairs.items():
            ways: dict[str, Callable[[], object]] = {
                "kornia": partial(augment, peer, images),
                "ours": partial(ours, images, generator),
            }
            title = f"{name}, batch {batch_size}, {SIZE} px to {SIDE}"
            compare(title, ways, args.rounds, "views/s", batch_size)


@torch.no_grad()
def augment(transform: nn.Module, images: Tensor) -> Tensor:
    """Return kornia's views of images (B, 3, S, S), uint8."""
    return transform(images.float() / 255)


# ---- torchvision ----


def compare_single_views(args: argparse.Namespace) -> None:
    """Time views of images that are decoded, one by one on one core."""
    print(
        "v2: JPEG noise, RandomResizedCrop, ColorJitter, ToDtype, Normalize, CenterCrop; on "
        "tensors JPEG without resizing,\non Pillow images the published JPEG noise, which ours has"
    )
    dataset, squares, tensors = decoded(args.data_folder, args.images)
    changes = [
        v2.RandomResizedCrop(SIZE, scale=(SMALLEST_SCALE, 1.0), antialias=True),
        v2.ColorJitter(JITTER, JITTER, JITTER),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(dataset.mean, dataset.std),
        v2.CenterCrop(SIDE),
    ]
    of_images = v2.Compose([jpeg_noise, *changes])
    of_tensors = v2.Compose([v2.JPEG(JPEG), *changes])
    ways = {
        "torchvision v2, Pillow": lambda: [of_images(square) for square in squares],
        "torchvision v2, tensors": lambda: [of_tensors(tensor) for tensor in tensors],
        "ours": lambda: [dataset.view(square) for square in squares],
    }
    given = (f"{SIZE} px to {SIDE}", ways, args.rounds, "views/s", len(squares))
    on_threads(1, partial(compare, *given))


if __name__ == "__main__":
    run_script(main)
