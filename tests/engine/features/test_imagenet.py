"""Weights that libraries publish: found where they lie, refused if damaged, or told of."""

import hashlib

import pytest
import torch
import torchvision

import engine.features.imagenet as imagenet
from data_loader.image_set import ImageSet
from engine.features.encoder_loading import initialise_encoder, use_colours
from engine.features.imagenet import IMAGENET, imagenet_file, published_weights
from utils.errors import InputError
from utils.log import RunLog


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """The folder of PyTorch's downloads, where there is no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*_):
        raise OSError("no route\nto host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path / "checkpoints"


@pytest.fixture
def weights(downloads, monkeypatch):
    """A file of ResNet-18's weights, in the name of the published ones, with a sum of its own."""
    downloads.mkdir()
    torch.manual_seed(1)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, downloads / "new")
    digits = hashlib.sha256((downloads / "new").read_bytes()).hexdigest()[:8]
    path = (downloads / "new").rename(downloads / f"resnet18-{digits}.pth")
    published = published_weights("resnet18")._replace(url=f"https://x.org/{path.name}")
    monkeypatch.setattr(imagenet, "published_weights", lambda _: published)
    return path, state


def test_weights_that_are_here_are_taken_and_named(weights):
    path, state = weights
    log = RunLog()
    encoder = initialise_encoder("resnet18", 64, 0, IMAGENET, log)
    assert torch.equal(encoder.state_dict()["encoder.module.conv1.weight"], state["conv1.weight"])
    first, *_ = log.kept
    assert "torchvision's ResNet18_Weights.IMAGENET1K_V1 (bsd-3-clause)" in first
    assert "mean (0.485, 0.456, 0.406)" in first


def test_a_damaged_file_is_refused(weights):
    path, _ = weights
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"resnet18-\w{8}\.pth: damaged; put https://x\.org/"):
        imagenet_file("resnet18", RunLog())


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        ("timm:mobilenetv2_100", "mobilenetv2_100_ra-b33bc2c4"),
    ],
)
def test_without_a_network_a_line_says_what_to_put_where(downloads, monkeypatch, model, file):
    hub = pytest.importorskip("huggingface_hub", reason="timm isn't installed")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError) as error:
        imagenet_file(model, RunLog())
    said = str(error.value)
    digits = file.removesuffix(".pth")[-8:]
    assert f"--model {model}: " in said and "can't be fetched (no route to host)" in said
    assert f"(SHA-256 {digits}…) at {downloads / file}" in said and "--random_network" in said
    assert "\n" not in said


def test_what_the_hub_keeps_is_taken_before_anything_is_fetched(downloads, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="timm isn't installed")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *named: "/".join(named))
    found = imagenet_file("timm:mobilenetv2_100", RunLog())
    assert found == "timm/mobilenetv2_100.ra_in1k/model.safetensors"


@pytest.mark.parametrize("model", ["hourglass", "resnet50x2", "timm:test_vit.none"])
def test_networks_without_published_weights_are_refused(downloads, model):
    with pytest.raises(InputError, match="no ImageNet weights of it|no such network"):
        imagenet_file(model, RunLog())


def test_colours_are_those_of_the_weights_also_of_faces():
    faces = ImageSet.__new__(ImageSet)
    assert faces.mean != imagenet.IMAGENET_MEAN
    use_colours(torch.nn.Linear(1, 1), faces, noted_in=IMAGENET)
    assert (faces.mean, faces.std) == (imagenet.IMAGENET_MEAN, imagenet.IMAGENET_STD)
