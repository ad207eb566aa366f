"""Matching by nearest feature: exact where features move by whole cells, close in between."""

import pytest
import torch

from models.matching import match_points, parabola_peak

SIDE = 64


def bumps(centres, cells=16):
    """Return features (1, C, n, n), of which channel c is a bump around (x, y), edge to edge."""
    axis = (torch.arange(cells) + 0.5) * 2 / cells - 1
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    maps = [torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.18) for x, y in centres]
    return torch.stack(maps)[None]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.25, -0.125), (0.3, 0.07)])
def test_points_move_with_the_features(shift):
    axis = torch.linspace(-1.2, 1.2, 9)
    centres, moved = (torch.cartesian_prod(axis, axis) + torch.tensor(s) for s in ((0, 0), shift))
    points = torch.tensor([[[-0.5, -0.4], [0.4, -0.3], [0.0, 0.5], [-0.2, 0.1]]])  # edge to edge
    found = match_points(bumps(centres), points * SIDE / (SIDE - 1), bumps(moved), SIDE)
    expected = (points + torch.tensor(shift)) * SIDE / (SIDE - 1)
    pixels = (found - expected).norm(dim=2) * (SIDE - 1) / 2
    assert pixels.max() < 0.5  # a cell has 4 pixels


def test_parabola():
    x = torch.tensor([-0.4, 0.0, 0.25])
    values = [1 - (step - x) ** 2 for step in (-1, 0, 1)]
    assert torch.allclose(parabola_peak(*values), x, atol=1e-6)
    flat = torch.ones(2)
    assert torch.equal(parabola_peak(flat, flat, flat), torch.zeros(2))
