r"""Draw what an encoder and a regressor see in faces: landmarks, and principal components.

  python vis_face.py --model resnet50 --layer 4 --use_hypercol --image_size 136 --image_crop 20 \
    --dataset AFLW --trained_model_path moco.pth --ckpt_path regressor.pth \
    --vis_path Visualization --vis_keypoints
  python vis_face.py ... --dataset MAFLAligned --vis_PCA

Landmarks go to {vis_path}/{index}.png, predictions blue and truth green, with the first of them
in contact_sheet.png; components to {vis_path}/{i}/, with an overview in pca_sheet.png.
[spec 7; Cheng et al. 2020, figures 3 and 4.]
"""

import math
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.bad_images import image_options
from data_loader.data_loaders_face import add_face_arguments, build_face_dataset
from engine.pages.visualization import (
    Compared,
    VisualizationSettings,
    add_visualization_arguments,
    run_visualization,
)
from models.metric import inter_ocular_error
from utils.arguments import ArgumentParser
from utils.drawing import draw_predictions
from utils.script import run_script


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_face_arguments(parser)
    add_visualization_arguments(parser)
    return parser


def draw(
    image: Tensor, pred: np.ndarray, truth: np.ndarray, visible: np.ndarray
) -> dict[str, Image.Image]:
    """Return an image with its annotated landmarks and what was predicted for them."""
    return {"": draw_predictions(image, pred[visible], truth[visible])}


def score(eyes: tuple[int, int], batches: Compared, _: Tensor) -> str:
    """Return the error on the whole test set in words."""
    pred, truth, visible = (torch.cat(parts) for parts in zip(*batches, strict=True))
    error = inter_ocular_error(pred, truth, eyes, visible)
    if math.isnan(error):
        return "no error, as none has both eyes annotated"
    return f"error {error:.2f} % of the inter-ocular distance"


def main() -> None:
    """Draw landmarks, components or both."""
    args = build_parser().parse_args()
    settings = VisualizationSettings.from_options(args)
    frame = image_options(args.image_size, args.image_crop, args.on_bad_image)
    dataset = build_face_dataset(
        args.dataset, args.data_folder, args.on_unannotated, train=False, **frame
    )
    run_visualization(
        settings, dataset, draw, partial(score, dataset.eyes), "prediction blue, truth green"
    )


if __name__ == "__main__":
    run_script(main)
