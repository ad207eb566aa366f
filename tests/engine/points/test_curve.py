import csv
import json
from argparse import Namespace
from dataclasses import dataclass

import pytest
from PIL import Image

from engine.points.curve import COLUMNS, CurveSettings, draw_curve, run_curve, write_curve
from engine.run.settings import Settings
from utils.errors import InputError


@dataclass(frozen=True)
class Run(Settings):
    """What a curve reads and changes of a run's settings."""

    folder: object
    model_name: str = "own"
    restrict_annos: int = -1
    seed: int = 7


def test_each_number_is_tried_with_each_seed(tmp_path):
    seen = []

    def evaluate(run):
        seen.append((run.model_name, run.restrict_annos, run.seed))
        assert vars(run.options)["seed"] == run.seed and vars(run.options)["kept"] == 1
        error = 100 / run.restrict_annos + run.seed
        return {"scores": {"Test": dict.fromkeys(COLUMNS, error)}}

    run = Run(Namespace(seed=7, restrict_annos=-1, kept=1), tmp_path)
    run_curve(run, CurveSettings(Namespace(), [10, 5, 5], 2, -1, None, 7), evaluate)
    assert seen == [
        (f"own/annotated_{count}_seed_{seed}", count, seed) for count in (5, 10) for seed in (7, 8)
    ]
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["annotated"], row["seed"], row["error_px"]) for row in rows] == [
        *(("5", "7", "27.0"), ("5", "8", "28.0"), ("10", "7", "17.0"), ("10", "8", "18.0")),
    ]
    means = json.loads((tmp_path / "result.json").read_text())["curve"]
    assert means["5"]["error_px"] == 27.5 and means["10"]["PCK_0.1"] == 17.5
    assert Image.open(tmp_path / "curve.png").size == (780, 540)


def test_the_figure_shows_all_runs_and_their_means(tmp_path, monkeypatch):
    figures = []
    keep = lambda *given: figures.append(draw_curve(*given)) or figures[-1]  # noqa: E731
    monkeypatch.setattr("engine.points.curve.draw_curve", keep)
    rows = [[20, 0, 4.0, 3.0, 1, 1], [5, 0, 12.0, 9.0, 1, 1], [5, 1, 14.0, 8.0, 1, 1]]
    write_curve(tmp_path, rows)
    mean, runs, *_ = figures[0].axes[0].lines
    assert mean.get_xydata().tolist() == [[5, 13], [20, 4]]
    assert runs.get_xydata().tolist() == [[5, 12], [5, 14], [20, 4]]
    write_curve(tmp_path, rows[:1])  # one number, one seed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curve": [5, 41]}, "--curve 41: there are 40 training images"),
        ({"restrict_annos": 5}, "--restrict_annos"),
        ({"folds": 5}, "--folds"),
    ],
)
def test_curves_that_cant_be_made_are_refused(changes, said):
    fields = {"curve": [5, 40], "curve_seeds": 3, "restrict_annos": -1, "folds": None, "seed": 0}
    CurveSettings(Namespace(), **fields).check(40)
    with pytest.raises(InputError, match=said):
        CurveSettings(Namespace(), **{**fields, **changes}).check(40)
