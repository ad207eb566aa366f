"""Prediction as a user starts it: every readout, every format, bad images, kills and bad input."""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.readers.images import open_image
from data_loader.readers.keypoint_files import read_keypoints
from data_loader.readers.prediction_files import Prediction, write_predictions
from data_loader.readers.videos import read_frames, write_video
from engine.prediction.run import PredictionRun
from models.calibration import Calibration
from tests.data_loader.own_tables import NAMES, SIZE, write_dots
from tests.scripts.running import (
    FRAME,
    refused,
    result_of,
    run_inside,
    start_process,
    succeed,
)
from utils.checkpoint import load_checkpoint, save_checkpoint

KILLS = int(os.environ.get("KILLS", "2"))
LIKE_THE_LIST = () if "KILLS" in os.environ else pytest.mark.slow
FIT = ["--model", "resnet18", "--image_size", "36", "--image_crop", "2", "--layer", "4"]
FIT += ["--use_hypercol", "--num_workers", "0", "--batch_size", "4", "--random_network"]
FIT += ["--dataset", "Keypoints", "--model_path", "runs", "--log_path", "log", "--y_up"]
FIT += ["--test_share", "0.3"]
KINDS = {
    "published": ["--epochs", 2, "--val_share", 0.3],
    "ridge": [],
    "finetune": ["--finetune_steps", 2, "--finetune_batch", 2],
}
SHARED = [  # paths of outputs with each other or with inputs
    ["--out", "a.json", "--windows", "link/a.json"],
    ["--out", "a.csv", "--export", "ckpt.pth"],
    ["--out", "a.csv", "--page", "."],
    ["--out", "own.csv"],  # what the readout was trained with
    ["--out", "a.csv", "--page", "a.csv"],
    ["--images", "list.csv", "--out", "list.csv"],
    ["--images", "a.csv.suggested.txt", "--out", "a.csv", "--suggest", 1],
    ["--boxes", "boxes.json", "--out", "boxes.json"],
    ["--page", "b", "--log_path", "b"],
    ["--log_path", "own.csv"],
]


def write_csv(path, table, height, names=NAMES):
    """Write a table's points, y upwards."""
    rows = [["image", *(f"{name}_{axis}" for name in names for axis in "xy")]]
    for image, points in zip(table.images, table.points, strict=True):
        rows.append([image, *(v for x, y in points for v in (x, height - y))])
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with annotated images in ``own``, and a run of each kind of readout in ``runs``."""
    cwd = tmp_path_factory.mktemp("fitted")
    write_csv(cwd / "own.csv", write_dots(cwd / "own", 12), 80)
    for kind, more in KINDS.items():
        flags = ["--data_folder", "own", "--annotations", "own.csv", "--regressor", kind]
        done = succeed("eval_animal.py", *FIT, *flags, *more, "--model_name", kind, cwd=cwd)
        split = "Val" if kind == "published" else "Test"
        assert f"{split} images, " in done.out and "% of the diagonal" in done.out, done.out
    return cwd


def predict(cwd, *arguments, start=succeed):
    return start("predict.py", "--num_workers", 0, *arguments, cwd=cwd)


def complaint(cwd, *arguments):
    return predict(cwd, *arguments, start=refused)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def own_points(fitted):
    return read_keypoints(fitted / "own.csv", fitted / "own", y_up=True)


def assert_as_tested(found, run, table):
    """Compare the errors of found points with those that a run notes of the tested images."""
    tested = [row for row in rows(run / "per_image.csv") if row["split"] == "Test"]
    errors = {row["image"]: float(row["mean_px"]) for row in tested}
    test = result_of(run)
    assert test["images"]["Test"] == len(errors) > 1
    assert np.mean([*errors.values()]) == pytest.approx(test["scores"]["Test"]["error_px"], 1e-3)
    found = {row["image"]: row for row in found}
    for image, error in errors.items():
        points = np.array([[float(found[image][f"{n}_{a}"]) for a in "xy"] for n in NAMES])
        truth = table.points[table.images.index(image)]
        assert abs(np.linalg.norm(points - truth, axis=1).mean() - error) < 2e-3


@pytest.mark.parametrize("kind", list(KINDS))
def test_points_are_those_of_the_evaluation(fitted, tmp_path, kind):
    ckpt = fitted / f"runs/{kind}/resnet18.pth"
    done = predict(
        tmp_path, "--ckpt_path", ckpt, "--images", fitted / "own", "--out", tmp_path / "a.csv"
    )
    assert "12 of 12 images: " in done.out
    assert "confidence: the probability of at most 5 % of the diagonal" in done.out
    found = rows(tmp_path / "a.csv")
    columns = ["image", *(f"nose_{kind}" for kind in ("x", "y", "confidence", "error_px"))]
    assert list(found[0])[:5] == columns
    run = fitted / "runs" / kind
    for name in NAMES:  # the less sure, the farther off
        told = [
            (-float(row[f"{name}_confidence"]), float(row[f"{name}_error_px"])) for row in found
        ]
        off = np.array(sorted(told))[:, 1]
        assert (np.diff(off) > -0.01 * off[1:]).all() and off.min() > 0
    split = "Val" if kind == "published" else "Test"  # whose mean error the map has kept
    judged = {row["image"] for row in rows(run / "per_image.csv") if row["split"] == split}
    told = [float(r[f"{name}_error_px"]) for r in found for name in NAMES if r["image"] in judged]
    assert np.mean(told) == pytest.approx(result_of(run)["scores"][split]["error_px"], rel=1e-3)
    assert_as_tested(found, run, own_points(fitted))
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_own_points_are_scored_noted_and_drawn_with_the_same_confidence(fitted, tmp_path, kind):
    run = fitted / "runs" / kind
    result = result_of(run)
    test = result["scores"]["Test"]
    assert result["images"]["Test"] >= 3 and test["median_px"] > 0
    # The square of 36 pixels is 120 x 80 of the image: an error of 1 % of the input's side, less
    # than 31 of them, is between 0.01 * 31 / 36 of the one and of the other.
    share = result["last"]["Test"]["error"] / 100 * 31 / 36
    assert 80 * share < test["error_px"] < 120 * share or kind == "published"
    noted = load_checkpoint(run / "resnet18.pth", ("landmarks",))["landmarks"]
    assert noted["names"] == NAMES and noted["framing"]["image_size"] == 36
    assert "landmarks" in load_checkpoint(run / "current.pth", ())

    readout = ["--ckpt_path", run / "resnet18.pth"]
    done = predict(tmp_path, *readout, "--images", fitted / "own", "--out", "a.csv")
    expected = {row["image"]: float(row["nose_confidence"]) for row in rows(tmp_path / "a.csv")}
    flags = [flag for flag in FIT if flag not in ("--model_path", "runs")]
    flags += ["--data_folder", fitted / "own", "--annotations", fitted / "own.csv", *readout]
    flags += ["--vis_keypoints", "--vis_path", "vis", "--page", "page", "--regressor", kind]
    if kind == "published":
        flags += ["--val_share", 0.3]
    done = succeed("vis_animal.py", *flags, cwd=tmp_path)
    assert "confidence: the probability of at most 5 % of the diagonal" in done.out
    assert f"test error {test['error_px']:.2f} px" in done.out
    drawn = {path.name for path in (tmp_path / "vis").iterdir()}
    assert {"names.png", "contact_sheet.png", "2_gt.png"} <= drawn
    assert f"{test['error_px']:.2f} px" in (tmp_path / "page/data/summary.js").read_text()
    text = (tmp_path / "page/data/0000.js").read_text()
    record = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert len(record["names"]) == result["images"]["Test"]
    confidence = np.reshape(record["confidence"], (len(record["names"]), len(NAMES)))
    for name, (nose, *_) in zip(record["names"], confidence, strict=True):
        assert abs(nose - expected[name]) < 2e-3


@pytest.mark.parametrize("kind", list(KINDS))
def test_points_are_matched_by_their_names(fitted, tmp_path, kind):
    cwd = shutil.copytree(fitted, tmp_path / "w")
    table = own_points(fitted)
    error = result_of(fitted / "runs" / kind)["scores"]["Test"]
    write_csv(cwd / "own.csv", table._replace(points=table.points[:, ::-1]), 80, NAMES[::-1])
    flags = ["--data_folder", "own", "--annotations", "own.csv", "--regressor", kind]
    vis = [*(f for f in FIT if f not in ("--model_path", "runs")), *flags, "--page", "page"]
    vis += ["--ckpt_path", f"runs/{kind}/resnet18.pth", "--vis_annotations"]
    vis += ["--val_share", 0.3] if kind == "published" else []
    done = succeed("vis_animal.py", *vis, cwd=cwd)
    assert f"test error {error['error_px']:.2f} px" in done.out, done.out
    flags += [*KINDS[kind], "--model_name", kind, "--resume", "auto"]
    done = succeed("eval_animal.py", *FIT, *flags, cwd=cwd)
    assert f"Test error {error['error_px']:.2f} px" in done.out, done.out
    write_csv(cwd / "own.csv", table, 80, ["nose", "left_eye", "tail"])
    said = f"finds the points {', '.join(NAMES)}; annotated are nose, left_eye, tail\n"
    for words in (["vis_animal.py", *vis, "--page", "new"], ["eval_animal.py", *FIT, *flags]):
        assert refused(*words, cwd=cwd).endswith(said)


def test_nothing_is_promised_of_images_that_were_trained_on(fitted, tmp_path):
    flags = ["--data_folder", fitted / "own", "--annotations", fitted / "own.csv"]
    flags += ["--regressor", "ridge", "--test_share", 0, "--model_name", "a", "--curve_seeds", 3]
    done = succeed("eval_animal.py", *FIT, *flags, cwd=tmp_path)
    assert "confidence isn't calibrated, and no probability: no image is held out" in done.out
    assert "--curve_seeds has no effect, without --curve" in done.out
    own = ["--images", fitted / "own", "--out", "a.csv"]
    old = load_checkpoint(fitted / "runs/ridge/resnet18.pth", ("calibration",))
    old["opt"].test_share = 0  # as earlier versions left it
    save_checkpoint(tmp_path / "old.pth", old)
    for path in ("runs/a/resnet18.pth", "old.pth"):
        done = predict(tmp_path, "--ckpt_path", path, *own, "--overwrite")
        assert "no probability" in done.out and "held-out" not in done.out


@pytest.fixture
def ridge(fitted):
    return ["--ckpt_path", fitted / "runs/ridge/resnet18.pth", "--random_network"]


def test_a_scale_is_written_again(fitted, tmp_path):
    cwd = shutil.copytree(fitted / "own", tmp_path / "own")
    table = own_points(fitted)
    found = zip(table.images[:9], table.points[:9], strict=True)
    records = [Prediction(n, SIZE, p, np.ones(3), scale=0.25) for n, p in found]
    write_predictions(tmp_path / "own.tps", NAMES, records)
    flags = ["--data_folder", "own", "--annotations", "own.tps", "--regressor", "ridge"]
    fit = [flag for flag in FIT if flag != "--y_up"]
    done = succeed("eval_animal.py", *fit, *flags, "--model_name", "a", cwd=tmp_path)
    assert " in the unit of SCALE= (median " in done.out, done.out
    test = result_of(tmp_path / "runs/a")["scores"]["Test"]
    assert test["error_scale_units"] == pytest.approx(test["error_px"] / 4)
    ckpt = ["--ckpt_path", "runs/a/resnet18.pth", "--images", "own", "--out", "a.tps"]
    done = predict(tmp_path, *ckpt)
    assert "own.tps: has the SCALE= of 9 of the images\n" in done.out, done.out
    assert read_keypoints(tmp_path / "a.tps", cwd).scales == dict.fromkeys(table.images[:9], 0.25)
    (tmp_path / "own.tps").unlink()
    predict(tmp_path, *ckpt, "--overwrite")
    assert "SCALE" not in (tmp_path / "a.tps").read_text()


def test_boxes_are_predicted_one_by_one(fitted, tmp_path, ridge, monkeypatch):
    image = {"id": 1, "file_name": "day0/0.png"}
    boxes = [
        {"id": n, "image_id": 1, "bbox": b} for n, b in ((5, [0, 0, 60, 60]), (6, [9, 9, 30, 40]))
    ]
    content = {"images": [image], "annotations": boxes, "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    flags = [*ridge, "--images", fitted / "own", "--boxes", "boxes.json"]
    tenth = lambda _, confidence: torch.full_like(confidence, 0.1)  # noqa: E731
    monkeypatch.setattr(Calibration, "expected_error", tenth)
    done = predict(tmp_path, *flags, "--out", "a.csv", "--box_margin", 0, start=run_inside)
    found = rows(tmp_path / "a.csv")
    assert [row["instance"] for row in found] == ["5", "6"]
    for name in NAMES:  # of the diagonal of the box
        assert [row[f"{name}_error_px"] for row in found] == ["8.485", "5.000"]
    assert "2 of 2 boxes: a.csv" in done.out
    assert "one instance an image" in complaint(tmp_path, *flags, "--out", "a.tps")


def test_several_outputs_are_those_of_several_runs(fitted, tmp_path, ridge):
    flags, endings = [*ridge, "--images", fitted / "own"], (".csv", "_long.csv", ".json", ".tps")
    predict(tmp_path, *flags, "--out", *(f"all{ending}" for ending in endings))
    for ending in endings:
        predict(tmp_path, *flags, "--out", f"one{ending}")
        one, of_all = (tmp_path / f"{name}{ending}" for name in ("one", "all"))
        assert one.read_bytes() == of_all.read_bytes()
    assert len(list(tmp_path.iterdir())) == 8
    again = complaint(tmp_path, *flags, "--out", "b.csv", "b.csv")
    assert "--out: one of its files is there twice" in again
    there = complaint(tmp_path, *flags, "--out", "b.csv", "all.json")
    assert "all.json" in there and "--overwrite to" in there
    assert not (tmp_path / "b.csv").exists()
    shared = ["--out", "b.csv", "b.json", "--page", "b.json"]
    assert "is or holds" in complaint(tmp_path, *flags, *shared)


def test_a_readout_of_a_benchmark_takes_whole_images(faces, tmp_path):
    fit = [*FRAME, "--batch_size", 4, "--layer", 4, "--use_hypercol", "--random_network"]
    fit += ["--data_folder", faces, "--model_path", "runs", "--model_name", "r", "--seed", 3]
    done = succeed("eval_face.py", *fit, "--regressor", "ridge", cwd=tmp_path)
    ckpt = ["--ckpt_path", "runs/r/resnet18.pth"]
    done = predict(tmp_path, *ckpt, "--images", faces / "Img", "--out", "a.csv")
    assert "trained on MAFLAligned, which cuts its squares out in its own way" in done.out
    assert "the encoder is what runs/r/resnet18.pth names: an untrained one" in done.out
    assert "has no calibration: confidence is the readout's own" in done.out
    found = rows(tmp_path / "a.csv")
    assert len(found) == 36 and "5_confidence" in found[0]
    assert all(0 <= float(row["1_confidence"]) <= 1 for row in found)


def test_bad_images_are_named_skipped_and_counted(fitted, tmp_path, ridge):
    (tmp_path / "list.txt").write_text(f"{fitted}/own/day0/0.png\nabsent.png\nbad.png\n")
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = predict(tmp_path, *ridge, "--images", "list.txt", "--out", "a.csv")
    assert "skipped: absent.png: no such image" in done.out
    assert "1 of 3 images: a.csv" in done.out
    assert "2 images can't be read, skipped: listed in a.csv.bad_images.txt" in done.out
    listed = (tmp_path / "a.csv.bad_images.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["absent.png", "bad.png"]
    assert listed[0].endswith("\tno such image")
    assert [row["image"] for row in rows(tmp_path / "a.csv")] == [f"{fitted}/own/day0/0.png"]
    mended = ["--images", fitted / "own/day0", "--out", "a.csv", "--overwrite"]
    predict(tmp_path, *ridge, *mended)
    assert not (tmp_path / "a.csv.bad_images.txt").exists()
    (tmp_path / "list.txt").write_text("absent.png\nbad.png\n")
    said = complaint(tmp_path, *ridge, "--images", "list.txt", "--out", "b.csv")
    assert "none of the 2 images can be read; absent.png" in said
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.parametrize("ending", ["", ".part", ".bad_images.txt", ".suggested.txt", ".drawn/1"])
def test_what_is_there_stays_unless_it_is_to_be_replaced(fitted, tmp_path, ridge, ending):
    flags, mine = [*ridge, "--images", fitted / "own/day0"], tmp_path / f"a.csv{ending}"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine\n")
    said = complaint(tmp_path, *flags, "--out", "a.csv")
    assert f"a.csv{ending[:5]}" in said and "--overwrite to" in said
    assert mine.read_text() == "mine\n" and len(list(tmp_path.iterdir())) == 1
    predict(tmp_path, *flags, "--out", "a.csv", "--overwrite")


def stop(monkeypatch, *arguments):  # when all but the results is written
    with monkeypatch.context() as patched:
        patched.setattr(PredictionRun, "finish", lambda *_: signal.raise_signal(signal.SIGINT))
        assert predict(*arguments, start=run_inside).status == 130


def test_a_stopped_run_knows_its_drawings_and_its_images(tmp_path, ridge, monkeypatch):
    write_dots(tmp_path / "more", 6, seed=4)
    flags = [*ridge, "--images", "more", "--out", "a.csv", "--draw"]
    stop(monkeypatch, tmp_path, *flags, 6)
    for count, more in ((5, ""), (2, "--overwrite")):
        predict(tmp_path, *flags, count, *more.split())
        names = sorted(path.name for path in (tmp_path / "a.csv.drawn").iterdir())
        assert [int(name[:4]) for name in names] == list(range(1, count + 1))
    stop(monkeypatch, tmp_path, *flags, 2, "--overwrite")
    (tmp_path / "a.csv").unlink()
    write_dots(tmp_path / "more", 6, seed=5)
    assert "left by a run with other images:" in complaint(tmp_path, *flags, 2)


@pytest.mark.parametrize("flags", SHARED)
def test_an_output_is_no_input_and_no_other_output(fitted, tmp_path, flags):
    for name in ("list.csv", "a.csv.suggested.txt", "boxes.json"):
        (tmp_path / name).write_text("own/day0/0.png\n")
    for name, target in (("own", "own"), ("own.csv", "own.csv"), ("link", tmp_path)):
        (tmp_path / name).symlink_to(fitted / target)
    (tmp_path / "ckpt.pth").write_bytes((fitted / "runs/ridge/resnet18.pth").read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    script, given = "predict.py", ["--ckpt_path", "ckpt.pth", "--images", "own", "--overwrite"]
    if "--log_path" in flags:
        script, given = "vis_animal.py", [*FIT, "--data_folder", "own"]
        given += ["--annotations", "list.csv", "own.csv"]
    assert "is or holds" in refused(script, *given, *flags, cwd=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


HOSTILE = ("halved", "far", "wide")  # entries of what a readout was trained on


def noted(content, **changes):
    return {"landmarks": {**content["landmarks"], **changes}}


def opted(content, **changes):
    return {"opt": argparse.Namespace(**{**vars(content["opt"]), **changes})}


def test_what_a_user_may_get_wrong_is_one_line(fitted, tmp_path, ridge):
    own = ["--images", fitted / "own", "--out", "a.csv"]
    encoder = tmp_path / "encoder.pth"
    state = load_checkpoint(fitted / "runs/finetune/resnet18.pth", ("model",))["model"]
    torch.save({"model": state}, encoder)
    ckpt = ridge[1]
    damaged = load_checkpoint(ckpt, ())
    framing = damaged["landmarks"]["framing"]
    for name, change in (
        ("named", {"landmarks": {**damaged["landmarks"], "names": ["a"]}}),
        ("calibrated", {"calibration": {"slopes": [1]}}),
        ("cropped", {"opt": argparse.Namespace(**{**vars(damaged["opt"]), "image_crop": -2})}),
        ("turned", {"ridge": {key: value + 0j for key, value in damaged["ridge"].items()}}),
        ("halved", noted(damaged, names=["a", "b", "\ud800"][: len(NAMES)])),
        ("far", noted(damaged, framing={**framing, "span": 1e300})),
        ("wide", noted(damaged, framing={**framing, "margin": 1e6})),
        ("foo", opted(damaged, model="foo")),
        ("large", opted(damaged, image_size=20_000)),
        ("larger", opted(damaged, image_size=10**9)),
    ):
        save_checkpoint(tmp_path / f"{name}.pth", {**damaged, **change})
    for flags, words in (
        (["--ckpt_path", "absent.pth", *own], "absent.pth: no such checkpoint"),
        (own, "give the checkpoint of a readout by --ckpt_path"),
        (["--ckpt_path", encoder, *own], "expected a checkpoint with opt"),
        (
            ["--ckpt_path", ckpt, "--trained_model_path", encoder, *own],
            "belongs to another encoder",
        ),
        (["--ckpt_path", "named.pth", *own], "its entry landmarks is damaged"),
        (["--ckpt_path", "calibrated.pth", *own], "its entry calibration is damaged"),
        (["--ckpt_path", "cropped.pth", *own], "don't say which image_crop"),
        *((["--ckpt_path", f"{name}.pth", *own], "its entry landmarks") for name in HOSTILE),
        (["--ckpt_path", "foo.pth", *own], "expected one of resnet50, "),
        (["--ckpt_path", "large.pth", *own], "from 1 to 10000, got '20000'"),
        (["--ckpt_path", "larger.pth", *own], "from 1 to 10000, got '1000000000'"),
        (["--ckpt_path", "turned.pth", *own], "holds complex numbers"),
        ([*ridge, "--images", "nowhere", "--out", "a.csv"], "no such folder, image, list or video"),
        ([*ridge, "--images", fitted / "own", "--out", "no/a.csv"], "no/a.csv: no: no such folder"),
        ([*ridge, "--images", fitted / "own", "--out", "a.xls"], "ends in none of .csv, "),
        ([*ridge, "--images", fitted / "own"], "give the images by --images PATH and"),
    ):
        assert words in complaint(tmp_path, *flags), flags
    assert not (tmp_path / "a.csv").exists() and not list(tmp_path.glob("*.part"))


def test_pictures_a_page_and_suggestions(fitted, tmp_path, ridge):
    (tmp_path / "more").mkdir()
    table = write_dots(tmp_path / "more", 6, seed=4)
    flags = [*ridge, "--images", "more", "--out", "a.csv", "--draw", 2, "--page", "page"]
    done = predict(tmp_path, *flags, "--suggest", 3)
    assert "2 drawings: a.csv.drawn" in done.out and (tmp_path / "page/index.html").is_file()
    found = rows(tmp_path / "a.csv")
    least = min(found, key=lambda row: sum(float(row[f"{name}_confidence"]) for name in NAMES))
    drawn = sorted(path.name for path in (tmp_path / "a.csv.drawn").iterdir())
    stem = least["image"].replace("/", "_").removesuffix(".png")
    assert len(drawn) == 2 and drawn[0] == f"0001_{stem}.png"
    suggested = (tmp_path / "a.csv.suggested.txt").read_text().split()
    assert len(set(suggested)) == 3 and set(suggested) <= set(table.images)
    again = complaint(tmp_path, *ridge, "--images", "more", "--out", "b.csv", "--page", "page")
    assert "page" in again and not (tmp_path / "b.csv").exists()


ODD = ["caf\udce9.png", "a\nb\x1b[2J.png", " c .png", "d\r.png", "100%25.png", "ü.png"]


@pytest.mark.parametrize("ending", [".csv", "_long.csv", ".dlc.csv", ".json", ".tps"])
def test_names_that_no_line_can_hold_come_back(fitted, tmp_path, ridge, ending):
    (tmp_path / "odd").mkdir()
    for name in ODD:
        shutil.copy(fitted / "own/day0/0.png", tmp_path / "odd" / name)
    (tmp_path / "odd/\x1b[2J\udce9.png").write_bytes(b"no image")
    flags = [*ridge, "--images", "odd", "--out", f"a{ending}", "--draw", 9, "--suggest", 6]
    done = predict(tmp_path, *flags, "--page", "page")
    assert "\x1b" not in done.out, done.out
    assert read_keypoints(tmp_path / f"a{ending}", tmp_path / "odd").images == sorted(ODD)
    listed = (tmp_path / f"a{ending}.bad_images.txt").read_text()
    assert listed.startswith("%1B[2J%E9.png\t") and listed.count("\n") == 1
    suggested = (tmp_path / f"a{ending}.suggested.txt").read_text().splitlines()
    assert {"caf%E9.png", "a%0Ab%1B[2J.png", "%20c .png"} <= set(suggested)
    assert len(list((tmp_path / f"a{ending}.drawn").iterdir())) == 6


def test_a_readout_of_several_annotation_files(fitted, tmp_path):
    """The same as of one; predict.py replaces none of them, nor suggests their images."""
    header, *lines = (fitted / "own.csv").read_text().splitlines()
    for name, part in (("1.csv", lines[:5]), ("2.csv", lines[5:])):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).write_text("\n".join([header, *part]))
    (tmp_path / "own").symlink_to(fitted / "own")
    flags = [*FIT, "--data_folder", "own", "--regressor", "ridge", "--model_name", "several"]
    succeed("eval_animal.py", *flags, "--annotations", "parts", cwd=tmp_path)
    several, one = tmp_path / "runs/several", fitted / "runs/ridge"
    assert json.loads((several / "options.json").read_text())["options"]["annotations"] == [
        *("parts/1.csv", "parts/2.csv")
    ]
    assert json.loads((one / "options.json").read_text())["options"]["annotations"] == "own.csv"
    scores = [result_of(run)["scores"] for run in (several, one)]
    assert scores[0] == scores[1]
    own = ["--ckpt_path", several / "resnet18.pth", "--random_network", "--images", "own"]
    said = complaint(tmp_path, *own, "--out", "s.csv", "--suggest", 3)
    assert "--suggest: all images are annotated already" in said
    assert not (tmp_path / "s.csv.part").exists()  # said before the work, not after
    said = complaint(tmp_path, *own, "--out", "parts/2.csv", "--overwrite")
    assert "parts/2.csv: is or holds --annotations parts/2.csv" in said


def test_a_video_comes_back_labelled(fitted, tmp_path, ridge):
    pytest.importorskip("av", reason="pip install -e .[video]")
    images = [open_image(path) for path in sorted((fitted / "own").rglob("*.png"))]
    write_video(tmp_path / "clip.mp4", iter(images), Fraction(10))
    flags = [*ridge, "--images", "clip.mp4", "--out", "a.csv", "--batch_size", 5]
    done = predict(tmp_path, *flags, "--out_video", "b.mp4", "--draw", 1)
    assert "12 labelled frames: b.mp4" in done.out
    assert [row["image"] for row in rows(tmp_path / "a.csv")] == [
        f"clip.mp4/{number:06d}" for number in range(12)
    ]
    labelled = list(read_frames(tmp_path / "b.mp4"))
    assert len(labelled) == 12 and labelled[0].size == images[0].size
    row = rows(tmp_path / "a.csv")[3]
    x, y = float(row["nose_x"]), float(row["nose_y"])
    colours = np.asarray(labelled[3], dtype=int)[round(y) - 2 : round(y) + 3, round(x) - 2 :][:, :5]
    assert np.ptp(colours, axis=2).max() > 60  # a coloured dot on grey
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    for images_flag, more, words in (
        ("bad.mp4", [], "bad.mp4: not a readable video"),
        ("clip.mp4", ["--suggest", 1], "--suggest: of image files, not of a video"),
        (fitted / "own", ["--out_video", "c.mp4"], "--out_video c.mp4: --images is no video"),
        ("clip.mp4", ["--out_video", "b.mp4"], "b.mp4: is there already"),
        ("clip.mp4", ["--out_video", "b.xyz"], "--out_video b.xyz: can't write it"),
    ):
        flags = [*ridge, "--images", images_flag, "--out", "c.csv", *more]
        assert words in complaint(tmp_path, *flags)


def write_packets(path, images, codec="mpeg4", every="1"):
    """Write a video, all of key frames or every n-th; return its packets: time, place and size."""
    av = pytest.importorskip("av", reason="pip install -e .[video]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": every})
        (stream.width, stream.height), stream.pix_fmt = images[0].size, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        return [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size]


def without(content, packets, number):
    _, place, size = packets[number]
    return content[:place] + bytes(size) + content[place + size :]


def test_a_damaged_video_keeps_its_numbers(fitted, tmp_path, ridge, monkeypatch):
    images = [open_image(path) for path in sorted((fitted / "own").rglob("*.png"))]
    packets = write_packets(clip := tmp_path / "clip.mp4", images)
    flags = [*ridge, "--images", "clip.mp4", "--batch_size", 2, "--out"]
    done = predict(tmp_path, *flags, "whole.csv")
    assert "12 of 12 frames: whole.csv" in done.out and "cut short" not in done.out, done.out
    expected, content = (tmp_path / "whole.csv").read_text().splitlines(), clip.read_bytes()
    for number in (5, 6, 11):
        content = without(content, packets, number)
        expected[number + 1] = f"clip.mp4/{number:06d}" + ",,,0.0000," * len(NAMES)
    clip.write_bytes(content)
    done = predict(tmp_path, *flags, "a.csv", "--out_video", "b.mp4", "--draw", 12)
    said = "9 of 12 frames", "/000005: can't be", "3 frames can't", "9 drawings", "9 labelled"
    assert all(words in done.out for words in said) and " images" not in done.out, done.out
    assert (tmp_path / "a.csv").read_text().splitlines() == expected
    for lines in (5, 6, 7, 8, 13):  # of the part file, the first of which is its head
        stop(monkeypatch, tmp_path, *flags, f"{lines}.csv")
        part = tmp_path / f"{lines}.csv.part"
        part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:lines]))
        done = predict(tmp_path, *flags, f"{lines}.csv")
        assert f"resumed from {part.name} after {lines - 1} frames" in done.out, done.out
        assert (tmp_path / f"{lines}.csv").read_text().splitlines() == expected
    for clip in (tmp_path / "cut.avi", tmp_path / "cut.mkv"):
        packets = write_packets(clip, images)
        clip.write_bytes(clip.read_bytes()[: packets[8][1]])
        done = predict(tmp_path, *ridge, "--images", clip, "--out", f"{clip.suffix}.json")
        assert "8 of 8 frames" in done.out and "promises 4 frames more" in done.out, done.out


@pytest.mark.parametrize("number", [8, 12, 20])  # the 12th is a key: what follows is lost, too
def test_frames_that_are_stored_in_another_order_keep_their_numbers(tmp_path, number):
    images = [Image.new("RGB", (64, 48), (8 * shade,) * 3) for shade in range(30)]
    packets = write_packets(clip := tmp_path / "clip.mp4", images, "libx264", "12")
    clip.write_bytes(without(clip.read_bytes(), packets, number))
    found = list(read_frames(clip))
    assert len(found) == 30 and found[sorted(packets).index(packets[number])] is None
    values = {n: np.asarray(image).mean() / 8 for n, image in enumerate(found) if image}
    assert len(values) > 15 and max(abs(n - values[n]) for n in (0, 1, 28, 29)) < 1


def test_a_network_is_exported_without_images(fitted, tmp_path, ridge):
    pytest.importorskip("onnxruntime", reason="pip install -e .[export]")
    done = predict(tmp_path, *ridge, "--export", "model.onnx")
    assert "model.onnx: ONNX, opset 17; image (N, 3, 36, 36)" in done.out
    said = complaint(tmp_path, *ridge, "--export", "model.onnx")
    assert "model.onnx: is there already" in said


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("source", ["list.txt", pytest.param("clip.mp4", marks=LIKE_THE_LIST)])
def test_killed_runs_lose_no_line_and_repeat_none(fitted, tmp_path, ridge, source):
    """``KILLS=20`` kills that often; two images of a list can't be read."""
    images = [str(path) for path in sorted((fitted / "own").rglob("*.png"))]
    chance = random.Random(5)
    lines = [chance.choice(images) for _ in range(60 + 40 * KILLS)]
    if source == "clip.mp4":
        pytest.importorskip("av", reason="pip install -e .[video]")
        frames = (open_image(Path(line)) for line in lines)
        write_video(tmp_path / source, frames, Fraction(10))
        names = [f"{source}/{number:06d}" for number in range(len(lines))]
    else:
        lines[7], lines[70] = "absent.png", "gone.png"
        names = [line for line in lines if "/" in line]
        (tmp_path / source).write_text("\n".join(lines) + "\n")
    flags = [*ridge, "--images", source, "--batch_size", 2, "--num_workers", 1]
    predict(tmp_path, *flags, "--out", "whole.csv")
    part, kills, resumed = tmp_path / "killed.csv.part", 0, 0
    while True:
        run = start_process("predict.py", *flags, "--out", "killed.csv", cwd=tmp_path)
        before = part.stat().st_size if part.exists() else 0
        if kills < KILLS:
            while run.poll() is None and not (part.exists() and part.stat().st_size > before + 900):
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.1))
            assert run.poll() is None, run.stdout.read()
            os.killpg(run.pid, signal.SIGKILL)
            kills += 1
            out = run.stdout.read()
            run.wait()
            resumed += "resumed from killed.csv.part after " in out
            continue
        out, _ = run.communicate(timeout=600)
        break
    assert run.returncode == 0, out
    assert ("2 images can't be read" in out) == (source == "list.txt") and resumed >= KILLS - 1
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [row["image"] for row in rows(tmp_path / "killed.csv")] == names
    assert not part.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images(fitted, tmp_path, ridge):
    """``LINKS=10000`` predicts on so many links to one image."""
    count = int(os.environ.get("LINKS", "3000"))
    (tmp_path / "links").mkdir()
    target = next((fitted / "own").rglob("*.png"))
    for number in range(count):
        (tmp_path / f"links/{number:05d}.png").symlink_to(target)
    flags = [*ridge, "--images", "links", "--num_workers", 0, "--out", "a.csv"]
    run = start_process("predict.py", *flags, cwd=tmp_path)
    part, sizes = tmp_path / "a.csv.part", {}
    while run.poll() is None:
        done = part.read_bytes().count(b"\n") if part.exists() else 0
        pages = Path(f"/proc/{run.pid}/statm").read_text().split()
        sizes[done] = int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages[1] != "0" else 0
        time.sleep(0.2)
    assert run.returncode == 0, run.stdout.read()
    early = max(size for done, size in sizes.items() if count / 10 < done < count / 4)
    late = max(size for done, size in sizes.items() if done > count / 4)
    print(f"{count:,} images: {early:.0f} MiB after a quarter, {late:.0f} MiB at most after that")
    assert late < early + 20
    assert len(rows(tmp_path / "a.csv")) == count


def test_an_interrupted_run_can_be_resumed_by_the_same_command_alone(fitted, tmp_path, ridge):
    images = sorted((fitted / "own").rglob("*.png"))
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in images * 6))
    flags = [*ridge, "--images", "list.txt", "--batch_size", 1, "--num_workers", 0]
    flags += ["--out", "a.csv"]
    run, part = start_process("predict.py", *flags, cwd=tmp_path), tmp_path / "a.csv.part"
    while run.poll() is None and not (part.exists() and part.stat().st_size > 2000):
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 130 and "the same command goes on" in out, out
    for other, what in (
        (["--fit", "pad"], "framing or names"),
        (["--ckpt_path", fitted / "runs/finetune/resnet18.pth"], "checkpoint or encoder"),
    ):
        assert f"left by a run with other {what}:" in complaint(tmp_path, *flags, *other)
    done = predict(tmp_path, *flags)
    assert "resumed from a.csv.part after " in done.out, done.out
    assert len(rows(tmp_path / "a.csv")) == 72


def test_a_second_pass_looks_at_windows_of_the_first(fitted, tmp_path, ridge):
    images = ["--images", fitted / "own"]
    windows = ["--windows", "windows.json"]
    done = predict(tmp_path, *ridge, *images, "--out", "a.csv", *windows)
    table = own_points(fitted)
    spans = np.ptp(table.points, axis=1).max(axis=1)
    side = json.loads((tmp_path / "windows.json").read_text())["annotations"][0]["bbox"][2:]
    # Those that were trained on are nine of the twelve.
    assert side[0] == side[1] and spans.min() < side[0] / 1.75 < spans.max() + 1
    assert f"12 windows of {side[0]:.0f} x" in done.out
    again = complaint(tmp_path, *ridge, *images, "--out", "b.csv", *windows)
    assert "windows.json: is there already" in again

    fit = ["--data_folder", fitted / "own", "--annotations", fitted / "own.csv"]
    fit += ["--regressor", "ridge", "--boxes", "windows.json", "--box_margin", 0]
    fit += ["--mirror", "on"]
    done = succeed("eval_animal.py", *FIT, *fit, "--model_name", "fine", cwd=tmp_path)
    fine = ["--ckpt_path", "runs/fine/resnet18.pth", *images, "--out"]
    done = predict(tmp_path, *fine, "fine.csv", "--boxes", "windows.json")
    assert "another scale" not in done.out, done.out
    assert_as_tested(rows(tmp_path / "fine.csv"), tmp_path / "runs/fine", table)
    done = predict(tmp_path, *fine, "whole.csv")
    assert "trained on boxes" in done.out
    done = predict(tmp_path, *ridge, *images, "--boxes", "windows.json", "--out", "c.csv")
    assert "trained on whole images" in done.out
