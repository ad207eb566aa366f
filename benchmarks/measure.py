"""Fair comparison of two ways to compute the same: interleaved times, peak memory, differences.

Times of a shared machine drift; ratios of runs that take turns in one process drift much less.
"""

import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds each way took, one turn of every way a round.

    Args:
        ways: name to what is timed.
        rounds: turns of each.
        warm_up: turns before these that aren't counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], unit: str = "s", count: int = 0) -> float:
    """Print each way's median and extremes, and the first one's ratio to the last; return that.

    Args:
        title: what was done.
        seconds: as from `interleaved`, the literal way first and ours last.
        unit: what is printed, seconds or, with ``count``, things a second.
        count: things done in a turn.
    """
    print(title)
    for name, times in seconds.items():
        figures = [count / t if count else t for t in times]
        print(
            f"  {name:<24} {statistics.median(figures):10.3f} {unit}  "
            f"({min(figures):.3f} to {max(figures):.3f}, {len(figures)} turns)"
        )
    first, last = list(seconds.values())[0], list(seconds.values())[-1]
    # Turn by turn, so that a slow minute of the machine counts on both sides.
    ratios = [a / b for a, b in zip(first, last, strict=True)]
    ratio = statistics.median(ratios)
    print(f"  ratio                    {ratio:10.2f}    ({min(ratios):.2f} to {max(ratios):.2f})")
    return ratio


class Peak(NamedTuple):
    """A process's highest resident memory, and by how much that grew while it worked, in MB."""

    total: float
    growth: float


def peak_memory(way: Callable[..., Iterator[None]], *arguments: object) -> Peak:
    """Return the memory of a fresh process that runs ``way(*arguments)``.

    ``way`` is a module's function, which yields once when it is set up and from where on growth
    counts.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, way, arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit("the measured process failed") from None
    finally:
        process.join()


def _measure(pipe: Connection, way: Callable[..., Iterator[None]], arguments: Sequence) -> None:
    steps = way(*arguments)
    next(steps)
    before = _highest()
    for _ in steps:
        pass
    pipe.send(Peak(_highest(), _highest() - before))


def _highest() -> float:
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
