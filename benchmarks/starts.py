"""Errors on images of one's own, by the network and by what it starts from [docs/results.md].

As a user would: `train_dense.py` on all images, `eval_animal.py` on the first k of a random order,
`predict.py` on those after the first ``--held_back``, whose points alone are compared with the
truth. What is there already isn't made again. Letters: N images, A points.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from benchmarks.measure import ROOT, build_parser, machine, run_command
from data_loader.readers.keypoint_files import read_keypoints
from data_loader.readers.keypoint_table import KeypointTable
from data_loader.readers.prediction_files import Prediction, write_predictions
from utils.arguments import natural
from utils.script import run_script

STARTS = ("random", "imagenet", "dense", "both")  # both: dense contrast from ImageNet's weights
SURE, HIT = 0.9, 0.05  # a confidence; of the diagonal, see --calibrate_at of eval_animal.py


class Judged(NamedTuple):
    """What came of one fit: of the test images, and what its own folds had said."""

    error_px: float
    median_px: float
    seconds: float
    within: bool  # the folds' interval, or below it
    sure_right: float  # percentage of the points of at least 0.9 confidence; NaN of none
    spearman: float  # of expected and true errors


def main() -> None:
    """Print a line for each network, start and number of annotated images."""
    parser = build_parser(
        __doc__, annotations=..., data_folder=..., out=..., networks=["timm:mobilenetv2_100"],
        starts=[*STARTS], annotated=[10], seeds=[0, 1, 2], held_back=40, dense="", flags="",
    )  # fmt: skip
    parser.add_argument("--y_up", action="store_true", help="see eval_animal.py")
    second = "fit again, with what was found in so many of the surest other images"
    parser.add_argument("--pseudo", type=natural, default=0, metavar="N", help=second)
    tuning = "judge by the other images that are held back, to choose settings by them"
    parser.add_argument("--tuning", action="store_true", help=tuning)
    args = parser.parse_args()
    table = read_keypoints(args.annotations, Path(args.data_folder), y_up=args.y_up)
    print(f"{machine()}\n{args.annotations}: mean error in px of the test images, over seeds")
    for network in args.networks:
        for start in args.starts:
            for count in args.annotated:
                found = [judge(args, table, network, start, count, seed) for seed in args.seeds]
                print(f"{network} {start} {count}: {in_words(found)}", flush=True)


def in_words(found: Sequence[Judged]) -> str:
    """Return the means over seeds and, of the error, the range."""
    errors, medians, seconds, within, right, ranks = zip(*found, strict=True)
    known = [percentage for percentage in right if not np.isnan(percentage)] or [np.nan]
    return (
        f"{fmean(errors):.2f} ({min(errors):.2f} to {max(errors):.2f}), median "
        f"{fmean(medians):.2f}, {fmean(seconds):.0f} s; inside the folds' interval or below "
        f"{sum(within)} of {len(within)}; right where sure {fmean(known):.1f} %; Spearman "
        f"{fmean(ranks):.2f}"
    )


def judge(
    args: argparse.Namespace, table: KeypointTable, network: str, start: str, count: int, seed: int
) -> Judged:
    """Fit a readout to so many images of a seed's order, and compare it on the test images."""
    model, _, weights = network.partition("=")
    folder = args.out / model.replace(":", "_")
    order = np.random.RandomState(seed).permutation(len(table.images)).tolist()
    given = start_flags(args, folder, model, weights or "imagenet", start)
    run, tests = folder / start / f"{count}_{seed}", order[args.held_back :]
    if args.tuning:
        tests = order[count : args.held_back]
    if not (run / "judged.json").exists():
        points = {row: table.points[row] for row in order[:count]}
        flags = [*given, "--seed", seed, *args.flags.split()]
        if args.pseudo:
            first, others = run.with_name(f"{run.name}_first"), order[count:]
            found, _ = fit_and_find(args, table, flags, first, points, others)
            surest = np.argsort(-found[..., 2].mean(axis=1))[: args.pseudo]
            points |= {others[place]: found[place, :, :2] for place in surest}
        found, seconds = fit_and_find(args, table, flags, run, points, tests)
        judged = compare(table, tests, found, run / "result.json", seconds)
        (run / "judged.json").write_text(json.dumps(judged._asdict()))
    return Judged(**json.loads((run / "judged.json").read_text()))


def fit_and_find(
    args: argparse.Namespace,
    table: KeypointTable,
    flags: Sequence[object],
    run: Path,
    points: Mapping[int, np.ndarray],
    wanted: Sequence[int],
) -> tuple[np.ndarray, float]:
    """Fit a readout to points (A, 2) by the rows of a table, in a folder; find those of others.

    Returns:
        Of each wanted row x, y, the confidence and the expected error if there is one, (N, A, 3 or
        4), and the seconds that it took.
    """
    annotated, listed, out = (run.with_name(run.name + end) for end in (".csv", ".txt", "_all.csv"))
    run.parent.mkdir(parents=True, exist_ok=True)
    sure, names = np.ones(len(table.names)), table.images
    shown = (Prediction(names[row], (0, 0), own, sure) for row, own in points.items())
    write_predictions(annotated, table.names, shown)
    data = ["--annotations", annotated, "--data_folder", args.data_folder, "--overwrite"]
    where = ["--model_path", run.parent, "--model_name", run.name]
    _, fit = run_command([ROOT / "eval_animal.py", *data, *where, *flags], Path.cwd())
    folder = Path(args.data_folder).resolve()
    listed.write_text("".join(f"{folder / names[row]}\n" for row in wanted))
    (checkpoint,) = set(run.glob("*.pth")) - {run / "current.pth"}
    images = ["--ckpt_path", checkpoint, "--images", listed, "--out", out, "--overwrite"]
    _, prediction = run_command([ROOT / "predict.py", *images], Path.cwd())
    _, *lines = (line.split(",") for line in out.read_text().splitlines())
    numbers = np.array([[float(cell or "nan") for cell in line[1:]] for line in lines])
    return numbers.reshape(len(lines), len(table.names), -1), fit + prediction


def start_flags(
    args: argparse.Namespace, folder: Path, model: str, weights: str, start: str
) -> list[object]:
    """Return the flags by which a fit starts as asked; train what it starts from if need be."""
    begin = ["--model", model]
    if start == "random":
        return [*begin, "--random_network"]
    if start == "imagenet":
        return [*begin, "--trained_model_path", weights]
    run = folder / f"dense_{start}"
    if not (run / "current.pth").exists():
        first = ["--init", weights] if start == "both" else ["--random_network"]
        data = ["--data_folder", args.data_folder, "--dataset", "Folder", *first]
        out = ["--model_path", folder, "--model_name", f"dense_{start}"]
        run_command([ROOT / "train_dense.py", *begin, *data, *out, *args.dense.split()], Path.cwd())
    return [*begin, "--trained_model_path", run / "current.pth"]


def compare(
    table: KeypointTable, tests: Sequence[int], columns: np.ndarray, result: Path, seconds: float
) -> Judged:
    """Return how good is what was found of a table's rows, see `fit_and_find`."""
    off = np.linalg.norm(columns[..., :2] - table.points[list(tests)], axis=2)  # (N, A)
    known, sizes = ~np.isnan(off), np.array([table.sizes[i] for i in tests])
    within = HIT * np.linalg.norm(sizes, axis=1)[:, None]
    sure = known & (columns[..., 2] >= SURE)
    folds = json.loads(result.read_text()).get("scores", {}).get("Folds", {})
    error = float(off[known].mean())
    ranks = spearmanr(columns[..., -1][known], off[known])[0] if columns.shape[2] == 4 else np.nan
    right = 100 * float((off <= within)[sure].mean()) if sure.any() else np.nan
    inside = error <= folds.get("error_px_high", np.inf)
    return Judged(error, float(np.median(off[known])), seconds, inside, right, float(ranks))


if __name__ == "__main__":
    run_script(main)
