"""Networks of timm in the scripts, as a user starts them."""

import sys

import pytest
import torch

from data_loader.data_loaders_face import MAFLAligned
from engine.features.encoder_loading import use_colours
from models.encoders import build_random_encoder
from tests.scripts.running import FRAME, last_error, refused, succeed
from utils.checkpoint import load_checkpoint

timm = pytest.importorskip("timm", reason="timm isn't installed")

VIT = [*FRAME, "--model", "timm:test_vit", "--layer", "4", "--use_hypercol"]
CONVNET = [*FRAME, "--model", "timm:test_resnet"]
FIT = ["--batch_size", "4", "--adam", "--epochs", "1", "--model_path", "runs"]


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    """An encoder after two epochs of dense contrast."""
    cwd = tmp_path_factory.mktemp("timm")
    train(faces, cwd, "--model_name", "whole")
    return cwd


def train(faces, cwd, *arguments, start=succeed):
    given = [*CONVNET, "--batch_size", "8", "--places", "16", "--epochs", "2", "--amp", "off"]
    given += ["--data_folder", faces, "--model_path", "runs"]
    return start("train_dense.py", *given, *arguments, cwd=cwd)


def weights(cwd, name):
    return load_checkpoint(cwd / "runs" / name / "current.pth", ("model",))["model"]


def test_train_dense_starts_from_a_file(faces, trained):
    """Here one that timm itself wrote, with its classifier."""
    torch.manual_seed(3)
    network = timm.create_model("test_resnet")
    torch.save(network.state_dict(), trained / "theirs.pth")
    still = ("--learning_rate", 0, "--weight_decay", 0, "--epochs", 1)
    train(faces, trained, "--init", "theirs.pth", *still, "--model_name", "init")
    found = weights(trained, "init")
    for key, value in network.named_parameters():
        if not key.startswith("fc."):
            assert torch.equal(found[f"encoder.module.network.{key}"], value), key


def test_a_transformer_is_evaluated_matched_and_drawn(faces, tmp_path):
    common = [*VIT, "--random_network", "--data_folder", faces]
    done = succeed("eval_face.py", *common, *FIT, "--model_name", "eyes", cwd=tmp_path)
    assert "64 px; timm:test_vit (untrained)" in done.out
    done = succeed("eval_matching.py", *common, "--pairs", "4", cwd=tmp_path)
    regressor = ("--vis_keypoints", "--vis_PCA", "--ckpt_path", "runs/eyes/current.pth")
    done = succeed("vis_face.py", *common, *regressor, "--batch_size", "4", cwd=tmp_path)
    assert "another encoder" not in done.out


def test_a_projection_of_its_hypercolumn_is_trained_and_used(faces, trained):
    init = ("--init", "runs/whole/current.pth")
    freeze = ("--freeze", *init, "--dimensions", 8, "--epochs", 1)
    train(faces, trained, *freeze, "--model_name", "projection")
    frozen, given = weights(trained, "projection"), weights(trained, "whole")
    assert all(torch.equal(value, frozen[key]) for key, value in given.items())
    used = ("--trained_model_path", init[1], "--projection", "runs/projection/current.pth")
    common = [*CONVNET, "--layer", "4", "--use_hypercol", *used, "--data_folder", faces]
    ridge = ("--regressor", "ridge", "--model_name", "projected")
    done = succeed("eval_face.py", *common, *FIT, *ridge, cwd=trained)
    assert "projects the hypercolumn to 8 channels" in done.out
    readout = load_checkpoint(trained / "runs/projected/current.pth", ("ridge",))["ridge"]
    assert readout["weight"].shape[1] == 8
    succeed("eval_matching.py", *common, "--pairs", "4", cwd=trained)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_it_is_fine_tuned_and_drawn_with_the_same_score(faces, tmp_path, name):
    model = [*FRAME, "--model", f"timm:{name}", "--data_folder", faces, "--regressor", "finetune"]
    steps = ("--finetune_steps", "2", "--finetune_batch", "4", "--model_name", "tuned")
    tune = ("--random_network", "--batch_size", "4", "--model_path", "runs", *steps)
    done = succeed("eval_face.py", *model, *tune, cwd=tmp_path)
    tuned = weights(tmp_path, "tuned")
    first = build_random_encoder(f"timm:{name}", 64, 0).state_dict()
    assert tuned.keys() == first.keys()
    assert any(not torch.equal(value, tuned[key]) for key, value in first.items())
    path = ("--ckpt_path", f"runs/tuned/timm_{name}.pth", "--vis_keypoints")
    done = succeed("vis_face.py", *model, *path, cwd=tmp_path)
    assert f"error {last_error(tmp_path / 'runs/tuned'):.2f} %" in done.out


def test_recompute_says_that_it_is_not_for_these_networks(faces, tmp_path):
    done = train(faces, tmp_path, "--model_name", "a", "--recompute", start=refused)
    assert "--recompute: a network of timm can't; only the ResNets here can" in done
    assert not (tmp_path / "runs").exists()


def test_images_are_standardised_as_the_network_wants(faces):
    dataset = MAFLAligned(
        faces, train=False, pair_image=False, imwidth=72, crop=4, do_augmentations=False
    )
    ours = dataset.annotated_item(0).image
    pixels = dataset.denormalize(ours)
    use_colours(build_random_encoder("resnet18", 64, 0), dataset)
    assert torch.equal(dataset.annotated_item(0).image, ours)
    encoder = build_random_encoder("timm:test_vit", 64, 0)
    use_colours(torch.nn.Sequential(encoder), dataset)
    theirs = dataset.annotated_item(0).image
    # Pixels are multiples of 1 / 255; float32 keeps seven digits of them.
    torch.testing.assert_close(theirs, (pixels - 0.5) / 0.5, rtol=0, atol=1e-5)
    torch.testing.assert_close(dataset.denormalize(theirs), pixels, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "timm:"), "--model: expected one of resnet50, "),
        (("--model", "timm:../x"), "hourglass, timm:NAME; got 'timm:../x'"),
        (("--model", "timm:test_vitt", "--random_network"), "close ones: test_vit"),
        (("--model", "timm:test_vit", "--random_network", "--layer", "1"), "--layer 1: this"),
        (
            ("--model", "resnet18"),
            "give --trained_model_path FILE or imagenet, or --random_network",
        ),
        (("--model", "timm:test_vit", "--trained_model_path", "bad.pth"), "cls_token is missing"),
        (("--model", "timm:test_vit", "--trained_model_path", "no.safetensors"), "no such"),
        (("--model", "timm:test_vit", "--trained_model_path", "bad.safetensors"), "not a readable"),
    ],
)
def test_mistakes_are_one_line(faces, tmp_path, options, said):
    torch.save({"unrelated.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    given = [*FRAME, "--data_folder", faces, "--layer", "3", *options]
    assert said in refused("eval_matching.py", *given, cwd=tmp_path)


def test_timm_that_is_not_installed_is_one_line(faces, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install -e .[timm]" in train(faces, tmp_path, "--model_name", "a", start=refused)
    assert not (tmp_path / "runs").exists()
    done = train(faces, tmp_path, "--model_name", "a", "--model", "hourglass", start=refused)
    assert "resnet152, timm:NAME; got 'hourglass'" in done
