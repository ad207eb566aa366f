"""The random pipeline: what each step draws, what it does to an image, and that it does exactly
what torchvision's transforms do, which the published pipeline consists of.
"""

import io

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image

from benchmarks.literal import published_view
from data_loader.views import view_parameters
from data_loader.views.random_view import (
    BIRD_MEAN,
    BIRD_STD,
    FACE_MEAN,
    FACE_STD,
    RandomView,
    colour_jitter,
    jpeg_noise,
    resized_window,
    source_span,
)
from data_loader.views.view_parameters import pca_shift, sample_view
from tests.recipes import FACES, needs_faces

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
    ("mean", "std"), [(FACE_MEAN, FACE_STD), (BIRD_MEAN, BIRD_STD)], ids=["faces", "birds"]
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


@needs_faces
def test_views_of_photographs_are_the_published_ones_to_the_bit():
    paths = sorted((FACES / "celeba/Img/img_align_celeba_hq").glob("*.jpg"))[:12]
    for i, path in enumerate(paths):
        image = Image.open(path).convert("RGB").crop((0, 30, 178, 208)).resize((136, 136), BILINEAR)
        assert_same_views(image, range(5 * i, 5 * i + 5), 136, 0.2, 20, FACE_MEAN, FACE_STD)


# ---- JPEG noise ----


@pytest.mark.parametrize("side", [20, 37, 64])
def test_jpeg_noise_is_a_resize_a_compression_and_a_resize_back(side):
    image, random = noise(side), np.random.RandomState(side)
    for jpeg_side in [*range(int(0.8 * side), 2 * side, 3), side, 5 * side]:
        quality = int(random.randint(30, 99))
        buffer = io.BytesIO()
        image.resize((jpeg_side, jpeg_side), BILINEAR).save(buffer, "JPEG", quality=quality)
        whole = Image.open(buffer).convert("RGB").resize((side, side), BILINEAR)
        left, top = random.randint(0, side - 1, size=2).tolist()
        corner = random.randint(left + 1, side + 1), random.randint(top + 1, side + 1)
        for box in [(left, top, *map(int, corner)), (0, 0, side, side), (3, 4, 4, 5)]:
            found = jpeg_noise(image, jpeg_side, quality, box)
            assert np.array_equal(np.asarray(found), np.asarray(whole.crop(box)))


def test_windows_of_a_resize_are_cut_from_the_whole():
    random = np.random.RandomState(1)
    for _ in range(150):
        frame, side = random.randint(1, 60, size=2).tolist()
        image = noise(frame, seed=frame)
        whole = image.resize((side, side), BILINEAR)
        left, top = random.randint(0, side, size=2).tolist()
        right, bottom = (int(random.randint(v + 1, side + 1)) for v in (left, top))
        # All that is at hand is what the window depends on.
        (x0, x1), (y0, y1) = (
            source_span(*span, frame, side) for span in ((left, right), (top, bottom))
        )
        part, window = image.crop((x0, y0, x1, y1)), (left, top, right, bottom)
        found = resized_window(part, (x0, y0), frame, side, window)
        assert np.array_equal(np.asarray(found), np.asarray(whole.crop(window)))


def test_jpeg_noise_draws_sizes_and_qualities_as_published():
    count = 3000
    torch.manual_seed(0)
    draws = [sample_view(20, 0.2) for _ in range(count)]
    sides = np.array([d.jpeg_side for d in draws])
    qualities = np.array([d.jpeg_quality for d in draws])
    # max(int(.8 * 20), int(20 (1 + n / 2))): 16 if n < -.3, for int() cuts; else its floor.
    assert sides.min() == 16
    normal = torch.distributions.Normal(0, 1)
    for least in (17, 20, 25, 30, 40):
        share = 1 - normal.cdf(torch.tensor((least / 20 - 1) * 2)).item()
        spread = (share * (1 - share) / count) ** 0.5
        assert abs((sides >= least).mean() - share) < 4 * spread
    # Uniform over the 69 qualities 30..98.
    assert qualities.min() == 30 and qualities.max() == 98
    counts = np.bincount(qualities - 30, minlength=69)
    chi_square = ((counts - count / 69) ** 2 / (count / 69)).sum()
    assert 30 < chi_square < 115  # 68 +- 4 standard deviations of 11.7


# ---- colours ----


def test_pca_noise_is_alexnets_sum_over_components():
    values = [0.2175, 0.0188, 0.0045]
    vectors = [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
    alpha = torch.tensor([0.15, -0.05, 0.2])
    found = pca_shift(alpha)
    assert found.shape == (3, 1, 1)
    for c in range(3):
        shift = sum(vectors[c][j] * alpha[j].item() * values[j] for j in range(3))
        assert found[c].item() == pytest.approx(shift, abs=1e-7)
    # Component by component: the weight of the second one goes by the second column.
    shift = pca_shift(torch.tensor([0.0, 0.1, 0.0])).flatten()
    wanted = torch.tensor([0.7192, -0.0045, -0.6948]) * 0.1 * 0.0188
    assert torch.allclose(shift, wanted, atol=1e-9)


def test_pca_noise_has_the_published_spread_over_draws():
    torch.manual_seed(0)
    shifts = torch.stack([sample_view(20, 0.2).colour.flatten() for _ in range(4000)])
    # Var = sum_j (vec[c, j] * .1 * val_j)^2, nearly all from the first component.
    wanted = [0.01241, 0.01263, 0.01276]
    assert np.allclose(shifts.std(dim=0), wanted, rtol=0.05)
    assert shifts.mean(dim=0).abs().max() < 4 * 0.0127 / 4000**0.5


def test_jitter_is_torchvisions_in_all_orders():
    image, crop = photograph(30), 6
    adjust = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, lambda x, _: x]
    for factors in ([0.6, 1.4, 0.7], [1.3, 0.65, 1.4], [1.0, 1.0, 1.0]):
        for order in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist():
            if len(set(order)) < 4:
                continue
            wanted = image
            for stage in order:
                wanted = adjust[stage](wanted, (*factors, 0)[stage])
            wanted = np.asarray(wanted)[crop:-crop, crop:-crop]
            assert np.array_equal(np.asarray(colour_jitter(image, order, factors, crop)), wanted)


def test_jitter_is_drawn_from_two_fifths_either_way_and_in_any_order():
    torch.manual_seed(0)
    draws = [sample_view(20, 0.2) for _ in range(600)]
    factors = torch.tensor([d.factors for d in draws])  # (N, 3)
    assert factors.shape == (600, 3) and factors.min() >= 0.6 and factors.max() <= 1.4
    assert (factors.min(dim=0).values < 0.61).all() and (factors.max(dim=0).values > 1.39).all()
    assert abs(np.corrcoef(factors.T) - np.eye(3)).max() < 4 / 600**0.5
    assert len({tuple(d.order) for d in draws}) == 24
