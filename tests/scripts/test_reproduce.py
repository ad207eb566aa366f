import csv
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reproduce
from datasets.synthetic import generate
from engine.reproduction import jobs
from engine.reproduction.experiments import EXPERIMENTS
from engine.run.settings import plain_options
from tests.engine.reproduction.records import finish
from tests.recipes import ROOT
from tests.scripts import running
from tests.scripts.running import refused, run_inside
from utils.checkpoint import save_checkpoint

SMOKE = ["--random_network", "--models", "resnet18", "--data", "data", "--scale", "0.01"]
SMOKE += ["--out", "out"]
OWN = ["--data", "data", "--seeds", "1", "--out", "out"]
FOLDER = "AFLW_MTFL-resnet18-hypercolumn4"


class FakeRuns:
    """Stands in for the scripts: leaves their files, at once.

    Attributes:
        started: the parsed options of each run.
        stop_at: number of the run that is killed after its first checkpoint.
        fail_at: number of the run that ends with an error.
    """

    def __init__(self):
        self.started, self.stop_at, self.fail_at = [], None, None

    def __call__(self, command, log_path, lock):
        assert command[0] == sys.executable
        script = Path(command[1]).name
        number = len(self.started) + 1
        if number == self.fail_at:
            self.started.append(None)
            log_path.parent.mkdir(parents=True, exist_ok=True)
            log_path.write_text("encoding\neval_face.py: error: a.jpg is cut off\n")
            return 2
        seed = int(command[command.index("--seed") + 1])
        args = finish(script, command[2:], 10.0 + seed, done=number != self.stop_at)
        self.started.append(args)
        if script == "eval_matching.py":
            return 0
        folder, names = args.model_path / args.model_name, ["ckpt_epoch_1.pth"]
        if script.startswith("train_") and number != self.stop_at:
            epochs = range(args.save_freq, args.epochs + 1, args.save_freq)
            names += [f"ckpt_epoch_{epoch}.pth" for epoch in epochs]
        if vars(args).get("regressor") == "finetune":
            names.append("resnet18.pth")
        for name in names:
            save_checkpoint(folder / name, {"opt": plain_options(args)})
        if number == self.stop_at:
            raise SystemExit(143)
        return 0


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Fake runs, in a folder with the (empty) folders of the data sets."""
    for name in ("celeba", "aflw-mtfl", "aflw", "300w", "cub/split"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("train.txt", "train_10.txt", "train_50.txt", "train_100.txt"):
        (tmp_path / "data/cub/split" / name).touch()
    fake = FakeRuns()
    monkeypatch.setattr(jobs, "run_logged", fake)
    return fake


def start(cwd, *arguments):
    return run_inside("reproduce.py", *arguments, cwd=cwd)


def succeed(cwd, *arguments):
    """Run it, and return what it prints, line by line."""
    return running.succeed("reproduce.py", *arguments, cwd=cwd).out.splitlines()


def commands(lines):
    """Return the parsed options of printed command lines by script, of the finished ones too."""
    found = {}
    for line in lines:
        python, script, *options = shlex.split(line.removeprefix("# finished: "))
        assert python == "python"
        name = Path(script).name
        found.setdefault(name, []).append(reproduce.PARSERS[name]().parse_args(options))
    return found


def test_the_commands_are_the_published_ones(runs, tmp_path):
    by_script = commands(succeed(tmp_path, "all", "--dry_run"))
    assert {script: len(found) for script, found in by_script.items()} == {
        "train_moco.py": 4,
        "eval_animal.py": 8,
        "eval_face.py": 8 + 60 + 10 - 1,
    }
    assert {
        (a.dataset, a.image_size, a.image_crop, a.epochs) for a in by_script["train_moco.py"]
    } == {*(("CelebA", 136, 20, 800), ("InatAve", 96, 0, 800))}
    for args in by_script["eval_face.py"]:
        few = args.restrict_annos > 0
        assert args.adam and args.cosine and args.batch_size == 32
        assert (args.image_size, args.image_crop) == (136, 20)
        assert (args.repeat, args.TPS_aug) == (few, few)
        fit = (0.01, 0.05, 1000) if few else (0.001, 0.0005, 200)
        assert (args.learning_rate, args.weight_decay, args.epochs) == fit
        assert args.epochs == 5 * args.save_freq
    for args in by_script["eval_animal.py"]:
        assert (args.image_size, args.image_crop, args.epochs) == (96, 0, 2000)
        assert args.imagelist.endswith(("train.txt", "_10.txt", "_50.txt", "_100.txt"))
    made = by_script["train_moco.py"][0]
    assert by_script["eval_face.py"][0].trained_model_path == str(
        made.model_path / made.model_name / "ckpt_epoch_800.pth"
    )
    assert not runs.started and {p.name for p in tmp_path.iterdir()} == {"data"}


def test_listing_writes_nothing_and_counts_what_is_finished(runs, tmp_path):
    listed = "\n".join(succeed(tmp_path))
    assert all(name in listed for name in EXPERIMENTS)
    assert {p.name for p in tmp_path.iterdir()} == {"data"}
    succeed(tmp_path, "faces", *SMOKE)
    listed = "\n".join(succeed(tmp_path, *SMOKE))
    assert "4 runs (4 finished)" in listed
    assert "10 runs (1 finished, 9 missing)" in listed  # shared with the layers
    assert "4 run with other options" in start(tmp_path, "--models", "resnet18", "--out", "out").out


def test_finished_runs_are_not_repeated(runs, tmp_path):
    few = ["few_shot", *SMOKE, "--annotations", "1", "10"]
    succeed(tmp_path, *few)
    assert [(a.restrict_annos, a.seed) for a in runs.started] == [(1, 0), (1, 1), (10, 0), (10, 1)]
    assert {(a.epochs, a.num_per_epoch) for a in runs.started} == {(10, 1000)}
    names = {p.name for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert {"results.csv", "results.md", "few_shot.png"} <= names
    assert "10.50 ± 0.71 (2)" in (tmp_path / "out/results.md").read_text()
    # One seed more: only that is run. A record without an option was at its default.
    path = tmp_path / "out" / f"{FOLDER}-1annos-seed0/options.json"
    record = json.loads(path.read_text())
    del record["options"]["regressor"]
    path.write_text(json.dumps(record))
    assert "\n".join(succeed(tmp_path, *few, "--seeds", "3")).count("finished before") == 4
    assert [(a.restrict_annos, a.seed) for a in runs.started[4:]] == [(1, 2), (10, 2)]
    succeed(tmp_path, "few_shot", *SMOKE, "--annotations", "5", "--num_per_epoch", "7")
    assert {a.num_per_epoch for a in runs.started[6:]} == {7}


def test_what_is_finished_needs_no_images_and_may_run_elsewhere(runs, tmp_path):
    arguments = ["faces", *SMOKE, "--datasets", "MAFLAligned"]
    succeed(tmp_path, *arguments)
    (tmp_path / "data/celeba").rmdir()
    again = succeed(tmp_path, *arguments, "--num_workers", "3", "--device", "cpu")
    assert "finished before" in again[0]


def test_an_interrupted_run_resumes(runs, tmp_path):
    runs.stop_at = 2
    assert start(tmp_path, "faces", *SMOKE).status == 143 and len(runs.started) == 2
    folder = tmp_path / "out" / FOLDER
    (folder / "options.json").write_text('{"options": {"data')  # cut off
    (folder / "result.json").write_text("{")
    assert "--resume auto" in succeed(tmp_path, "faces", *SMOKE, "--dry_run")[1]
    lines = succeed(tmp_path, "faces", *SMOKE)
    assert "finished before" in lines[0] and "resumed, InterOcularError" in lines[1]
    resumed, *others = runs.started[2:]
    assert resumed.resume == "auto" and not resumed.overwrite
    assert [a.dataset for a in others] == ["AFLW", "ThreeHundredW"]


def test_a_run_without_a_checkpoint_starts_afresh(runs, tmp_path):
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    (tmp_path / "out" / FOLDER / "log.jsonl").write_text("{}\n")
    succeed(tmp_path, "faces", *SMOKE, "--datasets", "AFLW_MTFL")
    assert [(a.overwrite, a.resume) for a in runs.started] == [(False, "")]


def test_other_options_are_refused_unless_they_may_overwrite(runs, tmp_path):
    arguments = ["faces", *SMOKE]
    succeed(tmp_path, *arguments)
    arguments[arguments.index("0.01")] = "0.02"
    for extra in ([], ["--dry_run"]):
        said = refused("reproduce.py", *arguments, *extra, cwd=tmp_path)
        assert "out/MAFLAligned-resnet18-hypercolumn4 and 3 more" in said
        assert "--epochs 2, wanted 4" in said
    assert len(runs.started) == 4
    succeed(tmp_path, *arguments, "--overwrite")
    assert [a.overwrite for a in runs.started[4:]] == [True] * 4


def test_a_result_of_other_options_is_gone_before_its_run_begins_anew(runs, tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    given = ["faces", "--models", "resnet18", "--data", "data", "--datasets", "AFLW"]
    succeed(tmp_path, *given, "--checkpoint", "resnet18=a.pth")
    runs.stop_at = 2
    again = [*given, "--checkpoint", "resnet18=b.pth", "--overwrite"]
    assert start(tmp_path, *again).status == 143
    succeed(tmp_path, *again)
    assert len(runs.started) == 3


def test_what_another_program_did_meanwhile_is_not_repeated(runs, tmp_path, monkeypatch):
    arguments = ["faces", *SMOKE, "--datasets", "MAFLAligned", "AFLW_MTFL"]
    acquire, runs.stop_at = reproduce.acquire_lock, 2

    def wait(*options):
        monkeypatch.setattr(reproduce, "acquire_lock", acquire)
        assert start(tmp_path, *arguments).status == 143  # the other program
        return acquire(*options)

    monkeypatch.setattr(reproduce, "acquire_lock", wait)
    first, second, *_ = succeed(tmp_path, *arguments)
    assert "finished before" in first and "resumed, " in second


def test_a_run_is_asked_to_end_and_waited_for(monkeypatch, tmp_path):
    """Whoever ends this program; pre-training saves what it has done, then."""
    monkeypatch.chdir(tmp_path)
    code = "import os, pathlib, signal, sys, time; saved = pathlib.Path('saved'); "
    code += "signal.signal(15, lambda *_: (time.sleep(0.3), saved.touch(), sys.exit())); "
    code += "os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    with (tmp_path / "lock").open("w") as lock, pytest.raises(KeyboardInterrupt):
        jobs.run_logged([sys.executable, "-c", code], tmp_path / "run/log.txt", lock.fileno())
    assert (tmp_path / "saved").exists()


def test_a_failing_run_is_named_and_the_others_go_on(runs, tmp_path):
    runs.fail_at = 2
    done = start(tmp_path, "faces", *SMOKE)
    assert done.status == 1 and len(runs.started) == 4
    assert f"failed with status 2, see out/{FOLDER}/log.txt" in done.out
    assert "1 of 4 runs failed" in done.err
    assert f"out/{FOLDER}/log.txt: eval_face.py: error: a.jpg is cut off" in done.err
    succeed(tmp_path, "faces", *SMOKE)
    assert [a.dataset for a in runs.started[4:]] == ["AFLW_MTFL"]


NAMES = "faces, few_shot, layers, cub, encoders, regressor, finetune, steps, matching, all"
GIVEN = ["--models", "resnet18", "--checkpoint", "resnet18=x.pth"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nope"], f"'nope' is none of {NAMES}"),
        (["faces", "--data", "nowhere"], "nowhere/celeba: no such folder"),
        (["faces", "--data", "data"], "pre-train it: python train_moco.py --batch_size 256"),
        (["cub", "--data", "data"], "give --bird_checkpoint resnet18=FILE"),
        (["faces", "--data", "data", "--models", "hourglass"], "--checkpoint hourglass=FILE"),
        (["faces", "--data", "data", *GIVEN], "--checkpoint resnet18=x.pth: no such file"),
        (["faces", "--checkpoint", "x.pth"], "expected MODEL=FILE"),
        (["faces", "--checkpoint", "resnet18=x", "--random_network"], "--random_network excludes"),
        (["few_shot", "--annotations", "7"], "'7' (choose from"),
        (["cub", "--annotations", "1", *SMOKE], "nothing to run"),
        (["faces", "--scale", "0"], "expected a number above 0"),
        (["steps", "--data", "nowhere"], "nowhere/celeba: no such folder, CelebA should be there"),
        (
            ["steps", "--data", "data", "--models", "hourglass"],
            "--models hourglass: can't be pre-trained, expected resnet50",
        ),
    ],
)
def test_mistakes_get_one_line_before_anything_is_written(runs, tmp_path, arguments, complaint):
    assert complaint in refused("reproduce.py", *arguments, cwd=tmp_path)
    assert not runs.started and {p.name for p in tmp_path.iterdir()} == {"data"}


def test_checkpoints_go_to_the_encoders_they_are_for(runs, tmp_path):
    (tmp_path / "face.pth").touch()
    (tmp_path / "bird.pth").touch()
    given = ["--checkpoint", "resnet18=face.pth", "--bird_checkpoint", "resnet18=bird.pth"]
    succeed(tmp_path, "faces", "cub", "--models", "resnet18", "--data", "data", *given)
    used = {(a.dataset == "CUB", a.trained_model_path) for a in runs.started}
    assert used == {(False, "face.pth"), (True, "bird.pth")}


def test_encoders_are_pretrained_before_they_are_compared(runs, tmp_path):
    succeed(tmp_path, "encoders", *OWN, "--annotations", "50", "all")
    moco, dense, *stages = runs.started[:4]
    evaluations = runs.started[4:]
    # The second stage follows a first one of its own; together they see what the others see.
    assert [(made.epochs, made.save_freq) for made in runs.started[:4]] == [
        *((10, 2), (10, 2), (8, 2), (2, 2))
    ]
    for made in runs.started[:4]:
        assert (made.image_size, made.image_crop) == (136, 20)
        assert (made.dataset, made.data_folder) == ("CelebA", "data/celeba")
    for made in (moco, stages[0]):
        assert (made.batch_size, made.nce_k, made.cosine) == (256, 4096, True)
    assert stages[1].freeze and stages[1].dimensions == 256
    first, second = (s.model_path / s.model_name / f"ckpt_epoch_{s.epochs}.pth" for s in stages)
    assert stages[1].init == str(first)
    assert {a.trained_model_path for a in evaluations if a.projection} == {str(second)}
    assert {a.projection for a in evaluations} == {None, str(second)}
    assert {args.regressor for args in evaluations} == {"ridge"}
    assert {(args.restrict_annos, args.random_network) for args in evaluations} == {
        (count, untrained) for count in (50, -1) for untrained in (True, False)
    }
    made = {str(p.model_path / p.model_name / "ckpt_epoch_10.pth") for p in (moco, dense)}
    assert {args.trained_model_path for args in evaluations} == {*made, str(second), None}
    # Those of the other readout need the same encoders, which are there.
    lines = succeed(tmp_path, "regressor", *OWN, "--annotations", "all")
    assert len(runs.started) == 4 + 8 + 4
    assert "[1/8] pretraining-moco-resnet18: finished before" in lines
    assert {args.regressor for args in runs.started[12:]} == {"published"}


def test_fine_tuning_keeps_what_draws_and_isnt_projected(runs, tmp_path):
    arguments = ["finetune", *OWN, "--annotations", "50", "--scale", "0.1"]
    succeed(tmp_path, *arguments)
    evaluations = runs.started[2:]
    assert [a.random_network for a in evaluations] == [True, False, False]
    assert {(a.regressor, a.finetune_steps, a.projection) for a in evaluations} == {
        ("finetune", 30, None)
    }
    for args in evaluations:
        files = {path.name for path in (tmp_path / args.model_path / args.model_name).iterdir()}
        assert files == {"resnet18.pth", "options.json", "result.json"}
    assert "SCALED: 10 % of the steps" in (tmp_path / "out/results.md").read_text()
    assert "\n".join(succeed(tmp_path, *arguments)).count("finished before") == 5


def test_matching_is_run_once_for_both_kinds_of_pairs(runs, tmp_path):
    out = "\n".join(succeed(tmp_path, "matching", *OWN))
    assert "MatchingDistance 10.00 px, 30.00 px in" in out
    evaluations = runs.started[4:]
    assert [(a.random_network, bool(a.projection)) for a in evaluations] == [
        *((True, False), (False, False), (False, False), (False, True))
    ]
    assert {a.pairs for a in evaluations} == {1000}
    # A run that was cut short before its result is begun again: it has no flag to overwrite.
    (tmp_path / evaluations[0].out / "matching.json").unlink()
    out = "\n".join(succeed(tmp_path, "matching", *OWN))
    assert out.count("finished before") == 7 and len(runs.started) == 9
    # Pre-trainings are held against what is wanted, too.
    other = refused("reproduce.py", "matching", *OWN, "--scale", "0.6", cwd=tmp_path)
    assert "pretraining-moco-resnet18 and 7 more" in other and "--epochs 10, wanted 5" in other


def test_steps_are_checkpoints_of_one_pretraining_each(runs, tmp_path):
    # Other numbers of annotations leave out none where there is no choice of them.
    succeed(tmp_path, "steps", *OWN, "--scale", "0.1", "--annotations", "1")
    pretrainings, evaluations = runs.started[:2], runs.started[2:]
    # At least an epoch for each fifth of a pre-training, however small the scale.
    assert [(args.epochs, args.save_freq) for args in pretrainings] == [(5, 1)] * 2
    assert [args.trained_model_path for args in evaluations] == [
        None,
        *(f"out/pretraining-moco-resnet18/ckpt_epoch_{epoch}.pth" for epoch in range(1, 6)),
        *(f"out/pretraining-dense-resnet18/ckpt_epoch_{epoch}.pth" for epoch in range(1, 6)),
    ]
    assert {(args.restrict_annos, args.epochs) for args in evaluations} == {(50, 1)}
    assert "SCALED: pre-trained for 5 of 10" in (tmp_path / "out/results.md").read_text()
    assert (tmp_path / "out/steps.png").is_file()


def test_an_interrupted_pretraining_is_resumed(runs, tmp_path):
    runs.stop_at = 2
    assert start(tmp_path, "steps", *OWN).status == 143
    lines = succeed(tmp_path, "steps", *OWN)
    assert "finished before" in lines[0] and "resumed, 10 epochs" in lines[1]
    assert runs.started[2].resume == "auto"
    # So is one whose record was damaged, which the runs read.
    folder = tmp_path / "out/pretraining-moco-resnet18"
    (folder / "options.json").write_text('{"options": {"data')
    lines = succeed(tmp_path, "steps", *OWN)
    assert "resumed, 10 epochs" in lines[0]
    assert "\n".join(lines).count("finished before") == 12
    assert (folder / "ckpt_epoch_10.pth").exists()


@pytest.mark.parametrize(
    ("fail_at", "absent"),
    [
        (1, ["pretraining-moco-resnet18"]),
        # A second stage waits for the first, and the run for the second.
        (3, ["pretraining-projected_moco-resnet18", "pretraining-projected-resnet18"]),
    ],
)
def test_what_waits_for_a_failed_pretraining_is_left_out(runs, tmp_path, fail_at, absent):
    runs.fail_at = fail_at
    done = start(tmp_path, "encoders", *OWN, "--annotations", "50")
    assert done.status == 1 and "1 of 8 runs failed" in done.err
    for folder in absent:
        assert done.out.count(f"left out: there is no out/{folder}/") == 1
    assert len(runs.started) == 8 - len(absent)


def test_a_killed_reproduction_finishes_after_a_restart(faces, tmp_path):
    arguments = ["faces", "--datasets", "MAFLAligned", "--models", "resnet18", "--random_network"]
    arguments += ["--data", str(faces.parent), "--scale", "0.1", "--num_workers", "0"]
    command = [sys.executable, str(ROOT / "reproduce.py"), *arguments]
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "runs/reproduce/MAFLAligned-resnet18-hypercolumn4"
    while not (folder / "ckpt_epoch_4.pth").exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGTERM)
    out, _ = killed.communicate()
    assert killed.returncode == 143 and "stopped" in out
    assert not (folder / "result.json").exists()

    lines = succeed(tmp_path, *arguments)
    # Not "waiting": the killed run's process ended with it.
    assert "resumed, " in lines[0]
    assert "epoch 20/20" in (folder / "log.txt").read_text()
    assert "SCALED: 10 % of the epochs" in (tmp_path / "runs/reproduce/results.md").read_text()
    assert "finished before" in succeed(tmp_path, *arguments)[0]


@pytest.mark.slow
def test_our_tables_come_out_of_real_runs(monkeypatch, tmp_path):
    """Everything that `docs/reproduction.md` names, on a few drawn faces, in this process."""
    generate(tmp_path / "data", images=16, mafl_train=50, mafl_test=8, workers=1)
    failures = []

    def run_here(command, log_path, lock):
        done = run_inside(Path(command[1]).name, *command[2:], cwd=tmp_path)
        failures.extend([done.err] if done.status else [])
        return done.status

    monkeypatch.setattr(jobs, "run_logged", run_here)
    names = ("encoders", "regressor", "finetune", "steps", "matching")
    part = ("--scale", "0.001", "--num_per_epoch", "50", "--seeds", "1", "--annotations")
    machine = ("--device", "cpu", "--num_workers", "0", "--data", "data", "--out", "out")
    done = start(tmp_path, *names, *part, "1", "all", *machine)
    assert done.status == 0, (failures, done.err)
    out = tmp_path / "out"
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    # Steps share a run with none of the others, which have 1 annotation or all.
    assert len(lines) == 4 * 2 + 4 * 2 + 3 * 2 + 11 + 4 * 2
    assert all(math.isfinite(float(line["headline"])) for line in lines)
    # Five epochs, or four and one, of 16 images.
    made = [line for line in lines if line["pretraining_pairs"] and "of5" not in line["run"]]
    assert {line["pretraining_pairs"] for line in made} == {"80"}
    assert {path.stem for path in out.glob("*.png")} == {*names} - {"matching"}
    text = (out / "results.md").read_text()
    for name in names:
        assert f"## {name}: " in text
    assert not list(out.glob("*-finetune-*/ckpt_*")) and list(out.glob("*-matching-*/matches.png"))
