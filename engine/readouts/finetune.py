"""Fine-tuning: a head that reads heatmaps, and the encoder, trained on random views [spec 14].

Letters: N training images, B views of a step, A landmarks, S the side of an image's square, W that
of a view.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_loader.landmark_dataset import LandmarkDataset
from data_loader.splits import split_off
from data_loader.views.dense_views import DenseViews, points_in_views, swap_pairs
from data_loader.views.similarity import Spread
from engine.features.images import EncodedImages
from engine.features.squares import AnnotatedSquares
from engine.readouts.published import OPTIMIZATION, load_optimizer
from engine.readouts.readout import EvaluationSettings, Readout
from engine.readouts.task import Task
from engine.run.acceleration import add_precision_argument, autocast
from engine.run.resumption import AUTO
from models.encoders import Encoder, Levels
from models.heatmap_head import HeatmapHead, head_levels
from models.landmarks import Landmarks
from models.loss import heatmap_loss
from models.poses import pose_factor
from models.resnet import PIXELS
from utils.arguments import integer, or_auto, positive_float, positive_int, unit_interval
from utils.checkpoint import load_weights
from utils.errors import InputError, check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, in_minutes, progress
from utils.schedule import set_learning_rate, warm_up_cosine_lr

ROUND_STEPS, MOST_ROUNDS = 25, 20  # between two checkpoints at least; in a run at most
WARM_UP, WEIGHT_DECAY = 20, 1e-4
LEAST_STEPS, MOST_STEPS = 100, 200  # that are planned, the latter for views of the whole spread
CELL = 2  # pixels of the input, a ResNet's finest stride: the heatmaps' standard deviation
SPREAD = Spread(rotation=30.0, scale=0.25, shift=0.2, aspect=0.1)
# Of a hundred images or more a tenth is held out; fewer are too few to judge by or to miss.
JUDGED_FROM, JUDGED_FRACTION, MOST_JUDGED = 100, 0.1, 100

EXPECTS = "expects_distance"  # entry of a checkpoint, see `HeatmapHead`
KEPT_VERSIONS = 2  # of current.pth, by default

Weights = dict[str, dict[str, Tensor]]  # of encoder and head


class Plan(NamedTuple):
    """How far the views of a fit go, as ``--finetune_spread``, and how many steps it takes."""

    spread: float
    steps: int


def plan_fit(settings: EvaluationSettings, train_set: LandmarkDataset) -> Plan:
    """Return what flags ask for, or what they leave to the annotated poses.

    Views that vary more take more steps to learn from.
    """
    spread, steps = settings.finetune_spread, settings.finetune_steps
    if spread == AUTO:
        factor = pose_factor(*train_set.annotation_tensors(), SPREAD.rotation, SPREAD.scale)
        spread = 1.0 if factor is None else round(factor, 2)
    if steps == AUTO:
        steps = max(LEAST_STEPS, ROUND_STEPS * math.ceil(float(spread) * MOST_STEPS / ROUND_STEPS))
    return Plan(float(spread), int(steps))


class Finetune(Readout):
    """A `HeatmapHead` on all maps, trained together with the encoder.

    An epoch of its checkpoints is a round of steps; the weights kept are the best round's.
    """

    kind, entry = "finetune", "heatmaps"
    keys = ("opt", "epoch", "model", "heatmaps", "optimizer", "best", "best_epoch", "best_px")
    counted = ("output.bias", 1)
    ignored = (*OPTIMIZATION, "repeat", "num_per_epoch", "TPS_aug")
    trains_encoder = True
    module: HeatmapHead
    optimizer: torch.optim.Optimizer
    plan: Plan

    def __init__(self, encoder: Encoder, levels: Levels, landmarks: int, side: int) -> None:
        super().__init__(encoder, levels, landmarks, side)
        self.network = nn.ModuleList([encoder, self.module])
        self.sees = (PIXELS,)
        self.best_round, self.best_px, self.best = 0, math.inf, Weights()

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the options of ``--regressor finetune``."""
        group = parser.add_argument_group(
            "fine-tuning (--regressor finetune), in place of those above"
        )
        group.add_argument(
            "--finetune_steps",
            type=or_auto(positive_int),
            default=300,
            metavar="N",
            help="steps; the learning rate rises over 20 of them and falls to 0 along a half "
            f"cosine; auto: {LEAST_STEPS} to {MOST_STEPS}, the more the further views go",
        )
        group.add_argument(
            "--finetune_batch",
            type=integer(2, 10_000),
            default=16,
            help="random views a step, of images in a random order",
        )
        add_precision_argument(group, "the network")
        group.add_argument(
            "--finetune_rate", type=positive_float, default=0.001, help="AdamW's learning rate"
        )
        group.add_argument(
            "--finetune_spread",
            type=or_auto(unit_interval),
            default=1.0,
            metavar="FACTOR",
            help="multiplies how far views are turned (30 degrees), scaled, shifted and "
            "stretched: less than 1 for objects that are all posed alike, such as 0.4 for mounted "
            "wings; auto: as much as the annotated poses vary",
        )

    @staticmethod
    def build(
        channels: int, landmarks: int, side: int, shape: tuple[int, int] | None
    ) -> HeatmapHead:
        """Return a fresh head; see `Readout.build`."""
        return HeatmapHead(channels, landmarks, side)

    @classmethod
    def choose_levels(
        cls, encoder: Encoder, layer: int, use_hypercol: bool, state: Mapping[str, Any]
    ) -> Levels:
        """Return all maps, whatever flags say, or those that a head's weights fit."""
        return Levels(head_levels(encoder, state), None)

    def __call__(self, features: Sequence[Tensor]) -> Landmarks:
        """Return the landmarks in the pixels of images (B, 3, W, W)."""
        (images,) = features
        return Landmarks(*self.module(self.encoder(images, levels=self.levels.numbers)))

    def state(self) -> Weights:
        """Return a copy of the network's weights on the CPU."""
        parts = {"model": self.encoder, self.entry: self.module}
        return {
            name: {key: value.cpu().clone() for key, value in part.state_dict().items()}
            for name, part in parts.items()
        }

    def load(self, path: str | Path, content: Mapping[str, Any], hint: str) -> None:
        """Take the weights of encoder and head; see `Readout.load`."""
        as_it_is = "opt" not in content and self.module.expects_distance  # of the best round alone
        self.module.expects_distance = bool(content.get(EXPECTS, as_it_is))
        load_weights(self.encoder, content.get("model", {}), path, hint)
        load_weights(self.module, content.get(self.entry, {}), path, hint)

    def begin(
        self,
        settings: EvaluationSettings,
        task: Task,
        device: torch.device,
        train_set: LandmarkDataset,
        found: tuple[Path, dict] | None,
    ) -> None:
        """Prepare a fit as planned; see `Readout.begin`."""
        self.plan = plan_fit(settings, train_set)
        super().begin(settings, task, device, train_set, found)

    def prepare(self) -> None:
        """Make the optimizer of encoder and head."""
        self.encoder.requires_grad_(True)
        self.network.to(memory_format=torch.channels_last)
        settings = self.settings
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.finetune_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.round_steps = max(ROUND_STEPS, -(-self.plan.steps // MOST_ROUNDS))
        self.rounds = -(-self.plan.steps // self.round_steps)

    def resume(self, path: Path, content: dict) -> None:
        """Restore network, optimizer and the best round; see `Readout.resume`."""
        self.load(path, content["best"], self.settings.hint)  # so that they fit, too
        super().resume(path, content)
        if not content["optimizer"] and self.done < self.rounds:
            raise InputError(f"{path}: its fine-tuning is finished; it can't be made longer")
        if content["optimizer"]:
            load_optimizer(self.optimizer, path, content)
        self.best, self.best_round = content["best"], int(content["best_epoch"])
        self.best_px = float(content["best_px"])

    def fit(
        self, train: AnnotatedSquares, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, object]:
        """Train, save round by round and evaluate; see `Readout.fit`."""
        settings = self.settings
        points, visible = train.dataset.annotation_tensors()
        learnt, judged = split(len(train), settings.seed, self.groups)
        self.check_shown(visible[learnt])
        shape = self.score_mean_shape(points, visible, held_out, log)
        spread, steps = self.plan
        log.line(f"{steps} steps of {settings.finetune_batch} views, --finetune_spread {spread:g}")
        with Interruption() as interruption:
            for number in range(self.done + 1, self.rounds + 1):
                self.run_round(number, train, learnt, judged, log)
                if interruption.received:
                    interruption.leave(interruption.received)
        self.load(settings.folder, self.best, settings.hint)
        scores = self.evaluate(held_out)
        chosen = f"chosen on {len(judged)} held-out training images" if len(judged) else "the last"
        words = f": {self.task.in_words(scores)}" if held_out else ""
        log.line(f"round {self.best_round}, {chosen}{words}")
        best = {"best_round": self.best_round, "held_out": len(judged)}
        best["steps"] = self.plan.steps
        return {"epochs": self.rounds, "mean_shape": shape, "finetune": best, "last": scores}

    def run_round(
        self,
        number: int,
        train: AnnotatedSquares,
        learnt: Tensor,
        judged: Tensor,
        log: RunLog,
    ) -> None:
        """Train for some steps, judge the network by the held-out images, and save."""
        watch = Stopwatch()
        loss = self.train_round(number, train, learnt)
        check_finite("the loss", loss, number, flag="--finetune_rate")
        distance_px = self.mean_distance(train, judged) if len(judged) else None
        if distance_px is None or distance_px < self.best_px or not self.best:
            self.best, self.best_round = self.state(), number
            self.best_px = math.inf if distance_px is None else distance_px
        lr = self.optimizer.param_groups[0]["lr"]
        scalars = {} if distance_px is None else {"held_out_px": distance_px}
        log.record(number, learning_rate=lr, train_loss=loss, **scalars)
        held_out = "" if distance_px is None else f"held out {distance_px:.2f} px  "
        log.line(
            f"round {number}/{self.rounds}  loss {loss:.4f}  {held_out}learning rate {lr:.6f}  "
            f"{watch.seconds():.1f} s, {in_minutes(watch.seconds() * (self.rounds - number))} left"
        )
        self.done = number
        self.save(number == self.rounds)

    def train_round(self, number: int, train: AnnotatedSquares, learnt: Tensor) -> float:
        """Take a round's steps, which depend on seed and number alone; return the mean loss."""
        settings, dataset = self.settings, train.dataset
        first = (number - 1) * self.round_steps
        steps = range(first, min(first + self.round_steps, self.plan.steps))
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + number) % 2**63)
        batches = learnt[shuffled(len(learnt), len(steps) * settings.finetune_batch, generator)]
        order = dataset.flip_order if dataset.mirror == "views" else None
        frame, colours = (dataset.imwidth, dataset.crop), (dataset.mean, dataset.std)
        spread = Spread(*(self.plan.spread * largest for largest in SPREAD))
        views = DenseViews(*frame, *colours, spread, mirrored=order is not None)
        device = self.device
        total = torch.zeros((), device=device)
        self.network.train()
        squares = train.batches(batches.split(settings.finetune_batch))
        for step, batch in zip(progress(steps, f"round {number}"), squares, strict=True):
            images, maps = views(batch.images.to(device), generator)
            points, shown = points_in_views(
                maps, batch.points_px.float().to(device), views.side, views.width
            )
            visible = shown & batch.visible.to(device)
            if order is not None:
                points, visible = swap_pairs(maps, points, visible, order)
            lr = warm_up_cosine_lr(settings.finetune_rate, WARM_UP, self.plan.steps, step)
            set_learning_rate(self.optimizer, lr)
            images = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, settings.amp):
                seen = self.encoder(images, levels=self.levels.numbers)
                log_probability, places = self.module.heatmaps(seen)
            loss = heatmap_loss(log_probability, places, points, visible, 2 * CELL / views.width)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / len(steps)

    @torch.no_grad()
    def mean_distance(self, train: AnnotatedSquares, judged: Tensor) -> float:
        """Return the mean distance, in pixels of the network input, of the images' landmarks."""
        self.network.eval()
        distances = []
        batches = judged.split(self.settings.finetune_batch)
        for batch in train.centres(batches, self.device):
            found = self(batch.features).points  # (B, A, 2)
            distances.append((found - batch.points).norm(dim=2)[batch.visible])
        return float(torch.cat(distances).mean()) * (train.dataset.side - 1) / 2

    def checkpoint(self, epoch: int, **state: Any) -> dict[str, Any]:
        """Return a checkpoint's content, and what the head's confidence is."""
        return super().checkpoint(epoch, **state, **{EXPECTS: self.module.expects_distance})

    def save(self, finished: bool) -> None:
        """Write ``current.pth`` and, of the best round alone, the file named after the encoder.

        What a ``finished`` fit leaves has no optimizer, and no versions before it.
        """
        settings = self.settings
        best = {"best_epoch": self.best_round, "best_px": self.best_px, "best": self.best}
        # The same tensors twice take no more room in a file than once.
        weights = self.best if self.best_round == self.done or finished else self.state()
        optimizer = {} if finished else self.optimizer.state_dict()
        state = self.checkpoint(self.done, **best, **weights, optimizer=optimizer)
        is_new = self.best_round == self.done or finished
        best_state = self.checkpoint(self.best_round, **self.best) if is_new else None
        self.write(state, best_state, self.done % settings.save_freq == 0)
        if finished and settings.keep_last <= KEPT_VERSIONS:
            for path in settings.folder.glob("previous_*.pth"):
                path.unlink()


def split(count: int, seed: int, groups: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Return which of N images to learn from, and which to judge by: none if there are few.

    ``groups`` (N,) aren't parted, if given; a single one is learnt from.
    """
    held_out = 0
    if count >= JUDGED_FROM:
        held_out = min(int(count * JUDGED_FRACTION), MOST_JUDGED)
    if groups is not None and len(set(groups)) == 1:
        held_out = 0
    if groups is not None and held_out:
        is_judged = torch.from_numpy(split_off(groups, held_out / count, seed))
        return (~is_judged).nonzero().flatten(), is_judged.nonzero().flatten()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed % 2**63))
    return order[held_out:], order[:held_out]


def shuffled(count: int, total: int, generator: torch.Generator) -> Tensor:
    """Return ``total`` of the numbers below ``count``: all of them, then all again, and so on."""
    repeats = -(-total // count)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(repeats)])[:total]
