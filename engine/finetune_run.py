"""Fine-tuning as a run: steps on random views, scores of held-out images, checkpoints [spec 14].

Letters: N training images, B views of a step, A landmarks, S the side of an image's square, W that
of a view.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data_loader.splits import split_off
from data_loader.views.dense_views import DenseViews, points_in_views, swap_pairs
from data_loader.views.similarity import Spread
from engine.annotated_squares import AnnotatedSquares
from engine.encoded_images import EncodedImages
from engine.regressor_run import EvaluationSettings, in_words
from engine.regressor_training import Task, baseline, evaluate, judged_split, mean_shape
from engine.resumption import save_current
from models.encoders import Encoder
from models.heatmap_head import HeatmapNetwork
from models.loss import heatmap_loss
from utils.checkpoint import load_weights, save_checkpoint
from utils.errors import InputError, check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.schedule import set_learning_rate, warm_up_cosine_lr

ROUND_STEPS, MOST_ROUNDS = 25, 20  # between two checkpoints at least; in a run at most
WARM_UP, WEIGHT_DECAY = 20, 1e-4
CELL = 2  # pixels of the input, a ResNet's finest stride: the heatmaps' standard deviation
SPREAD = Spread(rotation=30.0, scale=0.25, shift=0.2, aspect=0.1)
# Of a hundred images or more a tenth is held out; fewer are too few to judge by or to miss.
JUDGED_FROM, JUDGED_FRACTION, MOST_JUDGED = 100, 0.1, 100

Weights = dict[str, dict[str, Tensor]]  # of encoder and head


class FinetuneRun:
    """A network with its optimizer, the rounds done and the best weights.

    Args:
        settings: of the evaluation.
        task: metrics.
        encoder: is trained on.
        landmarks: A.
        side: W.
        device: to compute on.
        encoder_digest: of the encoder's weights at the start; checkpoints note it.
        notes: further entries of the checkpoints.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        task: Task,
        encoder: Encoder,
        landmarks: int,
        side: int,
        device: torch.device,
        encoder_digest: str,
        notes: Mapping[str, object] | None = None,
    ) -> None:
        self.settings, self.task, self.device = settings, task, device
        self.encoder_digest, self.notes = encoder_digest, notes or {}
        network = HeatmapNetwork(encoder.requires_grad_(True), landmarks, side)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), settings.finetune_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.round_steps = max(ROUND_STEPS, -(-settings.finetune_steps // MOST_ROUNDS))
        self.done, self.best_round, self.best_px = 0, 0, math.inf
        self.best: Weights = {}

    def resume(self, path: Path, content: dict) -> None:
        """Restore what a checkpoint holds.

        Raises:
            InputError: if it doesn't fit, or began with another encoder.
        """
        settings = self.settings
        if content.get("encoder_digest") != self.encoder_digest and not settings.override:
            raise InputError(f"{path}: began with another encoder; --override to insist")
        for weights in (content["best"], content):  # the former are checked alone
            self.load(weights, path)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: the optimizer's state doesn't fit ({error})") from None
        self.done, self.best = content["epoch"], content["best"]
        self.best_round, self.best_px = int(content["best_epoch"]), float(content["best_px"])

    @property
    def readout(self) -> HeatmapNetwork:
        """The network as it is: after the fit, of the best round."""
        return self.network

    def load(self, weights: Mapping[str, dict], path: Path) -> None:
        """Set the network to weights; the path is for messages."""
        for module, name in ((self.network.encoder, "model"), (self.network.head, "heatmaps")):
            load_weights(module, weights.get(name, {}), path, self.settings.hint)

    def weights(self) -> Weights:
        """Return a copy of the network's weights on the CPU."""
        parts = {"model": self.network.encoder, "heatmaps": self.network.head}
        return {
            name: {key: value.cpu().clone() for key, value in part.state_dict().items()}
            for name, part in parts.items()
        }

    def fit(
        self, train: AnnotatedSquares, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, object]:
        """Train, save round by round and evaluate; return what ``result.json`` holds of it.

        Raises:
            InputError: if the loss isn't finite, or there is nothing to learn a landmark from.
        """
        points, visible = train.annotations()
        groups = train.dataset.item_groups()
        learnt, judged = split(len(train), self.settings.seed, groups)
        seen = visible[learnt].any(dim=0)  # (A,)
        if not seen.all():
            missing = int(seen.int().argmin()) + 1
            raise InputError(f"--regressor finetune: no training image shows landmark {missing}")
        name, judged_set = judged_split(held_out)
        shape = baseline(self.task, mean_shape(points, visible), judged_set)
        log.line(f"mean shape: {in_words(self.task, {name: shape})}")
        rounds = -(-self.settings.finetune_steps // self.round_steps)
        with Interruption() as interruption:
            for number in range(self.done + 1, rounds + 1):
                self.run_round(number, rounds, train, learnt, judged, log)
                if interruption.received:
                    interruption.leave(interruption.received)
        self.load(self.best, self.settings.folder)
        scores = {s: evaluate(self.network, self.task, images) for s, images in held_out.items()}
        chosen = f"chosen on {len(judged)} held-out training images" if len(judged) else "the last"
        log.line(f"round {self.best_round}, {chosen}: {in_words(self.task, scores)}")
        best = {"best_round": self.best_round, "held_out": len(judged)}
        best["steps"] = self.settings.finetune_steps
        return {"epochs": rounds, "mean_shape": shape, "finetune": best, "last": scores}

    def run_round(
        self,
        number: int,
        rounds: int,
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
            self.best, self.best_round = self.weights(), number
            self.best_px = math.inf if distance_px is None else distance_px
        lr = self.optimizer.param_groups[0]["lr"]
        scalars = {} if distance_px is None else {"held_out_px": distance_px}
        log.record(number, learning_rate=lr, train_loss=loss, **scalars)
        held_out = "" if distance_px is None else f"held out {distance_px:.2f} px  "
        log.line(
            f"round {number}/{rounds}  loss {loss:.4f}  {held_out}learning rate {lr:.6f}  "
            f"{watch.seconds():.1f} s"
        )
        self.done = number
        self.save(number == rounds)

    def train_round(self, number: int, train: AnnotatedSquares, learnt: Tensor) -> float:
        """Take a round's steps, which depend on seed and number alone; return the mean loss."""
        settings, dataset = self.settings, train.dataset
        first = (number - 1) * self.round_steps
        steps = range(first, min(first + self.round_steps, settings.finetune_steps))
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + number) % 2**63)
        batches = learnt[shuffled(len(learnt), len(steps) * settings.finetune_batch, generator)]
        order = dataset.flip_order if dataset.mirror == "views" else None
        frame, colours = (dataset.imwidth, dataset.crop), (dataset.mean, dataset.std)
        spread = Spread(*(self.settings.finetune_spread * largest for largest in SPREAD))
        views = DenseViews(*frame, *colours, spread, mirrored=order is not None)
        total = torch.zeros((), device=self.device)
        self.network.train()
        squares = train.batches(batches.split(settings.finetune_batch))
        for step, batch in zip(progress(steps, f"round {number}"), squares, strict=True):
            images, maps = views(batch.images.to(self.device), generator)
            points, shown = points_in_views(
                maps, batch.points_px.to(self.device), views.side, views.width
            )
            visible = shown & batch.visible.to(self.device)
            if order is not None:
                points, visible = swap_pairs(maps, points, visible, order)
            lr = warm_up_cosine_lr(settings.finetune_rate, WARM_UP, settings.finetune_steps, step)
            set_learning_rate(self.optimizer, lr)
            images = images.contiguous(memory_format=torch.channels_last)
            log_probability, places = self.network.heatmaps(images)
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
        for batch in train.centres(judged.split(self.settings.finetune_batch), self.device):
            found, _ = self.network(batch.features)  # (B, A, 2)
            distances.append((found - batch.points).norm(dim=2)[batch.visible])
        return float(torch.cat(distances).mean()) * (train.dataset.side - 1) / 2

    def save(self, finished: bool) -> None:
        """Write ``current.pth`` and, of the best round alone, the file named after the encoder."""
        settings = self.settings
        content = {
            "opt": settings.options,
            "encoder_digest": self.encoder_digest,
            **self.notes,
        }
        # The same tensors twice take no more room in a file than once.
        weights = self.best if self.best_round == self.done else self.weights()
        state = {
            **content,
            "epoch": self.done,
            "best_epoch": self.best_round,
            "best_px": self.best_px,
            **weights,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.best_round == self.done or finished:
            best = {**content, "epoch": self.best_round, **self.best}
            save_checkpoint(settings.best_path, best)
        if self.done % settings.save_freq == 0 or finished:
            save_checkpoint(settings.folder / f"ckpt_epoch_{self.done}.pth", state)
        save_current(settings.folder, state, settings.keep_last)


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
