"""Regressor training: the published arithmetic against ours, on photographs of your own.

  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet18
  python -m benchmarks.regressor --dataset ThreeHundredW --data_folder datasets/300w --what cached
  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet50 --what memory

The literal side gets its images decoded in memory, and runs the encoder, the resizing to 48x48
and the 1x1 convolution over all channels at every step. Ours is the code of the scripts.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import literal, measure
from benchmarks.measure import CPU, largest_difference
from data_loader.data_loaders_face import FACE_BENCHMARKS
from data_loader.loaders import build_loader
from engine.features.cache import FeatureCache
from engine.features.images import EncodedImages, Encoding, encode_dataset
from engine.readouts.published import PublishedReadout, train_one_epoch
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss
from utils.log import RunLog

LAYER = 4
TITLES = {
    "cached": "an epoch, features cached",
    "ten": "ten epochs with the encoding",
    "tps": "an epoch of warped images",
    "memory": "peak memory of the process, and its growth over encoding and two steps",
}
RESULTS = ("landmarks in [-1, 1]", "inner_conv's gradient", "reg_conv's gradient")
COMPARED = 8  # images


def main() -> None:
    """Measure what was asked for."""
    size = {"rounds": 5, "images": 96, "batch_size": 32}
    parser = measure.build_parser(__doc__, data_folder=..., model="resnet18", **size)
    parser.add_argument("--dataset", choices=list(FACE_BENCHMARKS), default="MAFLAligned")
    parser.add_argument("--what", choices=list(TITLES), default="cached")
    args = parser.parse_args()
    options = (args.dataset, args.data_folder, args.model, args.batch_size)
    if args.what == "memory":
        about = f"{args.model}, layer {LAYER}, {args.dataset}: {TITLES['memory']}"
        print(f"{measure.machine()}\n{about}")
        two_steps = "benchmarks.regressor:two_steps"
        sides = [measure.marks_of(two_steps, *options, literally) for literally in (True, False)]
        (a, b), (c, d) = ((end.memory, end.memory - start.memory) for start, end in sides)
        for name, x, y in (("total", a, c), ("growth", b, d)):
            print(f"  {name:<8} literal {x:.0f} MB, ours {y:.0f} MB, ratio {x / y:.1f}")
        return
    setting = Setting(*options, args.images, warped=args.what == "tps")
    # Warped images are decoded anew each time, on both sides.
    batches = [] if args.what == "tps" else list(setting.batches())
    encoded = None if args.what == "ten" else setting.encoded()
    epochs = 10 if args.what == "ten" else 1
    if args.what == "cached":
        setting.compare_results(*batches[0])
    ways = {
        "literal": lambda: setting.train_literally(batches or setting.batches(), epochs),
        "ours": lambda: setting.train(encoded or setting.encoded(), epochs),
    }
    landmarks = setting.dataset.num_landmarks
    title = f"{args.model}, layer {LAYER}, A={landmarks}, {args.dataset}: {TITLES[args.what]}"
    measure.compare(title, ways, args.rounds, warm_up=int(epochs == 1))


class Setting:
    """The images, the frozen encoder and two equal regressors."""

    def __init__(
        self, name: str, root: str, model: str, batch_size: int, images: int, warped: bool = False
    ) -> None:
        frame: dict[str, Any] = {"imwidth": measure.SIZE, "crop": measure.CROP, "TPS_aug": warped}
        frame |= {"pair_image": False, "do_augmentations": False}
        self.dataset = FACE_BENCHMARKS[name][0](root, **frame)
        # From the first one again where images are fewer.
        self.dataset.select([number % len(self.dataset) for number in range(images)])
        self.task, side = face_task(self.dataset.eyes), self.dataset.side
        self.loading: dict[str, Any] = {"batch_size": batch_size, "num_workers": 0, "seed": 0}
        self.encoder = freeze(build_random_encoder(model, side, seed=0))
        torch.manual_seed(0)
        self.levels = choose_levels(self.encoder, LAYER, use_hypercol=True)
        channels = self.encoder.feature_channels(self.levels.numbers)
        landmarks = self.dataset.num_landmarks
        regressor = PublishedReadout.build(channels, landmarks, side, self.levels.shape)
        self.literal_side = with_optimizer(regressor)
        self.our_side = with_optimizer(copy.deepcopy(regressor))
        self.epochs = itertools.count(1)

    def encoded(self) -> EncodedImages:
        """Return the images encoded as the scripts do."""
        encoding = Encoding(self.encoder, "", self.levels)
        how: dict[str, Any] = {"cache": FeatureCache("memory", Path(), None, CPU), "log": RunLog()}
        images = encode_dataset(encoding, self.dataset, **self.loading, shuffle=False, **how)
        assert images is not None  # as in any first rank
        return images

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and points, in the order that `encoded` has."""
        loader = build_loader(self.dataset, **self.loading, shuffle=False, device=CPU)
        for images, _, points, _ in loader:
            yield images, points

    def train_literally(self, batches: Iterable[tuple[Tensor, Tensor]], epochs: int) -> None:
        """Train as published."""
        for _ in range(epochs):
            literal.train_one_epoch(self.encoder, *self.literal_side, batches, LAYER)

    def train(self, images: EncodedImages, epochs: int) -> None:
        """Train as the scripts do."""
        for _ in range(epochs):
            train_one_epoch(*self.our_side, self.task, images, next(self.epochs), RunLog(), 1000)

    def compare_results(self, images: Tensor, points: Tensor) -> None:
        """Print how far both sides are from the literal arithmetic in float64."""
        pixels, points = images[:COMPARED], points[:COMPARED]
        published, ours = self.literal_side[0], self.our_side[0]
        exact, encoder = copy.deepcopy(published).double(), copy.deepcopy(self.encoder).double()
        dense = self.encoder(pixels, LAYER, True, literal.HYPERCOLUMN)
        exact_dense = encoder(pixels.double(), LAYER, True, literal.HYPERCOLUMN)
        maps = self.encoder(pixels, levels=self.levels.numbers)
        found = [
            results(exact, literal.predict(exact, exact_dense), points),
            results(published, literal.predict(published, dense), points),
            results(ours, ours(maps)[0], points),
        ]
        print(f"  largest difference from the literal arithmetic in float64, {COMPARED} images")
        for name, reference, of_literal, of_ours in zip(RESULTS, *found, strict=True):
            print(f"    {name:<22} literal {largest_difference(of_literal, reference)}")
            print(f"    {'':<22} ours    {largest_difference(of_ours, reference)}")


def results(
    regressor: IntermediateKeypointPredictor, pred: Tensor, points: Tensor
) -> tuple[Tensor | None, ...]:
    """Return landmarks and gradients of a batch, as named by ``RESULTS``."""
    regression_loss(pred, points.to(pred)).backward()
    return pred.detach(), regressor.inner_conv.weight.grad, regressor.reg_conv.weight.grad


def with_optimizer(
    regressor: IntermediateKeypointPredictor,
) -> tuple[IntermediateKeypointPredictor, torch.optim.Optimizer]:
    """Return a regressor and the optimizer of the published command."""
    rates: dict[str, Any] = {"lr": 0.001, "betas": (0.5, 0.999), "weight_decay": 0.0005}
    return regressor, torch.optim.Adam(regressor.parameters(), **rates)


def two_steps(name: str, root: str, model: str, batch_size: int, literally: bool) -> Iterator[None]:
    """Encode and take two steps, whose memory counts from the first mark on."""
    setting = Setting(name, root, model, batch_size, 2 * batch_size)
    batches = list(setting.batches()) if literally else []
    yield
    if literally:
        setting.train_literally(batches, 1)
    else:
        setting.train(setting.encoded(), 1)
    yield


if __name__ == "__main__":
    main()
