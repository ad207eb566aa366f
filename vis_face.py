"""Draw what an encoder and a regressor see in faces: landmarks, and principal components.

  python vis_face.py --model resnet50 --layer 4 --use_hypercol --image_size 136 --image_crop 20
    --dataset AFLW --trained_model_path moco.pth --ckpt_path regressor.pth
    --vis_path Visualization --vis_keypoints
  python vis_face.py ... --dataset MAFLAligned --vis_PCA

Landmarks go to {vis_path}/{index}.png, predictions blue and truth green, with the first of them
in contact_sheet.png; components to {vis_path}/{i}/, with an overview in pca_sheet.png.
[SPEC 7; Cheng et al. 2020, figures 3 and 4.]
"""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from data_loader.data_loaders_face import add_face_arguments, build_face_dataset
from data_loader.geometry import denormalize_points
from data_loader.loaders import add_loader_arguments, build_loader, worker_notice
from models.encoders import add_encoder_arguments, encode
from models.metric import inter_ocular_error
from utils.arguments import ArgumentParser
from utils.drawing import prediction_picture, save_picture, sheet
from utils.encoder_loading import load_frozen_encoder
from utils.errors import run_script
from utils.log import RunLog, progress
from utils.randomness import seed_everything
from utils.regression import build_regressor, load_regressor_for
from utils.run import add_device_arguments, add_log_argument, choose_device
from utils.visualization import (
    DRAWN_BATCHES,
    SHEET_COLUMNS,
    SHEET_PICTURES,
    add_training_arguments,
    add_visualization_arguments,
    check_wishes,
    draw_first_batch_components,
)


def build_parser() -> ArgumentParser:
    """Return the parser of all options [SPEC 8]."""
    parser = ArgumentParser(__doc__)
    add_visualization_arguments(parser)
    add_face_arguments(parser)
    add_loader_arguments(parser, batch_size=32, num_workers=32)
    add_encoder_arguments(parser, layer=3)
    add_log_argument(add_device_arguments(parser))
    add_training_arguments(parser)
    return parser


def main() -> None:
    """Draw landmarks, components or both."""
    args = build_parser().parse_args()
    check_wishes(args.vis_keypoints, args.vis_PCA, args.ckpt_path, args.random_network)
    device = choose_device(args.device, args.gpu)
    seed_everything(args.seed)

    # ---- data ----
    frame = {"image_size": args.image_size, "image_crop": args.image_crop}
    dataset = build_face_dataset(args.dataset, args.data_folder, train=False, **frame)
    loader = build_loader(
        dataset,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        shuffle=False,
        device=device,
    )

    # ---- frozen encoder, regressor ----
    encoder = load_frozen_encoder(
        args.model,
        dataset.side,
        args.trained_model_path,
        args.random_network,
        args.layer,
        args.seed,
    ).to(device)
    layers = (args.layer, args.use_hypercol)
    regressor, notices = None, worker_notice(args.num_workers)
    if args.vis_keypoints:
        regressor = build_regressor(encoder.feature_channels(*layers), dataset.num_landmarks)
        notices += load_regressor_for(
            args.ckpt_path, regressor, encoder, f"--model {args.model} --layer {args.layer}"
        )
        regressor.to(device)
    log = RunLog(args.log_path)
    for notice in notices:
        log.line(notice)

    # ---- draw ----
    if args.vis_PCA:
        path = draw_first_batch_components(loader, encoder, *layers, device, args.vis_path)
        log.line(f"components of {min(args.batch_size, len(dataset))} pictures: {path}")
    if args.vis_keypoints:
        error = draw_landmarks(loader, encoder, layers, regressor, device, args.vis_path)
        log.line(
            f"error on the {len(dataset)} test pictures: {error:.2f} % of the inter-ocular distance"
        )
        log.line(f"landmarks of the first pictures: {args.vis_path / 'contact_sheet.png'}")


@torch.no_grad()
def draw_landmarks(
    loader: DataLoader,
    encoder: nn.Module,
    layers: tuple[int, bool],
    regressor: nn.Module,
    device: torch.device,
    folder: Path,
) -> float:
    """Draw the first batches' landmarks and a contact sheet; return the error on all pictures."""
    dataset, regressor = loader.dataset.dataset, regressor.eval()
    predictions, truths, pictures = [], [], []
    for number, (images, _, points, indices) in enumerate(progress(loader, "predicting")):
        pred, _ = regressor(encode(encoder, images.to(device), *layers))
        pred = pred.cpu()  # (B, A, 2)
        predictions.append(pred)
        truths.append(points)
        if number >= DRAWN_BATCHES:
            continue
        pred_px, truth_px = (denormalize_points(p, dataset.side).numpy() for p in (pred, points))
        for image, p, t, index in zip(
            dataset.denormalize(images), pred_px, truth_px, indices.tolist(), strict=True
        ):
            pictures.append(prediction_picture(image, p, t))
            save_picture(pictures[-1], folder / f"{index}.png")
    error = float(inter_ocular_error(torch.cat(predictions), torch.cat(truths), dataset.eyes))
    title = f"prediction blue, truth green; error {error:.1f} % of the inter-ocular distance"
    page = sheet(pictures[:SHEET_PICTURES], SHEET_COLUMNS, title)
    save_picture(page, folder / "contact_sheet.png")
    return error


if __name__ == "__main__":
    run_script(main)
