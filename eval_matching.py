r"""Find the landmarks of one image in another by the nearest feature: no annotation is learnt from.

  python eval_matching.py --dataset MAFLAligned --model resnet50 --layer 4 --use_hypercol \
    --image_size 136 --image_crop 20 --trained_model_path moco.pth --out matching_moco

Pairs are an image and its warp by a random thin-plate spline, and two images of the test set. The
mean distances in pixels of the network input go to {out}/matching.json, with that of leaving each
point where it was; the first pairs to {out}/matches.png, the flags to {out}/options.json.
[spec 13.] Letters: B pairs, A landmarks, C channels, H and W rows and columns of a feature map.
"""

import json
import math
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from data_loader.bad_images import image_options, leave_out
from data_loader.data_loaders_face import FaceDataset, add_face_arguments, build_face_dataset
from data_loader.geometry import denormalize_points
from data_loader.items import AnnotatedItem, Items
from data_loader.loaders import add_loader_arguments, build_loader, worker_notice
from engine.features.encoder_loading import EncoderSettings, load_frozen_encoder, use_colours
from engine.run.settings import (
    add_device_arguments,
    add_shared_arguments,
    choose_device,
    plain_options,
    record_options,
)
from models.encoders import add_encoder_arguments, choose_levels, encode_dense
from models.matching import PAIRS, match_points
from utils.arguments import ArgumentParser, allow_change, integer
from utils.drawing import draw_predictions, save_png, sheet
from utils.errors import InputError
from utils.files import write_text, writing
from utils.log import RunLog, progress
from utils.randomness import seed_everything
from utils.script import run_script

SHEET_PAIRS = 12


def build_parser() -> ArgumentParser:
    """Return the parser of all options."""
    parser = ArgumentParser(__doc__, open_folder="out")
    add_face_arguments(parser)
    add_loader_arguments(parser, batch_size=32, num_workers=32)
    add_encoder_arguments(parser, layer=4)
    group = parser.add_argument_group("matching")
    group.add_argument(
        "--pairs", type=integer(1, 10**6), default=1000, help="of each kind, sampled by --seed"
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path("Matching"),
        metavar="DIR",
        help="folder of the results; those of an earlier run are replaced",
    )
    allow_change("out")
    add_shared_arguments(add_device_arguments(parser), "log_path")
    return parser


def main() -> None:
    """Match, score and draw."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    seed_everything(args.seed)
    frame = image_options(args.image_size, args.image_crop, args.on_bad_image)
    benchmark = args.dataset, args.data_folder, args.on_unannotated
    upright, warped = (
        build_face_dataset(*benchmark, train=False, TPS_aug=is_warped, **frame)
        for is_warped in (False, True)
    )
    log = RunLog()
    log.line(*worker_notice(args.num_workers), *upright.count_notice())
    for dataset in (upright, warped):
        leave_out({"test": dataset}, args.num_workers)
    if len(upright) < 2:
        raise InputError(f"{upright.folder}: holds {len(upright)} test images, a pair needs two")
    encoder = load_frozen_encoder(EncoderSettings.from_options(args), upright.side, log)
    encoder.to(device)
    levels = choose_levels(encoder, args.layer, args.use_hypercol)
    use_colours(encoder, upright, warped, noted_in=args.trained_model_path)
    log.open(args.log_path)

    pairs = choose_pairs(len(upright), args.pairs, args.seed)
    loader = build_loader(
        Items(pairs, partial(read_pair, pairs, upright, warped)),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        shuffle=False,
        device=device,
    )
    distances: dict[str, list[Tensor]] = {f"{k}{c}": [] for k in PAIRS for c in ("", "_copied")}
    drawings: list[Image.Image] = []
    for source, *targets in progress(loader, "matching"):
        features = [
            encode_dense(encoder, item.image.to(device), levels) for item in (source, *targets)
        ]
        points = source.points_norm.to(device)  # (B, A, 2)
        for kind, target, feature in zip(PAIRS, targets, features[1:], strict=True):
            found = match_points(features[0], points, feature, upright.side).cpu()
            shown = source.visible & target.visible
            for name, guess in ((kind, found), (f"{kind}_copied", source.points_norm)):
                pixels = (guess - target.points_norm).norm(dim=2) * (upright.side - 1) / 2
                distances[name].append(pixels[shown])
            if len(drawings) < 2 * SHEET_PAIRS and kind == "others":
                drawings += draw_pairs(upright, source, target, found, shown)
    means = {name: float(torch.cat(parts).mean()) for name, parts in distances.items()}
    for kind, words in PAIRS.items():
        if math.isnan(means[kind]):
            raise InputError(f"--pairs {args.pairs}: no pair of {words} shows a landmark in both")
    for kind, words in PAIRS.items():
        log.line(
            f"{args.pairs} pairs of {words}: {means[kind]:.2f} px; points left where they were "
            f"{means[f'{kind}_copied']:.2f} px"
        )
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    title = "points given, and found in another image: blue; truth green"
    save_png(sheet(drawings[: 2 * SHEET_PAIRS], 6, title), args.out / "matches.png")
    record_options(args.out, plain_options(args), {"images": len(upright)})
    result = {"pairs": args.pairs, "images": {"Test": len(upright)}, "px": means}
    write_text(args.out / "matching.json", json.dumps(result, indent=1) + "\n")
    log.line(f"pairs of images: {args.out / 'matches.png'}")


def choose_pairs(images: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Return the numbers of two different images, of so many, for each pair."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(images, (count,), generator=generator).tolist()
    step = torch.randint(1, images, (count,), generator=generator).tolist()
    return [(a, (a + b) % images) for a, b in zip(first, step, strict=True)]


def read_pair(
    pairs: list[tuple[int, int]], upright: FaceDataset, warped: FaceDataset, number: int
) -> tuple[AnnotatedItem, AnnotatedItem, AnnotatedItem]:
    """Return an image, its warp and another image."""
    first, second = pairs[number]
    return (
        upright.annotated_item(first),
        warped.annotated_item(first),
        upright.annotated_item(second),
    )


def draw_pairs(
    dataset: FaceDataset, source: AnnotatedItem, target: AnnotatedItem, found: Tensor, shown: Tensor
) -> list[Image.Image]:
    """Return each source with its points, and its target with those found and the true ones."""
    drawings = []
    images = (dataset.denormalize(item.image) for item in (source, target))
    for one, other, *points, seen in zip(
        *images, source.points_norm, found, target.points_norm, shown, strict=True
    ):
        given, guess, truth = (denormalize_points(p[seen], dataset.side).numpy() for p in points)
        drawings += [draw_predictions(one, given, given), draw_predictions(other, guess, truth)]
    return drawings


if __name__ == "__main__":
    run_script(main)
