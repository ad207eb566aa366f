"""The commands of the first run in docs/own_images.md, pasted one by one into an empty folder."""

import csv
import json
import re
import shlex
from importlib.util import find_spec

from PIL import Image

from tests.recipes import ROOT
from tests.scripts.running import succeed

# What the page says -> what is run, so that the test takes seconds.
SMALLER = {
    "--images 160": "--images 6",
    "--mafl_train 30": "--mafl_train 6",
    "--mafl_test 10": "--mafl_test 4",
    "--image_size 96": "--image_size 64",
    "--batch_size 32": "--batch_size 8",
    "--epochs 6": "--epochs 1",
    "--finetune_steps 60": "--finetune_steps 2",
    "--curve 5 20": "--curve 2 4",
    "--draw 8": "--draw 2",
    "--suggest 10": "--suggest 3",
}


def tutorial() -> list[list[str]]:
    """Return the words of the first run's commands, made smaller."""
    page = (ROOT / "docs/own_images.md").read_text()
    text = page.split("## A first run")[1].split("\n## ")[0]
    for said, smaller in SMALLER.items():
        assert re.search(rf"{said}(?!\S)", text), f"{said}: not in the tutorial any more"
        text = re.sub(rf"{said}(?!\S)", smaller, text)
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def paste(words: list[str], folder) -> None:
    """Run a command of the tutorial in this folder, as if it were a fresh clone."""
    python, script, *flags = words
    assert python == "python"
    succeed(script, *flags, cwd=folder)


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_first_run_does_what_the_page_says(tmp_path):
    draw, look, train, fit, predict, curve, export = tutorial()
    faces, run = tmp_path / "datasets/drawn/folder", tmp_path / "runs/points"
    paste(draw, tmp_path)
    assert (
        len(list((faces / "images").glob("*.jpg"))) == 16 and len(rows(faces / "points.csv")) == 10
    )

    paste(look, tmp_path)
    with Image.open(tmp_path / "Visualization/annotations.png") as sheet:
        assert sheet.width > 4 * 64  # images, four times as large

    paste(train, tmp_path)
    assert (tmp_path / "runs/faces/current.pth").is_file()

    paste(fit, tmp_path)
    scores = json.loads((run / "result.json").read_text())["scores"]["Test"]
    worst = [float(row["mean_px"]) for row in rows(run / "per_image.csv")]
    assert len(worst) == 3 and worst == sorted(worst, reverse=True)
    assert scores["error_px_low"] <= scores["error_px"] <= scores["error_px_high"]
    points = [row["point"] for row in rows(run / "per_point.csv")]
    assert points == ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]

    paste(predict, tmp_path)
    found = rows(tmp_path / "predictions.csv")
    assert len({row["image"] for row in found}) == len(found) == 16
    for row in found:
        for point in points:
            assert -10 <= float(row[f"{point}_x"]) <= 188 and -10 <= float(row[f"{point}_y"]) <= 228
            assert 0 <= float(row[f"{point}_confidence"]) <= 1
    assert len(list((tmp_path / "predictions.csv.drawn").iterdir())) == 2
    assert len((tmp_path / "predictions.csv.suggested.txt").read_text().split()) == 3
    assert (tmp_path / "page/index.html").is_file()

    paste(curve, tmp_path)
    fitted = {int(row["annotated"]) for row in rows(tmp_path / "runs/curve/curve.csv")}
    assert fitted == {2, 4}
    with Image.open(tmp_path / "runs/curve/curve.png") as figure:
        figure.load()

    if find_spec("onnxruntime"):
        paste(export, tmp_path)
        assert (tmp_path / "points.onnx").stat().st_size > 10**6  # encoder and readout
