"""The random pipeline: what each step draws, what it does to an image, and that it does exactly
what torchvision's transforms do, which the published pipeline consists of.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.literal import published_view
from data_loader.views import view_parameters
from data_loader.views.random_view import (
    FACE_MEAN,
    FACE_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RandomView,
)
from data_loader.views.view_parameters import sample_view

BILINEAR = Image.Resampling.BILINEAR


def noise(side=20, seed=0) -> Image.Image:
    values = np.random.RandomState(seed).randint(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def photograph(side, seed=0) -> Image.Image:
    """Return something smoother than noise, with edges and a dark and a bright part."""
    grid = np.random.RandomState(seed).randint(0, 256, (7, 7, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
    image.paste((250, 240, 20), (side // 3, side // 4, side // 2, side // 2))
    return image


# ---- the published pipeline ----


def assert_same_views(image, seeds, side, smallest_scale, crop, mean, std):
    published = published_view(side, smallest_scale, mean, std)
    kept, before = slice(crop, side - crop), image.tobytes()
    ours = RandomView(side, smallest_scale, crop, mean, std)
    for seed in seeds:
        torch.manual_seed(seed)
        wanted = [published(image)[:, kept, kept] for _ in range(2)]
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        found = [ours(image), ours(image)]
        assert torch.equal(torch.cat(found), torch.cat(wanted)), seed
        assert torch.equal(torch.get_rng_state(), state)  # what is drawn next is the same too
        assert found[0].is_contiguous() and image.tobytes() == before


@pytest.mark.parametrize(
    ("side", "crop", "smallest_scale"),
    [(136, 20, 0.2), (96, 0, 0.2), (100, 15, 0.2), (48, 7, 0.6), (33, 0, 0.05), (7, 2, 0.2)],
)
@pytest.mark.parametrize(
    ("mean", "std"), [(FACE_MEAN, FACE_STD), (IMAGENET_MEAN, IMAGENET_STD)], ids=["faces", "birds"]
)
def test_views_are_the_published_ones_to_the_bit(side, crop, smallest_scale, mean, std):
    for image in (photograph(side), noise(side)):
        assert_same_views(image, range(25), side, smallest_scale, crop, mean, std)


def test_images_of_another_size_are_resized_to_the_view():
    image = noise(64)
    assert RandomView(32, 0.2)(image).shape == (3, 32, 32)
    for side in (32, 90):
        assert_same_views(image, range(10), side, 0.2, 3, FACE_MEAN, FACE_STD)


def test_a_crop_that_no_draw_fits_shows_the_whole_image(monkeypatch):
    # A strip wider than the image, ten times over.
    monkeypatch.setattr(view_parameters, "LOG_ASPECT", [3.0, 3.0])
    assert sample_view(50, 1.0).box == (0, 0, 50, 50)
