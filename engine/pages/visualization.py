"""What the two visualization scripts share: their options, and images of hypercolumns.

Letters: B images, C channels, h and w rows and columns of a map, P principal components.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.bad_images import leave_out, list_left_out
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import add_loader_arguments, build_loader, worker_notice
from engine.encoder_loading import EncoderSettings, load_frozen_encoder, use_colours
from engine.pages.page import add_page_argument, check_page, write_page
from engine.pages.records import dataset_records, landmark_names
from engine.prediction.predictor import read_calibration
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
from engine.run import add_device_arguments, add_log_argument, choose_device
from models.calibration import Calibration
from models.encoders import (
    Encoder,
    add_encoder_arguments,
    choose_levels,
    encode,
    encode_dense,
)
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.drawing import render_heatmap, render_rgb, save_png, sheet, to_pil
from utils.errors import InputError
from utils.files import excerpt
from utils.log import RunLog, progress
from utils.randomness import seed_everything

COMPONENTS = 25  # [spec 7]
DRAWN_BATCHES = 4  # [spec 7]
SHEET_IMAGES, SHEET_COLUMNS = 24, 6
CONTRAST = (1, 99)  # percentiles of a component that become black and white


def training_flags() -> dict[str, Any]:
    """Return the flags of training that the published visualization scripts take and ignore."""
    names = (
        "print_freq tb_freq save_freq epochs learning_rate lr_decay_epochs lr_decay_rate momentum "
        "weight_decay beta1 beta2 crop restrict_annos repeat num_per_epoch model_name model_path "
        "resume TPS_aug bn cosine multistep adam amsgrad"
    )
    parser = ArgumentParser("")
    add_evaluation_arguments(parser, batch_size=32, num_workers=32, save_freq=5)
    defaults = {name: parser.get_default(name) for name in names.split()}
    return {name: "" if default is None else default for name, default in defaults.items()}


# (folder, index, image (3, H, W) in [0, 1], prediction (A, 2), truth (A, 2), visible (A,))
# to the images it wrote
Draw = Callable[[Path, int, Tensor, Tensor, Tensor, Tensor], list[Image.Image]]
# (predictions (B, A, 2), truths (B, A, 2), visible (B, A)) of all batches, and the readout's own
# confidence (N, A) in all images, to words
Score = Callable[[list[tuple[Tensor, Tensor, Tensor]], Tensor], str]


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
    add_log_argument(add_device_arguments(parser))
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
    score: Score,
    legend: str,
) -> None:
    """Draw landmarks, components or both of a test set.

    ``draw`` writes one image's landmarks, ``score`` puts the whole set's score into words, the
    legend is that of the contact sheet.
    """
    check_wishes(settings)
    device = choose_device(settings.device, settings.gpu)
    seed_everything(settings.seed)
    log = RunLog()
    log.line(*worker_notice(settings.num_workers))
    log.line(*ignored_notices(settings.options, **training_flags()))
    kind, content = find_readout(settings)
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
            entry, landmarks = content.get("calibration"), dataset.num_landmarks
            calibration = read_calibration(str(settings.ckpt_path), entry, landmarks, log)
        found = find_landmarks(settings, readout, loader, dataset, draw, calibration)
        words = score(found.batches, torch.cat(found.own))
        show_landmarks(settings, dataset, found, words, legend, log)


class Found(NamedTuple):
    """What was found in all images: batch by batch, as `Score` takes it.

    ``own`` and ``confidence`` hold (B, A) each, in [0, 1] or NaN: the readout's own confidence, and
    what it is worth where that is known; ``drawings`` the first images.
    """

    batches: list[tuple[Tensor, Tensor, Tensor]]
    own: list[Tensor]
    confidence: list[Tensor]
    drawings: list[Image.Image]


@torch.no_grad()
def find_landmarks(
    settings: VisualizationSettings,
    readout: Readout,
    loader: DataLoader,
    dataset: LandmarkDataset,
    draw: Draw,
    calibration: Calibration | None,
) -> Found:
    """Return the landmarks of all images, of which the first ones are drawn if that is wished."""
    found = Found([], [], [], [])
    device = next(readout.encoder.parameters()).device
    for batch in progress(loader, "predicting"):
        features = encode(readout.encoder, batch.image.to(device), readout.sees)
        pred, own = (part.cpu() for part in readout(features))
        found.own.append(own)
        confidence = own
        if calibration is not None:
            if own.isnan().all():  # the readout tells it by another way alone
                confidence = readout.with_confidence(features).confidence.cpu()
            confidence = calibration(confidence)
        found.batches.append((pred, batch.points_norm, batch.visible))
        found.confidence.append(confidence)
        if settings.vis_keypoints and len(found.batches) <= DRAWN_BATCHES:
            images = dataset.denormalize(batch.image)
            for index, image, *points in zip(
                batch.index.tolist(), images, *found.batches[-1], strict=True
            ):
                drawings = draw(settings.vis_path, index, image, *points)
                found.drawings.extend(drawings[: SHEET_IMAGES - len(found.drawings)])
    return found


def show_landmarks(
    settings: VisualizationSettings,
    dataset: LandmarkDataset,
    found: Found,
    words: str,
    legend: str,
    log: RunLog,
) -> None:
    """Write the contact sheet, the page or both; ``words`` say how good the predictions are."""
    log.line(f"{len(dataset)} test images: {words}")
    if settings.vis_keypoints:
        path = settings.vis_path / "contact_sheet.png"
        save_png(sheet(found.drawings, SHEET_COLUMNS, f"{legend}; {words}"), path)
        log.line(f"landmarks of the first images: {path}")
    if settings.page is not None:
        write_dataset_page(settings.page, dataset, found, words, log)


def write_dataset_page(
    folder: Path, dataset: LandmarkDataset, found: Found, words: str, log: RunLog
) -> None:
    """Write the page of a data set; ``words`` say how good the predictions are."""
    predicted = torch.cat([pred for pred, _, _ in found.batches])
    records = dataset_records(dataset, predicted, torch.cat(found.confidence))
    page = write_page(
        folder,
        progress(records, "writing the page"),
        names=landmark_names(dataset),
        title=str(dataset),
        about=words,
    )
    log.line(f"page of {page.records} images: {page.path}")


def check_wishes(settings: VisualizationSettings) -> None:
    """Raise an `InputError` if there is nothing to draw, or nothing to draw it with."""
    if not settings.needs_network:
        raise InputError("nothing to draw: give --vis_keypoints, --page, --vis_PCA or several")
    if settings.page is not None:
        check_page(settings.page)
    if settings.ckpt_path is None:
        if settings.regressor != AUTO and READOUTS[settings.regressor].trains_encoder:
            flag = f"--regressor {settings.regressor}"
            raise InputError(f"{flag}: give its checkpoint by --ckpt_path FILE")
        if settings.finds_landmarks and not settings.random_network:
            flag = "--vis_keypoints" if settings.vis_keypoints else "--page"
            raise InputError(f"{flag} needs the regressor: give --ckpt_path FILE")


def find_readout(settings: VisualizationSettings) -> tuple[type[Readout], dict | None]:
    """Return the kind of readout, for ``auto`` the checkpoint's, and what the checkpoint holds.

    Raises:
        InputError: if it holds another kind, or its encoder's features are to be projected.
    """
    wanted = None if settings.regressor == AUTO else READOUTS[settings.regressor]
    if settings.ckpt_path is None:
        return wanted or PublishedReadout, None
    if wanted is not None:  # before the file is read
        check_own_maps(wanted, settings.projection)
    kind, content = read_readout(settings.ckpt_path, wanted)
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


def principal_maps(features: Tensor, components: int = COMPONENTS) -> np.ndarray:
    """Return the leading principal components of all pixels' features, as maps.

    Args:
        features: (B, C, h, w); the B * h * w pixels are the samples.
        components: P; fewer if there are fewer channels or pixels.

    Returns:
        (B, P, h, w).
    """
    b, c, h, w = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(-1, c).cpu().numpy()  # (B * h * w, C)
    count = min(components, *pixels.shape)
    solver = "covariance_eigh" if c <= 4096 and len(pixels) > c else "randomized"
    projected = PCA(count, svd_solver=solver, random_state=0).fit_transform(pixels)
    return projected.reshape(b, h, w, count).transpose(0, 3, 1, 2)


def draw_components(images: Tensor, maps: np.ndarray, folder: Path) -> Path:
    """Write the components of a batch; return the contact sheet's path.

    For image i: ``{i}/orig.png``, ``{i}/{p}.png`` for each component, ``{i}/rgb.png`` with the
    three leading ones as colours, and ``{i}/sheet.png`` with all of them. ``pca_sheet.png`` shows
    the first images and their colours.

    Args:
        images: (B, 3, H, W) in [0, 1].
        maps: (B, P, h, w).
        folder: is made.
    """
    side = images.shape[-1]
    # One scale for the batch, so that a colour means the same in all images.
    low, high = np.percentile(maps, CONTRAST, axis=(0, 2, 3))  # (P,), (P,)
    overview = []
    for i, (image, components) in enumerate(zip(images, maps, strict=True)):
        original = to_pil(image)
        greys = [
            render_heatmap(m, a, b, side) for m, a, b in zip(components, low, high, strict=True)
        ]
        three = [min(c, len(components) - 1) for c in range(3)]
        rgb = render_rgb(components[three], low[three], high[three], side)
        save_png(original, folder / str(i) / "orig.png")
        save_png(rgb, folder / str(i) / "rgb.png")
        for p, grey in enumerate(greys):
            save_png(grey, folder / str(i) / f"{p}.png")
        tiles = [original, rgb, *(grey.convert("RGB") for grey in greys)]
        title = f"image, components 1-3 as RGB, components 1-{len(greys)}"
        save_png(sheet(tiles, 9, title), folder / str(i) / "sheet.png")
        overview += [original, rgb]
    path = folder / "pca_sheet.png"
    title = "images and their three leading components as red, green, blue"
    save_png(sheet(overview[: 2 * SHEET_IMAGES], 2 * SHEET_COLUMNS, title), path)
    return path
