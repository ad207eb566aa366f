"""The dense objective against a loop over places and cells; the head against a convolution."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.dense_contrast import (
    DenseEmbedding,
    cell_centres,
    dense_contrast,
    draw_cells,
    local_variance,
)
from models.encoders import build_random_encoder, weights_digest


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


def interpolated(embedding, x, y):
    """Return the unit vector of an embedding (D, h, w) at a place, zero beyond the border."""
    _, height, width = embedding.shape
    column, row = (x + 1) * width / 2 - 0.5, (y + 1) * height / 2 - 0.5
    total = torch.zeros(len(embedding), dtype=embedding.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * embedding[:, i, j]
    return total / total.norm()


def literal(query, key, cells, places, counts, shown, temperature, radius):
    """Return loss and fraction found, one logit after the other."""
    losses, fractions = [], []
    for q, k, chosen, targets, valid, seen in zip(
        query, key, cells, places, counts, shown, strict=True
    ):
        _, height, width = q.shape
        of_image, found = [], []
        for cell, (x, y), is_valid in zip(chosen.tolist(), targets.tolist(), valid, strict=True):
            if not is_valid:
                continue
            one = q[:, cell // width, cell % width]
            positive = float(one @ interpolated(k, x, y)) / temperature
            negatives = []
            for row in range(height):
                for column in range(width):
                    at = ((column + 0.5) * 2 / width - 1, (row + 0.5) * 2 / height - 1)
                    if seen[row * width + column] and math.dist(at, (x, y)) >= radius:
                        negatives.append(float(one @ k[:, row, column]) / temperature)
            total = sum(math.exp(v) for v in [positive, *negatives])
            of_image.append(math.log(total) - positive)
            found.append(positive > max(negatives))
        losses.append(sum(of_image) / max(len(of_image), 1))
        fractions.append(sum(found) / max(len(found), 1))
    return sum(losses) / len(losses), sum(fractions) / len(fractions)


@pytest.mark.parametrize("shape", [(6, 6), (4, 7)])
def test_the_objective_is_the_loops(shape):
    torch.manual_seed(0)
    query, key = unit(3, 5, *shape), unit(3, 5, *shape)
    cells = torch.randint(shape[0] * shape[1], (3, 8))
    places = 2.2 * torch.rand(3, 8, 2, dtype=torch.float64) - 1.1
    counts = (places.abs() < 1).all(dim=2)
    counts[2] = False  # an image of which nothing is common
    shown = torch.rand(3, shape[0] * shape[1]) < 0.8
    found = dense_contrast(query, key, cells, places, counts, shown, 0.3, 0.4)
    expected = literal(query, key, cells, places, counts, shown, 0.3, 0.4)
    assert [float(f) for f in found] == pytest.approx(expected, abs=1e-6)


def test_a_query_without_negatives_has_no_loss_and_no_gradient():
    torch.manual_seed(0)
    query, key = (unit(1, 8, 4, 4).requires_grad_() for _ in range(2))
    cells, places = torch.tensor([[5]]), torch.zeros(1, 1, 2, dtype=torch.float64)
    counts, shown = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 16, dtype=torch.bool)
    loss, found = dense_contrast(query, key, cells, places, counts, shown, 0.1, 0.1)
    loss.backward()
    assert loss == 0 and found == 1
    assert torch.equal(query.grad, torch.zeros_like(query)) and key.grad.abs().sum() == 0


def test_the_same_view_is_found_and_gradients_reach_both():
    torch.manual_seed(0)
    query = unit(2, 16, 6, 6).requires_grad_()
    key = query.detach().clone().requires_grad_()
    cells = torch.arange(36).expand(2, -1)
    places = cell_centres(6, 6).double().expand(2, -1, -1)
    everything = torch.ones(2, 36, dtype=torch.bool)
    loss, found = dense_contrast(query, key, cells, places, everything, everything, 0.1, 0.1)
    assert found == 1 and loss < 0.5
    loss.backward()
    assert query.grad.abs().sum() > 0 and key.grad.abs().sum() > 0


def test_the_head_is_a_convolution_of_each_resized_stage():
    encoder = build_random_encoder("resnet18", 64, 0).eval()
    embedding = DenseEmbedding(encoder, 8).eval()
    views = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = encoder(views, levels=(5, 4, 3, 2))
        stacked = torch.cat(
            [F.interpolate(m, size=16, mode="bilinear", align_corners=False) for m in maps], dim=1
        )
        weight, bias = embedding.head.weight[:, :, None, None], embedding.head.bias
        expected = F.normalize(F.conv2d(stacked, weight, bias), dim=1)
        assert torch.allclose(embedding(views), expected, atol=1e-5)


def test_the_encoders_vector_head_gets_no_gradient():
    encoder = build_random_encoder("resnet18", 32, 0)
    embedding = DenseEmbedding(encoder, 8)
    embedding(torch.randn(2, 3, 32, 32)).sum().backward()
    without = {
        name for name, p in embedding.named_parameters() if p.requires_grad and p.grad is None
    }
    assert without == set()


def test_a_frozen_encoder_stays_as_it_is_and_keeps_no_graph():
    embedding = DenseEmbedding(build_random_encoder("resnet18", 64, 0), 8, frozen=True).train()
    encoder, before = embedding.encoder, weights_digest(embedding.encoder)
    assert embedding.training and not any(m.training for m in encoder.modules())
    optimizer = torch.optim.AdamW(embedding.parameters(), 0.1, weight_decay=0.1)
    views = torch.randn(2, 3, 64, 64)
    head = embedding.head.weight.detach().clone()
    embedding(views).sum().backward()
    optimizer.step()
    assert not any(m.requires_grad for m in encoder(views, levels=(5, 4, 3, 2)))
    assert weights_digest(encoder) == before
    assert not torch.equal(embedding.head.weight, head)


def test_each_map_begins_with_weights_of_its_own_size():
    head = DenseEmbedding(build_random_encoder("resnet18", 32, seed=0), dimensions=64).head
    channels = (512, 256, 128, 64)
    for part, count in zip(head.weight.detach().split(channels, dim=1), channels, strict=True):
        # Uniform up to 1 / sqrt(count), as a convolution of that map alone would be.
        assert part.abs().max() <= count**-0.5
        assert float(part.std()) == pytest.approx((3 * count) ** -0.5, rel=0.05)


def literal_variance(view, shape):
    """Return the variance of colours around each cell of a view (3, H, W), summed, one by one."""
    rows, columns = view.shape[1] // shape[0], view.shape[2] // shape[1]
    cells = view.unflatten(2, (shape[1], columns)).unflatten(1, (shape[0], rows)).mean(dim=(2, 4))
    out = torch.zeros(shape, dtype=view.dtype)
    for i in range(shape[0]):
        for j in range(shape[1]):
            around = cells[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].flatten(1)
            out[i, j] = around.var(dim=1, correction=0).sum()
    return out


def test_the_variance_is_the_loops():
    view = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0)) + 50
    found = local_variance(view, (6, 4))
    expected = torch.stack([literal_variance(one.double(), (6, 4)) for one in view])
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)


def frequencies(views, shape, detail, count=40_000):
    cells = draw_cells(views, shape, count, detail, torch.Generator().manual_seed(1))
    assert cells.shape == (len(views), count) and cells.dtype == torch.int64
    total = shape[0] * shape[1]
    return torch.stack([row.bincount(minlength=total) for row in cells]) / count


@pytest.mark.parametrize("detail", [0.4, 1.0])
def test_cells_are_drawn_in_proportion_to_the_variance(detail):
    views = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    variance = torch.stack([literal_variance(one, (3, 4)).flatten() for one in views])
    expected = detail * variance / variance.sum(dim=1, keepdim=True) + (1 - detail) / 12
    # Four standard deviations of a count.
    margin = 4 * (expected.max() / 40_000) ** 0.5
    torch.testing.assert_close(frequencies(views, (3, 4), detail), expected, rtol=0, atol=margin)


def test_of_a_blank_view_cells_are_drawn_anywhere():
    found = frequencies(torch.ones(1, 3, 8, 8), (2, 2), 1.0)
    torch.testing.assert_close(found, torch.full((1, 4), 0.25), rtol=0, atol=0.01)


def test_without_detail_cells_are_those_of_earlier_versions():
    found = draw_cells(torch.randn(3, 3, 8, 8), (2, 2), 5, 0.0, torch.Generator().manual_seed(7))
    expected = torch.randint(4, (3, 5), generator=torch.Generator().manual_seed(7))
    assert torch.equal(found, expected)
