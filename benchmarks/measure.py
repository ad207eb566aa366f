"""The harness of the benchmarks: options, images, times in turns, fresh processes, scripts.

Times of a shared machine drift; ratios of runs that take turns in one process drift much less.
Letters: B images, S the side of a square.
"""

import contextlib
import io
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

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
Mark = tuple[float, float]  # a process's clock in seconds, its highest memory so far in MB
# All flags of the benchmarks: type or choices, and help. Each benchmark says its own defaults.
FLAGS: dict[str, tuple[Any, str]] = {
    "--data_folder": (str, "a CelebA layout, or that of --dataset where there is one"),
    "--dataset": (str, "what the photographs are"),
    "--what": (str, "what is measured"),
    "--ways": (str, "those that are compared with the literal one"),
    "--rounds": (positive_int, "turns of each way"),
    "--model": (list(RESNETS), "the encoder"),
    "--images": (positive_int, "images a turn"),
    "--batch_size": (positive_int, "images a step"),
    "--device": (["auto", "cpu", "cuda"], "where it is computed"),
    "--sizes": (positive_int, "numbers of images, or of rows"),
    "--num_workers": (natural, "reader processes, of each way in turns"),
    "--threads": (positive_int, "of the model, of each way in turns"),
    "--steps": (positive_int, "steps of pre-training"),
    "--kinds": (str, "of --what"),
    "--work": (Path, "folder for the links, on the disk of --data_folder"),
    "--figure": (str, "draw the figures into this file"),
    "--precisions": (str, "of the steps, as of --amp"),
    "--compile": (bool, "compile the encoders"),
    "--recompute": (bool, "compute most maps again in the backward pass"),
    "--any_kernels": (bool, "of cuDNN, not the deterministic ones alone, as in the scripts"),
    "--wings": (Path, "dlib: folder that holds images and landmarks.csv"),
    "--out": (Path, "folder of the results"),
    "--annotations": (Path, "points of the images in --data_folder"),
    "--networks": (
        str.strip,
        "as --model, with =FILE to name ImageNet's weights",
    ),
    "--starts": (str, "what they start from"),
    "--annotated": (positive_int, "numbers of images"),
    "--seeds": (natural, "of the orders of images"),
    "--held_back": (positive_int, "images that are never in the test"),
    "--dense": (str, "further flags of train_dense.py"),
    "--flags": (str, "further flags of eval_animal.py"),
    "--short": (bool, "each part for a moment"),
}


def build_parser(description: str, **defaults: Any) -> ArgumentParser:
    """Return a parser of some of `FLAGS` with defaults.

    A flag whose default is ``...`` must be given; one with a list takes several values, of words
    some of these; one with a tuple takes one of its words, the first by default.
    """
    parser = ArgumentParser(description, open_folder="out")
    for name, default in defaults.items():
        kind, about = FLAGS[f"--{name}"]
        how: dict[str, Any] = {"choices": kind} if isinstance(kind, list) else {"type": kind}
        if kind is bool:
            how = {"action": "store_true"}
        elif isinstance(default, list):
            how |= {"nargs": "+", "choices": default if kind is str else None}
        elif isinstance(default, tuple):
            how["choices"], default = default, default[0]
        required = default is ...
        parser.add_argument(f"--{name}", default=default, required=required, help=about, **how)
    return parser


# ---- images ----


def images_of(root: str, count: int) -> CelebAPrunedAligned_MAFLVal:
    """Return the first images of a CelebA layout."""
    dataset = CelebAPrunedAligned_MAFLVal(root, imwidth=SIZE, crop=CROP)
    dataset.select(range(min(count, len(dataset))))
    return dataset


def decoded(root: str, count: int) -> tuple[LandmarkDataset, list[Image.Image], Tensor]:
    """Return images of a CelebA layout, their squares, and these as a batch (B, 3, S, S), uint8.

    There are as many squares as asked for, from the first one again where images are fewer.
    """
    dataset = images_of(root, count)
    squares = [dataset.base_item(number % len(dataset))[0] for number in range(count)]
    return dataset, squares, torch.stack([channels(square) for square in squares])


def batch_views(dataset: LandmarkDataset) -> BatchViews:
    """Return what makes the random views of whole batches that the scripts make."""
    frame = (dataset.imwidth, dataset.crop)
    return BatchViews(*frame, SMALLEST_SCALE, dataset.mean, dataset.std)


# ---- times ----


def compare(
    title: str,
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    unit: str = "s",
    count: int = 0,
) -> None:
    """Time ways to do the same, one turn of every way a round, and print medians and extremes.

    The first turns, which make tables and choose kernels, aren't counted.

    Args:
        title: what is done.
        ways: name to what is timed, the published way first; its ratio to each other is printed.
        rounds: turns of each.
        unit: what is printed, seconds or, with ``count``, things a second.
        count: things done in a turn.
    """
    turns = [[seconds_of(way) for way in ways.values()] for _ in range(1 + rounds)]
    published, *_ = seconds = list(zip(*turns[1:], strict=True))
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
    low, high = min(figures), max(figures)
    return f"{median(figures):{width}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def machine() -> str:
    """Return the machine in words: processor, threads, GPU, PyTorch."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", info.read_text(), re.M) if info.exists() else []
    name = (names or [platform.processor() or platform.machine()])[0]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}, PyTorch {torch.__version__}"


# ---- fresh processes, and scripts ----


def marks_of(function: Callable[..., Iterable[None]], *arguments: object) -> list[Mark]:
    """Return the moments that a function of a module marks, at which it yields.

    It is called in a fresh process, and what it prints is dropped.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(take_marks, function, arguments).result()


def take_marks(function: Callable[..., Iterable[None]], arguments: Sequence[object]) -> list[Mark]:
    """Call a function here, and return its moments."""
    with contextlib.redirect_stdout(io.StringIO()):
        return [(time.perf_counter(), highest_memory()) for _ in function(*arguments)]


def memory_of(function: Callable[..., Iterable[None]], *arguments: object) -> tuple[float, float]:
    """Return a fresh process's highest memory, and by how much it grew between two marks, in MB."""
    (_, before), (_, after) = marks_of(function, *arguments)
    return after, after - before


def highest_memory() -> float:
    """Return this process's highest resident memory, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage's peak would include the parent's memory, which a new process starts with.
        return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def run_command(words: Sequence[object], folder: Path, may_fail: bool = False) -> tuple[str, float]:
    """Run Python as a user would, in a folder; return what it prints, and its seconds.

    ``words`` are a script and its flags. Unless it may fail, this process ends when it does.
    """
    command = [sys.executable, *map(str, words)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout, time.perf_counter() - start
