import numpy as np
import pytest
import torch
from PIL import Image

import vis_animal
import vis_face
from engine.pages.components import draw_components, principal_maps
from utils.drawing import (
    GAP,
    HEADER,
    PREDICTION,
    TRUTH,
    ZOOM,
    draw_names,
    draw_parts,
    draw_predictions,
    sheet,
    to_pil,
)


def centroid(drawing, colour):
    """Mean (x, y) of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(drawing) == colour).all(axis=-1))
    return columns.mean(), rows.mean()


def test_points_are_drawn_where_they_are():
    image = torch.zeros(3, 20, 40)
    image[:, 5, 30] = 1
    drawing = draw_predictions(image, np.array([[10.0, 15.0]]), np.array([[30.0, 5.0]]))
    assert drawing.size == (40 * ZOOM, 20 * ZOOM)
    assert centroid(drawing, PREDICTION) == pytest.approx(
        (10.5 * ZOOM - 0.5, 15.5 * ZOOM - 0.5), abs=1
    )
    assert centroid(drawing, TRUTH) == pytest.approx((30.5 * ZOOM - 0.5, 5.5 * ZOOM - 0.5), abs=1)
    # The lit pixel of the enlarged image lies under the true point.
    rows, columns = np.nonzero(np.asarray(to_pil(image, ZOOM))[..., 0] > 200)
    assert (columns.mean(), rows.mean()) == pytest.approx(
        (30.5 * ZOOM - 0.5, 5.5 * ZOOM - 0.5), abs=0.6
    )


def test_a_long_name_is_cut():
    short, page = draw_names(["left eye", "beak"]), draw_names(["left eye", "beak" * 500])
    assert page.height == short.height == 2 * HEADER
    assert short.width < page.width < 800
    assert page.crop((0, 0, short.width, HEADER)) == short.crop((0, 0, short.width, HEADER))


def test_of_very_many_names_the_first_are_drawn():
    many, first = draw_names([str(n) for n in range(3000)]), draw_names([str(n) for n in range(2)])
    assert many.height == 1001 * HEADER
    row = (HEADER, HEADER, first.width, 2 * HEADER)  # beside the dot, whose colour is of 3,000
    assert many.crop(row) == first.crop(row)


def test_only_visible_parts_are_drawn():
    points = np.array([[5.0, 5.0], [15.0, 15.0]])
    drawn = np.asarray(draw_parts(torch.zeros(3, 20, 20), points, np.array([False, True])))
    half = 10 * ZOOM
    assert drawn[:half, :half].max() == 0 and drawn[half:, half:].max() > 0
    (drawing,) = vis_face.draw(
        torch.zeros(3, 20, 20), points, points, np.array([False, True])
    ).values()
    face = np.asarray(drawing)
    assert face[:half, :half].max() == 0 and face[half:, half:].max() > 0


def test_a_sheet_is_filled_row_by_row():
    drawings = [Image.new("RGB", (10, 6), (i, 0, 0)) for i in range(5)]
    page = np.asarray(sheet(drawings, 3, ""))
    assert page.shape == (HEADER + GAP + 2 * (6 + GAP), GAP + 3 * (10 + GAP), 3)
    assert page[HEADER + GAP + 1, GAP + 10 + GAP + 1, 0] == 1
    assert page[HEADER + GAP + 6 + GAP + 1, GAP + 1, 0] == 3


def test_principal_maps_keep_images_rows_and_columns_apart():
    # Two directions of feature space carry a ramp over rows and a smaller one over columns.
    features = torch.zeros(2, 6, 8, 12)
    features[:, 1] += 10 * torch.arange(8.0)[:, None]
    features[:, 4] += torch.arange(12.0)[None]
    features[1, 3] += 0.1
    maps = principal_maps(features, components=3)
    assert maps.shape == (2, 3, 8, 12)
    assert np.ptp(maps[:, 0], axis=2).max() < 1e-3  # the first one is constant along columns
    assert abs(np.diff(maps[0, 0, :, 0])).min() > 9
    assert np.ptp(maps[:, 1], axis=1).max() < 1e-3  # the second one along rows
    assert maps[0, 2].mean() * maps[1, 2].mean() < 0  # the third one tells the images apart


@pytest.mark.parametrize("channels", [2, 5])
def test_components_of_any_batch_and_width_are_written(tmp_path, channels):
    maps = principal_maps(torch.randn(3, channels, 4, 4))
    path = draw_components(torch.rand(3, 3, 16, 16), maps, tmp_path)
    assert path.is_file()
    for i in range(3):
        names = {p.name for p in (tmp_path / str(i)).iterdir()}
        assert names == {"orig.png", "rgb.png", "sheet.png", *(f"{c}.png" for c in range(channels))}
        assert Image.open(tmp_path / str(i) / "rgb.png").size == (16, 16)


def test_a_test_set_that_cannot_be_judged_has_no_score():
    hidden = [(torch.rand(2, 15, 2), torch.rand(2, 15, 2), torch.zeros(2, 15).bool())]
    own = torch.full((2, 15), torch.nan)
    assert vis_animal.score(hidden, own) == "no PCK, as none has a visible part"
    assert vis_face.score((0, 1), hidden, own) == "no error, as none has both eyes annotated"
    pred, truth, _ = hidden[0]
    seen = [*hidden, (pred, truth, torch.ones(2, 15).bool())]
    assert "nan" not in vis_animal.score(seen, own) + vis_face.score((0, 1), seen, own)
    assert "%" in vis_animal.score(seen, own) and "%" in vis_face.score((0, 1), seen, own)
