"""Changes of colour, against the same steps one after the other."""

import torch
import torch.nn.functional as F

from data_loader.views.colour import LUMA, ColourChanges, change_colours, sample_colours
from data_loader.views.dense_views import DenseViews
from data_loader.views.similarity import Spread


def literal(image, brightness, contrast, saturation, gains, blurred):
    """Return one image (3, H, W) after brightness, contrast, saturation, gains and blur."""
    image = image * brightness
    image = image.mean() + (image - image.mean()) * contrast
    grey = sum(weight * channel for weight, channel in zip(LUMA, image, strict=True))
    image = grey + (image - grey) * saturation
    image = image * gains[:, None, None]
    if blurred:
        padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
        rows, columns = image.shape[1:]
        image = (
            sum(padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)) / 9
        )
    return image.clamp(0, 1)


def test_one_matrix_does_what_the_steps_do():
    images = torch.rand(24, 3, 11, 13)
    changes = sample_colours(24, torch.Generator().manual_seed(0))
    assert 0 < changes.blurred.sum() < 24 and 0 < (changes.saturation == 0).sum() < 24
    expected = [literal(image, *change) for image, *change in zip(images, *changes, strict=True)]
    assert torch.allclose(change_colours(images, changes), torch.stack(expected), atol=1e-6)


def test_no_change_changes_nothing():
    images = torch.rand(2, 3, 5, 5)
    one = torch.ones(2)
    changes = ColourChanges(one, one, one, torch.ones(2, 3), torch.zeros(2))
    assert torch.allclose(change_colours(images, changes), images, atol=1e-6)


def test_factors_lie_where_they_should():
    changes = sample_colours(4000, torch.Generator().manual_seed(0))
    for factors in (changes.brightness, changes.contrast):
        assert factors.min() >= 0.6 and factors.max() <= 1.4 and abs(factors.mean() - 1) < 0.02
    assert abs((changes.saturation == 0).float().mean() - 0.3) < 0.03
    assert abs(changes.blurred.mean() - 0.5) < 0.03
    assert changes.gains.min() >= 0.8 and changes.gains.max() <= 1.2


def test_views_are_standardised_and_belong_to_the_generator():
    images = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8)
    views = DenseViews(40, 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), Spread())
    one, again, other = (views(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.images.shape == (6, 3, 32, 32) and one.maps.shape == (6, 2, 3)
    assert torch.equal(one.images, again.images) and torch.equal(one.maps, again.maps)
    assert not torch.equal(one.images, other.images)
    low, high = (0 - 0.5) / 0.2, (1 - 0.5) / 0.2
    assert one.images[:, 0].min() >= low - 1e-5 and one.images[:, 0].max() <= high + 1e-5
