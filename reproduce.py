r"""Reproduce the paper's tables and curves, and ours: run what is missing, compare, draw.

  python reproduce.py                       lists the experiments and what is finished of them
  python reproduce.py all --dry_run         prints their command lines
  python reproduce.py faces few_shot --models resnet50 \
    --checkpoint resnet50=Pretrained/ckpt_epoch_800.pth
  python reproduce.py encoders regressor finetune steps matching
                                            pre-trains encoders as well, and compares them
  python reproduce.py all --random_network --models resnet18 --scale 0.01 --num_per_epoch 10
                                            a smoke run of the paper's, without a checkpoint

Each run is an ordinary command line, in its own folder of --out. Start the same command again
after an interruption: finished runs stay, and an interrupted one resumes from its last checkpoint.
The results go to results.csv, results.md and an image for each curve.

[Cheng et al. 2020, Sec. 4; the options are those of the published README.]
"""

import argparse
import shlex
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import eval_animal
import eval_face
import eval_matching
import train_dense
import train_moco
from engine.reproduction.experiments import (
    EXPERIMENTS,
    FACE_NAMES,
    FEW_OR_ALL,
    MODELS,
    PAPER,
    PER_EPOCH,
)
from engine.reproduction.jobs import (
    FINISHED,
    OTHER,
    ROOT,
    STATES,
    Job,
    Settings,
    make_evaluation,
    read_last_line,
    run_jobs,
    with_pretrainings,
)
from engine.reproduction.tables import write_curves, write_tables
from engine.run.settings import add_shared_arguments
from utils.arguments import ArgumentParser, fraction, natural, positive_int
from utils.errors import InputError
from utils.files import writing
from utils.locks import acquire_lock, lock_descriptor
from utils.script import run_script

PARSERS = {
    f"{script.__name__}.py": script.build_parser
    for script in (eval_face, eval_animal, eval_matching, train_moco, train_dense)
}
SEEDS = 5  # [ours: enough to tell the spread between random choices of annotated images]


def build_parser() -> ArgumentParser:
    """Return the parser of this script's options."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "experiments",
        nargs="*",
        type=experiment_name,
        metavar="EXPERIMENT",
        help=f"{', '.join(EXPERIMENTS)}, or all of the paper, which are {', '.join(PAPER)}; "
        "without any they are listed",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the command lines; run and write nothing"
    )
    group = parser.add_argument_group("places")
    folder = partial(group.add_argument, type=Path, metavar="DIR")
    folder(
        "--out", default=Path("runs/reproduce"), help="folder of runs' folders, tables and curves"
    )
    folder(
        "--data",
        default=Path("datasets"),
        help="folder of all data sets, placed as in README.md or as celeba, aflw-mtfl, aflw, "
        "300w and cub",
    )
    for name, kind, example in (
        ("--checkpoint", "faces", "resnet50=Pretrained/ckpt_epoch_800.pth"),
        ("--bird_checkpoint", "birds", "resnet50=Pretrained/ckpt_epoch_800_resnet50_inat.pth"),
    ):
        text = f"encoder pre-trained on {kind}, such as {example}; one for each model"
        group.add_argument(
            name, type=model_file, action="append", default=[], metavar="MODEL=FILE", help=text
        )
    switch = partial(group.add_argument, action="store_true")
    switch("--random_network", help="untrained encoders in place of given ones, for a smoke run")
    switch("--overwrite", help="redo the runs that --out holds with other options, in place")
    group = parser.add_argument_group("machine")
    add_shared_arguments(group, "device")
    text = "processes that read images, in each run"
    group.add_argument("--num_workers", type=natural, default=8, metavar="N", help=text)
    add_choice_arguments(parser)
    return parser


def add_choice_arguments(parser: ArgumentParser) -> None:
    """Declare which part of the experiments to run, and at what scale."""
    group = parser.add_argument_group("choice and scale")
    choice = partial(group.add_argument, nargs="+")
    text = f"in place of those of the experiments: {', '.join(MODELS)}"
    choice("--models", choices=MODELS, metavar="MODEL", help=text)
    sets = [*FACE_NAMES, "CUB"]
    text = f"leave out the others of {', '.join(sets)}"
    choice("--datasets", choices=sets, metavar="DATASET", help=text)
    text = "leave out other numbers of annotated images, where there are several; all is one too"
    choice("--annotations", choices=FEW_OR_ALL.values(), metavar="N", help=text)
    text = f"multiplies the epochs, to at least 1, and the {SEEDS} seeds, to at least 2; "
    text += "the results are labelled as scaled"
    group.add_argument("--scale", type=fraction, default=1.0, help=text)
    number = partial(group.add_argument, type=positive_int, metavar="N")
    text = f"seeds of each few-shot run, 0 to N - 1; by default {SEEDS}, scaled"
    number("--seeds", help=text)
    text = "images an epoch of a few-shot run; other numbers count as scaled"
    number("--num_per_epoch", default=PER_EPOCH, help=text)


def experiment_name(text: str) -> str:
    """Parse an experiment's name, or all."""
    if text not in (*EXPERIMENTS, "all"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(EXPERIMENTS)}, all")
    return text


def model_file(text: str) -> tuple[str, str]:
    """Parse ``MODEL=FILE``."""
    model, _, path = text.partition("=")
    if model not in MODELS or not path:
        raise argparse.ArgumentTypeError(
            f"expected MODEL=FILE with a model of {', '.join(MODELS)}, got {text!r}"
        )
    return model, path


def main() -> None:
    """List the experiments, or run those that were named."""
    args = build_parser().parse_args()
    if args.random_network and (args.checkpoint or args.bird_checkpoint):
        raise InputError("--random_network excludes --checkpoint and --bird_checkpoint")
    settings = Settings(**{name: getattr(args, name) for name in Settings._fields})
    seeds = args.seeds or max(2, round(SEEDS * args.scale))
    evaluations = {
        name: [
            make_evaluation(run, settings)
            for run in experiment.runs(args.models, args.datasets, args.annotations, seeds)
        ]
        for name, experiment in EXPERIMENTS.items()
    }
    if not args.experiments:
        list_experiments({name: with_pretrainings(jobs) for name, jobs in evaluations.items()})
        return
    names = list(PAPER) if "all" in args.experiments else []
    names += [name for name in args.experiments if name != "all"]
    wanted = with_pretrainings([job for name in names for job in evaluations[name]])
    if not wanted:
        raise InputError(
            f"{' '.join(names)}: nothing to run with these --datasets and --annotations"
        )
    look(wanted, args.overwrite)
    if args.dry_run:
        print_commands(wanted)
        return
    for job in wanted:
        if job.state != FINISHED:
            job.check_inputs()
    waiting = f"{args.out}: waiting for another program, or a run it left behind"
    with writing(args.out):
        lock = acquire_lock(args.out / ".lock", waiting, partial(print, flush=True))
    with lock:
        # Looked at again: another reproduce.py may have worked there until now.
        look(wanted, args.overwrite)
        failed = run_jobs(wanted, args.out, lock_descriptor(lock))
        print(*write_tables(args.out), *write_curves(args.out), sep="\n")
    if failed:
        lines = [f"{len(failed)} of {len(wanted)} runs failed; the last line of each log:"]
        lines += [f"  {job.log_path}: {read_last_line(job.log_path)}" for job in failed]
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(1)


def list_experiments(jobs: dict[str, list[Job]]) -> None:
    """Print each experiment: name, title, and how many runs are in which state."""
    for name, experiment in EXPERIMENTS.items():
        look(jobs[name], overwrite=True)
        counts = Counter(job.state for job in jobs[name])
        states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        print(f"{name:<9} {experiment.title}: {len(jobs[name])} runs ({states or 'none'})")
    print("python reproduce.py EXPERIMENT ... runs them; --dry_run prints their command lines")


def look(jobs: list[Job], overwrite: bool) -> None:
    """Find out how far jobs got.

    Raises:
        InputError: if a folder holds a run with other options and may not be overwritten.
    """
    for job in jobs:
        job.look(PARSERS[job.script]())
    other = [job for job in jobs if job.state == OTHER]
    if other and not overwrite:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise InputError(
            f"{other[0].folder}{more}: holds a run with other options ({other[0].differences}): "
            "give --overwrite to redo it, or another --out"
        )


def print_commands(jobs: list[Job]) -> None:
    """Print the command lines of jobs; what is finished as a comment."""
    place = Path() if Path.cwd() == ROOT else ROOT
    published = dict.fromkeys(job.published for job in jobs if job.published and job.waits())
    lines = [("", command) for command in published]
    lines += [("# finished: " * (job.state == FINISHED), tuple(job.command())) for job in jobs]
    for comment, (script, *options) in lines:
        print(f"{comment}{shlex.join(['python', str(place / script), *options])}")


if __name__ == "__main__":
    # It ends the program as Ctrl-C does, so that the run under way is asked to end, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run_script(main)
