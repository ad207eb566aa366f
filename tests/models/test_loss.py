"""The loss of heatmaps, against literal loops."""

import math

import torch

from models.loss import heatmap_loss


def example():
    log_probability = torch.randn(2, 3, 20).log_softmax(dim=2)
    places = 2 * torch.rand(20, 2) - 1
    points, visible = torch.rand(2, 3, 2), torch.tensor([[1, 0, 1], [0, 1, 1]]).bool()
    return log_probability, places, points, visible


def test_heatmap_loss_is_the_literal_one():
    log_probability, places, points, visible = example()
    losses = []
    for image in range(2):
        for landmark in range(3):
            if not visible[image, landmark]:
                continue
            x, y = points[image, landmark].tolist()
            gauss = [math.exp(-((x - u) ** 2 + (y - v) ** 2) / 0.5) for u, v in places.tolist()]
            logs = log_probability[image, landmark].tolist()
            loss = -sum(g / sum(gauss) * log for g, log in zip(gauss, logs, strict=True))
            for axis, true in enumerate((x, y)):
                pairs = zip(logs, places.tolist(), strict=True)
                expected = sum(math.exp(log) * place[axis] for log, place in pairs)
                loss += abs(expected - true)
            losses.append(loss)
    found = heatmap_loss(log_probability, places, points, visible, width=0.5)
    assert math.isclose(found.item(), sum(losses) / 4, rel_tol=1e-5)  # float32


def test_invisible_landmarks_give_no_gradient():
    log_probability, places, points, visible = example()
    log_probability.requires_grad_()
    heatmap_loss(log_probability, places, points, visible, 0.083).backward()
    assert (log_probability.grad[~visible] == 0).all()
    assert (log_probability.grad[visible] != 0).any(dim=1).all()
    moved = torch.where(visible[..., None], points, 9.0)
    assert torch.equal(
        heatmap_loss(log_probability, places, points, visible, 0.083),
        heatmap_loss(log_probability, places, moved, visible, 0.083),
    )
    assert heatmap_loss(log_probability, places, points, torch.zeros(2, 3).bool(), 0.083) == 0
