"""Exported networks against PyTorch, and a metadata's bytes against the runtime that reads them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.framing import Framing
from data_loader.readers.images import FULL_RANGE, open_image
from engine.prediction.export import export, metadata, to_onnx
from engine.prediction.predictor import Frame, Predictor
from engine.readouts.kinds import READOUTS
from models.calibration import Calibration
from models.encoders import build_random_encoder, freeze
from models.exported import pool_matrix
from tests.data_loader.layouts import complaint
from tests.recipes import ROOT, fill

runtime = pytest.importorskip("onnxruntime", reason="pip install -e .[export]")

SIDE, CROP, LANDMARKS = 44, 4, 3
NAMES = ["nose", "left eye", "é"]
FRAME = Frame(NAMES, Framing("pad", SIDE, 0.1), CROP, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def predictor(kind, model="resnet18", layer=4, use_hypercol=True, calibrated=False):
    """Return a network whose readout has weights, of which none is 0."""
    torch.manual_seed(1)
    encoder = freeze(build_random_encoder(model, SIDE - 2 * CROP, 0))
    levels = READOUTS[kind].choose_levels(encoder, layer, use_hypercol, {})
    readout = READOUTS[kind](encoder, levels, LANDMARKS, SIDE - 2 * CROP)
    module = readout.module.eval()
    if kind == "finetune":
        module.load_state_dict(fill(module.state_dict()))
    if kind == "ridge":
        shape = 0.1 * torch.randn(2 * LANDMARKS, 2 * LANDMARKS)
        module.weight.normal_(0, 0.05)
        module.shape_weight.normal_(0, 1e-4)
        module.mean.uniform_(-0.5, 0.5)
        module.covariance.copy_(shape @ shape.t() + 0.02 * torch.eye(2 * LANDMARKS))
    calibration = Calibration([0.5, 0.3], [0.1, -0.2, 0.3], 0.05, 99) if calibrated else None
    return Predictor(readout, FRAME, calibration).eval().requires_grad_(False)


def session(path):
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def expected(network, squares):
    """Return what PyTorch finds in squares (B, 3, S, S), in their pixels, and how sure it is."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (FRAME.mean, FRAME.std))
    points, sure, _ = network((squares[..., CROP:-CROP, CROP:-CROP] - mean) / std)
    return CROP + (points.numpy() + 1) * (SIDE - 2 * CROP - 1) / 2, sure.numpy()


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("published", {}),
        ("ridge", {"calibrated": True}),
        ("finetune", {"calibrated": True}),
        ("ridge", {"layer": 3, "use_hypercol": False}),
        ("published", {"layer": 4, "use_hypercol": False, "calibrated": True}),
        ("ridge", {"layer": 1}),
    ],
)
def test_the_runtime_finds_what_pytorch_finds_and_is_told_what_it_is(tmp_path, kind, how):
    network, path = predictor(kind, **how), tmp_path / "model.onnx"
    line = export(path, network, overwrite=False)
    assert "opset 17; image (N, 3, 44, 44) in [0, 1]" in line
    images, model = torch.rand(5, 3, SIDE, SIDE), session(path)
    found = model.run(None, {"image": images.numpy()})
    assert found[0].shape == (5, LANDMARKS, 2) and np.ptp(found[0]) > 1
    for one, other, scale in zip(found, expected(network, images), (SIDE, 1), strict=True):
        assert np.abs(one - other).max() < 1e-4 * scale
    told = model.get_modelmeta().custom_metadata_map
    assert json.loads(told["names"]) == NAMES
    assert told["calibrated_at"] == ("0.05" if how.get("calibrated") else "")
    assert json.loads(told["levels"]) == [0, 65535]
    assert json.loads(told["framing"]) == {"fit": "pad", "side": SIDE, "margin": 0.1}
    assert model.get_inputs()[0].shape == ["N", 3, SIDE, SIDE]
    assert [output.name for output in model.get_outputs()] == ["points", "confidence"]


def test_texts_of_any_length_are_encoded():
    # 0x72: field 14 of a kind with a length; 0x0a and 0x12: fields 1 and 2 of that kind.
    assert metadata(a="b") == b"\x72\x06\x0a\x01a\x12\x01b"
    assert metadata(a="b" * 200).startswith(b"\x72\xce\x01\x0a\x01a\x12\xc8\x01bb")


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 12, 13])
def test_pooling_is_that_of_pytorch(size):
    m = torch.rand(2, 3, size, size)
    pooled = pool_matrix(size) @ m @ pool_matrix(size).t()
    assert torch.allclose(pooled, torch.nn.functional.adaptive_avg_pool2d(m, 6), atol=1e-6)


def test_an_encoder_goes_to_torchvision(tmp_path):
    from torchvision.models import resnet18

    network = predictor("ridge")
    assert "in torchvision's names" in export(tmp_path / "encoder.pth", network, overwrite=False)
    theirs = resnet18()
    found = theirs.load_state_dict(torch.load(tmp_path / "encoder.pth"), strict=False)
    assert found.missing_keys == ["fc.weight", "fc.bias"] and not found.unexpected_keys
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        own = network.encoder(images, 5)
        steps = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        for name in steps:
            images = getattr(theirs.eval(), name)(images)
    assert torch.allclose(own, images, atol=1e-5)


class Unknown(torch.nn.Module):
    """What ONNX has no operation for."""

    def forward(self, squares):
        return torch.linalg.inv(squares), squares


def test_what_cant_be_exported_is_said(tmp_path, monkeypatch, capfd):
    (tmp_path / "a.onnx").touch()
    network = predictor("finetune")
    for name, words in (
        ("a.onnx", "is there already"),
        ("a.txt", "expected model.onnx or encoder.pth"),
        ("no/a.onnx", "no such folder"),
    ):
        assert words in complaint(export, tmp_path / name, network, False)
    assert "opset" in export(tmp_path / "a.onnx", network, True)
    monkeypatch.setattr("engine.prediction.export.TOLERANCE", 0.0)
    said = complaint(export, tmp_path / "b.onnx", network, False)
    assert "ONNX Runtime's results differ by" in said and not (tmp_path / "b.onnx").exists()
    assert "this network can't be exported" in complaint(to_onnx, Unknown(), 4)
    assert capfd.readouterr().out == ""  # of PyTorch's graph


@pytest.mark.parametrize(
    ("mode", "name", "levels"),
    [("RGB", "a.png", FULL_RANGE), ("RGBA", "a.png", FULL_RANGE), ("I;16", "a.png", FULL_RANGE)]
    + [("I;16", "a.png", (5000, 20_000)), ("I;16", "a.tif", (5000, 20_000))],
)
def test_the_page_tells_how_to_use_a_file_with_numpy_alone(tmp_path, mode, name, levels):
    network, path = predictor("finetune"), tmp_path / name
    network.frame = FRAME._replace(levels=levels)
    export(tmp_path / "points.onnx", network, overwrite=False)
    values = np.random.default_rng(0).integers(0, 256, 60 * 80 * 4, dtype=np.uint8)
    note = Image.Exif()
    note[0x0112] = 6
    Image.frombytes(mode, (80, 60), values.tobytes()).save(path, exif=note)
    page = (ROOT / "docs/own_images.md").read_text()
    code = next(part for part in re.findall(r"```python\n(.*?)```", page, re.S) if "onnx" in part)
    (tmp_path / "use.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "use.py", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert [line.split()[1] for line in told] == ["nose", "left", "é"]
    image = open_image(path, oriented=True, levels=levels)
    square, affine = Framing("stretch", SIDE).to_square(image)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    points = affine.inverse(expected(network, pixels)[0][0])
    found = [float(word) for word in done.stdout.splitlines()[0].split()[2:4]]
    assert np.abs(np.array(found) - points[0]).max() < 0.01  # two digits are printed
