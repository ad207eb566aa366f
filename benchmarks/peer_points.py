"""dlib's shape predictor against fine-tuning, on few annotated images of one's own.

The wings' folder holds ``images`` and ``landmarks.csv``, whose y runs upwards. A seed orders its
images at random: the first k are annotated, all after the first ``HELD_BACK`` are the test.
Letters: N images, A points.
"""

import csv
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.measure import machine, run_command

HELD_BACK = 40  # images that are never in the test, however many are annotated
DLIB = {"oversampling_amount": 100, "tree_depth": 3, "nu": 0.1, "cascade_depth": 12}
OURS = """--dataset Keypoints --y_up --model resnet18 --image_size 160 --image_crop 0 --layer 4
    --use_hypercol --regressor finetune --finetune_steps 300 --num_workers 0 --model_name own
    --print_freq 100000""".split()


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


def compare_points(
    folder: Path, annotated: Sequence[int], seeds: Sequence[int], trees: int, flags: list[str]
) -> None:
    """Print errors in pixels and seconds of both, by the number of annotated images.

    Args:
        folder: the wings'.
        annotated: numbers of images.
        seeds: of the images' order, and of ours.
        trees: of dlib, in each cascade.
        flags: further ones of `eval_animal.py`.
    """
    wings = read_wings(folder)
    print(
        f"{machine()}\ndlib: shape_predictor, the whole image as box, {DLIB}, {trees} trees.\n"
        f"Ours: eval_animal.py {' '.join([*OURS, *flags])}; its time includes starting Python.\n"
        "Errors over all points of the test images: mean over seeds of their mean, median of their "
        "medians; seconds of fitting and predicting, median over seeds"
    )
    for count in annotated:
        if count > min(HELD_BACK, len(wings.rows) - 1):
            print(f"  {count}: skipped, of {len(wings.rows)} images at most {HELD_BACK} are")
            continue
        found: dict[str, list[Result]] = {"dlib": [], "ours": []}
        for seed in seeds:
            order = np.random.RandomState(seed).permutation(len(wings.rows))
            train, test = order[:count], order[HELD_BACK:]
            found["dlib"].append(run_dlib(wings, train, test, trees))
            found["ours"].append(run_ours(wings, train, test, [*flags, "--seed", str(seed)]))
        for name, results in found.items():
            means, medians, seconds = zip(*results, strict=True)
            print(
                f"  {count:3} annotated, {name:<5} mean {mean(means):7.2f} px "
                f"({min(means):.2f} to {max(means):.2f}), median {median(medians):7.2f} px, "
                f"{median(seconds):7.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
                flush=True,
            )


def read_wings(folder: Path) -> Wings:
    """Read the points of a folder's ``landmarks.csv``."""
    with (folder / "landmarks.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    points = np.array([row[1:] for row in rows], dtype=float).reshape(len(rows), -1, 2)
    for row, of_image in zip(rows, points, strict=True):
        with Image.open(folder / "images" / row[0]) as image:
            of_image[:, 1] = image.height - of_image[:, 1]
    return Wings(folder, header, rows, points)


def run_dlib(wings: Wings, train: np.ndarray, test: np.ndarray, trees: int) -> Result:
    """Train dlib's shape predictor on some images and score it on others."""
    import dlib

    def load(index: int) -> tuple[np.ndarray, object]:
        """Return an image, and all of it as a box."""
        with Image.open(wings.folder / "images" / wings.rows[index][0]) as image:
            pixels = np.array(image.convert("RGB"))
        return pixels, dlib.rectangle(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)

    start = time.perf_counter()
    images, boxes = zip(*map(load, train), strict=True)
    points = [dlib.points([dlib.point(int(x), int(y)) for x, y in wings.points[i]]) for i in train]
    annotations = [[dlib.full_object_detection(*pair)] for pair in zip(boxes, points, strict=True)]
    options = dlib.shape_predictor_training_options()
    for name, value in (DLIB | {"num_trees_per_cascade_level": trees}).items():
        setattr(options, name, value)
    options.be_verbose = False
    predictor = dlib.train_shape_predictor(list(images), annotations, options)
    predicted = np.array(
        [[(p.x, p.y) for p in predictor(*load(index)).parts()] for index in test]
    )  # (N, A, 2)
    seconds = time.perf_counter() - start
    distances = np.linalg.norm(predicted - wings.points[test], axis=-1)  # (N, A)
    return Result(float(distances.mean()), float(np.median(distances)), seconds)


def run_ours(wings: Wings, train: np.ndarray, test: np.ndarray, flags: list[str]) -> Result:
    """Run `eval_animal.py` on some images and score it on others, as a user would."""
    encoder = [] if "--trained_model_path" in flags else ["--random_network"]
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        data = ["--data_folder", wings.folder / "images", "--model_path", runs]
        data += ["--log_path", runs / "log"]
        for flag, chosen in {"--annotations": train, "--test_annotations": test}.items():
            path = runs / f"{flag[2:]}.csv"
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([wings.header, *(wings.rows[i] for i in chosen)])
            data += [flag, path]
        options = [*OURS, *data, *encoder, *flags]
        _, seconds = run_command("eval_animal.py", options, Path.cwd())
        scores = json.loads((runs / "own" / "result.json").read_text())["scores"]["Test"]
        return Result(scores["error_px"], scores["median_px"], seconds)
