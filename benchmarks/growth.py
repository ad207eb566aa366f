"""What work costs as it grows: time and memory by the number of images.

Each number of images is measured in fresh processes, whose imports aren't timed. Images are links
to a few files; features are those of a few drawn images, again and again. A table in Markdown is
printed; --figure draws it.
"""

import argparse
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

from benchmarks.measure import CPU, ROOT, build_parser, machine, marks_of, run_command, spread
from benchmarks.steps import SIDE, build_moco, take_steps
from utils.script import run_script

# What else a measured process needs is imported there: memory is that of a user's process only
# where no library is loaded that theirs doesn't load.

DRAWN, FOLDER_SIZE, SHARD_SIZE = 40, 1000, 10_000  # files; images of a folder and of a shard
KINDS = {
    "images": ["folder", "list", "shards"],
    "readouts": ["ridge", "published"],
    "predict": ["predict.py"],
}
TITLES = ("what", "images", "seconds", "peak MB", "of it growth", "in steps", "ms a step", "ratio")
Costs = dict[tuple[str, int], list[dict[str, float]]]  # of turns, by kind and number of images


def main() -> None:
    """Measure what was asked for."""
    kinds = [kind for kinds in KINDS.values() for kind in kinds]
    how = {"rounds": 3, "model": "resnet18", "batch_size": 16, "sizes": [1000, 10_000], "steps": 20}
    files = dict.fromkeys(("data_folder", "work", "figure"))
    parser = build_parser(__doc__, what=tuple(KINDS), kinds=kinds, **how, **files)
    args = parser.parse_args()
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    costs: Costs = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for _ in range(args.rounds):
            for kind in [kind for kind in KINDS[args.what] if kind in args.kinds]:
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
        given = (fit, kind, str(draw_faces(work, "celeba")), size, args.model)
    else:
        images = place_images(kind, size, work, args.data_folder)
        given = (pretrain, images, args.model, args.batch_size, args.steps)
        if args.what == "predict":
            given = (predict, *images, fit_points(work, args.model), work / "found.csv")
    (begun, before), (ready, peak), *steps = marks_of(*given)
    costs = {"peak MB": peak, "of it growth": peak - before}
    costs["seconds"] = (steps[0][0] if steps else ready) - begun
    if times := [after - before for (before, _), (after, _) in pairwise(steps)]:
        costs |= {"in steps": steps[-1][1], "ms a step": 1000 * median(times)}
    return costs


# ---- what is measured in fresh processes ----


def pretrain(images: list[str], model: str, batch: int, steps: int) -> Iterator[None]:
    """Start `train_moco.py`: mark when its images are known, its first step's end, and more."""
    from data_loader.loaders import set_epoch
    from engine.pretraining.images import ImageSettings, build_unlabelled_loader, open_images
    from train_moco import build_parser

    yield
    flags = f"--dataset Folder --image_size {SIDE} --batch_size {batch} --num_workers 0".split()
    flags += ["--model_path", ".", "--model_name", "none", "--data_folder", *images]
    settings = ImageSettings.from_options(build_parser().parse_args(flags))
    loader = build_unlabelled_loader(settings, open_images(settings), False, CPU)
    set_epoch(loader, 1)
    yield
    objective = build_moco(model)
    for batch_of in islice(loader, steps + 1):
        take_steps(objective, [batch_of])()
        yield


def fit(kind: str, root: str, count: int, model: str) -> Iterator[None]:
    """Fit a ridge readout, or the published regressor for an epoch, on features in memory."""
    from benchmarks.regressor import Setting
    from engine.readouts.ridge_fit import assign_folds, fit_ridge
    from models.ridge import RidgeReadout
    from utils.log import RunLog

    setting = Setting("MAFLAligned", root, model, 32, count)
    images = setting.encoded()
    yield
    if kind == "ridge":
        fit_ridge(RidgeReadout(*setting.shape), images, assign_folds(images, count), RunLog())
    else:
        setting.train(images, 1)
    yield


def predict(images: str, checkpoint: Path, out: Path) -> Iterator[None]:
    """Run `predict.py` on a folder."""
    import predict

    yield
    flags = f"--ckpt_path {checkpoint} --out {out} --num_workers 0 --overwrite --images".split()
    sys.argv = ["predict.py", *flags, images]
    predict.main()
    yield
    assert len(out.read_text().splitlines()) > 1


# ---- files, each made once ----


def draw_faces(work: Path, layout: str) -> Path:
    """Return the folder of a few drawn images in one of the layouts of `datasets.synthetic`."""
    from datasets.synthetic import generate

    out = work / "drawn"
    return generate(out, images=DRAWN, mafl_train=DRAWN, mafl_test=2, layouts=[layout])[0]


def place_images(kind: str, count: int, work: Path, data_folder: str | None) -> list[str]:
    """Return a folder or an index of so many links to a few images, and flags beside it."""
    from data_loader.readers.image_names import find_images

    folder, shards, listed = (work / f"{name}-{count}" for name in ("images", "shards", "list"))
    names = [f"{n // FOLDER_SIZE:04d}/{n:07d}.jpg" for n in range(count)]
    if not folder.exists():
        root = Path(data_folder) if data_folder else draw_faces(work, "folder")
        sources = cycle([(root / name).resolve() for name in islice(find_images(root)[0], DRAWN)])
        for name, source in zip(names, sources, strict=False):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, path)
            except OSError:  # another disk, or no more links to that file
                path.symlink_to(source)
    if kind == "list":
        listed.write_text("\n".join(names))
        return [str(folder), "--imagelist", str(listed)]
    if kind != "shards":
        return [str(folder)]
    if not shards.exists():
        shards.mkdir()
        entries = []
        for first in range(0, count, SHARD_SIZE):
            some = names[first : first + SHARD_SIZE]
            entries.append({"url": f"{first:07d}.tar", "nsamples": len(some)})
            with tarfile.open(shards / f"{first:07d}.tar", "w", dereference=True) as tar:
                for name in some:  # links are files there
                    tar.add(folder / name, Path(name).name)
        index = {"wids_version": 1, "shardlist": entries}
        (shards / "index.json").write_text(json.dumps(index))
    return [str(shards / "index.json")]


def fit_points(work: Path, model: str) -> Path:
    """Return a ridge readout's checkpoint, of the drawn images."""
    checkpoint = work / "run" / f"{model}.pth"
    if not checkpoint.exists():
        root = draw_faces(work, "folder")
        options = f"""--dataset Keypoints --data_folder {root} --annotations {root}/points.csv
            --random_network --regressor ridge --model {model} --image_size {SIDE} --layer 4
            --use_hypercol --num_workers 0 --model_path . --model_name run --log_path log"""
        run_command([ROOT / "eval_animal.py", *options.split()], work)
    return checkpoint


# ---- what is shown ----


def table(costs: Costs, smallest: int) -> list[str]:
    """Return the lines of a table; steps are compared with those at the smallest size."""
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    for (kind, size), turns in costs.items():
        of = {title: [turn[title] for turn in turns] for title in turns[0]}
        cells = [kind, f"{size:,}", spread(of["seconds"], 2)]
        cells += [f"{median(of[title]):.0f}" for title in ("peak MB", "of it growth")]
        if "ms a step" in of:
            least = [turn["ms a step"] for turn in costs[kind, smallest]]
            ratios = [step / base for step, base in zip(of["ms a step"], least, strict=True)]
            cells.append(f"{median(of['in steps']):.0f}")
            cells += [spread(of["ms a step"], 1), spread(ratios, 3)]
        lines.append(f"| {' | '.join(cells + [''] * (len(TITLES) - len(cells)))} |")
    return lines


def draw(costs: Costs, path: str) -> None:
    """Draw seconds and memory by the number of images into a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    by_time, by_memory = figure.subplots(1, 2)
    for kind in dict.fromkeys(kind for kind, _ in costs):
        turns = {size: turns for (other, size), turns in costs.items() if other == kind}
        for axes, name in ((by_time, "seconds"), (by_memory, "of it growth")):
            medians = [median(turn[name] for turn in of_size) for of_size in turns.values()]
            axes.plot(list(turns), medians, marker="o", label=kind)
    by_time.set(xscale="log", xlabel="images", yscale="log", ylabel="seconds")
    by_memory.set(xscale="log", xlabel="images", ylabel="MB beside the libraries", ylim=(0, None))
    by_time.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_script(main)
