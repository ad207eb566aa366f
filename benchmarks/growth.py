"""What work costs as it grows: time and memory by the number of images.

  python -m benchmarks.growth --what images --sizes 1000 10000 100000 1000000
  python -m benchmarks.growth --what readouts --sizes 100 1000 10000 19000
  python -m benchmarks.growth --what predict --sizes 100 1000 10000 100000

Each number of images is measured in fresh processes, whose imports aren't timed. Images are links
to a few files; features are those of a few random images, again and again. A table in Markdown is
printed; --figure draws it.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.growth_pretraining import cost_of_pretraining
from benchmarks.growth_readouts import SIDE, cost_of_prediction, cost_of_readout
from benchmarks.measure import Cost, in_fresh_process, machine, spread
from benchmarks.regressor import LAYER
from data_loader.readers.image_names import find_images
from datasets.synthetic import generate
from utils.arguments import ArgumentParser, positive_int

LINKED, FOLDER_SIZE, SHARD_SIZE = 40, 1000, 10_000  # files; images of a folder and of a shard
KINDS = {
    "images": ("folder", "list", "shards"),
    "readouts": ("ridge", "published"),
    "predict": ("predict.py",),
}


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
    return [(root / name).resolve() for name in islice(find_images(root)[0], LINKED)]


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


# ---- what is shown ----


def table(costs: dict[tuple[str, int], list[Cost]], smallest: int) -> list[str]:
    """Return the lines of a table; steps are compared with those at the smallest size."""
    titles = ["what", "images", "seconds", "peak MB", "of it growth", "in steps", "ms a step"]
    lines = [f"| {' | '.join(titles)} | ratio |", "|" + "---|" * (len(titles) + 1)]
    for (kind, size), turns in costs.items():
        pairs = zip(turns, costs[kind, smallest], strict=True)
        ratios = [turn.step / least.step for turn, least in pairs]
        is_timed = all(turn.step == turn.step for turn in turns)  # NaN where there are no steps
        steps = spread([1000 * turn.step for turn in turns], 1) if is_timed else ""
        by_steps = spread(ratios, 3) if is_timed else ""
        in_steps = f"{statistics.median(c.peak_in_steps for c in turns):.0f}" if is_timed else ""
        lines.append(
            f"| {kind} | {size:,} | {spread([c.seconds for c in turns], 2)} | "
            f"{statistics.median(c.peak for c in turns):.0f} | "
            f"{statistics.median(c.growth for c in turns):.0f} | "
            f"{in_steps} | {steps} | {by_steps} |"
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
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
