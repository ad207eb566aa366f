"""A projection of a frozen encoder's hypercolumn, from its training to what finds landmarks."""

import argparse
import json

import pytest
from PIL import Image

import train_dense
from models.encoders import build_random_encoder
from tests.scripts.running import (
    FRAME,
    assert_same_weights,
    last_error,
    logged,
    refused,
    succeed,
)
from utils.checkpoint import load_checkpoint, save_checkpoint

DENSE = [*FRAME, "--batch_size", "8", "--places", "32", "--model_path", "runs"]
DENSE += ["--freeze", "--init", "encoder.pth", "--dimensions", "16", "--epochs", "3"]
DENSE += ["--amp", "off"]
WHOLE = ("--projection", "runs/whole/current.pth")
FEATURES = [*FRAME, "--layer", "4", "--use_hypercol", "--trained_model_path", "encoder.pth"]
FIT = ["--batch_size", "4", "--epochs", "1", "--model_path", "runs"]


def train(faces, cwd, *arguments, start=succeed):
    return start("train_dense.py", *DENSE, "--data_folder", faces, *arguments, cwd=cwd)


def end_of(cwd, name):
    return load_checkpoint(cwd / "runs" / name / "current.pth", train_dense.DenseContrast.entries)


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    """Three epochs on an encoder.

    ``other.pth`` differs from the last one by a number of the head; ``seed0.pth`` and
    ``deeper.pth`` are other encoders.
    """
    cwd = tmp_path_factory.mktemp("projection")
    encoders = {"encoder": ("resnet18", 7), "seed0": ("resnet18", 0), "deeper": ("resnet34", 7)}
    for name, (model, seed) in encoders.items():
        state = build_random_encoder(model, 64, seed).state_dict()
        save_checkpoint(cwd / f"{name}.pth", {"model": state})
    train(faces, cwd, "--model_name", "whole")
    other = end_of(cwd, "whole")
    other["head"]["bias"][0] += 1
    save_checkpoint(cwd / "other.pth", other)
    return cwd


def test_the_head_learns_and_the_encoder_stays(trained):
    content = end_of(trained, "whole")
    given = load_checkpoint(trained / "encoder.pth", ("model",))
    assert_same_weights(content, given, ["model"])  # BatchNorm's statistics and counts, too
    assert {k: tuple(v.shape) for k, v in content["head"].items()} == {
        "weight": (16, 960),
        "bias": (16,),
    }
    losses = [epoch["dense_loss"] for epoch in logged(trained / "runs/whole")]
    assert losses[2] < losses[0]
    # The optimizer has a state for what is trained alone: the head's weight and bias.
    assert len(content["optimizer"]["state"]) == 2


def evaluate(faces, cwd, name, *arguments, start=succeed):
    given = [*FEATURES, *FIT, "--data_folder", faces, "--model_name", name]
    return start("eval_face.py", *given, *arguments, cwd=cwd)


def draw(faces, cwd, *arguments, start=succeed):
    given = [*FEATURES, "--data_folder", faces, "--vis_keypoints", *arguments]
    return start("vis_face.py", *given, cwd=cwd)


@pytest.mark.parametrize("kind", ["published", "ridge"])
def test_landmarks_are_found_in_the_projected_map(faces, trained, kind):
    """Also: to what reads them, another projection of the same encoder is another encoder."""
    readout = ("--regressor", kind)
    done = evaluate(faces, trained, kind, *WHOLE, *readout)
    assert "projects the hypercolumn to 16 channels" in done.out
    error = last_error(trained / "runs" / kind)

    path = ("--ckpt_path", f"runs/{kind}/current.pth", "--vis_path", kind)
    done = draw(faces, trained, *path, *readout, *WHOLE)
    assert f"error {error:.2f} %" in done.out and "warning" not in done.out
    done = draw(faces, trained, *path, *readout, "--projection", "other.pth")
    assert "trained on the features of another encoder than this one" in done.out
    done = draw(faces, trained, *path, *readout, start=refused)
    assert "holds another architecture" in done and "960" in done
    resume = ("--resume", f"runs/{kind}/current.pth", "--projection", "other.pth")
    done = evaluate(faces, trained, "again", *resume, *readout, start=refused)
    assert "features of another encoder" in done


def test_kept_features_belong_to_their_projection(faces, trained):
    kept = ("--feature_cache", "disk", "--cache_folder", "kept", "--regressor", "ridge")
    projections = (WHOLE, ("--projection", "other.pth"), (), WHOLE)
    for place, projection in enumerate(projections):
        done = evaluate(faces, trained, f"kept{place}", *kept, *projection)
        assert done.out.count("found in kept") == (2 if place == 3 else 0)
        kept_sets = list((trained / "kept").glob("features-*/map0.npy"))
        assert len(kept_sets) == 2 * min(place + 1, 3)  # of training and test images


def test_components_are_of_the_projected_map(faces, trained):
    given = [*FEATURES, *WHOLE, "--data_folder", faces, "--vis_path", "pca", "--vis_PCA"]
    succeed("vis_face.py", *given, "--batch_size", "2", cwd=trained)
    with Image.open(trained / "pca/0/15.png") as component:  # of 16 channels: not 25 components
        assert component.width == 64
    assert not (trained / "pca/0/16.png").exists()


def test_matching_takes_it(faces, trained):
    given = [*FEATURES, "--data_folder", faces, "--pairs", "4"]
    found = []
    for name, projection in (("plain", ()), ("projected", WHOLE)):
        succeed("eval_matching.py", *given, *projection, "--out", name, cwd=trained)
        found.append(json.loads((trained / name / "matching.json").read_text())["px"])
    assert found[0]["warped_copied"] == found[1]["warped_copied"]
    assert found[0]["warped"] != found[1]["warped"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layer", "3"), "--projection: takes the place of the hypercolumn of 4 stages: give"),
        (("--projection", "encoder.pth"), "encoder.pth: expected a checkpoint with model, head"),
        (
            ("--trained_model_path", "seed0.pth"),
            "current.pth: projects the hypercolumn of another encoder than seed0.pth",
        ),
        (
            ("--model", "resnet34", "--trained_model_path", "deeper.pth"),
            "current.pth: holds another architecture than deeper.pth (--model resnet34)",
        ),
        (("--regressor", "finetune"), "current.pth: not with --regressor finetune"),
    ],
)
def test_mistakes_are_one_line(faces, trained, options, said):
    assert said in evaluate(faces, trained, "mistake", *WHOLE, *options, start=refused)
    assert not (trained / "runs/mistake").exists()


def test_freezing_needs_an_encoder(faces, tmp_path):
    given = [a for a in DENSE if a not in ("--init", "encoder.pth")]
    given += ["--data_folder", faces, "--model_name", "a"]
    done = refused("train_dense.py", *given, cwd=tmp_path)
    assert "--freeze: give the encoder that is frozen: --init FILE" in done


@pytest.mark.parametrize("regressor", ["finetune", "auto"])
def test_a_fine_tuned_encoder_isnt_projected(faces, trained, regressor):
    save_checkpoint(trained / "tuned.pth", {"opt": argparse.Namespace(), "heatmaps": {}})
    done = draw(
        faces, trained, *WHOLE, "--regressor", regressor, "--ckpt_path", "tuned.pth", start=refused
    )
    assert "current.pth: not with --regressor finetune" in done
