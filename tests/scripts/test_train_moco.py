import argparse
import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_moco
from tests.scripts.running import FRAME, logged, refused, succeed
from utils.checkpoint import load_checkpoint, save_checkpoint

MOCO = [*FRAME, "--batch_size", "8", "--nce_k", "20", "--cosine", "--model_path", "runs"]


def train(faces, cwd, *arguments, start=succeed):
    return start("train_moco.py", *MOCO, "--data_folder", faces, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    """Three epochs without a break; the second one's checkpoint is kept."""
    cwd = tmp_path_factory.mktemp("moco")
    done = train(faces, cwd, "--epochs", 3, "--save_freq", 2, "--model_name", "whole")
    return cwd, done


def test_a_run_leaves_the_published_files(trained):
    cwd, _ = trained
    folder = cwd / "runs" / "whole"
    assert {p.name for p in folder.iterdir()} == {
        ".lock",
        "current.pth",
        "previous_1.pth",
        "ckpt_epoch_2.pth",
        "options.json",
        "log.jsonl",
    }
    keys = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")
    content = load_checkpoint(folder / "current.pth", keys)
    assert content["epoch"] == 3
    assert isinstance(content["opt"], argparse.Namespace) and content["opt"].nce_k == 20
    assert list(content["contrast"]) == ["params", "memory"]
    assert content["queue_index"] == 60 % 20
    assert json.loads((folder / "options.json").read_text())["options"]["batch_size"] == 8


def test_scalars_are_read_back_by_tensorboard(trained):
    cwd, done = trained
    events = EventAccumulator(str(cwd / "runs_tensorboard" / "whole")).Reload()
    assert set(events.Tags()["scalars"]) == {"ins_loss", "ins_prob", "learning_rate"}
    epochs = logged(cwd / "runs/whole")
    for name in ("ins_loss", "ins_prob", "learning_rate"):
        scalars = events.Scalars(name)
        assert [s.step for s in scalars] == [1, 2, 3]
        assert [s.value for s in scalars] == pytest.approx([e[name] for e in epochs], rel=1e-6)
    assert f"loss {epochs[-1]['ins_loss']:.4f}" in done.out
    # A half cosine over three epochs, of which the last one reaches 0.
    assert [e["learning_rate"] for e in epochs] == pytest.approx([0.0225, 0.0075, 0], abs=1e-9)


def test_the_learning_rate_falls_after_the_epochs_that_were_named(faces, tmp_path):
    small = [*FRAME, "--image_size", 32, "--image_crop", 0, "--batch_size", 10, "--nce_k", 20]
    given = [*small, "--data_folder", faces, "--model_path", "runs", "--model_name", "x"]
    decay = ["--epochs", 3, "--lr_decay_epochs", "1,2", "--lr_decay_rate", 0.5]
    succeed("train_moco.py", *given, *decay, cwd=tmp_path)
    assert [e["learning_rate"] for e in logged(tmp_path / "runs/x")] == [0.03, 0.015, 0.0075]
    current = load_checkpoint(tmp_path / "runs/x/current.pth", ("optimizer",))
    assert current["optimizer"]["param_groups"][0]["lr"] == 0.0075


def test_another_seed_gives_other_numbers(faces, trained):
    cwd, first = trained
    done = train(faces, cwd, "--epochs", 3, "--model_name", "seed1", "--seed", 1)
    lines = [
        [line for line in d.out.splitlines() if line.startswith("epoch 1/3")] for d in (done, first)
    ]
    assert lines[0][0].split("rate")[0] != lines[1][0].split("rate")[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data_folder", "nowhere"], "nowhere: no such folder"),
        (["--resume", "none.pth"], "none.pth: no such checkpoint"),
        (["--model", "resnet19"], "argument --model: invalid choice: 'resnet19'"),
        (["--image_crop", "1"], "leave 70 pixels: the embedding needs a multiple of 32"),
        (["--image_crop", "36"], "nothing left after cropping 36 px"),
        (["--device", "cuda"], "--device cuda: no GPU is visible"),
        (["--nce", "5"], "unrecognized arguments: --nce 5"),
        (["--model_name", "whole"], "runs/whole: holds checkpoints already"),
        (["--dataset", "InatAve", "--imagelist", "list.txt"], "list.txt: no such file"),
        (
            ["--learning_rate", "1e9", "--epochs", "2", "--model_name", "wild"],
            "the loss is nan after epoch 1",
        ),
    ],
)
def test_mistakes_get_one_line_and_leave_everything_alone(faces, trained, arguments, complaint):
    if arguments[0] == "--device" and torch.cuda.is_available():
        pytest.skip("a GPU is visible here")
    cwd, _ = trained
    before = {p: p.stat().st_mtime_ns for p in (cwd / "runs" / "whole").iterdir()}
    if "--model_name" not in arguments:
        arguments = [*arguments, "--model_name", "mistaken"]
    assert complaint in train(faces, cwd, "--epochs", "1", *arguments, start=refused)
    assert not list(cwd.glob("runs/mistaken/*.pth")) and not list(cwd.glob("runs/wild/*.pth"))
    assert {p: p.stat().st_mtime_ns for p in (cwd / "runs" / "whole").iterdir()} == before


def test_notices_name_flags_without_effect(faces, tmp_path):
    arguments = ["--epochs", 1, "--model_name", "x", "--nce_m", 0.4, "--num_workers", 500]
    done = train(faces, tmp_path, *arguments)
    assert "--nce_m has no effect" in done.out and "--beta1" not in done.out
    assert "--num_workers 500 capped" in done.out


def test_notices_name_negatives_that_are_none_and_shuffling_without_effect(faces, tmp_path):
    own_keys = "an image's own old keys are among its negatives"
    shuffling = "--virtual_gpus 1: ShuffleBN has no effect"
    common = ("--epochs", 1, "--device", "cpu")
    done = train(faces, tmp_path, *common, "--nce_k", 21, "--model_name", "x")
    assert f"warning: --nce_k 21 is more than the 20 images: {own_keys}" in done.out
    assert shuffling in done.out
    done = train(faces, tmp_path, *common, "--virtual_gpus", 2, "--model_name", "y")
    assert own_keys not in done.out and shuffling not in done.out


def test_a_batch_that_cannot_be_normalised_is_refused_at_the_start(faces, tmp_path):
    common = ("--image_size", 32, "--image_crop", 0, "--device", "cpu", "--epochs", 1)
    for options in (("--batch_size", 19), ("--batch_size", 4, "--virtual_gpus", 4)):
        done = train(faces, tmp_path, *common, *options, "--model_name", "x", start=refused)
        assert not (tmp_path / "runs").exists()
        assert f"error: --batch_size {options[1]} with 20 images: BatchNorm" in done
    train(faces, tmp_path, *common, "--batch_size", 18, "--model_name", "x")


def test_an_epoch_that_resumes_with_another_batch_size_cannot_end_in_a_single_image(
    faces, tmp_path
):
    common = ("--image_size", 32, "--image_crop", 0, "--device", "cpu", "--epochs", 1)
    train(faces, tmp_path, *common, "--batch_size", 6, "--model_name", "x")
    path = tmp_path / "runs" / "x" / "current.pth"
    content = load_checkpoint(path, ("progress",))
    # After the first step of 6, batches of 13 leave 13 + 1 of the 20 images; whole epochs, 13 + 7.
    content |= {"epoch": 0, "progress": {**content["progress"], "steps": 1, "images": 6}}
    save_checkpoint(path, content)
    again = (*common, "--model_name", "y", "--resume", path, "--override")
    done = train(faces, tmp_path, *again, "--batch_size", 13, start=refused)
    assert not (tmp_path / "runs" / "y").exists()
    assert "error: --batch_size 13 with 20 images, 6 of them taken: BatchNorm" in done
    train(faces, tmp_path, *again, "--batch_size", 12)


def test_the_smallest_view_is_as_small_as_was_asked(monkeypatch):
    asked = []

    class Images(train_moco.Pretraining):
        def __init__(self, settings):
            pass

        def open_images(self, **views):
            asked.append(views)
            raise InterruptedError  # the rest doesn't matter here

    monkeypatch.setattr(train_moco, "Pretraining", Images)
    flags = [*MOCO, "--data_folder", "x", "--model_name", "a", "--crop", "0.4"]
    monkeypatch.setattr("sys.argv", ["train_moco.py", *map(str, flags)])
    with pytest.raises(InterruptedError):
        train_moco.main()
    assert asked == [{"smallest_scale": 0.4}]
