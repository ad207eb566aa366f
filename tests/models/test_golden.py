"""The models against numbers of the published implementation, in tests/golden [spec 10]."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.encoders import build_encoder
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss, selected_regression_loss
from models.metric import calc_pck, inter_ocular_error
from models.momentum import copy_parameters, momentum_update, set_key_mode
from models.nce import MemoryMoCo, NCESoftmaxLoss
from tests.recipes import GOLDEN, arr, fill, golden, relative, sub

KEYS = json.loads((GOLDEN / "state_keys.json").read_text())
ENCODERS = [name for name in KEYS if name.startswith(("resnet", "hourglass"))]


def described(state):
    return [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state.items()]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_published_keys_in_order(name):
    with torch.device("meta"):
        encoder = build_encoder(name, 96)
    assert described(encoder.state_dict()) == KEYS[name]


@pytest.mark.parametrize(("name", "channels", "points"), [("c32a5", 32, 5), ("c24a68", 24, 68)])
def test_regressor_has_the_published_keys_in_order(name, channels, points):
    state = IntermediateKeypointPredictor(channels, points, 50).state_dict()
    assert described(state) == KEYS[f"regressor_{name}"]


def test_queue_has_the_published_keys_in_order():
    state = MemoryMoCo(8, 1000, 10, 0.07, use_softmax=True).state_dict()
    assert described(state) == KEYS["memory_k10_d8"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50x2"])
def test_encoder_layers_and_hypercolumns(name):
    arrays = golden("encoders.npz")
    encoder = build_encoder(name, 96)
    encoder.load_state_dict(fill(encoder.state_dict()))
    encoder.eval()
    images = arr(1, 2, 3, 96, 96)
    checked = 0
    for key in arrays.files:
        if not key.startswith(f"{name}/") or key.endswith("_shape"):
            continue
        layer, use_hypercol = int(key[-1]), "/hyper" in key
        with torch.no_grad():
            out = encoder(images, layer, use_hypercol, (48, 48))
        assert relative(sub(out), arrays[key]) < 1e-5, key
        if use_hypercol:
            assert list(out.shape) == list(arrays[f"{key}_shape"]), key
        checked += 1
    assert checked >= 10


def test_hourglass():
    encoder = build_encoder("hourglass", 96)
    encoder.load_state_dict(fill(encoder.state_dict()))
    with torch.no_grad():
        out = encoder.eval()(arr(2, 1, 3, 96, 96))
    assert relative(sub(out), golden("encoders.npz")["hourglass/out"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "channels", "points", "side"), [("c32a5", 32, 5, 48), ("c24a68", 24, 68, 24)]
)
def test_regressor_forward_and_gradients(name, channels, points, side):
    arrays = golden("regressor.npz")
    regressor = IntermediateKeypointPredictor(channels, points, 50, 100.0, (side, side))
    regressor.load_state_dict(fill(regressor.state_dict()))
    features = 0.1 * arr(3, 2, channels, side, side)
    # A list of one map at its own size is the same hypercolumn.
    for given in (features, [features]):
        regressor.zero_grad()
        pred, intermediate = regressor(given)
        loss = regression_loss(pred, torch.tanh(arr(4, 2, points, 2)), alpha=10.0)
        loss.backward()
        assert relative(pred.detach(), arrays[f"{name}/pred"]) < 2e-5
        assert relative(sub(intermediate), arrays[f"{name}/inter"]) < 2e-5
        assert relative(loss.item(), arrays[f"{name}/loss"]) < 2e-5
        inner = sub(regressor.inner_conv.weight.grad)
        assert relative(inner, arrays[f"{name}/grad_inner"]) < 1e-3
        assert relative(sub(regressor.reg_conv.weight.grad), arrays[f"{name}/grad_reg"]) < 2e-5


def test_queue_logits_gradients_and_ring_order():
    arrays = golden("queue.npz")
    contrast = MemoryMoCo(8, 1000, 10, 0.07, use_softmax=True)
    contrast.memory.copy_(F.normalize(arr(5, 10, 8), dim=1))
    for step, batch in enumerate((4, 4, 4, 3)):
        q = F.normalize(arr(11 + step, batch, 8), dim=1).requires_grad_()
        k = F.normalize(arr(21 + step, batch, 8), dim=1)
        logits = contrast(q, k)
        loss = NCESoftmaxLoss()(logits)
        loss.backward()
        assert relative(logits.detach(), arrays[f"out{step}"]) < 1e-5
        assert relative(loss.item(), arrays[f"loss{step}"]) < 1e-5
        assert relative(q.grad, arrays[f"gradq{step}"]) < 1e-5
        np.testing.assert_allclose(contrast.memory, arrays[f"memory{step}"], atol=1e-6)


def test_four_training_steps():
    arrays = golden("moco_steps.npz")
    query, key = build_encoder("resnet18", 96), build_encoder("resnet18", 96)
    query.load_state_dict(fill(query.state_dict()))
    key.load_state_dict(fill(key.state_dict(), seed=2))
    copy_parameters(query, key)
    contrast = MemoryMoCo(128, 1000, 16, 0.07, use_softmax=True)
    contrast.memory.copy_(F.normalize(arr(6, 16, 128), dim=1))
    query, key, contrast = query.double(), key.double(), contrast.double()
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    query.train()
    set_key_mode(key)
    losses, probs = [], []
    for step in range(4):
        view1, view2 = arr(101 + step, 8, 6, 96, 96).double().split(3, dim=1)
        order = torch.tensor(np.random.RandomState(201 + step).permutation(8))
        with torch.no_grad():
            k = key(view2[order])[torch.argsort(order)]
        logits = contrast(query(view1), k)
        loss = NCESoftmaxLoss()(logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        momentum_update(query, key, alpha=0.999)
        losses.append(loss.item())
        probs.append(logits[:, 0].mean().item())
    found = {
        "loss": losses,
        "prob": probs,
        "conv1": sub(query.encoder.module.conv1.weight),
        "fc": sub(query.encoder.module.fc.weight),
        "ema_conv1": sub(key.encoder.module.conv1.weight),
        "ema_bn_mean": key.encoder.module.bn1.running_mean,
        "memory": contrast.memory,
    }
    for name, value in found.items():
        assert relative(value, arrays[name]) < 1e-6, name


def test_metrics_and_losses():
    arrays = {k: torch.tensor(v) for k, v in golden("metrics.npz").items()}
    pred, gt, visible = arrays["p15"], arrays["g15"], arrays["v15"]
    ioe = inter_ocular_error(arrays["pred"], arrays["gt"], (0, 1))
    ioe68 = inter_ocular_error(arrays["p68"], arrays["g68"], (36, 45))
    assert ioe == pytest.approx(float(arrays["ioe"]), abs=1e-3)
    assert ioe68 == pytest.approx(float(arrays["ioe68"]), abs=1e-3)
    pck = calc_pck(pred, gt, visible, 48)
    assert pck == pytest.approx(float(arrays["pck"]), abs=1e-3)
    loss = regression_loss(arrays["pred"], arrays["gt"], alpha=10.0)
    assert loss == pytest.approx(float(arrays["reg_loss"]), abs=1e-4)
    before = pred.clone(), gt.clone()
    selected = selected_regression_loss(pred, gt, visible, alpha=10.0)
    assert selected == pytest.approx(float(arrays["sel_loss"]), abs=1e-5)
    assert torch.equal(pred, before[0]) and torch.equal(gt, before[1])  # inputs left alone
