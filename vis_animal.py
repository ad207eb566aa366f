r"""Draw what is found in birds, or in images of one's own: points, and principal components.

  python vis_animal.py --model resnet50 --layer 4 --use_hypercol --image_size 96 --image_crop 0 \
    --dataset CUB --trained_model_path moco.pth --ckpt_path regressor.pth \
    --vis_path Visualization --vis_keypoints
  python vis_animal.py ... --vis_PCA
  python vis_animal.py ... --page PAGE

Before anything else, look whether annotations of your own lie where they should:

  python vis_animal.py --annotations FILE --data_folder DIR --vis_annotations

Parts go to {vis_path}/{index}_pred.png and {index}_gt.png, a colour a part, visible ones only,
with the first of them in contact_sheet.png; components to {vis_path}/{i}/, with an overview in
pca_sheet.png. [spec 7; Cheng et al. 2020, figures 3 and 4.] --page writes a folder whose index.html
shows all images in a browser, the least confident or worst first. With --dataset Keypoints the
images are those that eval_animal.py tests on, given the same flags, and names.png says which colour
is what. --vis_annotations draws the training images' annotations into annotations.png.
"""

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.bad_images import image_options
from data_loader.data_loaders_animal import add_animal_arguments, build_animal_dataset
from data_loader.geometry import denormalize_points
from data_loader.keypoints import Keypoints
from engine.pages.visualization import (
    Compared,
    VisualizationSettings,
    add_visualization_arguments,
    run_visualization,
)
from engine.points.defaults import choose_own_defaults, is_own
from engine.points.scores import in_words, point_distances, score_split
from engine.points.splits import (
    KeypointSettings,
    add_keypoint_arguments,
    keypoint_splits,
    refuse_keypoint_flags,
)
from engine.readouts.kinds import AUTO
from engine.readouts.task import WeightedMean, judged_split
from eval_animal import animal_task
from utils.arguments import ArgumentParser
from utils.drawing import draw_names, draw_parts, save_png, sheet
from utils.errors import InputError
from utils.script import run_script

FITTED = ("image_size", "image_crop", "layer", "trained_model_path")
LOOKED_AT, LOOK_COLUMNS = 24, 6  # images of --vis_annotations


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_animal_arguments(parser)
    add_keypoint_arguments(parser)
    add_visualization_arguments(parser)
    add_look_argument(parser)
    choose_own_defaults(parser, "ckpt_path", *FITTED, regressor=AUTO)
    return parser


def add_look_argument(parser: argparse.ArgumentParser) -> None:
    """Declare that annotations are drawn, for which no network is needed."""
    parser.add_argument(
        "--vis_annotations",
        action="store_true",
        help=f"draw {LOOKED_AT} annotated images of --dataset Keypoints; needs no checkpoint",
    )


def draw_annotations(dataset: Keypoints, folder: Path) -> Path:
    """Draw annotated images of all parts of a data set on a sheet; return its path."""
    places = np.linspace(0, len(dataset) - 1, min(LOOKED_AT, len(dataset))).round().astype(int)
    drawings = []
    for item in map(dataset.annotated_item, places.tolist()):
        points_px = denormalize_points(item.points_norm, dataset.side).numpy()
        image = dataset.denormalize(item.image[None])[0]
        drawings.append(draw_parts(image, points_px, item.visible.numpy(), numbers=True))
    path = folder / "annotations.png"
    title = f"{len(drawings)} of {len(dataset)} training images as the network sees them"
    save_png(sheet(drawings, LOOK_COLUMNS, title), path)
    return path


def draw(
    image: Tensor, pred: np.ndarray, truth: np.ndarray, visible: np.ndarray
) -> dict[str, Image.Image]:
    """Return an image with its predicted parts, and one with its true ones."""
    return {"_pred": draw_parts(image, pred, visible), "_gt": draw_parts(image, truth, visible)}


def score(batches: Compared, _: Tensor) -> str:
    """Return the test set's score in words: the mean over batches, weighted by `Task.judged`."""
    mean, task = WeightedMean(), animal_task()
    for pred, truth, visible in batches:
        mean.add_metrics(task, pred, truth, visible)
    pck, exact = mean.result().values()
    if math.isnan(pck):
        return "no PCK, as none has a visible part"
    return f"PCK {pck:.2f} % (as published), {exact:.2f} % (exact)"


def score_own(dataset: Keypoints, batches: Compared, confidence: Tensor) -> str:
    """Return the score of predictions on images of one's own, in the pixels of these, in words."""
    predicted = torch.cat([pred for pred, _, _ in batches])
    distances = point_distances(dataset, predicted)
    scores = score_split(dataset, distances, dataset.filenames, confidence.numpy())
    if dataset.split_name != "all":
        return in_words({"test": scores})
    return f"{in_words({'training': scores})}; of new images it is larger"


def draw_own(settings: VisualizationSettings, own: KeypointSettings, look: bool) -> None:
    """Draw the test images among one's own; with ``look`` the annotations of the others, too."""
    if own.folds is not None and own.fold is None:
        raise InputError("--folds: give --fold N, too, whose test images are drawn")
    if look and not settings.needs_network:
        own = replace(own, on_missing_point="skip")
    *_, (train, held_out, _) = keypoint_splits(own)
    _, dataset = judged_split(held_out)
    if settings.needs_network or not look:
        run_visualization(
            settings, dataset, draw, partial(score_own, dataset), "prediction left, truth right"
        )
    if look:
        train.order_points("", {"landmarks": {"names": dataset.point_names}})
        for line in train.count_notice():
            print(line)
        print(f"annotations: {draw_annotations(train, settings.vis_path)}")
    if settings.vis_keypoints or look:
        save_png(draw_names(dataset.point_names), settings.vis_path / "names.png")


def main() -> None:
    """Draw parts, components or both."""
    args = build_parser().parse_args()
    settings = VisualizationSettings.from_options(args)
    if is_own(args):
        draw_own(settings, KeypointSettings.from_options(args), args.vis_annotations)
        return
    refuse_keypoint_flags(vars(args), add_look_argument)
    frame = image_options(args.image_size, args.image_crop, args.on_bad_image)
    dataset = build_animal_dataset(args.data_folder, "test", **frame)
    run_visualization(settings, dataset, draw, score, "prediction left, truth right")


if __name__ == "__main__":
    run_script(main)
