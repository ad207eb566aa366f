"""`train_dense.py` as a user starts it: files, resumption, what takes its checkpoints, mistakes."""

import argparse
import json

import pytest
import torch

import train_dense
from models.encoders import build_encoder
from tests.scripts.running import (
    FRAME,
    assert_same_tensors,
    assert_same_weights,
    logged,
    refused,
    succeed,
    tensors_of,
)
from utils.checkpoint import load_checkpoint, save_checkpoint

DENSE = [*FRAME, "--image_size", "40", "--batch_size", "8", "--places", "32"]  # 32 pixels
DENSE += ["--model_path", "runs", "--amp", "off"]  # which auto takes may differ by machine


def train(faces, cwd, *arguments, start=succeed):
    return start("train_dense.py", *DENSE, "--data_folder", faces, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    """Three epochs without a break; the second one's checkpoint is kept."""
    cwd = tmp_path_factory.mktemp("dense")
    done = train(faces, cwd, "--epochs", 3, "--save_freq", 2, "--model_name", "whole")
    return cwd, done


def end_of(cwd, name):
    return load_checkpoint(cwd / "runs" / name / "current.pth", train_dense.DenseContrast.entries)


def test_a_run_leaves_its_files_and_learns(trained):
    cwd, done = trained
    folder = cwd / "runs" / "whole"
    assert {p.name for p in folder.iterdir()} == {
        *(".lock", "current.pth", "previous_1.pth", "ckpt_epoch_2.pth"),
        *("options.json", "log.jsonl"),
    }
    content = end_of(cwd, "whole")
    assert content["epoch"] == 3 and set(content["head"]) == {"weight", "bias"}
    assert all(key.startswith("encoder.module.") for key in content["model"])
    epochs = logged(folder)
    losses = [epoch["dense_loss"] for epoch in epochs]
    assert losses[2] < losses[0] and epochs[2]["places_found"] > 1 / 64  # 8x8 cells
    # 9 steps within the warm-up of 50: the line times the cosine.
    rate = 0.016 * 9 / 50 * 0.5 * (1 + torch.tensor(8 * torch.pi / 9).cos())
    assert epochs[2]["learning_rate"] == pytest.approx(float(rate), rel=1e-5)
    assert f"loss {losses[2]:.4f}" in done.out


def test_a_resumed_run_ends_in_the_same_bits(faces, trained):
    cwd, _ = trained
    resume = ("--resume", "runs/whole/ckpt_epoch_2.pth", "--model_name", "resumed")
    train(faces, cwd, "--epochs", 3, *resume)
    ends = (tensors_of(cwd / f"runs/{name}/current.pth") for name in ("whole", "resumed"))
    assert_same_tensors(*ends)


def test_steps_may_end_within_an_epoch_and_set_the_schedule(faces, trained):
    """Of 3 an epoch 4 are taken; stopped after 3, the run goes on to the same bits."""
    cwd, _ = trained
    done = train(faces, cwd, "--steps", 4, "--model_name", "steps")
    assert "4 steps of 8 images" in done.out and "epoch 2/2" in done.out
    whole = end_of(cwd, "steps")
    assert whole["epoch"] == 1 and whole["progress"]["steps"] == 1
    rate = 0.016 * 4 / 50 * 0.5 * (1 + torch.tensor(3 * torch.pi / 4).cos())
    assert logged(cwd / "runs/steps")[1]["learning_rate"] == pytest.approx(float(rate), rel=1e-5)
    again = train(faces, cwd, "--steps", 4, "--model_name", "steps", "--resume", "auto")
    assert "0 steps of 8 images" in again.out
    first = cwd / "runs/steps/previous_1.pth"
    train(faces, cwd, "--steps", 4, "--model_name", "again", "--resume", first)
    ends = (tensors_of(cwd / f"runs/{name}/current.pth") for name in ("steps", "again"))
    assert_same_tensors(*ends)


@pytest.mark.parametrize("chosen", ["bf16", "off"])
def test_a_resumed_run_stays_with_the_precision_that_was_timed(
    faces, tmp_path, monkeypatch, chosen
):
    seconds = {"bf16": (1.2, 1.0), "off": (1.19, 1.0)}[chosen]
    monkeypatch.setattr("engine.run.acceleration.time_precisions", lambda device: seconds)
    auto, name = ("--epochs", 2, "--save_freq", 1, "--amp", "auto", "--model_name"), "whole"
    done = train(faces, tmp_path, *auto, name)
    assert done.out.count("--amp auto: ") == 1 and f"--amp auto: {chosen}; some" in done.out
    record = json.loads((tmp_path / "runs/whole/options.json").read_text())
    assert record["options"]["amp"] == "auto" and record["derived"]["amp"] == chosen

    def fail(device):
        raise AssertionError("timed again")

    monkeypatch.setattr("engine.run.acceleration.time_precisions", fail)
    for amp in ("auto", chosen):
        resume = ("--resume", "runs/whole/ckpt_epoch_1.pth", "--amp", amp)
        done = train(faces, tmp_path, *auto, f"from_{amp}", *resume)
        assert (f"--amp auto: {chosen}, in which the run began" in done.out) == (amp == "auto")
        ends = [end_of(tmp_path, name) for name in ("whole", f"from_{amp}")]
        assert_same_weights(*ends, parts=["model"])
    # What was timed is what was computed with, and no other precision resumes it.
    assert end_of(tmp_path, "whole")["opt"].amp == chosen
    other = {"off": "bf16", "bf16": "off"}[chosen]
    done = train(faces, tmp_path, *auto, "other", *resume[:2], "--amp", other, start=refused)
    assert f'--amp "{other}" (was "{chosen}")' in done


def test_queries_where_there_is_detail(faces, trained):
    """Other cells are drawn."""
    cwd, _ = trained
    train(faces, cwd, "--detail", 0.9, "--epochs", 3, "--model_name", "detail")
    first, plain = (logged(cwd / "runs" / n)[0]["dense_loss"] for n in ("detail", "whole"))
    assert first != plain and first == pytest.approx(plain, rel=0.5)


def test_eval_face_takes_its_encoder(faces, trained):
    cwd, _ = trained
    frame = [*FRAME, "--layer", "4", "--use_hypercol", "--batch_size", "4", "--adam"]
    given = [*frame, "--epochs", "1", "--data_folder", faces, "--model_path", "runs"]
    encoder = ("--trained_model_path", "runs/whole/current.pth", "--model_name", "eyes")
    done = succeed("eval_face.py", *given, *encoder, cwd=cwd)
    assert "taken as" not in done.out  # no prefix had to be mapped


def test_ways_to_save_time_or_memory(faces, trained):
    """The first step's loss is the same, up to the precision of what was asked for."""
    cwd, _ = trained
    losses = []
    for name, option in (("plain", ()), ("bf16", ("--amp", "bf16")), ("less", ("--recompute",))):
        train(faces, cwd, "--epochs", 1, "--batch_size", 20, "--model_name", name, *option)
        losses.append(logged(cwd / "runs" / name)[0]["dense_loss"])
    # bf16 has 8 bits: unit vectors are off by 2 ** -9, logits by 10 times as much, a few of them.
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_ignored_flags_are_named(faces, tmp_path):
    done = train(faces, tmp_path, "--epochs", 1, "--model_name", "a", "--cosine", "--momentum", 0.5)
    for flag in ("--cosine", "--momentum"):
        assert f"{flag} has no effect" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shift", "9"), "--shift 9 and --aspect 0.12: two views of an image have"),
        (("--scale", "1e30"), "--scale 1e+30, --shift 0.25 and --aspect 0.12: two views of an"),
        (("--rotation", "90", "--aspect", "5", "--shift", "2"), "--rotation 90, --scale 0.35, "),
        (("--image_size", "70"), "leave 62 pixels: the embedding needs a multiple of 32"),
        (("--image_size", "24"), "leave 16 pixels: the embedding needs a multiple of 32"),
        (("--image_size", "8"), "an image of 8 px has nothing left after cropping 4 px"),
        (("--init", "nothing.pth"), "nothing.pth: no such checkpoint"),
        (("--init", "."), ".: not a file"),
        (("--resume", "nothing.pth"), "nothing.pth: no such checkpoint"),
    ],
)
def test_mistakes_are_one_line(faces, tmp_path, options, said):
    done = train(faces, tmp_path, "--epochs", 1, "--model_name", "a", *options, start=refused)
    assert said in done
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def others(faces, trained):
    """Files beside the trained encoder that aren't what a run starts or resumes from."""
    cwd, _ = trained
    moco = [*FRAME, "--data_folder", faces, "--nce_k", "8", "--model_path", "runs"]
    moco += ["--epochs", "1", "--batch_size", "8", "--model_name", "moco"]
    succeed("train_moco.py", *moco, cwd=cwd)
    whole = (cwd / "runs/whole/current.pth").read_bytes()
    (cwd / "cut.pth").write_bytes(whole[: len(whole) // 2])
    save_checkpoint(cwd / "larger.pth", {"model": build_encoder("resnet34", 64).state_dict()})
    readout = {"opt": argparse.Namespace(), "epoch": 1, "ridge": {}}
    save_checkpoint(cwd / "ridge.pth", readout)
    return cwd, moco


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--init larger.pth", "larger.pth: holds another architecture than --model resnet18"),
        ("--init ridge.pth", "ridge.pth: holds no encoder for --model resnet18"),
        ("--init cut.pth", "cut.pth: not a readable checkpoint"),
        ("--init runs/whole/log.jsonl", "log.jsonl: not a readable checkpoint"),
        ("--resume cut.pth", "cut.pth: not a readable checkpoint"),
        ("--resume ridge.pth", "ridge.pth: expected a checkpoint with opt, model, head, "),
        (
            "--resume runs/moco/current.pth",
            "moco/current.pth: expected a checkpoint with opt, model, head, ",
        ),
        ("--resume WHOLE --dimensions 8", "other options: --dimensions 8 (was 64)"),
        ("--resume WHOLE --dimensions 8 --override", "and --dimensions 8: weight is (64, 960), "),
        ("--resume WHOLE --model resnet34", '--model "resnet34" (was "resnet18")'),
        ("--resume WHOLE --model resnet34 --override", "than --model resnet34 and --dimensions 64"),
        ("--resume WHOLE --places 8 --radius 0.2", "--places 8 (was 32), --radius 0.2 (was 0.12)"),
        ("--resume WHOLE --init WHOLE", '--init "runs/whole/ckpt_epoch_2.pth" (was null)'),
    ],
)
def test_files_of_another_kind_are_refused(faces, others, options, said):
    cwd, _ = others
    given = options.replace("WHOLE", "runs/whole/ckpt_epoch_2.pth").split()
    assert said in train(faces, cwd, "--epochs", 3, "--model_name", "a", *given, start=refused)
    assert not (cwd / "runs/a").exists()


def test_a_run_of_train_moco_resumes_no_checkpoint_of_this(others):
    cwd, moco = others
    resume = ["--resume", "runs/whole/current.pth", "--model_name", "a", "--override"]
    done = refused("train_moco.py", *moco, *resume, cwd=cwd)
    assert "whole/current.pth: expected a checkpoint with opt, model, contrast" in done


def test_one_image_alone_makes_two_rows(faces, tmp_path):
    """Its views are normalised together, so that of a single pixel each there are two values."""
    train(faces, tmp_path, "--epochs", 1, "--model_name", "a", "--batch_size", 19)  # of 20


def test_another_number_of_epochs_is_another_schedule(faces, trained):
    """The cosine runs over all epochs, as with --cosine of train_moco.py."""
    cwd, _ = trained
    resume = ("--resume", "runs/whole/ckpt_epoch_2.pth", "--model_name", "longer")
    assert "--epochs 4 (was 3)" in train(faces, cwd, "--epochs", 4, *resume, start=refused)
