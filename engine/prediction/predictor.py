"""An encoder and a readout as one network, and what it is shown, as their checkpoints note.

Letters: B images, A landmarks, W the side of the network input.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data_loader.bad_images import image_side
from data_loader.data_loaders_animal import CUB
from data_loader.framing import FITS, Box, Framing
from data_loader.geometry import centre_crop
from data_loader.image_set import Colours, ImageSet, as_colours, as_levels, standardise
from data_loader.readers.images import FULL_RANGE, MAX_SIDE, Levels
from data_loader.views.random_view import channels
from engine.features.encoder_loading import EncoderSettings, colours_of, load_frozen_encoder
from engine.features.imagenet import IMAGENET
from engine.points.defaults import OWN
from engine.readouts.calibration import read_calibration
from engine.readouts.kinds import (
    build_readout,
    count_landmarks,
    is_fitted_to,
    read_readout,
    with_own_encoder,
)
from engine.readouts.readout import Readout
from engine.run.acceleration import autocast
from engine.run.settings import Settings
from models.calibration import Calibration
from models.encoders import encode, encoder_name
from models.resnet import PIXELS
from utils.errors import InputError
from utils.files import excerpt
from utils.log import RunLog


@dataclass(frozen=True)
class PredictionSettings(Settings):
    """Which readout on which encoder, what images it is shown, and what is made of the results."""

    ckpt_path: str | None
    trained_model_path: str | None
    random_network: bool
    projection: str | None
    fit: str | None
    box_margin: float | None
    out: Path  # given with the images
    also_out: list[Path]  # the same in other formats
    overwrite: bool
    batch_size: int
    num_workers: int
    draw: int | None
    out_video: Path | None
    page: Path | None
    suggest: int | None
    windows: Path | None
    window_size: int | None


class Trained(NamedTuple):
    """The options that a readout was trained with, as far as prediction reads them."""

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
    annotations: str | list | None = None
    val_annotations: str | list | None = None
    test_annotations: str | list | None = None
    data_folder: str | None = None
    y_up: bool = False
    y_down: bool = False
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
        levels: of 16-bit images, see `open_image`.
        seen: what its training images were like, if that is noted.
    """

    names: list[str]
    framing: Framing
    crop: int
    mean: Colours
    std: Colours
    levels: Levels = FULL_RANGE
    seen: Seen | None = None

    @property
    def side(self) -> int:
        """W."""
        return self.framing.side - 2 * self.crop

    def prepare(self, image: Image.Image, box: Box | None) -> tuple[Tensor, Tensor]:
        """Return the input (3, W, W) and the map (2, 2) of `InputItem`."""
        square, affine = self.framing.to_square(image, box)
        pixels = centre_crop(channels(square).float() / 255, self.crop)
        affine_map = torch.tensor(affine, dtype=torch.float64)
        return standardise(pixels, self.mean, self.std), affine_map


class Predictor(nn.Module):
    """Normalised images to landmarks and confidence.

    Args:
        readout: on its encoder, both as checkpoints have them.
        frame: what they are to be shown.
        calibration: of the confidence, if there is one.

    Attributes:
        amp: the precision of the encoder, see ``--amp``.
    """

    amp = "off"

    def __init__(
        self, readout: Readout, frame: Frame, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.readout, self.frame, self.calibration = readout, frame, calibration
        self.encoder, self.module = readout.encoder, readout.module  # so that they are moved

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is found in images (B, 3, W, W).

        Returns:
            Landmarks (B, A, 2) in [-1, 1]; confidence (B, A); and how far from the truth they are
            expected to be, as a fraction of the diagonal of the image, or of its box, NaN if that
            isn't known, (B, A).
        """
        with autocast(images.device, self.amp):
            features = encode(self.encoder, images, self.readout.sees)
        with autocast(images.device, self.amp if self.readout.trains_encoder else "off"):
            maps = [values.float() for values in features]
            points, confidence = self.readout.with_confidence(maps)
        if self.calibration is None:
            return points, confidence, torch.full_like(confidence, torch.nan)
        return points, self.calibration(confidence), self.calibration.expected_error(confidence)


def load_predictor(settings: PredictionSettings, log: RunLog) -> tuple[Predictor, Trained]:
    """Return encoder and readout, on the CPU, and how the readout was trained.

    Raises:
        InputError: if a checkpoint is absent or damaged, or they don't belong together.
    """
    path = settings.ckpt_path
    if path is None:
        raise InputError("give the checkpoint of a readout by --ckpt_path FILE")
    kind, content = read_readout(path)
    opt = read_options(path, vars(content["opt"]))
    side = opt.image_size - 2 * opt.image_crop
    chosen = choose_encoder(settings, path, opt, kind, log)
    encoder = load_frozen_encoder(chosen, side, log)
    landmarks = count_landmarks(path, kind, content)
    readout = build_readout(kind, encoder, chosen, landmarks, side, content)
    readout.load(path, content, chosen.hint)
    weights = chosen.trained_model_path
    if not is_fitted_to(kind, content, encoder):
        raise InputError(f"{path}: belongs to another encoder than {weights or '--random_network'}")
    entry = content.get("landmarks")
    if entry is not None:
        frame = read_frame(path, entry, opt.image_size, opt.image_crop, landmarks)
    else:  # numbered points on whole images, in colours that the encoder or the benchmark has
        benchmark = CUB if opt.dataset == CUB.__name__ else ImageSet
        colours = colours_of(encoder, weights) or (benchmark.mean, benchmark.std)
        names = [str(number) for number in range(1, landmarks + 1)]
        frame = Frame(names, Framing("stretch", opt.image_size), opt.image_crop, *colours)
    given = {"fit": settings.fit, "margin": settings.box_margin}
    changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    framing = frame.framing._replace(**changes)
    if entry is None and opt.dataset != OWN:
        log.line(
            f"{path}: trained on {opt.dataset}, which cuts its squares out in its own way; images "
            f"are taken as squares here by --fit {framing.fit}; its points are named 1 to "
            f"{landmarks}"
        )
    calibration = read_calibration(path, content, landmarks, log)
    predictor = Predictor(readout, frame._replace(framing=framing), calibration)
    return predictor.eval().requires_grad_(False), opt


def read_frame(path: str, entry: Any, side: int, crop: int, landmarks: int) -> Frame:
    """Return the frame that a checkpoint notes.

    Raises:
        InputError: if it is damaged.
    """
    try:
        names = [str(name) for name in entry["names"]]
        if len(names) != landmarks or len(set(names)) != landmarks or not all(names):
            raise ValueError("not a name for each point")
        "".join(names).encode()  # no halves of characters
        noted = entry["framing"]
        framing = Framing(str(noted["fit"]), side, float(noted["margin"]))
        mean, std = as_colours(entry["mean"]), as_colours(entry["std"])
        levels = as_levels(entry.get("levels", FULL_RANGE))
        numbers, seen = [*mean, *std], None
        if "span" in noted:
            sides = noted["box_sides"]
            if sides is not None:
                low, high = map(float, sides)
                sides = low, high
            seen = Seen(float(noted["boxed"]), sides, float(noted["span"]))
            numbers += [seen.boxed, seen.span, *(sides or ())]
        if framing.fit not in FITS or not 0 <= framing.margin <= 1:
            raise ValueError("no such framing")
        if not np.isfinite(numbers).all() or max(numbers) > MAX_SIDE:
            raise ValueError("not finite, or larger than images are")
        return Frame(names, framing, crop, mean, std, levels, seen)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its entry landmarks is damaged") from None


def read_options(path: str, options: Mapping[str, Any]) -> Trained:
    """Return the options that a checkpoint holds.

    Raises:
        InputError: if one is absent, of another kind, or none that a flag can have.
    """
    found = {}
    for name, kind in Trained.__annotations__.items():
        value = options.get(name, Trained._field_defaults.get(name))
        if not isinstance(value, kind) or (kind is int and value < 0):
            raise InputError(f"{path}: its options don't say which {name} it was trained with")
        found[name] = value
    opt = Trained(**found)
    try:
        encoder_name(opt.model, "hourglass")
        image_side(str(opt.image_size))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{path}: in its options {excerpt(str(error))}") from None
    return opt


def choose_encoder(
    settings: PredictionSettings, path: str, opt: Trained, kind: type[Readout], log: RunLog
) -> EncoderSettings:
    """Return which encoder a readout is used on: the given one, its own, or the one it names.

    Raises:
        InputError: if none is given and the one it names isn't there.
    """
    # What is given comes before what is noted; an encoder that is loaded has no use for the rest.
    unused = {"batch_size": 1, "num_workers": 0, "gpu": None, "log_path": Path(os.devnull)}
    known = {**unused, **opt._asdict(), **vars(settings)}
    chosen = EncoderSettings(**{field.name: known[field.name] for field in fields(EncoderSettings)})
    if kind.trains_encoder:
        # The readout says itself which maps it takes; any encoder has the pixels.
        return replace(with_own_encoder(chosen, path, log), layer=PIXELS, use_hypercol=False)
    chosen = replace(chosen, projection=settings.projection or opt.projection or None)
    if settings.trained_model_path is not None or settings.random_network:
        return chosen
    weights = opt.trained_model_path or None
    if weights not in (None, IMAGENET) and not os.path.isfile(str(weights)):
        raise InputError(f"give the encoder of {path} by --trained_model_path; it was {weights}")
    log.line(f"the encoder is what {path} names: {weights or 'an untrained one'}")
    return replace(chosen, trained_model_path=weights, random_network=opt.random_network)
