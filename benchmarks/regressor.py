"""Regressor training: the published arithmetic against ours, on photographs of your own.

The literal side gets its images decoded in memory, and runs the encoder, the resizing to 48x48
and the 1x1 convolution over all channels at every step. Ours is the code of the scripts. Letters: B
images, A landmarks, C channels, H = W = 48.
"""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import CPU, CROP, SIZE, build_parser, compare, machine, memory_of
from data_loader.data_loaders_face import FACE_BENCHMARKS, build_face_dataset
from data_loader.loaders import build_loader
from engine.features.cache import FeatureCache
from engine.features.images import EncodedImages, Encoding, encode_dataset
from engine.readouts.published import PublishedReadout, train_one_epoch
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss
from utils.log import RunLog
from utils.script import run_script

LAYER = 4
DENSE = (LAYER, True, (48, 48))  # the encoder's arguments for a hypercolumn (B, C, H, W)
TITLES = {
    "cached": "an epoch, features cached",
    "ten": "ten epochs with the encoding",
    "tps": "an epoch of warped images",
    "memory": "peak memory of the process, and its growth over encoding and two steps",
}


def main() -> None:
    """Measure what was asked for."""
    kinds = {"dataset": tuple(FACE_BENCHMARKS), "what": tuple(TITLES), "model": "resnet18"}
    size = {"rounds": 5, "images": 96, "batch_size": 32}
    args = build_parser(__doc__, data_folder=..., **kinds, **size).parse_args()
    options = (args.dataset, args.data_folder, args.model, args.batch_size)
    if args.what == "memory":
        print(f"{machine()}\n{args.model}, layer {LAYER}, {args.dataset}: {TITLES['memory']}")
        (a, b), (c, d) = (memory_of(two_steps, *options, literally) for literally in (True, False))
        for name, x, y in (("total", a, c), ("growth", b, d)):
            print(f"  {name:<8} literal {x:.0f} MB, ours {y:.0f} MB, ratio {x / y:.1f}")
        return
    setting = Setting(*options, args.images, warped=args.what == "tps")
    # Warped images are decoded anew each time, on both sides.
    batches = [] if args.what == "tps" else list(setting.batches())
    encoded = None if args.what == "ten" else setting.encoded()
    epochs = 10 if args.what == "ten" else 1
    ways = {
        "literal": lambda: setting.train_literally(batches or setting.batches(), epochs),
        "ours": lambda: setting.train(encoded or setting.encoded(), epochs),
    }
    landmarks = setting.dataset.num_landmarks
    title = f"{args.model}, layer {LAYER}, A={landmarks}, {args.dataset}: {TITLES[args.what]}"
    compare(title, ways, args.rounds)


class Setting:
    """The images, the frozen encoder and two equal regressors, ``published`` and ``ours``."""

    def __init__(
        self, name: str, root: str, model: str, batch_size: int, images: int, warped: bool = False
    ) -> None:
        frame: dict[str, Any] = {"imwidth": SIZE, "crop": CROP, "TPS_aug": warped}
        self.dataset = build_face_dataset(name, root, "stop", **frame)
        # From the first one again where images are fewer.
        self.dataset.select([number % len(self.dataset) for number in range(images)])
        self.loading: dict[str, Any] = {"batch_size": batch_size, "num_workers": 0, "seed": 0}
        self.encoder = freeze(build_random_encoder(model, self.dataset.side, seed=0))
        torch.manual_seed(0)
        self.levels = choose_levels(self.encoder, LAYER, use_hypercol=True)
        channels = self.encoder.feature_channels(self.levels.numbers)
        side, landmarks = self.dataset.side, self.dataset.num_landmarks
        self.shape = (channels, landmarks, side, self.levels.shape)  # of a readout
        self.published = PublishedReadout.build(*self.shape)
        self.ours = copy.deepcopy(self.published)
        self.optimizers = [  # of the published command
            torch.optim.Adam(regressor.parameters(), 0.001, (0.5, 0.999), weight_decay=0.0005)
            for regressor in (self.published, self.ours)
        ]

    def encoded(self) -> EncodedImages:
        """Return the images encoded as the scripts do."""
        how: dict[str, Any] = {"cache": FeatureCache("memory", Path(), None, CPU), "log": RunLog()}
        encoding = Encoding(self.encoder, "", self.levels)
        images = encode_dataset(encoding, self.dataset, shuffle=False, **self.loading, **how)
        assert images is not None  # as in any first rank
        return images

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and points, in the order that `encoded` has."""
        loader = build_loader(self.dataset, **self.loading, shuffle=False, device=CPU)
        return ((images, points) for images, _, points, _ in loader)

    def train_literally(self, batches: Iterable[tuple[Tensor, Tensor]], epochs: int) -> None:
        """Train as published: a step a batch, each on a hypercolumn made anew."""
        optimizer, _ = self.optimizers
        self.published.train()
        for _ in range(epochs):
            for images, points in batches:
                with torch.no_grad():
                    features = self.encoder(images, *DENSE)
                loss = regression_loss(predict_literally(self.published, features), points)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def train(self, images: EncodedImages, epochs: int) -> None:
        """Train as the scripts do."""
        trained = (self.ours, self.optimizers[1], face_task(self.dataset.eyes))
        for epoch in range(epochs):
            train_one_epoch(*trained, images, epoch, RunLog(), 1000)


def predict_literally(regressor: IntermediateKeypointPredictor, features: Tensor) -> Tensor:
    """Return the landmarks (B, A, 2) of features (B, C, H, W), step by step [spec 5].

    Each of the A landmarks is a weighted sum of I virtual points.
    """
    scores = regressor.inner_conv(features) * regressor.softargmax_mul  # (B, A * I, H, W)
    b, k, height, width = scores.shape
    heat = scores.view(b, k, -1).softmax(dim=-1).view(b, k, height, width)
    rows = torch.linspace(-1, 1, height).to(heat).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).to(heat).view(1, 1, 1, width)
    x = (heat * columns).sum(dim=(2, 3))  # (B, A * I)
    y = (heat * rows).sum(dim=(2, 3))
    points = torch.stack([x, y], dim=-1)  # (B, A * I, 2)
    return regressor.reg_conv(points.reshape(b, -1, 1, 1)).view(b, -1, 2)


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
    run_script(main)
