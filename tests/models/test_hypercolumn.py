import pytest
import torch
import torch.nn.functional as F

from models import soft_argmax as soft_argmax_module
from models.hypercolumn import hypercolumn, project_hypercolumn, resize_matrix
from models.soft_argmax import hypercolumn_soft_argmax, soft_argmax

SHAPES = [(5, 2, 3), (4, 3, 5), (3, 6, 9), (2, 12, 18)]  # (C, h, w), not square


def pyramid(batch=3):
    return [torch.randn(batch, *shape, dtype=torch.float64) for shape in SHAPES]


@pytest.mark.parametrize("size_in", [1, 2, 3, 6, 12, 24, 48, 60, 7])
@pytest.mark.parametrize("size_out", [1, 5, 48])
def test_resize_matrix_is_torchs_bilinear_resize(size_in, size_out):
    signal = torch.randn(1, 1, size_in, dtype=torch.float64)
    expected = F.interpolate(signal, size=size_out, mode="linear", align_corners=False)
    torch.testing.assert_close(signal @ resize_matrix(size_in, size_out).t(), expected)


def test_projecting_first_equals_projecting_the_hypercolumn():
    maps, weight = pyramid(), torch.randn(7, 14, dtype=torch.float64)
    expected = F.conv2d(hypercolumn(maps, (10, 16)), weight[:, :, None, None])
    torch.testing.assert_close(project_hypercolumn(maps, weight, (10, 16)), expected)


def literal_points(maps, weight, output_shape):
    """Soft-argmax of the dense projected hypercolumn, one map and one position at a time."""
    scores = F.conv2d(hypercolumn(maps, output_shape), weight[:, :, None, None])
    height, width = output_shape
    rows = []
    for image in scores:
        for score in image:
            heat = torch.exp(score - score.max())
            heat = heat / heat.sum()
            x = sum(heat[:, j].sum() * (2 * j / (width - 1) - 1) for j in range(width))
            y = sum(heat[i].sum() * (2 * i / (height - 1) - 1) for i in range(height))
            rows.append(torch.stack([x, y]))
    return torch.stack(rows).view(len(scores), -1, 2)


def test_soft_argmax_is_the_expected_position():
    maps, weight = pyramid(batch=2), torch.randn(3, 14, dtype=torch.float64)
    dense = soft_argmax(F.conv2d(hypercolumn(maps, (6, 9)), weight[:, :, None, None]))
    torch.testing.assert_close(dense, literal_points(maps, weight, (6, 9)))


@pytest.mark.parametrize("chunk", [2, 512])
@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_points_and_gradients_equal_the_literal_ones(monkeypatch, chunk, channels_last):
    monkeypatch.setattr(soft_argmax_module, "CHUNK", chunk)
    maps = pyramid(batch=2)
    given = maps
    if channels_last:
        given = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    gradient = torch.randn(2, 5, 2, dtype=torch.float64)
    found = []
    for function, these in ((hypercolumn_soft_argmax, given), (literal_points, maps)):
        torch.manual_seed(1)
        weight = torch.randn(5, 14, dtype=torch.float64, requires_grad=True)
        points = function(these, weight, (10, 12))
        points.backward(gradient)
        found.append((points.detach(), weight.grad))
    torch.testing.assert_close(found[0], found[1])


def test_large_scores_do_not_overflow():
    maps = [1e4 * torch.randn(2, 3, 4, 4)]
    points = hypercolumn_soft_argmax(maps, torch.randn(6, 3), (48, 48))
    assert torch.isfinite(points).all() and points.abs().max() <= 1 + 1e-6


def test_gradients_reach_maps_that_want_them():
    maps = [m.requires_grad_() for m in pyramid(batch=1)]
    hypercolumn_soft_argmax(maps, torch.randn(2, 14, dtype=torch.float64), (8, 8)).sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
