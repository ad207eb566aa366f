"""Which value an option has that is not given: a checkpoint's, one's own, or the published."""

from argparse import Namespace

import pytest
import torch

import eval_animal
import train_dense
import vis_animal
from engine.points.defaults import OWN_DEFAULTS

RUN = ["--model_path", "runs", "--model_name", "x"]


@pytest.fixture
def checkpoint(tmp_path):
    def write(**options):
        torch.save({"opt": Namespace(**options)}, tmp_path / "a.pth")
        return str(tmp_path / "a.pth")

    return write


def evaluation(*flags):
    return vars(eval_animal.build_parser().parse_args([*RUN, *flags]))


def test_annotations_alone_say_that_images_are_ones_own():
    own = evaluation("--annotations", "x.csv")
    assert own["dataset"] == "Keypoints" and own["trained_model_path"] == "imagenet"
    assert {name: own[name] for name in OWN_DEFAULTS} == OWN_DEFAULTS
    assert own["model"] == "timm:mobilenetv2_100" and own["save_freq"] > 1000
    birds = evaluation()
    assert (birds["dataset"], birds["trained_model_path"]) == ("CUB", None)
    published = {"image_size": 96, "regressor": "published", "finetune_steps": 300, "amp": "off"}
    assert {name: birds[name] for name in published} == published
    assert (birds["model"], birds["save_freq"]) == ("resnet50", 5)


def test_whoever_names_a_network_has_the_published_values():
    found = evaluation("--annotations", "x.csv", "--model", "resnet18", "--random_network")
    assert (found["image_size"], found["regressor"], found["finetune_rate"]) == (
        96,
        "published",
        0.001,
    )
    assert found["trained_model_path"] is None


def test_what_is_given_goes_first_then_what_the_checkpoint_says(checkpoint):
    path = checkpoint(model="resnet34", image_size=160)
    own = ["--annotations", "x.csv", "--trained_model_path", path]
    assert evaluation(*own)["model"] == "resnet34"
    assert evaluation(*own)["image_size"] == 224  # of the fit, not of the pre-training
    assert evaluation(*own, "--model", "resnet18")["model"] == "resnet18"
    assert evaluation(*own, "--finetune_steps", "7")["finetune_steps"] == 7
    for damage in ({"model": 5}, {"model": "vgg"}, {}):
        own[-1] = checkpoint(**damage)
        assert evaluation(*own)["model"] == "timm:mobilenetv2_100"


def test_drawing_takes_what_the_readout_was_trained_with(checkpoint):
    def drawing(*flags):
        return vars(vis_animal.build_parser().parse_args(["--annotations", "x.csv", *flags]))

    path = checkpoint(model="resnet34", image_size=64, image_crop=3, layer=4)
    found = drawing("--ckpt_path", path)
    names = ("model", "image_size", "image_crop", "layer", "regressor")
    assert [found[name] for name in names] == ["resnet34", 64, 3, 4, "auto"]
    assert drawing("--ckpt_path", path, "--image_size", "96")["image_size"] == 96
    assert drawing()["image_size"] == 224


def test_a_plain_folder_is_pretrained_on_from_imagenet(tmp_path):
    def training(*flags):
        options = train_dense.build_parser().parse_args([*RUN, *map(str, flags)])
        names = "dataset model init steps learning_rate image_size batch_size epochs".split()
        return [getattr(options, name) for name in names]

    plain, celeba = tmp_path / "plain", tmp_path / "celeba"
    (plain / "day0").mkdir(parents=True)
    (celeba / "Img").mkdir(parents=True)
    own = ["Folder", "timm:mobilenetv2_100", "imagenet", 300, 0.004, 160, 16, 100]
    assert training("--data_folder", plain) == own
    published = ["resnet50", None, None, None, 100, 32, 100]
    assert training("--data_folder", celeba) == ["CelebA", *published]
    assert training("--data_folder", tmp_path / "absent") == ["CelebA", *published]
    assert training("--data_folder", plain, "--model", "resnet50") == ["Folder", *published]
    own[2:4] = None, 7
    assert training("--data_folder", plain, "--random_network", "--steps", 7) == own
    own[3], own[7] = None, 7
    assert training("--data_folder", plain, "--random_network", "--epochs", 7) == own
    (plain / "day0").rmdir()
    (plain / "a.tar").touch()  # shards
    assert training("--data_folder", plain)[0] == "CelebA"
