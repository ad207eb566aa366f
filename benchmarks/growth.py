"""What work costs as it grows: time and memory by the number of images.

  python -m benchmarks.growth --what images --sizes 1000 10000 100000 1000000
  python -m benchmarks.growth --what readouts --sizes 100 1000 10000 19000
  python -m benchmarks.growth --what predict --sizes 100 1000 10000 100000

Each number of images is measured in fresh processes, whose imports aren't timed. Images are links
to a few files; features are those of a few drawn images, again and again. A table in Markdown is
printed; --figure draws it.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import CPU, build_parser, machine, marks_of, run_command, spread
from benchmarks.steps import SIDE, build_moco, take_steps
from utils.arguments import positive_int

# What else a measured process needs is imported there: memory is that of a user's process only
# where no library is loaded that theirs doesn't load.

DRAWN, FOLDER_SIZE, SHARD_SIZE = 40, 1000, 10_000  # files; images of a folder and of a shard
KINDS = {
    "images": ("folder", "list", "shards"),
    "readouts": ("ridge", "published"),
    "predict": ("predict.py",),
}
TITLES = ("what", "images", "seconds", "peak MB", "of it growth", "in steps", "ms a step", "ratio")
Costs = dict[tuple[str, int], list[dict[str, float]]]  # of turns, by kind and number of images


def main() -> None:
    """Measure what was asked for."""
    few = [1000, 10_000]
    parser = build_parser(
        __doc__, data_folder=None, rounds=3, model="resnet18", batch_size=16, sizes=few
    )
    parser.add_argument("--what", choices=list(KINDS), default="images")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="of --what; all by default")
    parser.add_argument("--steps", type=positive_int, default=20, help="steps of pre-training")
    parser.add_argument(
        "--work", type=Path, help="folder for the links, on the disk of --data_folder"
    )
    parser.add_argument("--figure", help="draw the figures into this file")
    args = parser.parse_args()
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    costs: Costs = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for _ in range(args.rounds):
            for kind in args.kinds or KINDS[args.what]:
                for size in args.sizes:
                    costs[kind, size].append(cost_of(args, kind, size, Path(folder)))
    print(f"{machine()}\n{args.what}, {args.model}, {args.rounds} turns\n")
    print("\n".join(table(costs, args.sizes[0])))
    if args.figure:
        draw(costs, args.figure)


def cost_of(args: argparse.Namespace, kind: str, size: int, work: Path) -> dict[str, float]:
    """Return what some work on so many images costs in a fresh process, by the table's titles."""
    given: tuple[Any, ...]
    if args.what == "readouts":
        function, given = "fit", (kind, str(draw_faces(work, "celeba")), size, args.model)
    elif args.what == "predict":
        root, _ = place_images("folder", size, work, args.data_folder)
        function, given = "predict", (root, fit_points(work, args.model), str(work / "found.csv"))
    else:
        images = place_images(kind, size, work, args.data_folder)
        function, given = "pretrain", (*images, args.model, args.batch_size, args.steps)
    begun, peak, *steps = marks_of(f"benchmarks.growth:{function}", *given)
    costs = {"peak MB": peak.memory, "of it growth": peak.memory - begun.memory}
    costs["seconds"] = (steps or [peak])[0].seconds - begun.seconds
    if len(steps) > 1:
        times = [after.seconds - before.seconds for before, after in pairwise(steps)]
        costs |= {"in steps": steps[-1].memory, "ms a step": 1000 * median(times)}
    return costs


# ---- what is measured in fresh processes ----


def pretrain(root: str, listed: str | None, model: str, batch: int, steps: int) -> Iterator[None]:
    """Start `train_moco.py`: mark when its images are known, its first step's end, and more."""
    from data_loader.loaders import set_epoch
    from engine.pretraining.images import ImageSettings, build_unlabelled_loader, open_images
    from train_moco import build_parser

    yield
    flags = f"--dataset Folder --image_size {SIDE} --batch_size {batch} --num_workers 0".split()
    flags += ["--data_folder", root, "--model_path", ".", "--model_name", "none"]
    flags += ["--imagelist", listed] if listed else []
    settings = ImageSettings.from_options(build_parser().parse_args(flags))
    loader = build_unlabelled_loader(settings, open_images(settings), False, CPU)
    set_epoch(loader, 1)
    yield
    objective = build_moco(model)
    for images in islice(loader, steps + 1):
        take_steps(objective, [images])()
        yield


def fit(kind: str, root: str, count: int, model: str) -> Iterator[None]:
    """Fit a ridge readout, or the published regressor for an epoch, on features in memory."""
    from benchmarks.regressor import Setting
    from engine.readouts.ridge_fit import assign_folds, fit_ridge
    from models.ridge import RidgeReadout
    from utils.log import RunLog

    setting = Setting("MAFLAligned", root, model, 32, count)
    images, levels = setting.encoded(), setting.levels
    channels = setting.encoder.feature_channels(levels.numbers)
    landmarks, side = setting.dataset.num_landmarks, setting.dataset.side
    yield
    if kind == "ridge":
        readout = RidgeReadout(channels, landmarks, side, levels.shape)
        fit_ridge(readout, images, assign_folds(images, count), RunLog())
    else:
        setting.train(images, 1)
    yield


def predict(images: str, checkpoint: str, out: str) -> Iterator[None]:
    """Run `predict.py` on a folder."""
    import predict

    yield
    sys.argv = ["predict.py", "--ckpt_path", checkpoint, "--images", images, "--out", out]
    sys.argv += ["--num_workers", "0", "--overwrite"]
    with contextlib.redirect_stdout(io.StringIO()):
        predict.main()
    yield
    with Path(out).open() as file:
        assert sum(1 for _ in csv.reader(file)) > 1


# ---- files, each made once ----


def draw_faces(work: Path, layout: str) -> Path:
    """Return the folder of a few drawn images in one of the layouts of `datasets.synthetic`."""
    from datasets.synthetic import generate

    out = work / "drawn"
    return generate(out, images=DRAWN, mafl_train=DRAWN, mafl_test=2, layouts=[layout])[0]


def place_images(
    kind: str, count: int, work: Path, data_folder: str | None
) -> tuple[str, str | None]:
    """Return root and list of so many images, which are links to a few."""
    from data_loader.readers.image_names import find_images

    folder, listed, shards = (work / f"{name}-{count}" for name in ("images", "list", "shards"))
    if not folder.exists():
        root = Path(data_folder) if data_folder else draw_faces(work, "folder")
        link_images(
            folder, [(root / name).resolve() for name in islice(find_images(root)[0], DRAWN)], count
        )
    if kind == "list" and not listed.exists():
        listed.write_text("\n".join(find_images(folder)[0]) + "\n")
    if kind == "shards" and not shards.exists():
        write_shards(shards, [folder / name for name in find_images(folder)[0]])
    if kind == "shards":
        return str(shards / "index.json"), None
    return str(folder), str(listed) if kind == "list" else None


def link_images(folder: Path, sources: list[Path], count: int) -> None:
    """Make so many links to some files, in subfolders."""
    for number, source in enumerate(islice(cycle(sources), count)):
        below = folder / f"{number // FOLDER_SIZE:04d}"
        below.mkdir(parents=True, exist_ok=True)
        path = below / f"{number:07d}{source.suffix}"
        try:
            os.link(source, path)
        except OSError:  # another disk, or no more links to that file
            path.symlink_to(source)


def write_shards(folder: Path, images: list[Path]) -> None:
    """Write images into shards, and their index."""
    folder.mkdir()
    entries = []
    for first in range(0, len(images), SHARD_SIZE):
        path, some = folder / f"{first:07d}.tar", images[first : first + SHARD_SIZE]
        entries.append({"url": path.name, "nsamples": len(some)})
        with tarfile.open(path, "w", dereference=True) as tar:  # links are files there
            for image in some:
                tar.add(image, image.name)
    index = {"wids_version": 1, "shardlist": entries}
    (folder / "index.json").write_text(json.dumps(index))


def fit_points(work: Path, model: str) -> str:
    """Return a ridge readout's checkpoint, of the drawn images."""
    checkpoint = work / "run" / f"{model}.pth"
    if not checkpoint.exists():
        root = draw_faces(work, "folder")
        options = f"""--dataset Keypoints --data_folder {root} --annotations {root}/points.csv
            --random_network --regressor ridge --model {model} --image_size {SIDE} --layer 4
            --use_hypercol --num_workers 0 --model_path . --model_name run --log_path log"""
        run_command("eval_animal.py", options.split(), work)
    return str(checkpoint)


# ---- what is shown ----


def table(costs: Costs, smallest: int) -> list[str]:
    """Return the lines of a table; steps are compared with those at the smallest size."""
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    for (kind, size), turns in costs.items():
        of = {title: [turn.get(title, 0.0) for turn in turns] for title in TITLES}
        cells = [kind, f"{size:,}", spread(of["seconds"], 2)]
        cells += [f"{median(of[title]):.0f}" for title in ("peak MB", "of it growth")]
        if all(of["ms a step"]):
            least = [turn["ms a step"] for turn in costs[kind, smallest]]
            ratios = [step / base for step, base in zip(of["ms a step"], least, strict=True)]
            cells += [
                f"{median(of['in steps']):.0f}",
                spread(of["ms a step"], 1),
                spread(ratios, 3),
            ]
        lines.append(f"| {' | '.join(cells + [''] * (len(TITLES) - len(cells)))} |")
    return lines


def draw(costs: Costs, path: str) -> None:
    """Draw seconds and memory by the number of images into a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    titles = {"seconds": "seconds", "of it growth": "MB beside the libraries"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for kind in dict.fromkeys(kind for kind, _ in costs):
            sizes = [size for other, size in costs if other == kind]
            medians = [median(turn[name] for turn in costs[kind, size]) for size in sizes]
            axes.plot(sizes, medians, marker="o", label=kind)
        axes.set(xscale="log", xlabel="images", ylabel=title)
        axes.grid(alpha=0.3)
        axes.legend()
    by_time, by_memory = figure.axes
    by_time.set_yscale("log")
    by_time.yaxis.set_major_formatter("{x:g}")
    by_time.yaxis.set_minor_formatter("{x:g}")
    by_memory.set_ylim(bottom=0)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
