"""A run's beginning: its device, its folder, and the record of what was asked."""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from utils.arguments import allow_change, integer, natural, positive_int
from utils.errors import InputError
from utils.files import write_text
from utils.process_group import local_rank, world_size

T = TypeVar("T", bound="Settings")


# Flags that several scripts have.
SHARED: dict[str, dict[str, Any]] = {
    "device": {
        "choices": ["auto", "cpu", "cuda"],
        "default": "auto",
        "help": "auto takes all visible GPUs (under torchrun each process its own), or the CPU "
        "where there is none",
    },
    "gpu": {"type": natural, "metavar": "N", "help": "use this one of the visible GPUs only"},
    "overwrite": {
        "action": "store_true",
        "help": "start afresh where an earlier run left checkpoints or results, and replace them",
    },
    "log_path": {
        "type": Path,
        "default": Path("log_tmp"),
        "metavar": "FILE",
        "help": "file that receives every printed line too; appended to",
    },
}


def add_shared_arguments(group: argparse._ActionsContainer, *names: str) -> None:
    """Declare some of the flags `SHARED`, none of which changes a result."""
    for name in names:
        group.add_argument(f"--{name}", **SHARED[name])
    allow_change(*names)


def add_device_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare where to compute and from which seed; return the group."""
    group = parser.add_argument_group("machine")
    add_shared_arguments(group, "device", "gpu")
    group.add_argument(
        "--seed",
        type=integer(0, 2**64 - 1),
        default=0,
        help="seed of all random numbers: same seed, same device, same results",
    )
    return group


def add_output_arguments(
    parser: argparse.ArgumentParser, *, save_freq: int
) -> argparse._ArgumentGroup:
    """Declare where a training run writes and how often; return the group."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--model_path", type=Path, required=True, metavar="DIR", help="folder of all runs"
    )
    group.add_argument(
        "--model_name",
        required=True,
        help="this run's folder in --model_path: checkpoints, options.json, log.jsonl",
    )
    group.add_argument(
        "--save_freq",
        type=positive_int,
        default=save_freq,
        metavar="EPOCHS",
        help="save ckpt_epoch_{e}.pth, which stays, every so many epochs",
    )
    group.add_argument(
        "--print_freq",
        type=positive_int,
        default=10,
        metavar="STEPS",
        help="print a line every so many steps (where a progress bar can't be shown)",
    )
    group.add_argument(
        "--resume",
        default="",
        metavar="FILE",
        help="resume from this checkpoint, or, given auto, from the newest whole one of this run "
        "(from the beginning if there is none)",
    )
    group.add_argument(
        "--override",
        action="store_true",
        help="resume although options differ from the checkpoint's",
    )
    group.add_argument(
        "--keep_last",
        type=integer(1, 1000),
        default=2,
        metavar="N",
        help="versions of current.pth that stay: itself, previous_1.pth and so on",
    )
    add_shared_arguments(group, "overwrite")
    allow_change("model_path", "model_name", "save_freq", "print_freq")
    allow_change("resume", "override", "keep_last")
    allow_change("tb_freq")  # accepted and ignored
    return group


def choose_device(device: str, gpu: int | None) -> torch.device:
    """Return the first device to compute on; under torchrun the one of this process.

    Raises:
        InputError: if the wanted GPU isn't visible.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise InputError("--device cuda: no GPU is visible to PyTorch")
    if (place := local_rank()) is not None:
        if gpu is not None:
            raise InputError(f"--gpu {gpu}: torchrun gives each process a GPU of its own")
        if place >= count:
            raise InputError(
                f"{count} GPUs are visible, too few for --nproc_per_node of torchrun: each of its "
                "processes takes one"
            )
        return torch.device("cuda", place)
    if gpu is not None and gpu >= count:
        raise InputError(f"--gpu {gpu}: {count} GPUs are visible, counted from 0")
    return torch.device("cuda", gpu or 0)


def describe_device(device: torch.device, gpu: int | None) -> str:
    """Return what the run computes on, in words."""
    over = f" each of {world_size()} processes" if local_rank() is not None else ""
    if device.type == "cpu":
        asked = " (--gpu: no GPU is visible)" if gpu is not None else ""
        return f"CPU, {torch.get_num_threads()} threads{over}{asked}"
    count = 1 if gpu is not None or over else torch.cuda.device_count()
    return f"{count} x {torch.cuda.get_device_name(device)}{over}"


@dataclass(frozen=True)
class Settings:
    """What a part of a script reads: the flags of these names, see ``--help``."""

    options: argparse.Namespace  # all flags in plain types, as they are recorded

    @classmethod
    def from_options(cls: type[T], options: argparse.Namespace) -> T:
        """Return the settings that flags give."""
        names = (field.name for field in fields(cls) if field.name != "options")
        return cls(plain_options(options), **{name: getattr(options, name) for name in names})

    def with_options(self: T, **changes: Any) -> T:
        """Return settings with other values, which are recorded as if flags had given them."""
        return replace(self.recording(**changes), **changes)

    def recording(self: T, **changes: Any) -> T:
        """Return the same settings, recorded as if flags had given other values."""
        options = argparse.Namespace(**{**vars(self.options), **changes})
        return replace(self, options=plain_options(options))


@dataclass(frozen=True)
class RunSettings(Settings):
    """Where a training run writes, and from what it resumes."""

    model_path: Path
    model_name: str
    resume: str
    override: bool
    overwrite: bool
    keep_last: int

    @property
    def folder(self) -> Path:
        """Of the run: its checkpoints, options, log and result."""
        return self.model_path / self.model_name


def record_options(folder: Path, options: argparse.Namespace, derived: dict) -> None:
    """Write ``options.json``: options in plain types, further values, and what code ran."""
    record = {
        "command": sys.argv,
        "options": vars(options),
        "derived": derived,
        "torch": torch.__version__,
        "git": git_revision(),
    }
    write_text(folder / "options.json", json.dumps(record, indent=1) + "\n")


def find_held(run: RunSettings) -> list[Path]:
    """Return the checkpoints in a run's folder.

    Raises:
        InputError: if there are some, and neither resuming nor overwriting was asked.
    """
    held = sorted(run.folder.glob("*.pth"))
    if held and not (run.resume or run.overwrite):
        raise InputError(
            f"{run.folder}: holds checkpoints already ({held[0].name}): give --resume FILE to "
            "resume, --overwrite to start afresh, or another --model_name"
        )
    return held


def git_revision() -> str | None:
    """Return this code's commit, with ``+`` if files were changed since, or None."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def as_json(options: argparse.Namespace) -> dict[str, Any]:
    """Return options as they are in JSON, in which old and new ones compare."""
    return json.loads(json.dumps(vars(options), default=str, skipkeys=True))


def plain_options(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options as a Namespace of plain types, for a checkpoint's ``opt``."""
    return argparse.Namespace(
        **{name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    )
