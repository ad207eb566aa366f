"""Confidence on drawn faces of other people: what it promises is what happens."""

import csv
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_loader.keypoints import Keypoints
from data_loader.readers.annotation_files import read_lines
from datasets.synthetic import generate
from engine.readouts import calibration
from models.landmarks import Landmarks
from tests.data_loader.own_tables import write_dots
from tests.scripts.running import succeed
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.log import RunLog

NAMES = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
FIT = ["--model", "resnet18", "--random_network", "--layer", "4", "--use_hypercol"]
FIT += ["--image_size", "64", "--image_crop", "0", "--num_workers", "0", "--batch_size", "32"]
DISTANCE = 0.04


def faces_csv(root):
    """Write the landmarks of drawn faces by the part of them, of other people each."""
    listed = read_lines(root / "Anno/list_landmarks_align_celeba.txt")[2:]
    lines = [",".join(line.split()) + "\n" for line in listed]
    header = ",".join(["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]) + "\n"
    third = len(lines) // 3
    for place, part in enumerate(("train", "calibrate", "test")):
        rows = lines[place * third : (place + 1) * third]
        (root / f"{part}.csv").write_text(header + "".join(rows))


@pytest.mark.slow
@pytest.mark.parametrize("regressor", ["ridge", "finetune", "published"])
def test_what_is_promised_on_drawn_faces_happens(tmp_path_factory, regressor):
    root = tmp_path_factory.getbasetemp() / "drawn"
    if not root.exists():
        generate(root, images=240, mafl_train=1, mafl_test=1, workers=2)
        faces_csv(root / "celeba")
    root, cwd = root / "celeba", tmp_path_factory.mktemp("run")
    own = ["--dataset", "Keypoints", "--data_folder", root / "Img/img_align_celeba_hq"]
    own += ["--annotations", root / "train.csv", "--test_annotations", root / "calibrate.csv"]
    own += ["--regressor", regressor, "--epochs", 15, "--adam", "--learning_rate", 0.01]
    own += ["--finetune_steps", 60, "--calibrate_at", DISTANCE]
    run = ["--model_path", "runs", "--model_name", "a"]
    done = succeed("eval_animal.py", *FIT, *own, *run, cwd=cwd)
    flags = ["--ckpt_path", "runs/a/current.pth", "--images", root / "Img/img_align_celeba_hq"]
    done = succeed("predict.py", *flags, "--out", "a.csv", "--num_workers", 0, cwd=cwd)
    told, hits = reliability(cwd / "a.csv", root / "test.csv")
    print(done.out, told.mean(), hits.mean())
    # Points of an image aren't independent: as if there were as many draws as images.
    images = len(told) / len(NAMES)
    assert abs(told.mean() - hits.mean()) < 3 * (hits.mean() * (1 - hits.mean()) / images) ** 0.5
    order = np.argsort(told)
    for part in np.array_split(order, 4):
        sampling = np.sqrt(told[part].mean() * (1 - told[part].mean()) / (images / 4))
        print(told[part].mean(), hits[part].mean(), sampling)
        assert abs(told[part].mean() - hits[part].mean()) < 3 * sampling + 0.02
    assert hits[order[-len(order) // 4 :]].mean() > hits[order[: len(order) // 4]].mean()


def reliability(found, truth):
    """Return the confidence of each point of the test images, and whether it is a hit."""
    with found.open() as one, truth.open() as other:
        by_image = {row["image"]: row for row in csv.DictReader(one)}
        pairs = [(by_image[row["image"]], row) for row in csv.DictReader(other)]
    told, hits = [], []
    for row, true in pairs:
        for name in NAMES:
            off = [float(row[f"{name}_{axis}"]) - float(true[f"{name}_{axis}"]) for axis in "xy"]
            told.append(float(row[f"{name}_confidence"]))
            hits.append(np.hypot(*off) <= DISTANCE * np.hypot(178, 218))
    return np.array(told), np.array(hits, dtype=float)


@pytest.mark.parametrize("count", [9, 10])
@pytest.mark.parametrize("off", [0.98, 1.02])
def test_hits_are_within_a_fraction_of_the_diagonal(tmp_path, monkeypatch, count, off):
    """Of the box, or of the image where there is none; fewer than ten points tell nothing."""
    table = write_dots(tmp_path, 4)
    table.boxes[1] = 20, 10, 50, 50
    dataset = Keypoints(table, tmp_path, "test", imwidth=32)
    dataset.annotations["visible"][:] = np.arange(12).reshape(4, 3) < count
    path = tmp_path / "current.pth"
    save_checkpoint(path, {"opt": Namespace(), "epoch": 1})
    readout = SimpleNamespace(
        settings=SimpleNamespace(folder=tmp_path, best_path=tmp_path / "x", hint=""),
        done=1,
        network=torch.nn.Linear(1, 1),
        load=lambda *_: None,
        with_confidence=None,
    )
    # A pixel of the square is 120 / 32 of a whole image, and 37 / 32 of the box with its margins
    # of 3, which take 37 whole pixels.
    limits = np.full(4, 0.05 * np.hypot(120, 80) * 32 / 120)
    limits[1] = 0.05 * np.hypot(30, 40) * 32 / 37
    truth, _ = dataset.annotation_tensors()
    truth[..., 0] += torch.tensor(off * limits * 2 / 31)[:, None]
    found = Landmarks(truth, torch.rand(4, 3))
    monkeypatch.setattr(calibration, "find_landmarks", lambda *_: found)
    log = RunLog()
    calibration.calibrate_run({"All": dataset}, 0.05, readout, {"All": None}, log)
    assert "calibration" not in load_checkpoint(path, ())  # on the images that it learnt from
    assert "no probability: no image is held out" in log.kept.pop()
    calibration.calibrate_run({"Test": dataset}, 0.05, readout, {"Test": None}, log)
    assert ("calibration" in load_checkpoint(path, ())) == (count >= 10)
    if count < 10:
        assert "9 points of the 4 Test images are too few" in log.kept[0]
    else:
        assert f"10 points of the 4 Test images, {100 * (off < 1):.1f} %" in log.kept[0]
