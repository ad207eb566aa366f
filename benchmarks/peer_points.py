"""dlib's shape predictor against fine-tuning, on few annotated images of one's own.

The wings' folder holds ``images`` and ``landmarks.csv``, whose y runs upwards. A seed orders its
images at random: the first k are annotated, all after the first ``HELD_BACK`` are the test.
Letters: N images, A points.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.measure import machine
from utils.arguments import natural, positive_int

ROOT = Path(__file__).resolve().parents[1]
HELD_BACK = 40  # images that are never in the test, however many are annotated
DLIB = {"oversampling_amount": 100, "tree_depth": 3, "nu": 0.1, "cascade_depth": 12}
TREES = 300  # a cascade


class Wings(NamedTuple):
    """Annotated images: a CSV's rows, and what they say."""

    folder: Path
    header: list[str]
    rows: list[list[str]]
    points: np.ndarray  # (N, A, 2), pixels, y down


class Result(NamedTuple):
    """Errors over all points of the test images in pixels; seconds of fitting and predicting."""

    mean_px: float
    median_px: float
    seconds: float


def add_wing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the wings are, and how they are fitted."""
    group = parser.add_argument_group("dlib")
    group.add_argument("--wings", type=Path, metavar="DIR", help="holds images and landmarks.csv")
    group.add_argument(
        "--trained_model_path", metavar="FILE", help="encoder; without it, untrained"
    )
    group.add_argument("--annotated", type=positive_int, nargs="+", default=[5, 10, 20, 40])
    group.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2])
    group.add_argument("--image_size", type=positive_int, default=160)
    group.add_argument("--finetune_steps", type=positive_int, default=300)
    group.add_argument("--finetune_batch", type=positive_int, default=16)
    group.add_argument("--finetune_spread", type=float, default=1.0)
    group.add_argument("--trees", type=positive_int, default=TREES, help="of dlib, in each cascade")


def compare_points(args: argparse.Namespace) -> None:
    """Print errors in pixels and seconds of both, by the number of annotated images."""
    wings = read_wings(args.wings)
    encoder = args.trained_model_path or "an untrained encoder"
    print(
        f"{machine()}\ndlib: shape_predictor, the whole image as box, {DLIB}, "
        f"{args.trees} trees.\nOurs: eval_animal.py --regressor finetune, {args.image_size} px, "
        f"{args.finetune_steps} steps of {args.finetune_batch}, spread {args.finetune_spread:g}, "
        f"from {encoder}; its time includes starting Python.\nErrors over all points of the test "
        "images: mean over seeds of their mean, median of their medians; seconds of fitting and "
        "predicting, median over seeds"
    )
    for count in args.annotated:
        if count > min(HELD_BACK, len(wings.rows) - 1):
            print(f"  {count}: skipped, of {len(wings.rows)} images at most {HELD_BACK} are")
            continue
        found: dict[str, list[Result]] = {"dlib": [], "ours": []}
        for seed in args.seeds:
            order = np.random.RandomState(seed).permutation(len(wings.rows))
            train, test = order[:count], order[HELD_BACK:]
            found["dlib"].append(run_dlib(wings, train, test, args.trees))
            found["ours"].append(run_ours(args, wings, train, test, seed))
        for name, results in found.items():
            means, medians, seconds = zip(*results, strict=True)
            print(
                f"  {count:3} annotated, {name:<5} mean {statistics.mean(means):7.2f} px "
                f"({min(means):.2f} to {max(means):.2f}), median "
                f"{statistics.median(medians):7.2f} px, {statistics.median(seconds):7.1f} s "
                f"({min(seconds):.1f} to {max(seconds):.1f})",
                flush=True,
            )


def read_wings(folder: Path) -> Wings:
    """Read the points of a folder's ``landmarks.csv``."""
    path = folder / "landmarks.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    points = np.array([row[1:] for row in rows], dtype=float).reshape(len(rows), -1, 2)
    for row, of_image in zip(rows, points, strict=True):
        with Image.open(folder / "images" / row[0]) as image:
            of_image[:, 1] = image.height - of_image[:, 1]
    return Wings(folder, header, rows, points)


def run_dlib(wings: Wings, train: np.ndarray, test: np.ndarray, trees: int) -> Result:
    """Train dlib's shape predictor on some images and score it on others."""
    import dlib

    def load(index: int) -> np.ndarray:
        with Image.open(wings.folder / "images" / wings.rows[index][0]) as image:
            return np.array(image.convert("RGB"))

    def box(image: np.ndarray) -> object:
        return dlib.rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)

    start = time.perf_counter()
    images = [load(i) for i in train]
    annotations = [
        [
            dlib.full_object_detection(
                box(image), dlib.points([dlib.point(int(x), int(y)) for x, y in wings.points[i]])
            )
        ]
        for i, image in zip(train, images, strict=True)
    ]
    options = dlib.shape_predictor_training_options()
    for name, value in (DLIB | {"num_trees_per_cascade_level": trees}).items():
        setattr(options, name, value)
    options.be_verbose = False
    predictor = dlib.train_shape_predictor(images, annotations, options)
    predicted = np.array(
        [[(p.x, p.y) for p in predictor(image, box(image)).parts()] for image in map(load, test)]
    )  # (N, A, 2)
    seconds = time.perf_counter() - start
    distances = np.linalg.norm(predicted - wings.points[test], axis=-1)  # (N, A)
    return Result(float(distances.mean()), float(np.median(distances)), seconds)


def run_ours(
    args: argparse.Namespace,
    wings: Wings,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> Result:
    """Run `eval_animal.py` on some images and score it on others, as a user would."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, chosen in (("train", train), ("test", test)):
            with (folder / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([wings.header, *(wings.rows[i] for i in chosen)])
        encoder = ["--random_network"]
        if args.trained_model_path:
            encoder = ["--trained_model_path", str(Path(args.trained_model_path).absolute())]
        command = f"""--dataset Keypoints --y_up --annotations train.csv --test_annotations test.csv
            --model resnet18 --image_size {args.image_size} --image_crop 0 --layer 4 --use_hypercol
            --regressor finetune --finetune_steps {args.finetune_steps} --finetune_batch
            {args.finetune_batch} --finetune_spread {args.finetune_spread} --num_workers 0
            --seed {seed} --model_path runs --model_name own --print_freq 100000""".split()
        images = ["--data_folder", str((wings.folder / "images").absolute())]
        script = [sys.executable, str(ROOT / "eval_animal.py")]
        start = time.perf_counter()
        done = subprocess.run(
            [*script, *command, *images, *encoder],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr)
        scores = json.loads((folder / "runs" / "own" / "result.json").read_text())["scores"]["Test"]
        return Result(scores["error_px"], scores["median_px"], seconds)
