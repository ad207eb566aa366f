"""What `benchmarks.growth` measures of pre-training, with no imports beside `train_moco.py`'s.

Memory is that of a user's process only where no library is loaded that theirs doesn't load.
"""

import statistics
import time
from itertools import islice, pairwise

import torch

from benchmarks.measure import Cost, highest_memory
from benchmarks.moco_state import SIDE, build_moco, take_steps
from data_loader.loaders import set_epoch
from engine.pretraining.images import ImageSettings, build_unlabelled_loader, open_images
from train_moco import build_parser

CPU = torch.device("cpu")


def cost_of_pretraining(
    root: str, imagelist: str | None, model: str, batch_size: int, steps: int
) -> Cost:
    """Return the cost until the first step of `train_moco.py` is done, and of those after it."""
    before, begun = highest_memory(), time.perf_counter()
    flags = ["--dataset", "Folder", "--data_folder", root, "--image_size", str(SIDE)]
    flags += ["--batch_size", str(batch_size), "--num_workers", "0"]
    flags += ["--imagelist", imagelist] if imagelist else []
    args = build_parser().parse_args([*flags, "--model_path", ".", "--model_name", "none"])
    settings = ImageSettings.from_options(args)
    dataset = open_images(settings)
    loader = build_unlabelled_loader(settings, dataset, sees_squares=False, device=CPU)
    set_epoch(loader, 1)
    opened = highest_memory()
    objective = build_moco(model, CPU)
    ends: list[float] = []
    for images in islice(loader, steps + 1):
        take_steps(objective, [images], CPU, "off")
        ends.append(time.perf_counter())
    times = [b - a for a, b in pairwise(ends)] or [float("nan")]
    step = statistics.median(times)
    return Cost(ends[0] - begun, opened, opened - before, step, highest_memory())
