"""What work costs as it grows: time and memory by the number of images.

  python -m benchmarks.growth --what images --sizes 1000 10000 100000 1000000
  python -m benchmarks.growth --what readouts --sizes 100 1000 10000 19000
  python -m benchmarks.growth --what predict --sizes 100 1000 10000 100000

Each number of images is measured in fresh processes, whose imports aren't timed. Images are links
to a few files; features are those of a few random images, again and again. A table in Markdown is
printed; --figure draws it.
"""

import contextlib
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

import predict
from benchmarks.measure import highest_memory, in_fresh_process, machine, spread
from benchmarks.pretrain import ALPHA, state_of
from benchmarks.regressor import LAYER, Quiet, with_optimizer
from data_loader.data_loaders_animal import find_images
from data_loader.loaders import SeededSampler, set_epoch
from datasets.synthetic import generate
from engine.encoded_images import StoredImages
from engine.feature_cache import Stored
from engine.pretraining_images import Cutout, build_pair_loader, build_unlabelled_dataset
from engine.pretraining_state import Position
from engine.regressor_training import build_regressor, train_one_epoch
from engine.ridge_run import assign_folds, fit_ridge
from eval_face import face_task
from models.encoders import build_random_encoder, freeze
from models.ridge import RidgeReadout
from train_moco import train_one_epoch as train_moco_epoch
from utils.arguments import ArgumentParser, positive_int
from utils.log import RunLog

SIDE, LANDMARKS = 96, 5
LINKED, FOLDER_SIZE, SHARD_SIZE = 40, 1000, 10_000  # files; images of a folder and of a shard
STORED = 64  # random images whose features stand for those of all
CPU = torch.device("cpu")
KINDS = {
    "images": ("folder", "list", "shards"),
    "readouts": ("ridge", "published"),
    "predict": ("predict.py",),
}


class Cost(NamedTuple):
    """What some work took: seconds, the process's peak in MB, how much of it since the imports."""

    seconds: float
    peak: float
    growth: float
    step: float = float("nan")  # seconds, a median; of pre-training alone


def main() -> None:
    """Measure what was asked for."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--what", choices=list(KINDS), default="images")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="of --what; all by default")
    parser.add_argument("--sizes", nargs="+", type=positive_int, default=[1000, 10_000])
    parser.add_argument("--rounds", type=positive_int, default=3, help="turns of each size")
    parser.add_argument("--steps", type=positive_int, default=20, help="steps of pre-training")
    parser.add_argument("--batch_size", type=positive_int, default=16)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--data_folder", help="images to link to; drawn ones by default")
    parser.add_argument(
        "--work", type=Path, help="folder for the links, on the disk of --data_folder"
    )
    parser.add_argument("--figure", help="draw the figures into this file")
    args = parser.parse_args()
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        ways: dict[str, Callable[[str, int], tuple[Any, ...]]] = {
            "images": lambda kind, size: (
                cost_of_pretraining,
                *place_images(kind, size, work, args.data_folder),
                *(args.model, args.batch_size, args.steps),
            ),
            "readouts": lambda kind, size: (cost_of_readout, kind, size, args.model),
            "predict": lambda kind, size: (
                cost_of_prediction,
                place_images("folder", size, work, args.data_folder)[0],
                fit_points(work, args.model),
                work / "predictions.csv",
            ),
        }
        costs: dict[tuple[str, int], list[Cost]] = defaultdict(list)
        kinds = args.kinds or KINDS[args.what]
        for _ in range(args.rounds):
            for kind in kinds:
                for size in args.sizes:
                    function, *given = ways[args.what](kind, size)
                    costs[kind, size].append(in_fresh_process(function, *given))
    print(f"{machine()}\n{args.what}, {args.model}, {args.rounds} turns\n")
    print("\n".join(table(costs, args.sizes[0])))
    if args.figure:
        draw(costs).savefig(args.figure, dpi=150)


# ---- files ----


def place_images(
    kind: str, count: int, work: Path, data_folder: str | None
) -> tuple[str, str | None]:
    """Return root and list of so many images, which are made unless an earlier turn did."""
    folder = work / f"images-{count}"
    if not folder.exists():
        link_images(folder, source_files(work, data_folder), count)
    if kind == "folder":
        return str(folder), None
    if kind == "list":
        listed = work / f"images-{count}.txt"
        if not listed.exists():
            listed.write_text("\n".join(find_images(folder)[0]) + "\n")
        return str(folder), str(listed)
    shards = work / f"shards-{count}"
    if not shards.exists():
        write_shards(shards, source_files(work, data_folder), count)
    return str(shards / "index.json"), None


def source_files(work: Path, data_folder: str | None) -> list[Path]:
    """Return a few images: the first of a folder, or drawn ones."""
    root = Path(data_folder) if data_folder else work / "drawn"
    if not root.exists():
        generate(root, images=LINKED, mafl_train=2, mafl_test=2, layouts=["folder"])
    return [(root / name).resolve() for name in find_images(root)[0][:LINKED]]


def link_images(folder: Path, sources: list[Path], count: int) -> None:
    """Make so many links to some files, in subfolders."""
    for number, source in enumerate(islice(cycle(sources), count)):
        below = folder / f"{number // FOLDER_SIZE:04d}"
        if number % FOLDER_SIZE == 0:
            below.mkdir(parents=True)
        path = below / f"{number:07d}{source.suffix}"
        try:
            os.link(source, path)
        except OSError:  # another disk, or no more links to that file
            path.symlink_to(source)


def write_shards(folder: Path, sources: list[Path], count: int) -> None:
    """Write shards of so many images, and their index."""
    folder.mkdir()
    contents = [(source.suffix, source.read_bytes()) for source in sources]
    left, entries = enumerate(islice(cycle(contents), count)), []
    for first in range(0, count, SHARD_SIZE):
        path, size = folder / f"{first:07d}.tar", min(SHARD_SIZE, count - first)
        entries.append({"url": path.name, "nsamples": size})
        with tarfile.open(path, "w") as tar:
            for number, (suffix, data) in islice(left, size):
                member = tarfile.TarInfo(f"{number:07d}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    index = {"wids_version": 1, "shardlist": entries}
    (folder / "index.json").write_text(json.dumps(index))


def fit_points(work: Path, model: str) -> Path:
    """Return a ridge readout's checkpoint, which is made once, of a few drawn images."""
    root = work / "annotated"
    if not root.exists():
        generate(root, images=2, mafl_train=8, mafl_test=2, layouts=["folder"])
        own = root / "folder"
        command = [sys.executable, "-m", "eval_animal", "--dataset", "Keypoints", "--model", model]
        command += ["--data_folder", str(own), "--annotations", str(own / "points.csv")]
        command += ["--random_network", "--regressor", "ridge", "--image_size", str(SIDE)]
        command += ["--layer", str(LAYER), "--use_hypercol", "--num_workers", "0"]
        command += ["--model_path", str(root), "--model_name", "run"]
        command += ["--log_path", str(root / "log")]
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return root / "run" / f"{model}.pth"


# ---- what is measured, each in a process of its own ----


class _Enough(Exception):  # noqa: N818 (no error)
    """As many steps as are to be timed."""


def cost_of_pretraining(
    root: str, imagelist: str | None, model: str, batch_size: int, steps: int
) -> Cost:
    """Return the cost until the first step of `train_moco.py` is done, and of those after it."""
    before, begun = highest_memory(), time.perf_counter()
    cutout = Cutout("stretch", None, 0.0)
    dataset = build_unlabelled_dataset(
        "Folder", root, imagelist=imagelist, image_cache=None, cutout=cutout, imwidth=SIDE, crop=0
    )
    loading: dict[str, Any] = {"batch_size": batch_size, "num_workers": 0, "seed": 0, "device": CPU}
    views = build_pair_loader(dataset, None, None, **loading)
    set_epoch(views.loader, 1)
    opened = highest_memory()
    state, position = (
        state_of(model, CPU, "off"),
        Position(torch.zeros(2), len(dataset), batch_size),
    )
    ends: list[float] = []

    def note(position: Position) -> None:
        ends.append(time.perf_counter())
        if len(ends) > steps:
            raise _Enough

    with contextlib.suppress(_Enough):
        train_moco_epoch(views, state.query, state, position, ALPHA, "off", 10**9, RunLog(), note)
    times = [b - a for a, b in pairwise(ends)] or [float("nan")]
    return Cost(ends[0] - begun, opened, opened - before, statistics.median(times))


def cost_of_readout(kind: str, count: int, model: str) -> Cost:
    """Return the cost of a ridge readout, or of an epoch of the published regressor."""
    torch.manual_seed(0)
    encoder = freeze(build_random_encoder(model, SIDE, seed=0))
    with torch.no_grad():
        maps = encoder(torch.randn(STORED, 3, SIDE, SIDE), LAYER, True, None)
    stored = Stored(
        [m.permute(0, 2, 3, 1).contiguous() for m in maps],
        1.6 * torch.rand(STORED, LANDMARKS, 2) - 0.8,
        torch.ones(STORED, LANDMARKS, dtype=torch.bool),
    )
    rows = torch.arange(count) % STORED
    images = StoredImages(stored, rows, SeededSampler(count, 0, False), 32, False, CPU)
    channels = encoder.feature_channels(LAYER, True)
    before, begun = highest_memory(), time.perf_counter()
    if kind == "ridge":
        readout = RidgeReadout(channels, LANDMARKS, SIDE)
        visible = images.annotations()[1]
        fit_ridge(readout, images, visible, assign_folds(images, count), Quiet())
    else:
        regressor, optimizer = with_optimizer(build_regressor(channels, LANDMARKS))
        train_one_epoch(regressor, optimizer, face_task((0, 1)), images, 1, Quiet(), 10**9)
    peak = highest_memory()
    return Cost(time.perf_counter() - begun, peak, peak - before)


def cost_of_prediction(images: str, checkpoint: Path, out: Path) -> Cost:
    """Return the cost of a run of `predict.py`."""
    before, begun = highest_memory(), time.perf_counter()
    sys.argv = ["predict.py", "--ckpt_path", str(checkpoint), "--images", images]
    sys.argv += ["--out", str(out), "--num_workers", "0", "--overwrite"]
    with contextlib.redirect_stdout(io.StringIO()):
        predict.main()
    peak = highest_memory()
    with out.open() as file:
        assert sum(1 for _ in csv.reader(file)) > 1
    return Cost(time.perf_counter() - begun, peak, peak - before)


# ---- what is shown ----


def table(costs: dict[tuple[str, int], list[Cost]], smallest: int) -> list[str]:
    """Return the lines of a table; steps are compared with those at the smallest size."""
    lines = ["| what | images | seconds | peak MB | of it growth | ms a step | ratio |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (kind, size), turns in costs.items():
        pairs = zip(turns, costs[kind, smallest], strict=True)
        ratios = [turn.step / least.step for turn, least in pairs]
        is_timed = all(turn.step == turn.step for turn in turns)  # NaN where there are no steps
        steps = spread([1000 * turn.step for turn in turns], 1) if is_timed else ""
        by_steps = spread(ratios, 3) if is_timed else ""
        lines.append(
            f"| {kind} | {size:,} | {spread([c.seconds for c in turns], 2)} | "
            f"{statistics.median(c.peak for c in turns):.0f} | "
            f"{statistics.median(c.growth for c in turns):.0f} | "
            f"{steps} | {by_steps} |"
        )
    return lines


def draw(costs: dict[tuple[str, int], list[Cost]]) -> Figure:
    """Return a figure of seconds and of memory by the number of images."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels: list[tuple[str, Callable[[Cost], float]]] = [
        ("seconds", lambda cost: cost.seconds),
        ("MB beside the libraries", lambda cost: cost.growth),
    ]
    for axes, (title, figure_of) in zip(figure.subplots(1, 2), panels, strict=True):
        for kind in dict.fromkeys(kind for kind, _ in costs):
            sizes = [size for other, size in costs if other == kind]
            medians = [statistics.median(map(figure_of, costs[kind, size])) for size in sizes]
            axes.plot(sizes, medians, marker="o", label=kind)
        axes.set(xscale="log", xlabel="images", ylabel=title)
        if title == "seconds":
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
