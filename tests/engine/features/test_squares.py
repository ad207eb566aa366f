"""Squares in memory are those that are read, and their centres are the data set's own items."""

import numpy as np
import pytest
import torch

import engine.features.squares
from engine.features.squares import AnnotatedSquares
from tests.utils.dots import Dots


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_squares_and_centres(tmp_path, monkeypatch, room):
    monkeypatch.setattr(engine.features.squares, "KEPT_BYTES", room)
    dataset = Dots(tmp_path, 6)
    dataset.annotations["visible"] = np.ones((6, 3), bool)
    dataset.annotations["visible"][4, 1] = False
    squares = AnnotatedSquares(dataset, num_workers=0)
    assert (squares.kept is None) == (room == 0) and len(squares) == 6
    numbers = torch.tensor([4, 0, 4, 5]).split(3)
    batches = list(squares.batches(numbers))
    assert [len(batch.images) for batch in batches] == [3, 1]
    image, points = dataset.base_tensors(4)
    assert torch.equal(batches[0].images[2], image.permute(2, 0, 1))
    assert torch.equal(batches[0].points_px[0], points)
    assert batches[0].visible[0].tolist() == [True, False, True]
    centre = next(squares.centres(numbers, torch.device("cpu")))
    item = dataset.annotated_item(0)
    assert torch.equal(centre.features[0][1], item.image)
    assert torch.equal(centre.points[1], item.points_norm)
