"""Which images are drawn, and which are suggested for annotation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from data_loader.framing import Framing
from data_loader.readers.prediction_files import Prediction
from data_loader.unannotated import ImageFiles
from engine.prediction import pictures
from engine.prediction.predictor import Frame, Predictor
from engine.prediction.run import PredictionRun
from engine.readouts.ridge import Ridge
from models.encoders import build_random_encoder, freeze
from tests.data_loader.layouts import complaint

FRAME = Frame(["nose"], Framing("stretch", 64), 0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def entry(number, confidence) -> Prediction:
    points = np.array([[number, 0.0]])
    return Prediction(f"{number}.png", (8, 8), points, np.array([confidence]), number=number)


def images(folder, count) -> ImageFiles:
    """Return images of noise, each of another one."""
    chance = np.random.default_rng(0)
    for number in range(count):
        pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageFiles(folder, [f"{number}.png" for number in range(count)])


def run_of(source, entries):
    part = SimpleNamespace(readable=lambda: iter(entries))
    settings = SimpleNamespace(suggest=2)
    return SimpleNamespace(source=source, part=part, frame=FRAME, settings=settings)


def test_the_least_certain_images_are_drawn_the_least_first(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(pictures, "draw_named", lambda image, points, *_: (image, points))
    monkeypatch.setattr(pictures, "save_png", lambda made, path: drawn.update({path.name: made}))
    source = images(tmp_path, 5)
    entries = [entry(n, sure) for n, sure in enumerate((0.9, 0.1, 0.3, 0.8, 0.1))]
    assert pictures.draw_least_certain(run_of(source, entries), 3, tmp_path / "drawn") == 3
    assert sorted(drawn) == ["0001_1.png", "0002_4.png", "0003_2.png"]
    for name, (image, points) in drawn.items():
        number = int(name[5])
        assert points.tolist() == [[number, 0]]
        assert np.array_equal(image, Image.open(tmp_path / f"{number}.png"))


def test_the_less_certain_half_of_some_images(monkeypatch):
    entries = [entry(number, abs(number - 4) / 10) for number in range(8)]
    others = {0, 1, 2, 3, 4, 6, 7}  # 4 is the least certain
    assert pictures.less_certain_half(entries, others, least=2) == [4, 3, 2]
    assert len(pictures.less_certain_half(entries, others, least=6)) == 6
    assert pictures.less_certain_half([], others, least=6) == []
    # Of many images, some of every confidence.
    monkeypatch.setattr(pictures, "MOST_CANDIDATES", 10)
    entries = [entry(number, number / 100) for number in range(100)]
    assert pictures.less_certain_half(entries, range(100), 3) == list(range(0, 50, 5))
    assert len(pictures.less_certain_half(entries, range(100), 20)) == 25


def test_annotated_images_are_found_by_where_they_lie(tmp_path):
    (tmp_path / "a").mkdir()
    source = ImageFiles(tmp_path / "a", [f"{number}.png" for number in range(3)])
    annotated = ImageFiles(tmp_path, ["a/../a/1.png", "2.png"])
    assert pictures.not_annotated(source, annotated) == [0, 2]
    assert pictures.not_annotated(source, None) == [0, 1, 2]
    assert "all images are annotated" in complaint(pictures.not_annotated, source, source)


@pytest.mark.parametrize("is_begun", [False, True])
def test_what_most_others_look_like_is_suggested_first(tmp_path, monkeypatch, is_begun):
    """Of the less certain half, 5 lies between 6 and 7, and 4 far from them."""
    looks = torch.tensor([9.0, 9, 9, 9, 20, 0, 0.3, -0.3])[:, None]
    source, known = images(tmp_path, 8), ImageFiles(tmp_path / "annotated", ["like 5.png"])
    seen = {source: looks, known: looks[5:6]}
    monkeypatch.setattr(pictures, "looks_of", lambda _, files, places: [seen[files][places]])
    entries = [entry(number, 0.9 if number < 4 else number / 10) for number in range(8)]
    run, annotated = run_of(source, entries), known if is_begun else None
    run.suggested = tmp_path / "suggested.txt"
    found = pictures.suggest_images(run, source, range(8), annotated)
    assert found == (["4.png", "6.png"] if is_begun else ["5.png", "4.png"])
    assert run.suggested.read_text().splitlines() == found


def test_an_image_looks_like_the_deepest_map(tmp_path):
    encoder = freeze(build_random_encoder("resnet18", 64, 0))
    readout = Ridge(encoder, Ridge.choose_levels(encoder, 4, True, {}), 1, 64)
    source = images(tmp_path, 3)
    settings = {"out": tmp_path / "a.csv", "also_out": [], "overwrite": False}
    settings = SimpleNamespace(**settings, batch_size=2, num_workers=0)
    run = PredictionRun(Predictor(readout, FRAME).eval(), source, settings, None)
    looks = torch.cat(list(pictures.looks_of(run, source, [2, 0, 1])))
    pixels = [np.asarray(FRAME.framing.to_square(i)[0]) / 255 for _, i in source.open([0, 1, 2])]
    shown = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()[[2, 0, 1]]
    with torch.no_grad():
        deepest = encoder((shown - 0.5) / 0.2, 5)  # (3, 512, 2, 2)
    assert torch.allclose(looks, adaptive_avg_pool2d(deepest, 3).flatten(1), atol=1e-4)
