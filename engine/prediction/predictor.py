"""An encoder and a readout as one network, set up from what their checkpoints note.

Letters: B images, A landmarks, W the side of the network input.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_loader.data_loaders_animal import CUB
from data_loader.framing import FITS, Framing
from data_loader.image_set import Colours, ImageSet, as_colours
from engine.encoder_loading import EncoderSettings, colours_of, load_frozen_encoder
from engine.readouts.kinds import (
    build_readout,
    count_landmarks,
    is_fitted_to,
    read_readout,
    with_own_encoder,
)
from engine.readouts.readout import Readout
from engine.run import Settings
from models.calibration import Calibration, from_entry
from models.encoders import encode
from models.projection import STAGES
from utils.errors import InputError
from utils.log import RunLog

OWN = "Keypoints"  # the data set whose readouts note how images are framed


class Trained(NamedTuple):
    """The options that a readout was trained with, as far as prediction reads them; see there."""

    dataset: str
    model: str
    layer: int
    use_hypercol: bool
    image_size: int
    image_crop: int
    random_network: bool = False
    trained_model_path: str | None = None
    projection: str | None = None
    seed: int = 0
    annotations: str | None = None
    data_folder: str | None = None
    y_up: bool = False
    category: str | None = None
    boxes: str | None = None


class Seen(NamedTuple):
    """What a readout was trained on, in pixels of the images.

    Attributes:
        boxed: fraction of the instances that were cut out by boxes.
        box_sides: longer side of these boxes: between them are 80 % of all; None without boxes.
        span: how far the points of an instance reach along x or y: nine of ten reach no further.
    """

    boxed: float
    box_sides: tuple[float, float] | None
    span: float


class Frame(NamedTuple):
    """What the network is shown of an image.

    Args:
        names: of the A points.
        framing: how an image, or a box of it, becomes a square.
        crop: pixels cut off each side of the square.
        mean: of each colour, in [0, 1], which is taken from it.
        std: of each colour, by which it is divided.
        seen: what its training images were like, if that is noted.
    """

    names: list[str]
    framing: Framing
    crop: int
    mean: Colours
    std: Colours
    seen: "Seen | None" = None

    @property
    def side(self) -> int:
        """W."""
        return self.framing.side - 2 * self.crop


class Predictor(nn.Module):
    """Normalised images to landmarks and confidence.

    Args:
        readout: on its encoder, both as checkpoints have them.
        calibration: of the confidence, if there is one.
    """

    def __init__(self, readout: Readout, calibration: Calibration | None = None) -> None:
        super().__init__()
        self.calibration, self.find = calibration, readout
        self.encoder, self.readout = readout.encoder, readout.module  # so that they are moved

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return landmarks (B, A, 2) in [-1, 1] and confidence (B, A) for images (B, 3, W, W)."""
        features = encode(self.encoder, images, self.find.sees)
        points, confidence = self.find.with_confidence(features)
        if self.calibration is not None:
            confidence = self.calibration(confidence)
        return points, confidence


@dataclass(frozen=True)
class PredictorSettings(Settings):
    """Which checkpoints are used, and what of their frame is changed; see the flags."""

    ckpt_path: str | None
    trained_model_path: str | None
    random_network: bool
    projection: str | None
    fit: str | None
    box_margin: float | None


class Loaded(NamedTuple):
    """Encoder and readout, what they are to be shown, and how they were trained."""

    predictor: Predictor
    frame: Frame
    trained: Trained


def load_predictor(settings: PredictorSettings, log: RunLog) -> Loaded:
    """Return encoder and readout, on the CPU, and what they are to be shown.

    Raises:
        InputError: if a checkpoint is absent or damaged, or they don't belong together.
    """
    path = settings.ckpt_path
    if path is None:
        raise InputError("give the checkpoint of a readout by --ckpt_path FILE")
    kind, content = read_readout(path)
    opt = read_options(path, vars(content["opt"]))
    side = opt.image_size - 2 * opt.image_crop
    encoder_settings = choose_encoder(settings, path, opt, kind, log)
    encoder = load_frozen_encoder(encoder_settings, side, log)
    landmarks = count_landmarks(path, kind, content)
    readout = build_readout(kind, encoder, encoder_settings, landmarks, side, content)
    readout.load(path, content, encoder_settings.hint)
    if not is_fitted_to(kind, content, encoder):
        raise InputError(
            f"{path}: belongs to another encoder than "
            f"{encoder_settings.trained_model_path or '--random_network'}"
        )
    frame = read_frame(path, content.get("landmarks"), opt, landmarks, settings, log)
    if frame.mean == ():
        colours = colours_of(encoder, encoder_settings.trained_model_path)
        mean, std = colours or default_colours(opt.dataset)
        frame = frame._replace(mean=mean, std=std)
    calibration = read_calibration(path, content.get("calibration"), landmarks, log)
    predictor = Predictor(readout, calibration).eval().requires_grad_(False)
    return Loaded(predictor, frame, opt)


def read_options(path: str, options: Mapping[str, Any]) -> Trained:
    """Return the options that a checkpoint holds.

    Raises:
        InputError: if one is absent or of another kind.
    """
    found = {}
    for name, kind in Trained.__annotations__.items():
        value = options.get(name, Trained._field_defaults.get(name))
        if not isinstance(value, kind):
            raise InputError(f"{path}: its options don't say which {name} it was trained with")
        found[name] = value
    return Trained(**found)


def choose_encoder(
    settings: PredictorSettings, path: str, opt: Trained, kind: type[Readout], log: RunLog
) -> EncoderSettings:
    """Return which encoder a readout is used on: the given one, its own, or the one it names.

    Raises:
        InputError: if none is given and the one it names isn't there.
    """
    chosen = EncoderSettings(
        options=settings.options,
        dataset=opt.dataset,
        model=opt.model,
        trained_model_path=settings.trained_model_path,
        random_network=settings.random_network,
        layer=opt.layer,
        use_hypercol=opt.use_hypercol,
        projection=settings.projection,
        seed=opt.seed,
        batch_size=1,
        num_workers=0,
        gpu=None,
        log_path=Path(os.devnull),
    )
    if kind.trains_encoder:
        return replace(with_own_encoder(chosen, path, log), layer=STAGES, use_hypercol=True)
    chosen = replace(chosen, projection=settings.projection or opt.projection or None)
    if settings.trained_model_path is not None or settings.random_network:
        return chosen
    weights = opt.trained_model_path or None
    if weights is not None and not os.path.isfile(weights):
        raise InputError(f"give the encoder of {path} by --trained_model_path; it was {weights}")
    log.line(f"the encoder is what {path} names: {weights or 'an untrained one'}")
    return replace(chosen, trained_model_path=weights, random_network=opt.random_network)


def default_colours(dataset: str) -> tuple[Colours, Colours]:
    """Return the mean and standard deviation that a benchmark's images are standardised by."""
    kind = CUB if dataset == CUB.__name__ else ImageSet
    return kind.mean, kind.std


def read_frame(
    path: str,
    entry: Any,
    opt: Trained,
    landmarks: int,
    settings: PredictorSettings,
    log: RunLog,
) -> Frame:
    """Return what a readout is to be shown; its colours are empty where none are noted.

    Raises:
        InputError: if what the checkpoint notes of it is damaged.
    """
    names = [str(number) for number in range(1, landmarks + 1)]
    fit, margin, mean, std, seen = "stretch", 0.0, (), (), None
    if entry is not None:
        try:
            names = checked_names(entry["names"], landmarks)
            fit, margin = str(entry["framing"]["fit"]), float(entry["framing"]["margin"])
            mean, std = as_colours(entry["mean"]), as_colours(entry["std"])  # type: ignore[assignment]
            seen = read_seen(entry["framing"])
            if fit not in FITS or not 0 <= margin <= 1e6 or not np.isfinite(mean + std).all():
                raise ValueError("out of range")
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: its entry landmarks is damaged") from None
    elif opt.dataset != OWN:
        chosen = settings.fit or fit
        log.line(
            f"{path}: trained on {opt.dataset}, which cuts its squares out in its own way; images "
            f"are taken as squares here by --fit {chosen}; its points are named 1 to {landmarks}"
        )
    fit = settings.fit or fit
    margin = margin if settings.box_margin is None else settings.box_margin
    framing = Framing(fit, opt.image_size, margin)
    return Frame(names, framing, opt.image_crop, mean, std, seen)  # type: ignore[arg-type]


def read_seen(framing: Mapping[str, Any]) -> Seen | None:
    """Return what a checkpoint notes of its training images; None if it doesn't.

    Raises a `ValueError` or `TypeError` if that is damaged.
    """
    if "span" not in framing:
        return None
    sides = framing["box_sides"]
    if sides is not None:
        low, high = sides
        sides = float(low), float(high)
    seen = Seen(float(framing["boxed"]), sides, float(framing["span"]))
    if not np.isfinite([seen.boxed, seen.span, *(sides or ())]).all():
        raise ValueError("not finite")
    return seen


def checked_names(names: Sequence[Any], landmarks: int) -> list[str]:
    """Return the points' names, or raise a `ValueError` unless each is there once."""
    found = [str(name) for name in names]
    if len(set(found)) != landmarks or len(found) != landmarks or not all(found):
        raise ValueError("not a name for each point")
    return found


def read_calibration(path: str, entry: Any, landmarks: int, log: RunLog) -> Calibration | None:
    """Return the map of confidence that a checkpoint notes, if it does."""
    if entry is None:
        log.line(
            f"{path}: has no calibration: confidence is the readout's own, from 0 to 1, and no "
            "probability"
        )
        return None
    try:
        calibration = from_entry(entry, landmarks)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its entry calibration is damaged") from None
    log.line(
        f"confidence: the probability of at most {100 * calibration.distance:g} % of the diagonal "
        f"of the image (or box) from the truth, from {calibration.points:,} held-out points"
    )
    return calibration
