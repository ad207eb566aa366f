"""Regressor training: the published arithmetic against ours, on photographs of your own.

  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet18
  python -m benchmarks.regressor --dataset ThreeHundredW --data_folder datasets/300w --what cached
  python -m benchmarks.regressor --data_folder datasets/celeba --model resnet50 --what memory

The literal side gets its images decoded in memory, and runs the encoder, the resizing to 48x48
and the 1x1 convolution over all channels at every step. Ours is the code of the scripts.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import literal
from benchmarks.measure import (
    Peak,
    add_model_arguments,
    build_parser,
    compare,
    largest_difference,
    machine,
    peak_memory,
)
from data_loader.data_loaders_face import FACE_BENCHMARKS
from data_loader.loaders import build_loader
from engine.encoded_images import EncodedImages, Encoding
from engine.feature_cache import FeatureCache
from engine.features import encode_dataset
from engine.readouts.published import PublishedReadout, train_one_epoch
from engine.readouts.task import Task
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss
from utils.log import RunLog

LAYER = 4
CPU = torch.device("cpu")
TITLES = {
    "cached": "an epoch, features cached",
    "ten": "ten epochs with the encoding",
    "tps": "an epoch of warped images",
    "memory": "peak memory of the process, and its growth over encoding and two steps",
}
RESULTS = ("landmarks in [-1, 1]", "inner_conv's gradient", "reg_conv's gradient")


def main() -> None:
    """Measure what was asked for."""
    parser = build_parser(__doc__, rounds=5, root="the root of --dataset")
    add_model_arguments(parser, images=96, batch_size=32)
    parser.add_argument("--dataset", choices=list(FACE_BENCHMARKS), default="MAFLAligned")
    parser.add_argument("--what", choices=list(TITLES), default="cached")
    args = parser.parse_args()
    options = (args.dataset, args.data_folder, args.model)
    if args.what == "memory":
        published, ours = (
            peak_memory(two_steps, *options, args.batch_size, literally)
            for literally in (True, False)
        )
        print(f"{machine()}\n{args.model}, layer {LAYER}, {args.dataset}: {TITLES['memory']}")
        for name, a, b in zip(Peak._fields, published, ours, strict=True):
            print(f"  {name:<8} literal {a:.0f} MB, ours {b:.0f} MB, ratio {a / b:.1f}")
        return
    setting = Setting(*options, args.images, args.batch_size, warped=args.what == "tps")
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
    compare(title, ways, args.rounds, warm_up=int(epochs == 1))


class Setting:
    """The images, the frozen encoder and two equal regressors."""

    def __init__(
        self, name: str, root: str, model: str, images: int, batch_size: int, warped: bool
    ) -> None:
        options = {"pair_image": False, "do_augmentations": False, "TPS_aug": warped}
        self.dataset = FACE_BENCHMARKS[name][0](root, imwidth=136, crop=20, **options)
        self.dataset.select(range(min(images, len(self.dataset))))
        self.task: Task = face_task(self.dataset.eyes)
        self.loading: dict[str, Any] = dict(
            batch_size=batch_size, num_workers=0, seed=0, shuffle=False
        )
        self.encoder = freeze(build_random_encoder(model, self.dataset.side, seed=0))
        torch.manual_seed(0)
        self.levels = choose_levels(self.encoder, LAYER, use_hypercol=True)
        channels = self.encoder.feature_channels(self.levels.numbers)
        regressor = PublishedReadout.build(
            channels, self.dataset.num_landmarks, self.dataset.side, self.levels.shape
        )
        self.literal_side = with_optimizer(regressor)
        self.our_side = with_optimizer(copy.deepcopy(regressor))
        self.epochs = itertools.count(1)

    def encoded(self) -> EncodedImages:
        """Return the images encoded as the scripts do."""
        images = encode_dataset(
            Encoding(self.encoder, "", self.levels),
            self.dataset,
            **self.loading,
            cache=FeatureCache("memory", Path(), None, CPU),
            log=RunLog(),
        )
        assert images is not None  # as in any first rank
        return images

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and points, in the order that `encoded` has."""
        for images, _, points, _ in build_loader(self.dataset, **self.loading, device=CPU):
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
        pixels, points = images[:8], points[:8]
        literal_regressor = self.literal_side[0]
        exact = copy.deepcopy(literal_regressor).double()
        exact_encoder = copy.deepcopy(self.encoder).double()
        dense = self.encoder(pixels, LAYER, True, literal.HYPERCOLUMN)
        exact_dense = exact_encoder(pixels.double(), LAYER, True, literal.HYPERCOLUMN)
        pyramid = self.encoder(pixels, levels=self.levels.numbers)
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
    adam = torch.optim.Adam(
        regressor.parameters(), lr=0.001, betas=(0.5, 0.999), weight_decay=0.0005
    )
    return regressor, adam


def two_steps(name: str, root: str, model: str, batch_size: int, literally: bool) -> Iterator[None]:
    """Encode and take two steps; growth counts from the first yield on."""
    setting = Setting(name, root, model, 2 * batch_size, batch_size, warped=False)
    batches = list(setting.batches()) if literally else []
    yield
    if literally:
        setting.train_literally(batches, 1)
    else:
        setting.train(setting.encoded(), 1)


if __name__ == "__main__":
    main()
