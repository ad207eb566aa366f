"""The projected map against a hypercolumn that is built and multiplied; what its digest covers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.encoders import (
    build_random_encoder,
    choose_levels,
    encode_dense,
    freeze,
    weights_digest,
)
from models.projection import ProjectedEncoder


@pytest.fixture
def projected():
    encoder = build_random_encoder("resnet18", 64, seed=0)
    return freeze(ProjectedEncoder(encoder, nn.Linear(960, 8), (5, 4, 3, 2)))


def test_it_is_a_product_with_the_hypercolumn(projected):
    images = torch.randn(2, 3, 64, 64)
    maps = projected.encoder(images, levels=(5, 4, 3, 2))
    resized = [F.interpolate(m, size=(48, 48), mode="bilinear", align_corners=False) for m in maps]
    columns = torch.cat(resized, dim=1).double()  # (B, C, 48, 48)
    weight, bias = projected.head.weight.double(), projected.head.bias.double()
    expected = F.conv2d(columns, weight[:, :, None, None], bias)
    levels = choose_levels(projected, 4, use_hypercol=True)
    found = encode_dense(projected, images, levels)
    # Sums of 960 products of float32, whose values are around 1.
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert levels.shape is None and projected.feature_channels(levels.numbers) == 8


def test_its_digest_is_of_encoder_and_projection(projected):
    """Features in a cache, and what was trained on them, belong to both."""
    found = [weights_digest(projected), weights_digest(projected.encoder)]
    projected.head.bias[0] += 1
    found.append(weights_digest(projected))
    projected.head.bias[0] -= 1
    projected.encoder.encoder.module.bn1.running_mean[0] += 1
    found.append(weights_digest(projected))
    assert len(set(found)) == 4
