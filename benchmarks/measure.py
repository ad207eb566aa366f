"""The harness of the benchmarks: options, images, times in turns, fresh processes, scripts.

Times of a shared machine drift; ratios of runs that take turns in one process drift much less.
Letters: B images, S the side of a square.
"""

import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.views.batch_views import BatchViews
from data_loader.views.random_view import channels
from models.encoders import RESNETS
from utils.arguments import ArgumentParser, natural, positive_int

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
SIZE, CROP, SMALLEST_SCALE = 136, 20, 0.2  # S, pixels cut off each side, of the published views
# What several benchmarks take; each says its own defaults.
FLAGS: dict[str, dict[str, Any]] = {
    "--data_folder": {"help": "a CelebA layout", "metavar": "DIR"},
    "--rounds": {"type": positive_int, "help": "turns of each way"},
    "--model": {"choices": list(RESNETS), "help": "the encoder"},
    "--images": {"type": positive_int, "help": "images a turn"},
    "--batch_size": {"type": positive_int, "help": "images a step"},
    "--device": {"choices": ["auto", "cpu", "cuda"], "help": "where it is computed"},
    "--sizes": {"type": positive_int, "nargs": "+", "help": "numbers of images, or of rows"},
    "--image_size": {"type": positive_int, "help": "side of the square that an image becomes"},
    "--image_crop": {"type": natural, "help": "pixels cut off each side of it"},
}


def build_parser(description: str, **defaults: Any) -> ArgumentParser:
    """Return a parser of some of `FLAGS` with defaults; whoever's is ``...`` must be given."""
    parser = ArgumentParser(description)
    for name, default in defaults.items():
        flag = f"--{name}"
        parser.add_argument(flag, default=default, required=default is ..., **FLAGS[flag])
    return parser


# ---- images ----


def images_of(root: str, count: int, size: int, crop: int) -> CelebAPrunedAligned_MAFLVal:
    """Return the first images of a CelebA layout."""
    dataset = CelebAPrunedAligned_MAFLVal(root, imwidth=size, crop=crop)
    dataset.select(range(min(count, len(dataset))))
    return dataset


def decoded(
    root: str, count: int, size: int, crop: int
) -> tuple[LandmarkDataset, list[Image.Image], Tensor]:
    """Return images of a CelebA layout, their squares, and these as a batch (B, 3, S, S), uint8.

    There are as many squares as asked for, from the first one again where images are fewer.
    """
    dataset = images_of(root, count, size, crop)
    squares = [dataset.base_item(number % len(dataset))[0] for number in range(count)]
    return dataset, squares, torch.stack([channels(square) for square in squares])


def batch_views(dataset: LandmarkDataset) -> BatchViews:
    """Return what makes the random views of whole batches that the scripts make."""
    scale, frame = SMALLEST_SCALE, (dataset.imwidth, dataset.crop)
    return BatchViews(*frame, scale, dataset.mean, dataset.std)


# ---- times ----


def compare(
    title: str,
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    unit: str = "s",
    count: int = 0,
    warm_up: int = 1,
) -> None:
    """Time ways to do the same, one turn of every way a round, and print medians and extremes.

    Args:
        title: what is done.
        ways: name to what is timed, the published way first; its ratio to each other is printed.
        rounds: turns of each.
        unit: what is printed, seconds or, with ``count``, things a second.
        count: things done in a turn.
        warm_up: turns before these that aren't counted.
    """
    turns = [[seconds_of(way) for way in ways.values()] for _ in range(warm_up + rounds)]
    published, *_ = seconds = list(zip(*turns[warm_up:], strict=True))
    print(f"{machine()}\n{title}, {rounds} turns")
    for name, times in zip(ways, seconds, strict=True):
        figures = [count / t if count else t for t in times]
        # Turn by turn, so that a slow minute of the machine counts on both sides.
        ratios = [a / b for a, b in zip(published, times, strict=True)]
        ratio = "" if times is published else f", ratio {spread(ratios, 2)}"
        print(f"  {name:<24} {spread(figures, 3, width=10)} {unit}{ratio}")


def seconds_of(way: Callable[[], object]) -> float:
    """Return how long something takes, until the GPU is done with it, if there is one."""
    finish = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    finish()
    start = time.perf_counter()
    way()
    finish()
    return time.perf_counter() - start


def spread(figures: Sequence[float], digits: int, width: int = 0) -> str:
    """Return the median of figures, padded to a width, and their extremes."""
    median, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{median:{width}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


# ---- fresh processes, and scripts ----


class Mark(NamedTuple):
    """A moment of a process: its clock in seconds, and its highest memory so far in MB."""

    seconds: float
    memory: float


def marks_of(function: str, *arguments: object) -> list[Mark]:
    """Return the moments that a function marks in a fresh process.

    The process imports the function's module alone: multiprocessing's import the main script as
    well, whose libraries take memory.

    Args:
        function: its module and name, such as ``benchmarks.steps:step_memory``; it yields at each
            moment.
        arguments: of those that JSON has.
    """
    code = "from benchmarks.measure import print_marks; print_marks()"
    command = [sys.executable, "-c", code, function, json.dumps(arguments)]
    paths = os.pathsep.join(map(os.path.abspath, [str(ROOT), *sys.path]))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [Mark(*mark) for mark in json.loads(done.stdout.splitlines()[-1])]


def print_marks() -> None:
    """Call the function that the command line names, and print the moments at which it yields."""
    (module, name), arguments = sys.argv[1].split(":"), json.loads(sys.argv[2])
    function = getattr(importlib.import_module(module), name)
    print(json.dumps([(time.perf_counter(), highest_memory()) for _ in function(*arguments)]))


def highest_memory() -> float:
    """Return this process's highest resident memory, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage's peak would include the parent's memory, which a new process starts with.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def run_command(
    script: str, options: Sequence[object], folder: Path, launcher: Sequence[str] = ()
) -> tuple[str, float]:
    """Run a script as a user would, in a folder; return what it prints, and its seconds."""
    command = [sys.executable, *launcher, str(ROOT / script), *map(str, options)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout, time.perf_counter() - start


# ---- words ----


def largest_difference(ours: Tensor, literal: Tensor) -> str:
    """Return the largest difference of two results in words, absolute and relative."""
    difference = (ours.double() - literal.double()).abs().max().item()
    return f"{difference:.2e} (of values up to {literal.abs().max().item():.2e})"


def machine() -> str:
    """Return the machine in words: processor, threads, GPU, PyTorch."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}, PyTorch {torch.__version__}"
