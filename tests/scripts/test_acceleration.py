"""Pre-training by other means: the same weights where the arithmetic is the same."""

import json

import pytest
import torch

from tests.scripts.running import FRAME, run_inside
from utils.checkpoint import load_checkpoint

MOCO = [*FRAME, "--batch_size", "8", "--nce_k", "20", "--cosine", "--model_path", "runs"]
CHECKPOINT = ("model", "model_ema", "contrast")


def train(faces, cwd, name, *arguments):
    done = run_inside(
        "train_moco.py",
        *(*MOCO, "--data_folder", faces, "--epochs", 2, "--model_name", name, *arguments),
        cwd=cwd,
    )
    assert done.status == 0, done.err
    return load_checkpoint(cwd / "runs" / name / "current.pth", CHECKPOINT), done


def weights(content):
    return {(p, k): v for p in CHECKPOINT for k, v in content[p].items()}


def assert_same(a, b):
    a, b = weights(a), weights(b)
    assert list(a) == list(b)
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("plain")
    return train(faces, cwd, "plain")[0]


def losses(cwd, name):
    lines = (cwd / "runs" / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["ins_loss"] for line in lines]


def test_the_image_cache_changes_no_bit(faces, tmp_path, plain):
    first, built = train(faces, tmp_path, "a", "--image_cache")
    second, found = train(faces, tmp_path, "b", "--image_cache", "--num_workers", 2)
    assert "image cache: built 20 images" in built.out
    assert "image cache: found 20 images" in found.out and "runs_cache" in found.out
    assert_same(first, plain)
    assert_same(second, plain)


def test_recomputing_changes_no_bit(faces, tmp_path, plain):
    assert_same(train(faces, tmp_path, "a", "--recompute")[0], plain)


def test_device_views_do_not_depend_on_the_workers_and_resume_exactly(faces, tmp_path, plain):
    options = ("--augment", "device", "--save_freq", 1)
    whole, _ = train(faces, tmp_path, "a", *options, "--image_cache", "cache")
    resumed, _ = train(
        faces, tmp_path, "b", *options, "--num_workers", 2, "--resume", "runs/a/ckpt_epoch_1.pth"
    )
    assert_same(whole, resumed)
    key = ("model", "encoder.module.conv1.weight")
    assert not torch.equal(weights(whole)[key], weights(plain)[key])  # other draws
    assert [p.name[:7] for p in (tmp_path / "cache").iterdir() if p.is_dir()] == ["images-"]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_keeps_weights_and_loss_in_float32(faces, tmp_path, plain, amp):
    content, _ = train(faces, tmp_path, "a", "--amp", amp)
    for (part, key), value in weights(content).items():
        assert value.dtype == plain[part][key].dtype, (part, key)
    train(faces, tmp_path, "plain")
    mixed, full = losses(tmp_path, "a"), losses(tmp_path, "plain")
    # float16 begins with a scale that is too large, and leaves steps out until it fits.
    assert mixed == pytest.approx(full, rel=0.05 if amp == "bf16" else 0.3) and mixed != full
    lengths = content["contrast"]["memory"][:8].norm(dim=1)
    assert torch.allclose(lengths, torch.ones(8), atol=1e-5)
    assert (content["scaler"] != {}) == (amp == "fp16")


def test_float16_resumes_with_its_scale(faces, tmp_path):
    whole, _ = train(faces, tmp_path, "a", "--amp", "fp16", "--save_freq", 1)
    resumed, _ = train(faces, tmp_path, "b", "--amp", "fp16", "--resume", "runs/a/ckpt_epoch_1.pth")
    assert whole["scaler"] == resumed["scaler"]
    assert_same(whole, resumed)


def test_compiling_and_recomputing_exclude_each_other(faces, tmp_path):
    arguments = ["--data_folder", faces, "--model_name", "x", "--compile", "--recompute"]
    done = run_inside("train_moco.py", *MOCO, *arguments, cwd=tmp_path)
    assert done.status == 2 and "--compile and --recompute exclude each other" in done.err


def test_compiling_without_a_compiler_is_one_line(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ["--data_folder", faces, "--model_name", "x", "--compile"]
    done = run_inside("train_moco.py", *MOCO, *arguments, cwd=tmp_path)
    assert done.status == 2 and "no C++ compiler found (no-such-compiler)" in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_compiled_encoders_learn_the_same(faces, tmp_path, plain):
    content, _ = train(faces, tmp_path, "compiled", "--compile")
    train(faces, tmp_path, "plain")
    # Rounding grows with each step of so small a batch: the first steps are compared.
    compiled, full = losses(tmp_path, "compiled"), losses(tmp_path, "plain")
    assert compiled[0] == pytest.approx(full[0], rel=0.01)
    assert list(weights(content)) == list(weights(plain))
