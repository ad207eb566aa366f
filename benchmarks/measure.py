"""What the benchmarks share: options, images, interleaved times, peak memory, differences.

Times of a shared machine drift; ratios of runs that take turns in one process drift much less.
"""

import importlib
import os
import pickle
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from models.encoders import RESNETS
from utils.arguments import ArgumentParser, positive_int

T = TypeVar("T")

# Calls a module's function with pickled arguments, and pickles what it returns.
CALL = """
import importlib, pickle, sys
module, name, given, returned = sys.argv[1:]
function = getattr(importlib.import_module(module), name)
with open(given, "rb") as file:
    arguments = pickle.load(file)
result = function(*arguments)
with open(returned, "wb") as file:
    pickle.dump(result, file)
"""


def build_parser(description: str, rounds: int, root: str = "a CelebA layout") -> ArgumentParser:
    """Return a parser of what all benchmarks take: images, and how many turns."""
    parser = ArgumentParser(description)
    parser.add_argument("--data_folder", required=True, help=root)
    parser.add_argument("--rounds", type=positive_int, default=rounds, help="turns of each way")
    return parser


def add_model_arguments(parser: ArgumentParser, images: int, batch_size: int) -> None:
    """Declare what is trained, and on how many images."""
    parser.add_argument("--model", choices=list(RESNETS), default="resnet18")
    parser.add_argument("--images", type=positive_int, default=images, help="images an epoch")
    parser.add_argument("--batch_size", type=positive_int, default=batch_size)


def images_of(root: str, count: int, size: int, crop: int) -> CelebAPrunedAligned_MAFLVal:
    """Return the first images of a CelebA layout."""
    dataset = CelebAPrunedAligned_MAFLVal(root, imwidth=size, crop=crop)
    dataset.select(range(min(count, len(dataset))))
    return dataset


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
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            taken = seconds_of(way)
            if turn >= warm_up:
                seconds[name].append(taken)
    print(f"{machine()}\n{title}, {rounds} turns")
    published = next(iter(seconds.values()))
    for name, times in seconds.items():
        line = (
            f"  {name:<24} {spread([count / t if count else t for t in times], 3, width=10)} {unit}"
        )
        if times is not published:
            # Turn by turn, so that a slow minute of the machine counts on both sides.
            ratios = [a / b for a, b in zip(published, times, strict=True)]
            line += f", ratio {spread(ratios, 2)}"
        print(line)


def seconds_of(way: Callable[[], object]) -> float:
    """Return how long something takes, until the GPU is done with it, if there is one."""
    finish_on_gpu()
    start = time.perf_counter()
    way()
    finish_on_gpu()
    return time.perf_counter() - start


def finish_on_gpu() -> None:
    """Wait until the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(figures: Sequence[float], digits: int, width: int = 0) -> str:
    """Return the median of figures, padded to a width, and their extremes."""
    median, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{median:{width}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


class Peak(NamedTuple):
    """A process's highest resident memory, and by how much that grew while it worked, in MB."""

    total: float
    growth: float


class Cost(NamedTuple):
    """What some work took.

    Attributes:
        seconds: of it all; of pre-training until its first step is done.
        peak: the process's highest memory in MB; of pre-training before the first step.
        growth: how much of it is there since the imports.
        step: seconds, a median; of pre-training alone, as the next.
        peak_in_steps: the highest memory in MB after some steps.
    """

    seconds: float
    peak: float
    growth: float
    step: float = float("nan")
    peak_in_steps: float = float("nan")


def peak_memory(way: Callable[..., Iterator[None]], *arguments: object) -> Peak:
    """Return the memory of a fresh process that runs ``way(*arguments)``.

    ``way`` is a module's function, which yields once when it is set up and from where on growth
    counts.
    """
    return in_fresh_process(_measure, *address(way), arguments)


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Return what a module's function returns in a process that imports that module alone.

    multiprocessing's processes import the main script as well, whose libraries take memory.
    """
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        given, returned = Path(folder, "given"), Path(folder, "returned")
        given.write_bytes(pickle.dumps(arguments))
        command = [sys.executable, "-c", CALL, *address(function), str(given), str(returned)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths})
        if done.returncode:
            raise SystemExit("the measured process failed")
        return pickle.loads(returned.read_bytes())


def address(function: Callable) -> tuple[str, str]:
    """Return the module that another process finds a function in, and its name there.

    Of a script's own function that isn't ``__main__``, which pickle would note.
    """
    module = sys.modules[function.__module__]
    return module.__spec__.name if module.__spec__ else module.__name__, function.__name__


def _measure(module: str, name: str, arguments: Sequence) -> Peak:
    steps = getattr(importlib.import_module(module), name)(*arguments)
    next(steps)
    before = highest_memory()
    for _ in steps:
        pass
    return Peak(highest_memory(), highest_memory() - before)


def highest_memory() -> float:
    """Return this process's highest resident memory, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage's peak would include the parent's memory, which a new process starts with.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


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
