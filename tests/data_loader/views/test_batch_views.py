"""The batch pipeline: each stage against Pillow's with the same parameters, what is drawn, and
what doesn't matter (grouping, order, precision settings).

On x86-64 all stages are equal to Pillow's but for 3 in a million of JPEG's pixels. `RARE` leaves
room for other processors, whose compilers may fuse a multiplication and an addition in Pillow.
"""

import io
import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms as tv_transforms
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats

from data_loader.views import jpeg
from data_loader.views.batch_views import (
    BatchViews,
    color_jitter,
    enlarge,
    jpeg_noise,
)
from data_loader.views.random_view import FACE_MEAN, FACE_STD
from data_loader.views.resampling import most_taps, resize, triangle_taps, turn
from data_loader.views.view_parameters import ViewParameters, sample_views
from tests.recipes import FACES

SIDE, CROP, SMALLEST = 136, 20, 0.2
RARE = 1e-4  # share of pixels that may differ, by 1 or 2 levels
BILINEAR = Image.Resampling.BILINEAR
PHOTOGRAPHS = FACES / "celeba/Img/img_align_celeba_hq"
ADJUST = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)


# ---- images ----


def textured(side: int, seed: int) -> Image.Image:
    """Return something like a photograph: soft shading, edges, grain, dark and burnt-out parts."""
    random = np.random.RandomState(seed)
    grid = random.randint(0, 256, (6, 6, 3), dtype=np.uint8)
    levels = np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:side, :side] / side
    stripes = 40 * np.sin(2 * np.pi * (random.uniform(3, 25) * x + random.uniform(3, 25) * y))
    edge = 60 * (x + random.uniform(0.2, 1) * y > random.uniform(0.4, 1))
    grain = random.normal(0, random.uniform(0, 12), (side, side, 3))
    values = levels * random.uniform(0.7, 1.2) + (stripes + edge)[:, :, None] + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def all_images(side: int, count: int) -> list[Image.Image]:
    """Return drawn images, and as many photographs if they are at hand."""
    source_images = [textured(side, seed) for seed in range(count)]
    for path in sorted(PHOTOGRAPHS.glob("*.jpg"))[:count]:
        photograph = Image.open(path).convert("RGB").crop((0, 30, 178, 208))
        source_images.append(photograph.resize((side, side), BILINEAR))
    return source_images


def planes(image: Image.Image) -> torch.Tensor:
    """Return the levels (3, H, W) of an image, as float32."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def batch(source_images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([planes(source_image) for source_image in source_images]).to(torch.uint8)


def columns(source_images: list[Image.Image]) -> torch.Tensor:
    return turn(batch(source_images).float())


def source_image(levels: torch.Tensor) -> Image.Image:
    """Return levels (3, H, W) as an image; they must be whole and fit."""
    assert torch.equal(levels, levels.round().clamp(0, 255))
    return Image.fromarray(levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def pairs(*values: int, count: int = 1) -> torch.Tensor:
    return torch.tensor(values).expand(count, 2)


def assert_equal(found, wanted) -> None:
    """Compare the levels of some images, which may differ a bit in rare pixels."""
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(found, wanted, strict=True)])
    assert gaps.max() <= 2 and (gaps > 0).float().mean() <= RARE


# ---- the stages with Pillow ----


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def noisy(image: Image.Image, side: int, quality: int) -> Image.Image:
    return compressed(image.resize((side, side), BILINEAR), quality).resize(image.size, BILINEAR)


def boxed(image: Image.Image, box: list[int]) -> Image.Image:
    left, top, width, height = box
    return image.crop((left, top, left + width, top + height))


def jittered(image: Image.Image, order: list[int], factors: list[float]) -> Image.Image:
    for step in order:
        image = ADJUST[step](image, factors[step])
    return image


def literal_view(image: Image.Image, parameters: ViewParameters, row: int) -> torch.Tensor:
    """Return the view (3, W, W) of a row of parameters."""
    side, quality, box, order, factors, colour = (values[row].tolist() for values in parameters)
    image = boxed(noisy(image, side, quality), box).resize(image.size, BILINEAR)
    tensor = TF.to_tensor(jittered(image, order, factors))
    tensor = TF.normalize(tensor + torch.tensor(colour).view(3, 1, 1), FACE_MEAN, FACE_STD)
    return tensor[:, CROP:-CROP, CROP:-CROP]


def views() -> BatchViews:
    return BatchViews(SIDE, CROP, SMALLEST, FACE_MEAN, FACE_STD)


def sampled(count: int, seed: int = 0, smallest: float = SMALLEST) -> ViewParameters:
    return sample_views(count, SIDE, smallest, torch.Generator().manual_seed(seed))


# ---- each stage with the same parameters ----


@pytest.mark.parametrize("low, high", [(70, 136), (136, 137), (137, 420)])
def test_resize_is_pillows(low, high):
    source_images = all_images(SIDE, 8)
    sizes = np.random.RandomState(low).randint(low, high, len(source_images)).tolist()
    size = torch.tensor(sizes)[:, None].expand(-1, 2)
    largest = max(sizes) + 3
    taps = triangle_taps(
        torch.full_like(size, SIDE),
        size,
        torch.zeros_like(size),
        size - 1,
        [largest, largest],
        most_taps(SIDE, min(sizes)),
    )
    found = resize(columns(source_images), *taps)
    wanted = [planes(p.resize((s, s), BILINEAR)) for p, s in zip(source_images, sizes, strict=True)]
    inside = [f[:, :s, :s] for f, s in zip(found, sizes, strict=True)]
    assert_equal(inside, wanted)
    for f, s in zip(found, sizes, strict=True):  # beyond: the edge
        assert torch.equal(f[:, s:], f[:, s - 1 : s].expand(-1, largest - s, -1))
        assert torch.equal(f[:, :, s:], f[:, :, s - 1 : s].expand(-1, -1, largest - s))


def test_crops_are_enlarged_as_pillow_does():
    source_images = all_images(SIDE, 12)
    boxes = sampled(len(source_images), smallest=0.02).boxes
    boxes[0] = torch.tensor([0, 0, SIDE, SIDE])
    boxes[1] = torch.tensor([5, 0, 1, SIDE])
    boxes[2] = torch.tensor([135, 130, 1, 6])
    crops = [boxed(p, box) for p, box in zip(source_images, boxes.tolist(), strict=True)]
    padded = torch.full((len(crops), 3, SIDE, SIDE), 1e4)  # what lies beyond must not matter
    for target, crop in zip(padded, crops, strict=True):
        target[:, : crop.height, : crop.width] = planes(crop)
    found = enlarge(turn(padded), boxes, SIDE)
    wanted = [planes(crop.resize((SIDE, SIDE), BILINEAR)) for crop in crops]
    assert_equal(found, wanted)


def compress(source_images: list[Image.Image], qualities: list[int], padding: int) -> torch.Tensor:
    """Return square images after JPEG (B, 3, side, side), computed with some padding."""
    side = source_images[0].width
    padded = -(-side // 16) * 16 + padding
    place = torch.arange(padded).clamp(max=side - 1)
    rows = batch(source_images).float()[:, :, place][..., place].contiguous()
    extents = pairs(side, side, count=len(source_images))
    result = jpeg.compress(rows, extents, jpeg.quantisation_tables()[qualities])
    return turn(result)[:, :, jpeg.place_of_row(torch.arange(side), padded), :side]


@pytest.mark.parametrize("side", [5, 33, 97, 109, 110, 136, 160, 201])
def test_jpeg_is_libjpegs_nearly_to_the_bit(side):
    source_images = all_images(side, 12)
    random = np.random.RandomState(side)
    # All qualities in use; also coarser ones, and 100, whose steps are cut at 255 and at 1.
    qualities = [1, 5, 29, 100, 30, 98, *random.randint(30, 99, len(source_images) - 6).tolist()]
    wanted = [planes(compressed(p, q)) for p, q in zip(source_images, qualities, strict=True)]
    for padding in (0, 32):
        assert_equal(compress(source_images, qualities, padding), wanted)


def test_jpeg_of_a_part_is_a_part_of_the_jpeg():
    source_images, side = all_images(144, 4), 144
    qualities = jpeg.quantisation_tables()[[30, 75, 50, 98] * (len(source_images) // 4)]
    rows, order = batch(source_images).float(), torch.arange(side)
    whole = jpeg.compress(rows, pairs(side, side, count=len(rows)), qualities)
    whole = turn(whole)[:, :, jpeg.place_of_row(order, side)]
    part = rows[:, :, 32:112, 16:64].contiguous()
    found = jpeg.compress(part, pairs(side - 16, side - 32, count=len(rows)), qualities)
    found = turn(found)[:, :, jpeg.place_of_row(order[:80], 80)]
    assert torch.equal(found[:, :, 1:-1, 1:-1], whole[:, :, 33:111, 17:63])


def test_jpeg_noise_is_pillows():
    source_images = all_images(SIDE, 12)
    parameters = sampled(len(source_images))
    sides, qualities, boxes = parameters[:3]
    sides[:4] = torch.tensor([108, 136, 109, 470])  # the smallest, the same, odd, five sigma
    boxes[1] = torch.tensor([16, 48, 48, 32])  # whole blocks, whose chroma needs the next ones
    wanted = [
        noisy(p, *v)
        for p, *v in zip(source_images, sides.tolist(), qualities.tolist(), strict=True)
    ]
    whole = torch.tensor([[0, 0, SIDE, SIDE]]).expand_as(boxes)
    found = jpeg_noise(columns(source_images), sides, qualities, whole)
    assert_equal(found, [planes(w) for w in wanted])
    # Of a crop, the same pixels without computing the others.
    cropped = jpeg_noise(columns(source_images), sides, qualities, boxes)
    for c, f, (left, top, width, height) in zip(cropped, found, boxes.tolist(), strict=True):
        expected = f[:, top : top + height, left : left + width]
        assert torch.equal(c[:, :height, :width], expected)


def test_jitter_is_pillows():
    extremes = [Image.new("RGB", (SIDE, SIDE), c) for c in ("white", "black", "#ff0001")]
    source_images = all_images(SIDE, 9) + extremes
    orders = list(
        itertools.islice(itertools.cycle(itertools.permutations(range(3))), len(source_images))
    )
    factors = 0.6 + 0.8 * torch.rand(len(source_images), 3)
    factors[:4] = torch.tensor([[0.6, 1.4, 1.4], [1.0, 1.0, 1.0], [1.4, 0.6, 0.6], [1.25, 0.5, 2]])
    found = color_jitter(batch(source_images).float(), torch.tensor(orders), factors.clone())
    wanted = map(jittered, source_images, orders, factors.tolist())
    assert_equal(found, [planes(w) for w in wanted])


def test_whole_views_are_pillows():
    source_images = all_images(SIDE, 24)
    parameters = sampled(len(source_images), seed=2)
    found = views().render(batch(source_images), parameters)
    wanted = torch.stack([literal_view(p, parameters, i) for i, p in enumerate(source_images)])
    assert found.shape == (len(source_images), 3, 96, 96) and found.dtype == torch.float32
    levels = (found - wanted).abs() * torch.tensor(FACE_STD).view(3, 1, 1) * 255
    # A level can become a few by the contrast; no level, some rounding of float32.
    assert levels.max() < 5 and (levels > 1e-3).float().mean() < RARE


# ---- what is drawn ----

DRAWS = 6000


def test_crops_are_drawn_as_torchvisions():
    ours = sampled(DRAWS).boxes.double()
    image, ratio = torch.empty(3, SIDE, SIDE), [3 / 4, 4 / 3]
    get_params = tv_transforms.RandomResizedCrop.get_params
    theirs = [get_params(image, [SMALLEST, 1.0], ratio) for _ in range(DRAWS)]
    theirs = torch.tensor(theirs).double()[:, [1, 0, 3, 2]]

    def figures(boxes):
        left, top, width, height = boxes.T
        free = SIDE - boxes[:, 2:].T
        # Position among those possible, where there is a choice; a draw in it breaks ties.
        across = ((left + torch.rand(DRAWS)) / (free[0] + 1))[free[0] > 0]
        down = ((top + torch.rand(DRAWS)) / (free[1] + 1))[free[1] > 0]
        return width * height, (width / height).log(), width, height, across, down

    for a, b in zip(figures(ours), figures(theirs), strict=True):
        assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3
        spread = (a.var() / len(a) + b.var() / len(b)).sqrt()
        assert (a.mean() - b.mean()).abs() < 4 * spread
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= SIDE).all()


def test_crops_that_never_fit_show_the_whole_image():
    # At full scale a crop fits only if it is square after rounding.
    ours = (sampled(DRAWS, smallest=1.0).boxes[:, 2:] == SIDE).all(dim=1)
    image = torch.empty(3, SIDE, SIDE)
    get_params = tv_transforms.RandomResizedCrop.get_params
    theirs = [get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(300)]
    assert ours.all() and all(size == (SIDE, SIDE) for size in theirs)
    # At 0.9 the fallback is one way among others.
    whole = (sampled(DRAWS, smallest=0.9).boxes[:, 2:] == SIDE).all(dim=1).double().mean()
    theirs = [get_params(image, [0.9, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(2000)]
    share = sum(size == (SIDE, SIDE) for size in theirs) / 2000
    assert 0 < share < 1 and abs(whole - share) < 4 * (share * (1 - share) / 1500) ** 0.5


def test_other_parameters_are_drawn_as_published():
    p = sampled(DRAWS)
    # max(int(.8 * 136), int(136 (1 + n / 2))), n normal: 108 if n < -.4
    assert p.sides.min() == 108
    for least in (109, 120, 136, 170, 204, 272):
        share = 1 - stats.norm.cdf((least / SIDE - 1) * 2)
        spread = (share * (1 - share) / DRAWS) ** 0.5
        assert abs((p.sides >= least).double().mean() - share) < 4 * spread
    counts = np.bincount(p.qualities.numpy(), minlength=99)
    assert counts[:30].sum() == 0 and len(counts) == 99
    assert stats.chisquare(counts[30:]).pvalue > 1e-3
    for factor in p.factors.T:
        assert stats.kstest(factor.numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    orders = [tuple(order) for order in p.order.tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == DRAWS and stats.chisquare(counts).pvalue > 1e-3
    # AlexNet's: normal, with the covariance sum_j (.1 val_j)^2 vec_j vec_j'.
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    white = p.colours.numpy() @ np.linalg.inv(vectors * 0.1 * [0.2175, 0.0188, 0.0045]).T
    assert np.allclose(np.cov(white.T), np.eye(3), atol=5 / DRAWS**0.5)
    for component in white.T:
        assert stats.kstest(component, "norm").pvalue > 1e-3
    everything = torch.cat([v.double().view(DRAWS, -1) for v in p[:2] + p[4:]], dim=1)
    everything[:, 0] = everything[:, 0].clamp(max=250)  # the tail's weight
    correlation = np.corrcoef(everything[:, :5].T.numpy())
    assert abs(correlation - np.eye(5)).max() < 4.5 / DRAWS**0.5


# ---- what doesn't matter ----


@pytest.fixture(scope="module")
def some():
    """Return images (B, 3, S, S), parameters with a rare large image, and their views."""
    images = batch([textured(SIDE, seed) for seed in range(14)])
    parameters = sampled(len(images), seed=3)
    parameters.sides[5] = 470
    return images, parameters, views().render(images, parameters)


def test_the_same_seed_draws_the_same_views_and_goes_on():
    images = batch([textured(SIDE, seed) for seed in range(4)])
    generator = torch.Generator().manual_seed(7)
    before = images.clone()
    first, second = views()(images, generator), views()(images, generator)
    assert torch.equal(first, views()(images, torch.Generator().manual_seed(7)))
    assert (first - second).abs().flatten(1).mean(dim=1).min() > 0.01
    assert torch.equal(images, before)
    assert first.is_contiguous()


def test_grouping_does_not_matter(some, monkeypatch):
    images, parameters, expected = some
    for pixels in (1, 10**9, 60_000):
        monkeypatch.setattr("data_loader.views.batch_views.CACHE_PIXELS", pixels)
        assert torch.equal(views().render(images, parameters), expected)
    places, counts = views().groups(parameters, gpu=False)
    assert 1 < len(counts) < len(images) == sum(counts)
    assert sorted(places.tolist()) == list(range(len(images)))


def test_order_and_company_do_not_matter(some):
    images, parameters, expected = some
    order = torch.randperm(len(images))
    shuffled = views().render(images[order], parameters.select(order))
    assert torch.equal(shuffled, expected[order])
    few = torch.tensor([2])
    assert torch.equal(views().render(images[few], parameters.select(few)), expected[few])


def test_precision_settings_memory_layout_and_gradients_do_not_matter(some):
    images, parameters, expected = some
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = views().render(images.contiguous(memory_format=torch.channels_last), parameters)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected) and not found.requires_grad


def test_other_sides_and_no_crop():
    images = batch([textured(61, seed) for seed in range(3)])
    small = BatchViews(61, 0, 0.5, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255))
    found = small(images, torch.Generator().manual_seed(0))
    assert found.shape == (3, 3, 61, 61)
    # Without the colour noise, one shift a channel, levels are whole.
    levels = found - found.amin(dim=(2, 3), keepdim=True)
    assert torch.allclose(levels, levels.round(), atol=1e-3) and levels.max() > 50


def test_no_images_give_no_views():
    empty = torch.empty(0, 3, SIDE, SIDE, dtype=torch.uint8)
    assert views()(empty, torch.Generator()).shape == (0, 3, 96, 96)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, 3, SIDE, 96, dtype=torch.uint8)],
    ids=["float", "not square"],
)
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8"):
        views()(images, torch.Generator())


def levels_of(normalised: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (FACE_MEAN, FACE_STD))
    return (normalised * std + mean) * 255


@pytest.mark.cuda
def test_a_gpu_gives_the_same_views_and_is_not_waited_for(some):
    images, parameters, expected = some
    images = images.cuda()
    views().render(images, parameters)  # tables are made, memory is pinned
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = views().render(images, parameters)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    gaps = (levels_of(found.cpu()) - levels_of(expected)).abs()
    # A fused multiplication and addition can move a value over the edge between two levels.
    assert gaps.mean() < 0.01 and (gaps > 0.01).float().mean() < 0.01
