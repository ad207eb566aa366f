"""Regressor training: the published arithmetic against ours, on photographs of your own.

  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet18
  python -m benchmarks.regressor --dataset ThreeHundredW --data_folder datasets/300w --what cached
  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet50 --what memory

The literal side gets its images decoded in memory, and runs the encoder, the resizing to 48x48
and the 1x1 convolution over all channels at every step. Ours is the code of the scripts.
"""

import argparse
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import literal
from benchmarks.measure import Peak, interleaved, largest_difference, machine, peak_memory, report
from data_loader.data_loaders_face import FACE_BENCHMARKS, build_face_dataset
from data_loader.loaders import build_loader
from engine.encoded_images import EncodedImages, Encoding
from engine.feature_cache import FeatureCache
from engine.features import encode_dataset
from engine.regressor_training import Task, build_optimizer, build_regressor, train_one_epoch
from eval_face import face_task
from models.encoders import RESNETS, build_random_encoder, freeze
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss
from utils.log import RunLog

LAYER = 4
CPU = torch.device("cpu")
RESULTS = ("landmarks in [-1, 1]", "inner_conv's gradient", "reg_conv's gradient")


class Quiet(RunLog):
    """A log that says nothing."""

    def line(self, text: str) -> None:
        """Print nothing."""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=list(FACE_BENCHMARKS), default="MAFLAligned")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--model", choices=list(RESNETS), default="resnet18")
    parser.add_argument("--what", choices=["cached", "ten", "tps", "memory"], default="cached")
    parser.add_argument("--images", type=int, default=96, help="images an epoch")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(machine())
    setting = Setting(
        args.dataset, args.data_folder, args.model, args.images, args.batch_size, args.what == "tps"
    )
    title = f"{args.model}, layer {LAYER}, A={setting.dataset.num_landmarks}, {args.dataset}"
    if args.what == "cached":
        compare_epochs(setting, args.rounds, f"{title}: an epoch, features cached")
    elif args.what == "ten":
        compare_ten_epochs(setting, args.rounds, f"{title}: ten epochs with the encoding")
    elif args.what == "tps":
        compare_warped_epochs(setting, args.rounds, f"{title}: an epoch of warped images")
    else:
        options = (args.dataset, args.data_folder, args.model, args.batch_size)
        published = peak_memory(literal_memory, *options)
        ours = peak_memory(our_memory, *options)
        print(f"{title}: peak memory of the process, and its growth over encoding and two steps")
        for name, a, b in zip(Peak._fields, published, ours, strict=True):
            print(f"  {name:<8} literal {a:.0f} MB, ours {b:.0f} MB, ratio {a / b:.1f}")


class Setting:
    """The images, the frozen encoder and two equal regressors."""

    def __init__(
        self, name: str, root: str, model: str, images: int, batch_size: int, warped: bool
    ) -> None:
        self.dataset = build_face_dataset(
            name, root, train=True, TPS_aug=warped, image_size=136, image_crop=20
        )
        self.dataset.select(range(min(images, len(self.dataset))))
        self.task: Task = face_task(self.dataset.eyes)
        self.batch_size = batch_size
        self.encoder = freeze(build_random_encoder(model, self.dataset.side, seed=0))
        torch.manual_seed(0)
        channels = self.encoder.feature_channels(LAYER, True)
        regressor = build_regressor(channels, self.dataset.num_landmarks)
        self.literal_side = with_optimizer(regressor)
        self.our_side = with_optimizer(copy.deepcopy(regressor))
        self.epochs = itertools.count(1)

    def encoded(self) -> EncodedImages:
        """Return the images encoded as the scripts do."""
        images = encode_dataset(
            Encoding(self.encoder, "", LAYER, True),
            self.dataset,
            batch_size=self.batch_size,
            num_workers=0,
            seed=0,
            shuffle=False,
            cache=FeatureCache("memory", Path(), None, CPU),
            log=Quiet(),
        )
        assert images is not None  # as in any first rank
        return images

    def loader(self) -> DataLoader:
        """Return a loader of the images, in the order that `encoded` has."""
        return build_loader(
            self.dataset,
            batch_size=self.batch_size,
            num_workers=0,
            seed=0,
            shuffle=False,
            device=CPU,
        )

    def literal_epoch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Train for an epoch as published."""
        literal.train_one_epoch(self.encoder, *self.literal_side, batches, LAYER)

    def our_epoch(self, images: EncodedImages) -> None:
        """Train for an epoch as the scripts do."""
        epoch = next(self.epochs)
        train_one_epoch(*self.our_side, self.task, images, epoch, Quiet(), 1000)

    def compare_results(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Print how far both sides are from the literal arithmetic in float64."""
        pixels, points = batches[0][0][:8], batches[0][1][:8]
        literal_regressor = self.literal_side[0]
        exact = copy.deepcopy(literal_regressor).double()
        exact_encoder = copy.deepcopy(self.encoder).double()
        dense = self.encoder(pixels, LAYER, True, literal.HYPERCOLUMN)
        exact_dense = exact_encoder(pixels.double(), LAYER, True, literal.HYPERCOLUMN)
        pyramid = self.encoder(pixels, LAYER, True, None)
        found = [
            first_results(exact, lambda: literal.predict(exact, exact_dense), points),
            first_results(
                literal_regressor, lambda: literal.predict(literal_regressor, dense), points
            ),
            first_results(self.our_side[0], lambda: self.our_side[0](pyramid)[0], points),
        ]
        print("  largest difference from the literal arithmetic in float64, 8 images")
        for name, reference, published, ours in zip(RESULTS, *found, strict=True):
            print(f"    {name:<22} literal {largest_difference(published, reference)}")
            print(f"    {'':<22} ours    {largest_difference(ours, reference)}")


def first_results(
    regressor: IntermediateKeypointPredictor, predict: Callable[[], Tensor], points: Tensor
) -> tuple[Tensor | None, ...]:
    """Return landmarks and gradients of a batch, as named by ``RESULTS``."""
    pred = predict()
    regression_loss(pred, points.to(pred)).backward()
    return pred.detach(), regressor.inner_conv.weight.grad, regressor.reg_conv.weight.grad


def with_optimizer(
    regressor: IntermediateKeypointPredictor,
) -> tuple[IntermediateKeypointPredictor, torch.optim.Optimizer]:
    """Return a regressor and the optimizer of the published command."""
    optimizer = build_optimizer(
        regressor,
        learning_rate=0.001,
        momentum=0.9,
        weight_decay=0.0005,
        adam=True,
        amsgrad=False,
        betas=(0.5, 0.999),
    )
    return regressor, optimizer


def compare_epochs(setting: Setting, rounds: int, title: str) -> None:
    """An epoch of the literal arithmetic, against one on stored features."""
    batches = [(images, points) for images, _, points, _ in setting.loader()]
    images = setting.encoded()
    setting.compare_results(batches)
    ways = {
        "literal": lambda: setting.literal_epoch(batches),
        "ours": lambda: setting.our_epoch(images),
    }
    report(title, interleaved(ways, rounds))


def compare_ten_epochs(setting: Setting, rounds: int, title: str) -> None:
    """Ten epochs of the literal arithmetic, against one encoding and ten epochs on its result."""
    batches = [(images, points) for images, _, points, _ in setting.loader()]

    def ours() -> None:
        images = setting.encoded()  # decodes its images too
        for _ in range(10):
            setting.our_epoch(images)

    def published() -> None:
        for _ in range(10):
            setting.literal_epoch(batches)

    report(title, interleaved({"literal": published, "ours": ours}, rounds, warm_up=0))


def compare_warped_epochs(setting: Setting, rounds: int, title: str) -> None:
    """An epoch of images that are warped anew, decoding and warping included on both sides."""
    images = setting.encoded()
    ways = {
        "literal": lambda: setting.literal_epoch((i, p) for i, _, p, _ in setting.loader()),
        "ours": lambda: setting.our_epoch(images),
    }
    report(title, interleaved(ways, rounds))


def literal_memory(name: str, root: str, model: str, batch_size: int) -> Iterator[None]:
    """Take two literal steps; growth counts from the first yield on."""
    setting = Setting(name, root, model, 2 * batch_size, batch_size, False)
    batches = [(images, points) for images, _, points, _ in setting.loader()]
    yield
    setting.literal_epoch(batches)


def our_memory(name: str, root: str, model: str, batch_size: int) -> Iterator[None]:
    """Encode and take two of our steps; growth counts from the first yield on."""
    setting = Setting(name, root, model, 2 * batch_size, batch_size, False)
    yield
    setting.our_epoch(setting.encoded())


if __name__ == "__main__":
    main()
