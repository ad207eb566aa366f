"""Heatmaps of a trained network: what the head computes and how a peak is read."""

import torch
import torch.nn.functional as F

from models.encoders import build_random_encoder
from models.heatmap_head import HeatmapHead, head_levels, read_peak
from models.hypercolumn import hypercolumn

SIDE = 64


def test_the_head_is_two_convolutions_of_the_hypercolumn():
    head = HeatmapHead(30, 3, SIDE).eval()
    maps = [torch.randn(2, 20, 4, 4), torch.randn(2, 10, 16, 16)]
    column = hypercolumn(maps, (16, 16))
    hidden = F.conv2d(column, head.lateral.weight[:, :, None, None], head.lateral.bias)
    expected = head.output(head.norm(hidden).relu()).flatten(2).softmax(dim=2)
    found, places = head.heatmaps(maps)
    assert torch.allclose(found.exp(), expected, atol=1e-6)
    # Cells go from edge to edge; -1 and 1 are the centres of the first and the last pixel.
    pixels = torch.arange(16) * 4 + 1.5  # of the centres of cells of 4 pixels
    assert torch.allclose(places[:16, 0], 2 * pixels / (SIDE - 1) - 1)
    assert torch.equal(places[:16, 0], places[::16, 1]) and (places[:16, 1] == places[0, 1]).all()


def test_a_peak_is_read_without_what_is_far_from_it():
    places = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.9, 0.9], [0.0, 0.19]])
    probability = torch.tensor([[[0.4, 0.2, 0.3, 0.1]]])
    point, confidence = read_peak(probability, places)
    assert torch.allclose(point, torch.tensor([[[0.02 / 0.7, 0.019 / 0.7]]]))
    assert torch.allclose(confidence, torch.tensor([[0.7]]))


def head_of(encoder):
    return HeatmapHead(encoder.feature_channels(head_levels(encoder)), 3, SIDE)


def test_a_head_sees_the_stem_unless_its_weights_say_otherwise():
    encoder = build_random_encoder("resnet18", SIDE, seed=0)
    head, maps = head_of(encoder), encoder(torch.randn(2, 3, SIDE, SIDE), levels=encoder.levels)
    _, places = head.heatmaps(maps)
    assert len(places) == (SIDE // 2) ** 2  # its stride is 2
    assert head_levels(encoder, head.state_dict()) == head_levels(encoder) == encoder.levels
    stages = HeatmapHead(encoder.feature_channels((5, 4, 3, 2)), 3, SIDE)  # the first version's
    assert head_levels(encoder, stages.state_dict()) == (5, 4, 3, 2)


def test_a_head_trains_its_encoder_too():
    encoder = build_random_encoder("resnet18", SIDE, seed=0).train()
    head = head_of(encoder).train()
    maps = encoder(torch.randn(4, 3, SIDE, SIDE), levels=encoder.levels)
    points, confidence = head(maps)
    assert points.shape == (4, 3, 2) and confidence.shape == (4, 3)
    assert (confidence >= 0).all() and (confidence <= 1).all()
    log_probability, _ = head.heatmaps(maps)
    log_probability[:, :, 0].sum().backward()
    untouched = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert untouched == ["encoder.module.fc.weight", "encoder.module.fc.bias"]
    assert all(p.grad is not None for p in head.parameters())
