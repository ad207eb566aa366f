"""What `benchmarks.growth` measures of pre-training, with no imports beside `train_moco.py`'s.

Memory is that of a user's process only where no library is loaded that theirs doesn't load.
"""

import contextlib
import statistics
import time
from itertools import pairwise
from typing import Any

import torch

from benchmarks.measure import Cost, highest_memory
from benchmarks.moco_state import ALPHA, SIDE, state_of
from data_loader.loaders import set_epoch
from engine.pretraining_images import Cutout, build_pair_loader, build_unlabelled_dataset
from engine.pretraining_state import Position
from train_moco import train_one_epoch
from utils.log import RunLog

CPU = torch.device("cpu")


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
        train_one_epoch(views, state.query, state, position, ALPHA, "off", 10**9, RunLog(), note)
    times = [b - a for a, b in pairwise(ends)] or [float("nan")]
    step = statistics.median(times)
    return Cost(ends[0] - begun, opened, opened - before, step, highest_memory())
