"""Pre-training by other means: the same weights where the arithmetic is the same."""

import pytest
import torch

from engine.run.acceleration import accelerate, autocast
from models.encoders import build_random_encoder
from tests.recipes import arr
from tests.scripts.running import FRAME, assert_same_weights, refused, succeed
from utils.checkpoint import load_checkpoint

MOCO = [*FRAME, "--batch_size", "8", "--nce_k", "20", "--cosine", "--model_path", "runs"]
CHECKPOINT = ("model", "model_ema", "contrast")


def train(faces, cwd, name, *arguments):
    done = succeed(
        "train_moco.py",
        *(*MOCO, "--data_folder", faces, "--epochs", 2, "--model_name", name, *arguments),
        cwd=cwd,
    )
    return load_checkpoint(cwd / "runs" / name / "current.pth", CHECKPOINT), done


def weights(content):
    return {(p, k): v for p in CHECKPOINT for k, v in content[p].items()}


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("plain")
    return train(faces, cwd, "plain")[0]


def test_the_image_cache_changes_no_bit(faces, tmp_path, plain):
    first, built = train(faces, tmp_path, "a", "--image_cache")
    second, found = train(faces, tmp_path, "b", "--image_cache", "--num_workers", 2)
    assert "image cache: built 20 images" in built.out
    assert "image cache: found 20 images" in found.out and "runs_cache" in found.out
    assert_same_weights(first, plain)
    assert_same_weights(second, plain)


def test_recomputing_changes_no_bit(faces, tmp_path, plain):
    assert_same_weights(train(faces, tmp_path, "a", "--recompute")[0], plain)


def test_device_views_do_not_depend_on_the_workers_and_resume_exactly(faces, tmp_path, plain):
    options = ("--augment", "device", "--save_freq", 1)
    whole, _ = train(faces, tmp_path, "a", *options, "--image_cache", "cache")
    resumed, _ = train(
        faces, tmp_path, "b", *options, "--num_workers", 2, "--resume", "runs/a/ckpt_epoch_1.pth"
    )
    assert_same_weights(whole, resumed)
    key = ("model", "encoder.module.conv1.weight")
    assert not torch.equal(weights(whole)[key], weights(plain)[key])  # other draws
    assert [p.name[:7] for p in (tmp_path / "cache").iterdir() if p.is_dir()] == ["images-"]


def embeddings(amp="off", compiled=False):
    """Return unit vectors (8, 128) of a training batch, always of the same weights and images."""
    encoder = build_random_encoder("resnet18", 64, seed=0)
    accelerate(encoder, compiled=compiled, recompute=False)
    with autocast(torch.device("cpu"), amp):
        return encoder.train()(arr(0, 8, 3, 64, 64))


LAYERS = 18  # of a ResNet-18, one behind the other


@pytest.mark.parametrize(("amp", "bits"), [("bf16", 8), ("fp16", 11)])
def test_mixed_precision_embeds_as_float32_does_to_its_own_precision(amp, bits):
    mixed, full = embeddings(amp), embeddings()
    assert mixed.dtype == torch.float32
    # A layer rounds its input, weights and output and BatchNorm's output, each to so many bits.
    # These four are added as if they all pointed one way, those of different layers as independent.
    bound = 4 * LAYERS**0.5 * 2.0**-bits
    error = (mixed - full).norm(dim=1).max()
    assert 0 < error < bound


def assert_kept_in_float32(content, plain):
    for (part, key), value in weights(content).items():
        assert value.dtype == plain[part][key].dtype, (part, key)
    # Sums of 128 squares, rounded to 24 bits: were all errors alike, 128 * 2**-24 = 8e-6.
    lengths = content["contrast"]["memory"].norm(dim=1)
    assert torch.allclose(lengths, torch.ones(20), atol=1e-5)


def test_bfloat16_keeps_weights_and_queue_in_float32(faces, tmp_path, plain):
    content, _ = train(faces, tmp_path, "a", "--amp", "bf16", "--epochs", 1)
    assert_kept_in_float32(content, plain)
    assert content["scaler"] == {}


def test_float16_keeps_them_too_and_resumes_with_its_scale(faces, tmp_path, plain):
    whole, _ = train(faces, tmp_path, "a", "--amp", "fp16", "--save_freq", 1)
    assert_kept_in_float32(whole, plain)
    resumed, _ = train(faces, tmp_path, "b", "--amp", "fp16", "--resume", "runs/a/ckpt_epoch_1.pth")
    assert whole["scaler"] == resumed["scaler"] != {}
    assert_same_weights(whole, resumed)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--compile", "--recompute"], "--compile and --recompute exclude each other"),
        (["--compile"], "no C++ compiler found (no-such-compiler)"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(faces, tmp_path, monkeypatch, flags, said):
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ["--data_folder", faces, "--model_name", "x", *flags]
    assert said in refused("train_moco.py", *MOCO, *arguments, cwd=tmp_path)


@pytest.mark.slow
def test_compiled_encoders_embed_as_others_do():
    # Compiled kernels add up in another order: float32 has 24 bits, and a layer's longest sums
    # 9 * 512 terms, whose roundings are independent.
    bound = (9 * 512 * LAYERS) ** 0.5 * 2.0**-24
    assert (embeddings(compiled=True) - embeddings()).norm(dim=1).max() < bound


@pytest.mark.slow
def test_compiled_encoders_are_saved_under_the_same_names(faces, tmp_path, plain):
    content, _ = train(faces, tmp_path, "compiled", "--compile", "--epochs", 1)
    assert list(weights(content)) == list(weights(plain))


def test_float16_enqueues_no_keys_of_skipped_steps(faces, tmp_path, monkeypatch):
    # Halved after each of 3 steps, the scale is still beyond float16's largest number, 2**16.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: scaler)
    content, _ = train(faces, tmp_path, "a", "--amp", "fp16", "--epochs", 1)
    assert content["queue_index"] == 0 and content["scaler"]["scale"] == 2.0**57
    assert not torch.allclose(content["contrast"]["memory"].norm(dim=1), torch.ones(20))
    assert not content["optimizer"]["state"]
