"""What the two visualization scripts share: their options, and the run itself.

Letters: B images, A landmarks, P principal components, h and w rows and columns of their maps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.bad_images import leave_out, list_left_out
from data_loader.geometry import denormalize_points
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import add_loader_arguments, build_loader, worker_notice
from engine.features.encoder_loading import EncoderSettings, load_frozen_encoder, use_colours
from engine.pages.components import SHEET_COLUMNS, SHEET_IMAGES, draw_components, principal_maps
from engine.pages.page import add_page_argument, check_page, write_page
from engine.pages.records import dataset_records
from engine.readouts.calibration import read_calibration
from engine.readouts.evaluation import add_evaluation_arguments
from engine.readouts.kinds import (
    AUTO,
    READOUTS,
    add_kind_argument,
    add_readout_argument,
    build_readout,
    check_own_maps,
    is_fitted_to,
    read_readout,
    with_own_encoder,
)
from engine.readouts.published import PublishedReadout
from engine.readouts.readout import Readout
from engine.run.settings import add_device_arguments, add_shared_arguments, choose_device
from models.calibration import Calibration
from models.encoders import Encoder, add_encoder_arguments, choose_levels, encode, encode_dense
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.drawing import save_png, sheet
from utils.errors import InputError
from utils.files import excerpt
from utils.log import RunLog, progress
from utils.randomness import seed_everything

DRAWN_BATCHES = 4  # [spec 7]
SAVE_FREQ = 5


def training_flags() -> dict[str, Any]:
    """Return the flags of training that the published visualization scripts take and ignore."""
    names = (
        "print_freq tb_freq save_freq epochs learning_rate lr_decay_epochs lr_decay_rate momentum "
        "weight_decay beta1 beta2 crop restrict_annos repeat num_per_epoch model_name model_path "
        "resume TPS_aug bn cosine multistep adam amsgrad"
    )
    parser = ArgumentParser("")
    add_evaluation_arguments(parser, batch_size=32, num_workers=32, save_freq=SAVE_FREQ)
    defaults = {name: parser.get_default(name) for name in names.split()}
    defaults["save_freq"] = SAVE_FREQ  # as the published readout has it
    return {name: "" if default is None else default for name, default in defaults.items()}


# Image (3, H, W) in [0, 1], prediction (A, 2) and truth (A, 2) in its pixels, and visible (A,) to
# drawings, by what follows the image's number in their files' names.
Draw = Callable[[Tensor, np.ndarray, np.ndarray, np.ndarray], dict[str, Image.Image]]
# Predictions (B, A, 2), truths (B, A, 2) and visible (B, A) of each batch.
Compared = list[tuple[Tensor, Tensor, Tensor]]
# Those, and the readout's own confidence (N, A) in all images, to words.
InWords = Callable[[Compared, Tensor], str]


def add_visualization_arguments(parser: ArgumentParser) -> None:
    """Declare the options that `run_visualization` reads [spec 8]."""
    group = parser.add_argument_group("drawing")
    group.add_argument(
        "--vis_path",
        type=Path,
        default=Path("Visualization"),
        metavar="DIR",
        help="folder of the images; those of an earlier run with the same names are replaced",
    )
    group.add_argument(
        "--vis_keypoints", action="store_true", help="draw predicted and true landmarks"
    )
    group.add_argument(
        "--vis_PCA", action="store_true", help="draw the principal components of the features"
    )
    add_page_argument(group)
    add_readout_argument(group)
    add_kind_argument(group)
    add_loader_arguments(parser, batch_size=32, num_workers=32)
    add_encoder_arguments(parser, layer=3)
    add_shared_arguments(add_device_arguments(parser), "log_path")
    add_ignored_arguments(parser, **training_flags())


@dataclass(frozen=True)
class VisualizationSettings(EncoderSettings):
    """What is drawn."""

    vis_path: Path
    vis_keypoints: bool
    vis_PCA: bool  # noqa: N815 (published name)
    page: Path | None
    ckpt_path: str | None
    regressor: str
    device: str

    @property
    def finds_landmarks(self) -> bool:
        """Whether landmarks are wanted, drawn or as a page."""
        return self.vis_keypoints or self.page is not None

    @property
    def needs_network(self) -> bool:
        """Whether anything is wanted that a network computes."""
        return self.finds_landmarks or self.vis_PCA


def run_visualization(
    settings: VisualizationSettings,
    dataset: LandmarkDataset,
    draw: Draw,
    score: InWords,
    legend: str,
) -> None:
    """Draw landmarks, components or both of a test set.

    Args:
        settings: what is drawn.
        dataset: the test set.
        draw: draws one image's landmarks.
        score: says how good the predictions are.
        legend: of the contact sheet.
    """
    kind, content = find_readout(settings)
    device = choose_device(settings.device, settings.gpu)
    seed_everything(settings.seed)
    log = RunLog()
    log.line(*worker_notice(settings.num_workers))
    log.line(*ignored_notices(settings.options, **training_flags()))
    if kind.trains_encoder:
        settings = with_own_encoder(settings, str(settings.ckpt_path), log)
    encoder = load_frozen_encoder(settings, dataset.side, log).to(device)
    use_colours(encoder, dataset, noted_in=settings.trained_model_path)
    log.line(*dataset.count_notice())
    if dataset.skip_bad:
        left_out = leave_out({"test": dataset}, settings.num_workers)
        log.line(*list_left_out(left_out, settings.vis_path))
    if settings.finds_landmarks:
        readout = load_readout(settings, kind, content, encoder, dataset, log)
        readout.network.to(device).eval()
    loader = build_loader(
        Items(dataset, dataset.annotated_item),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=settings.seed,
        shuffle=False,
        device=device,
    )
    log.open(settings.log_path)
    if settings.vis_PCA:
        images = next(iter(loader)).image  # (B, 3, H, W)
        levels = choose_levels(encoder, settings.layer, settings.use_hypercol)
        maps = principal_maps(encode_dense(encoder, images.to(device), levels))  # (B, P, h, w)
        path = draw_components(dataset.denormalize(images), maps, settings.vis_path)
        log.line(f"components of {len(images)} images: {path}")
    if settings.finds_landmarks:
        calibration = None
        if settings.page is not None and content is not None:
            held_in, landmarks = str(settings.ckpt_path), dataset.num_landmarks
            calibration = read_calibration(held_in, content, landmarks, log)
        folder = settings.vis_path if settings.vis_keypoints else None
        batches, own, confidence, drawings = predict_images(
            readout, loader, dataset, calibration, draw, folder
        )
        words = score(batches, own)
        what = "training" if dataset.split_name == "all" else "test"
        log.line(f"{len(dataset)} {what} images: {words}")
        if settings.vis_keypoints:
            path = settings.vis_path / "contact_sheet.png"
            save_png(sheet(drawings, SHEET_COLUMNS, f"{legend}; {words}"), path)
            log.line(f"landmarks of the first images: {path}")
        if settings.page is not None:
            predicted = torch.cat([pred for pred, _, _ in batches])
            records = progress(dataset_records(dataset, predicted, confidence), "writing the page")
            names, title = dataset.point_names, str(dataset)
            page = write_page(settings.page, records, names=names, title=title, about=words)
            log.line(f"page of {len(dataset)} images: {page}")


@torch.no_grad()
def predict_images(
    readout: Readout,
    loader: DataLoader,
    dataset: LandmarkDataset,
    calibration: Calibration | None,
    draw: Draw,
    folder: Path | None,
) -> tuple[Compared, Tensor, Tensor, list[Image.Image]]:
    """Return the landmarks of all images, and drawings of the first ones, written to a folder.

    Returns:
        The landmarks of each batch, with the true ones; the readout's own confidence (N, A) in
        [0, 1], or NaN; the same, calibrated where that can be done; the drawings.
    """
    batches: Compared = []
    owns, confidences = [], []
    shown: list[Image.Image] = []
    device = next(readout.encoder.parameters()).device
    for batch in progress(loader, "predicting"):
        features = encode(readout.encoder, batch.image.to(device), readout.sees)
        pred, own = (part.cpu() for part in readout(features))
        confidence = own
        if calibration is not None:
            if own.isnan().all():  # the readout tells it by another way alone
                confidence = readout.with_confidence(features).confidence.cpu()
            confidence = calibration(confidence)
        batches.append((pred, batch.points_norm, batch.visible))
        owns.append(own)
        confidences.append(confidence)
        if folder is not None and len(batches) <= DRAWN_BATCHES:
            images = dataset.denormalize(batch.image)
            points_px = (denormalize_points(p, dataset.side) for p in (pred, batch.points_norm))
            parts = (part.numpy() for part in (*points_px, batch.visible))
            for index, *item in zip(batch.index.tolist(), images, *parts, strict=True):
                drawings = draw(*item)
                for name, drawing in drawings.items():
                    save_png(drawing, folder / f"{index}{name}.png")
                shown += list(drawings.values())[: SHEET_IMAGES - len(shown)]
    return batches, torch.cat(owns), torch.cat(confidences), shown


def find_readout(settings: VisualizationSettings) -> tuple[type[Readout], dict | None]:
    """Return the kind of readout, for ``auto`` the checkpoint's, and what the checkpoint holds.

    Raises:
        InputError: if there is nothing to draw, or nothing to draw it with; if the checkpoint holds
            another kind, or its encoder's features are to be projected.
    """
    if not settings.needs_network:
        raise InputError("nothing to draw: give --vis_keypoints, --page, --vis_PCA or several")
    if settings.page is not None:
        check_page(settings.page)
    kind = None if settings.regressor == AUTO else READOUTS[settings.regressor]
    content = None
    if settings.ckpt_path is not None:
        kind, content = read_readout(settings.ckpt_path, kind)
    elif kind is not None and kind.trains_encoder:
        flag = f"--regressor {settings.regressor}"
        raise InputError(f"{flag}: give its checkpoint by --ckpt_path FILE")
    elif settings.finds_landmarks and not settings.random_network:
        flag = "--vis_keypoints" if settings.vis_keypoints else "--page"
        raise InputError(f"{flag} needs the regressor: give --ckpt_path FILE")
    kind = kind or PublishedReadout
    check_own_maps(kind, settings.projection)
    return kind, content


def load_readout(
    settings: VisualizationSettings,
    kind: type[Readout],
    content: dict | None,
    encoder: Encoder,
    dataset: LandmarkDataset,
    log: RunLog,
) -> Readout:
    """Return the readout of a checkpoint, or an untrained one.

    Raises:
        InputError: if the checkpoint doesn't fit.
    """
    readout = build_readout(kind, encoder, settings, dataset.num_landmarks, dataset.side, content)
    path = settings.ckpt_path
    if path is None or content is None:
        log.line("no --ckpt_path: the regressor is untrained too, its landmarks are noise")
        return readout
    dataset.order_points(path, content)
    readout.load(path, content, settings.hint)
    held = vars(content["opt"])
    frame = {"image_size": dataset.imwidth, "image_crop": dataset.crop}
    other = [name for name, value in frame.items() if held.get(name, value) != value]
    if other:
        flags = " ".join(f"--{name} {excerpt(str(held[name]))}" for name in other)
        log.line(f"warning: {path} was trained with {flags}")
    if not is_fitted_to(kind, content, encoder):
        log.line(f"warning: {path} was trained on the features of another encoder than this one")
    return readout
