r"""Draw what an encoder and a regressor see in birds: parts, and principal components.

  python vis_animal.py --model resnet50 --layer 4 --use_hypercol --image_size 96 --image_crop 0 \
    --dataset CUB --trained_model_path moco.pth --ckpt_path regressor.pth \
    --vis_path Visualization --vis_keypoints
  python vis_animal.py ... --vis_PCA
  python vis_animal.py ... --page PAGE

Parts go to {vis_path}/{index}_pred.png and {index}_gt.png, a colour a part, visible ones only,
with the first of them in contact_sheet.png; components to {vis_path}/{i}/, with an overview in
pca_sheet.png. [spec 7; Cheng et al. 2020, figures 3 and 4.] --page writes a folder whose index.html
shows all images in a browser, the least confident or worst first. With --dataset Keypoints the
images are those that eval_animal.py tests on, given the same flags, and names.png says which colour
is what.
"""

import math
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from data_loader.data_loaders_animal import add_animal_arguments, build_animal_dataset
from data_loader.geometry import denormalize_points
from data_loader.keypoints import Keypoints
from engine.keypoint_scores import in_words, score_split, to_original
from engine.keypoint_sets import (
    KeypointSettings,
    add_keypoint_arguments,
    keypoint_splits,
    refuse_keypoint_flags,
)
from engine.regressor_training import WeightedMean, judged_split
from engine.visualization import (
    VisualizationSettings,
    add_visualization_arguments,
    run_visualization,
)
from eval_animal import animal_task
from utils.arguments import ArgumentParser
from utils.drawing import draw_names, draw_parts, save_png
from utils.errors import InputError
from utils.script import run_script


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_animal_arguments(parser)
    add_keypoint_arguments(parser)
    add_visualization_arguments(parser)
    return parser


def draw(
    folder: Path, index: int, image: Tensor, pred: Tensor, truth: Tensor, visible: Tensor
) -> list[Image.Image]:
    """Write a test image with its predicted parts and one with its true ones; return both."""
    side = image.shape[-1]
    drawings = []
    for name, points in (("pred", pred), ("gt", truth)):
        points_px = denormalize_points(points, side).numpy()
        drawings.append(draw_parts(image, points_px, visible.numpy()))
        save_png(drawings[-1], folder / f"{index}_{name}.png")
    return drawings


def score(batches: list[tuple[Tensor, Tensor, Tensor]], _: Tensor) -> str:
    """Return the test set's score in words: the mean over batches, weighted by `Task.judged`."""
    mean, task = WeightedMean(), animal_task()
    for pred, truth, visible in batches:
        mean.add_metrics(task, pred, truth, visible)
    pck, exact = mean.result().values()
    if math.isnan(pck):
        return "no PCK, as none has a visible part"
    return f"PCK {pck:.2f} % (as published), {exact:.2f} % (exact)"


def score_own(
    dataset: Keypoints, batches: list[tuple[Tensor, Tensor, Tensor]], confidence: Tensor
) -> str:
    """Return the score of predictions on images of one's own, in the pixels of these, in words."""
    predicted = torch.cat([pred for pred, _, _ in batches])
    found = to_original(dataset, predicted)
    return in_words({"test": score_split(dataset, found, confidence.numpy())})


def draw_own(settings: VisualizationSettings, own: KeypointSettings) -> None:
    """Draw the test images among one's own."""
    if own.folds is not None and own.fold is None:
        raise InputError("--folds: give --fold N, too, whose test images are drawn")
    _, held_out, _ = next(keypoint_splits(own))
    _, dataset = judged_split(held_out)
    run_visualization(
        settings, dataset, draw, partial(score_own, dataset), "prediction left, truth right"
    )
    if settings.vis_keypoints:
        save_png(draw_names(dataset.point_names), settings.vis_path / "names.png")


def main() -> None:
    """Draw parts, components or both."""
    args = build_parser().parse_args()
    settings = VisualizationSettings.from_options(args)
    if args.dataset == "Keypoints":
        draw_own(settings, KeypointSettings.from_options(args))
        return
    refuse_keypoint_flags(vars(args))
    dataset = build_animal_dataset(
        args.data_folder,
        "test",
        image_size=args.image_size,
        image_crop=args.image_crop,
        skip_bad=args.on_bad_image == "skip",
    )
    run_visualization(settings, dataset, draw, score, "prediction left, truth right")


if __name__ == "__main__":
    run_script(main)
