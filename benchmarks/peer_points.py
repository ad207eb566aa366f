"""dlib's shape predictor against fine-tuning, on few annotated images of one's own.

The wings' folder holds ``images`` and ``landmarks.csv``, whose y runs upwards. A seed orders its
images at random: the first k are annotated, all after the first ``HELD_BACK`` are the test.
Letters: N images, A points.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import ROOT, machine, run_command
from data_loader.readers.keypoint_files import read_keypoints

HELD_BACK = 40  # images that are never in the test, however many are annotated
ANNOTATED, SEEDS = (5, 10, 20, 40), (0, 1, 2)  # numbers of images; of their order
# Mean and median error in pixels, seconds of fit and prediction.
Result = tuple[float, float, float]
DLIB = {"oversampling_amount": 100, "tree_depth": 3, "nu": 0.1, "cascade_depth": 12}
DLIB["num_trees_per_cascade_level"] = 300
OURS = """--dataset Keypoints --y_up --model resnet18 --image_size 160 --image_crop 0 --layer 4
    --use_hypercol --regressor finetune --finetune_steps 300 --num_workers 0 --model_name own
    --print_freq 100000""".split()


def compare_points(args: argparse.Namespace, flags: list[str]) -> None:
    """Print errors in pixels and seconds of both, by the number of annotated images.

    ``flags`` are further ones of `eval_animal.py`.
    """
    folder = args.wings
    wings = read_keypoints(folder / "landmarks.csv", folder / "images", y_up=True)
    images = [folder / "images" / name for name in wings.images]
    print(
        f"{machine()}\ndlib: shape_predictor, the whole image as box, {DLIB}.\n"
        f"Ours: eval_animal.py {' '.join([*OURS, *flags])}; its time includes starting Python.\n"
        "Errors over all points of the test images: mean over seeds of their mean, median of their "
        "medians; seconds of fitting and predicting, median over seeds"
    )
    for count in ANNOTATED:
        if count > min(HELD_BACK, len(images) - 1):
            print(f"  {count}: skipped, of {len(images)} images at most {HELD_BACK} are")
            continue
        found: dict[str, list[Result]] = {"dlib": [], "ours": []}
        for seed in SEEDS:
            order = np.random.RandomState(seed).permutation(len(images))
            split = order[:count], order[HELD_BACK:]
            found["dlib"].append(run_dlib(images, wings.points, *split))
            found["ours"].append(run_ours(folder, *split, [*flags, "--seed", str(seed)]))
        for name, results in found.items():
            means, medians, seconds = np.array(results).T
            print(
                f"  {count:3} annotated, {name:<5} mean {means.mean():7.2f} px "
                f"({min(means):.2f} to {max(means):.2f}), median {np.median(medians):7.2f} px, "
                f"{np.median(seconds):7.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
                flush=True,
            )


def run_dlib(
    images: Sequence[Path], points: np.ndarray, train: np.ndarray, test: np.ndarray
) -> Result:
    """Train dlib's shape predictor on some images and points (N, A, 2), score it on others."""
    import dlib

    def load(index: int) -> tuple[np.ndarray, object]:
        """Return an image, and all of it as a box."""
        with Image.open(images[index]) as image:
            pixels = np.array(image.convert("RGB"))
        return pixels, dlib.rectangle(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)

    start = time.perf_counter()
    options = dlib.shape_predictor_training_options()
    for name, value in DLIB.items():
        setattr(options, name, value)
    loaded, boxes = zip(*map(load, train), strict=True)
    parts = [dlib.points([dlib.point(int(x), int(y)) for x, y in points[i]]) for i in train]
    annotations = [[dlib.full_object_detection(*pair)] for pair in zip(boxes, parts, strict=True)]
    predictor = dlib.train_shape_predictor(list(loaded), annotations, options)
    found = [[(p.x, p.y) for p in predictor(*load(index)).parts()] for index in test]
    seconds = time.perf_counter() - start
    distances = np.linalg.norm(np.array(found) - points[test], axis=-1)  # (N, A)
    return float(distances.mean()), float(np.median(distances)), seconds


def run_ours(folder: Path, train: np.ndarray, test: np.ndarray, flags: list[str]) -> Result:
    """Run `eval_animal.py` on some of a folder's images and score it on others, as a user would."""
    header, *lines = (folder / "landmarks.csv").read_text().splitlines()
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        data = ["--data_folder", folder / "images", "--model_path", runs]
        data += ["--log_path", runs / "log"]
        data += [] if "--trained_model_path" in flags else ["--random_network"]
        for flag, chosen in {"--annotations": train, "--test_annotations": test}.items():
            path = runs / f"{flag[2:]}.csv"
            path.write_text("\n".join([header, *(lines[index] for index in chosen)]))
            data += [flag, path]
        _, seconds = run_command([ROOT / "eval_animal.py", *OURS, *data, *flags], Path.cwd())
        scores = json.loads((runs / "own" / "result.json").read_text())["scores"]["Test"]
    return scores["error_px"], scores["median_px"], seconds
