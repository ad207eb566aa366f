import csv
import json
import math

import pytest
from PIL import Image

from engine.reproduction.experiments import (
    BIRDS,
    EXPERIMENTS,
    FACES,
    FEW_FACES,
    Run,
    published_figure,
)
from engine.reproduction.results import read_row, read_rows
from engine.reproduction.tables import format_cell, mean_std, write_curves, write_tables
from utils.errors import InputError
from utils.files import write_file


def leave(out, run, score, *, epochs=None, test_images=None, best=1.0, random_network=False):
    """Leave the records of a finished run in its folder, as the evaluation scripts do."""
    birds, few = run.recipe is BIRDS, run.recipe is FEW_FACES
    epochs = epochs or run.recipe.epochs
    counts = {"MAFLAligned": 1000, "AFLW_MTFL": 2995, "AFLW": 2991, "ThreeHundredW": 689}
    options = {
        "dataset": run.dataset,
        "model": run.model,
        "layer": run.features[0],
        "use_hypercol": run.features[1],
        "restrict_annos": run.annotations if few else -1,
        "imagelist": str(run.imagelist(out)) if birds else None,
        "seed": run.seed,
        "epochs": epochs,
        "num_per_epoch": 1000,
        "random_network": random_network,
        "trained_model_path": None if random_network else "encoder.pth",
    }
    metric = "PCK" if birds else "InterOcularError"
    entry = {"best_val_pck": 9.0, "best_test_pck": best} if birds else {"best_error": best}
    result = {
        "epochs": epochs,
        "images": {"training": 1241, "Test": test_images or counts.get(run.dataset, 383)},
        "last": {"Test": {"loss": 1.0, metric: score}},
        "best": {**entry, "best_epoch": 7},
        "mean_shape": {metric: 30.0 + run.seed},
    }
    folder = out / run.name
    folder.mkdir(parents=True)
    (folder / "options.json").write_text(json.dumps({"options": options}))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def few(annotations, seed, model="resnet18"):
    return Run(FEW_FACES, "AFLW_MTFL", model, annotations=annotations, seed=seed)


def table(text, name):
    """Return a table of results.md: row label to column to cell."""
    section = text.split(f"## {name}:")[1].split("\n## ")[0]
    lines = [
        [c.strip() for c in li.split("|")[1:-1]] for li in section.split("\n") if li[:1] == "|"
    ]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


def test_mean_and_standard_deviation_by_hand():
    assert mean_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))  # (4 + 1 + 9) / 2
    assert mean_std([4.0]) == (4.0, None)
    assert format_cell([1.0, 2.0, 6.0], repeated=True) == "3.00 ± 2.65 (3)"
    assert format_cell([4.0], repeated=True) == "4.00 (1)"
    assert format_cell([4.0], repeated=False) == "4.00"
    assert format_cell([], repeated=True) == ""


def test_face_table_is_beside_the_published_figures(tmp_path):
    leave(tmp_path, Run(FACES, "MAFLAligned", "resnet50"), 2.8)
    leave(tmp_path, Run(FACES, "ThreeHundredW", "resnet50"), 4.9)
    write_tables(tmp_path)
    text = (tmp_path / "results.md").read_text()
    rows = table(text, "faces")
    assert rows["ours: resnet50"] == {"MAFL": "2.80", "AFLW_M": "", "AFLW_R": "", "300-W": "4.90"}
    assert list(rows["published: CL, ResNet-50, hypercolumn [1]"].values()) == [
        *("2.76", "6.17", "5.69", "4.84")
    ]
    assert list(rows["published: DVE, hourglass [1]"].values()) == ["2.76", "6.96", "6.33", "4.58"]
    assert list(rows["published: LEAD [1]"].values()) == ["2.44", "6.05", "5.71", "4.87"]
    assert list(rows["published: DVE, hourglass [2]"].values()) == ["2.86", "7.53", "6.54", "4.65"]
    assert "[1] SCE-MAE (CVPR 2024), table 2" in text and "[2] README of DVE" in text
    assert ">" not in text  # the whole benchmark at full scale needs no warning


def test_few_shot_table_averages_over_seeds_within_a_model(tmp_path):
    for seed, score in enumerate([10.0, 11.0, 15.0]):
        leave(tmp_path, few(10, seed), score)
        leave(tmp_path, few(10, seed, "resnet50"), score - 5)
    leave(tmp_path, few(100, 0), 6.0)
    write_tables(tmp_path)
    rows = table((tmp_path / "results.md").read_text(), "few_shot")
    assert rows["ours: resnet18"] == {
        **dict.fromkeys(["1", "5", "20", "50"], ""),
        "10": "12.00 ± 2.65 (3)",
        "100": "6.00 (1)",
    }
    assert rows["ours: resnet50"]["10"] == "7.00 ± 2.65 (3)"
    assert rows["ours: mean shape of the training images"]["10"] == "31.00 ± 1.00 (3)"
    assert set(rows["published: CL, ResNet-50, hypercolumn"].values()) == {""}


def test_scaled_runs_say_so_and_are_not_averaged_with_whole_ones(tmp_path):
    leave(tmp_path, few(10, 0), 10.0)
    leave(tmp_path, few(10, 1), 50.0, epochs=10, test_images=120, random_network=True)
    leave(tmp_path, few(20, 0), 9.0)
    write_tables(tmp_path)
    text = (tmp_path / "results.md").read_text()
    rows = table(text, "few_shot")
    assert rows["ours: resnet18"]["10"] == "10.00 (1)"
    scaled = "ours: resnet18, untrained encoder, SCALED: 10 of 1000 epochs"
    assert rows[scaled]["10"] == "50.00 (1)"
    assert "NOT a reproduction" in text and "with random weights" in text
    paths = write_curves(tmp_path)
    assert [path.name for path in paths] == ["few_shot.png"]


def test_birds_are_judged_at_the_epoch_picked_on_the_validation_set(tmp_path):
    leave(tmp_path, Run(BIRDS, "CUB", "resnet18", annotations=10), 40.0, best=44.0)
    leave(tmp_path, Run(BIRDS, "CUB", "resnet18"), 60.0, best=63.0)
    write_tables(tmp_path)
    rows = table((tmp_path / "results.md").read_text(), "cub")
    assert rows["ours: resnet18"] == {"10": "44.00", "50": "", "100": "", "all": "63.00"}


def test_csv_has_a_line_for_each_run(tmp_path):
    leave(tmp_path, few(10, 1), 10.0, epochs=10)
    leave(tmp_path, few(1, 0), 20.0)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet50"), 6.0, best=5.5)
    leave(tmp_path, Run(BIRDS, "CUB", "resnet50"), 60.0, best=63.0)
    write_tables(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == [
        "AFLW_MTFL-resnet18-hypercolumn4-1annos-seed0",
        "AFLW_MTFL-resnet18-hypercolumn4-10annos-seed1",
        "AFLW_MTFL-resnet50-hypercolumn4",
        "CUB-resnet50-hypercolumn4",
    ]
    scaled, face, bird = lines[1:]
    assert scaled["scale"] == "0.01" and scaled["published"] == ""
    assert scaled["annotations"] == "10" and scaled["seed"] == "1"
    assert face["experiments"] == "faces+layers"
    assert (face["headline"], face["last"], face["best"]) == ("6.0", "6.0", "5.5")
    assert face["published"] == "6.17" and face["published_source"].startswith("SCE-MAE")
    assert face["best_picked_on"] == "Test" and bird["best_picked_on"] == "Val"
    assert (bird["headline"], bird["annotations"]) == ("63.0", "1241")


def test_curves_are_drawn_for_experiments_with_two_points(tmp_path):
    for annotations in (1, 10):
        for seed in range(2):
            leave(tmp_path, few(annotations, seed), 20.0 + seed)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet50"), 6.0)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet50", features=(5, False)), 9.0)
    leave(tmp_path, Run(BIRDS, "CUB", "resnet50"), 60.0)
    paths = write_curves(tmp_path)
    assert [path.name for path in paths] == ["few_shot.png", "layers.png"]
    for path in paths:
        assert Image.open(path).size[0] >= 900
    assert not list(tmp_path.glob(".*"))


def test_only_whole_records_of_the_folders_own_run_count(tmp_path):
    whole = leave(tmp_path, few(1, 0), 20.0)
    assert read_row(whole).last == 20.0
    # An earlier result, beside the options of a run that was begun anew.
    record = json.loads((whole / "options.json").read_text())
    record["options"]["epochs"] = 3
    (whole / "options.json").write_text(json.dumps(record))
    cut = leave(tmp_path, few(1, 1), 20.0)
    (cut / "result.json").write_text((cut / "result.json").read_text()[:-9])
    leave(tmp_path, few(1, 2), 20.0).rename(tmp_path / "someone_elses")
    leave(tmp_path, few(3, 0), 20.0)  # no experiment has three annotations
    (tmp_path / "moco").mkdir()
    (tmp_path / "moco/options.json").write_text('{"options": {"dataset": "CelebA"}}')
    (tmp_path / "moco/result.json").write_text("{}")
    assert read_rows(tmp_path) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.md"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_file(path, fail)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["results.md"]


def test_published_figures_belong_to_the_run_that_repeats_them():
    assert published_figure(Run(FACES, "AFLW", "resnet50"))[0] == 5.69
    assert published_figure(Run(FACES, "AFLW", "resnet18")) is None
    assert published_figure(Run(FACES, "AFLW_MTFL", "resnet50", features=(3, True))) is None
    assert published_figure(few(10, 0, "resnet50")) is None


def test_every_run_belongs_to_its_experiment_and_has_a_column():
    names = set()
    for experiment in EXPERIMENTS.values():
        for run in experiment.runs(None, None, None, 3):
            assert experiment.includes(run) and experiment.axis(run) in experiment.columns
            names.add(run.name)
    # One run of AFLW_M with a hypercolumn of four maps serves two experiments.
    assert len(names) == 8 + 2 * 6 * 3 + 10 + 8 - 1
