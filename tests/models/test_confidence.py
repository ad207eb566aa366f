"""The published regressor with a confidence: its own points, and softmaxes worked out literally."""

import torch

from models.hypercolumn import hypercolumn
from models.keypoint_prediction import IntermediateKeypointPredictor, read_with_confidence


def literal(regressor, dense):
    """Return the confidence (B, A) of one dense map, cell by cell."""
    height, width = dense.shape[2:]
    weight = regressor.inner_conv.weight.flatten(1) * regressor.softargmax_mul
    scores = torch.einsum("kc,bchw->bkhw", weight, dense)
    heat = scores.flatten(2).softmax(dim=2)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    places = torch.stack([x.flatten(), y.flatten()], dim=1)  # (P, 2)
    mean = heat @ places  # (B, K, 2)
    variance = ((places - mean[:, :, None]).square().sum(dim=3) * heat).sum(dim=2)  # (B, K)
    sure = torch.exp(-variance / 0.08)
    found = torch.zeros(len(dense), 2)
    for k in range(2):
        pull = regressor.reg_conv.weight[2 * k : 2 * k + 2].view(2, 3, 2).norm(dim=(0, 2))  # (I,)
        found[:, k] = (sure[:, 3 * k : 3 * k + 3] * pull).sum(dim=1) / pull.sum()
    return found


def test_points_are_the_regressors_and_confidence_is_how_narrow_its_softmaxes_are():
    regressor = IntermediateKeypointPredictor(7, 2, 3, softargmax_mul=5.0).eval()
    maps = [torch.rand(4, 4, 3, 3), torch.rand(4, 3, 6, 6)]
    with torch.no_grad():
        single = maps[0].repeat(1, 2, 1, 1)[:, :7]
        for features, shape, dense in (
            (maps, (48, 48), hypercolumn(maps, (48, 48))),
            ([single], None, single),
        ):
            regressor.map_shape = shape
            points, confidence = read_with_confidence(regressor, features)
            assert torch.allclose(points, regressor(features)[0], atol=1e-5)
            assert torch.allclose(confidence, literal(regressor, dense), atol=1e-4)
            assert (confidence > 0).all() and (confidence < 1).all()


def test_a_batch_is_read_in_parts(monkeypatch):
    regressor = IntermediateKeypointPredictor(4, 2, 3, map_shape=(48, 48)).eval()
    maps = [torch.rand(5, 4, 3, 3)]
    with torch.no_grad():
        whole = read_with_confidence(regressor, maps)
        monkeypatch.setattr("models.keypoint_prediction.SCORES_AT_ONCE", 2 * 6 * 48 * 48)
        parts = read_with_confidence(regressor, maps)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts, strict=True))
