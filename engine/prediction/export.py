"""Files for other programs: a network in ONNX, an encoder in torchvision's names [spec 18].

Letters: B images, S the side of a square.
"""

import importlib.util
import io
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from data_loader.image_set import standardise
from engine.prediction.predictor import Predictor
from models.exported import ExportedNetwork
from models.resnet import InsResNet
from utils.checkpoint import save_checkpoint
from utils.errors import InputError
from utils.files import check_output, reason, write_file
from utils.log import silenced

OPSET = 17
INSTALL = "pip install -e .[export]"
TOLERANCE = 1e-4  # of points, in sides of the square, and of confidence
CHECKED = (1, 3)  # batches of so many random images
METADATA, KEY, VALUE = 14, 1, 2  # fields of ONNX's ModelProto and StringStringEntryProto


def export(path: Path, predictor: Predictor, overwrite: bool) -> str:
    """Write what the ending asks for, the network or a ResNet's weights; return a line on it.

    Raises:
        InputError: if it can't be written, or the encoder isn't torchvision's.
    """
    if path.suffix not in (".onnx", ".pth"):
        raise InputError(f"--export {path}: expected model.onnx or encoder.pth, by the ending")
    check_output(path, overwrite, "--export")
    if path.suffix == ".onnx":
        return export_network(path, predictor)
    encoder = predictor.encoder
    if not isinstance(encoder, InsResNet):
        raise InputError(f"--export {path}: only of a ResNet, without --projection")
    state = {
        name: value.cpu()
        for name, value in encoder.encoder.module.state_dict().items()
        if not name.startswith("fc.")  # the vector head
    }
    save_checkpoint(path, state)
    return f"{path}: {len(state)} tensors of the encoder, in torchvision's names, without fc"


def export_network(path: Path, predictor: Predictor) -> str:
    """Write encoder and readout as one ONNX file, checked against PyTorch.

    Raises:
        InputError: if ONNX Runtime is absent, or its results are others.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"--export {path}: onnxruntime isn't installed; {INSTALL}") from None
    frame, calibration = predictor.frame, predictor.calibration
    network = ExportedNetwork(
        predictor.encoder,
        predictor.readout.exportable(),
        predictor.readout.levels.numbers,
        frame.crop,
        frame.mean,
        frame.std,
        calibration,
    ).cpu()
    side = frame.framing.side
    content = to_onnx(network.eval(), side)
    content += metadata(
        names=json.dumps(frame.names),
        framing=json.dumps(frame.framing._asdict()),
        levels=json.dumps(frame.levels),
        calibrated_at=str(calibration.distance) if calibration else "",
    )
    off = largest_difference(onnxruntime, content, predictor.cpu())
    if not np.max(off) < TOLERANCE:  # also if one isn't a number
        raise InputError(f"--export {path}: ONNX Runtime's results differ by {np.max(off):.1e}")
    write_file(path, lambda file: file.write(content))
    return (
        f"{path}: ONNX, opset {OPSET}; image (N, 3, {side}, {side}) in [0, 1] to points "
        f"(N, {len(frame.names)}, 2) in its pixels and confidence; ONNX Runtime differs from "
        f"PyTorch by at most {off[0] * side:.1e} px and {off[1]:.1e}"
    )


def to_onnx(network: ExportedNetwork, side: int) -> bytes:
    """Return a network in ONNX, for any number of images (B, 3, S, S).

    By PyTorch's exporter of traces, which all its releases from 2.6 on have; the newer one needs
    packages that don't go with the protobuf of tensorboard-logger.
    """
    file = io.BytesIO()
    axes = {name: {0: "N"} for name in ("image", "points", "confidence")}
    options: dict[str, Any] = {"dynamo": False, "opset_version": OPSET, "dynamic_axes": axes}
    try:
        with torch.no_grad(), warnings.catch_warnings(), _onnx_at_hand(), silenced(1):
            warnings.simplefilter("ignore")  # of sizes that are constants, as they are to be
            torch.onnx.export(
                network,
                (torch.rand(2, 3, side, side),),
                file,  # type: ignore[arg-type]
                input_names=["image"],
                output_names=["points", "confidence"],
                **options,
            )
    except Exception as error:  # whatever an encoder does that ONNX can't
        raise InputError(f"--export: this network can't be exported ({reason(error)})") from None
    return file.getvalue()


@contextmanager
def _onnx_at_hand() -> Iterator[None]:
    """Stand in for the package onnx where it isn't installed.

    PyTorch looks through the finished file by it for functions of onnxscript, of which there are
    none here. Its releases that go with our protobuf have no wheels for Python 3.13.
    """
    if importlib.util.find_spec("onnx") is not None:
        yield
        return
    stand_in: Any = ModuleType("onnx")
    stand_in.load_model_from_string = lambda content: SimpleNamespace(
        graph=SimpleNamespace(node=[]), opset_import=[], functions=[]
    )
    sys.modules["onnx"] = stand_in
    try:
        yield
    finally:
        del sys.modules["onnx"]


def metadata(**texts: str) -> bytes:
    """Return texts by name as the end of an ONNX file, whose repeated fields may stand anywhere.

    [Protocol Buffers, encoding.]
    """
    entries = (_field(KEY, name) + _field(VALUE, text) for name, text in texts.items())
    return b"".join(_field(METADATA, entry) for entry in entries)


def _field(number: int, content: str | bytes) -> bytes:
    """Return a field whose length precedes its content."""
    content = content.encode() if isinstance(content, str) else content
    left, head = len(content), [number << 3 | 2]
    while left > 127:
        head.append(left & 127 | 128)
        left >>= 7
    return bytes([*head, left]) + content


def largest_difference(
    runtime: ModuleType, content: bytes, predictor: Predictor
) -> tuple[float, float]:
    """Return by how much ONNX Runtime's points, in sides of a square, and confidence are off."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator, frame = torch.Generator().manual_seed(0), predictor.frame
    side, crop = frame.framing.side, frame.crop
    off = np.zeros(2)
    for count in CHECKED:
        images = torch.rand(count, 3, side, side, generator=generator)
        found = session.run(None, {"image": images.numpy()})
        inside = images[:, :, crop : side - crop, crop : side - crop]
        points, sure, _ = predictor(standardise(inside, frame.mean, frame.std))
        expected = (points + 1) * ((frame.side - 1) / 2) + crop, sure
        both = zip(found, expected, strict=True)
        off = np.maximum(off, [np.abs(one - other.numpy()).max() for one, other in both])
    return float(off[0]) / side, float(off[1])
