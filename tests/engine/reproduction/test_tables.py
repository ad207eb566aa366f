import csv
import json
import shutil

import pytest
from PIL import Image

from engine.reproduction.experiments import (
    BIRDS,
    EXPERIMENTS,
    FACES,
    FEW_FACES,
    FINETUNE,
    MATCHING,
    PAPER,
    RIDGE,
    UNTRAINED,
    Run,
)
from engine.reproduction.tables import (
    draw_curves,
    read_folder,
    read_rows,
    write_curves,
    write_tables,
)
from tests.engine.reproduction.records import leave

WHOLE = "resnet18, untrained encoder"


def few(annotations, seed=0, model="resnet18"):
    return Run(FEW_FACES, "AFLW_MTFL", model, annotations=annotations, seed=seed)


def made(encoder, annotations=50, seed=0, recipe=RIDGE, part=5):
    """Return a run on MAFL with an encoder of a method, after parts of its pre-training."""
    part = 0 if encoder == UNTRAINED else part
    return Run(recipe, "MAFLAligned", "resnet18", (4, True), annotations, seed, encoder, part)


def seen(row):
    return tuple(row.columns[f"pretraining_{what}"] for what in ("epochs", "steps", "pairs"))


def write(out):
    """Write the tables; return the Markdown, and the lines of the CSV."""
    write_tables(out)
    with (out / "results.csv").open() as file:
        return (out / "results.md").read_text(), list(csv.DictReader(file))


def table(text, name):
    """Return a table of results.md: row label to column to cell."""
    section = text.split(f"## {name}:")[1].split("\n## ")[0]
    lines = [
        [c.strip() for c in li.split("|")[1:-1]] for li in section.split("\n") if li[:1] == "|"
    ]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


def test_face_table_is_beside_the_published_figures(tmp_path):
    leave(tmp_path, Run(FACES, "MAFLAligned", "resnet50"), 2.8)
    leave(tmp_path, Run(FACES, "ThreeHundredW", "resnet50"), 4.9)
    text, _ = write(tmp_path)
    rows = table(text, "faces")
    assert rows["ours: resnet50"] == {"MAFL": "2.80", "AFLW_M": "", "AFLW_R": "", "300-W": "4.90"}
    published = rows["published: CL, ResNet-50, hypercolumn [1]"]
    assert list(published.values()) == ["2.76", "6.17", "5.69", "4.84"]
    assert rows["published: DVE, hourglass [2]"]["MAFL"] == "2.86"
    assert "[1] SCE-MAE (CVPR 2024), table 2" in text and "[2] README of DVE" in text
    assert ">" not in text  # the whole benchmark at full scale needs no warning


def test_few_shot_table_averages_over_seeds_within_a_model(tmp_path):
    for seed, score in enumerate([10.0, 11.0, 15.0]):  # standard deviation: sqrt((4 + 1 + 9) / 2)
        leave(tmp_path, few(10, seed), score)
        leave(tmp_path, few(10, seed, "resnet50"), score - 5)
    leave(tmp_path, few(100), 6.0)
    rows = table(write(tmp_path)[0], "few_shot")
    empty = dict.fromkeys(["1", "5", "20", "50"], "")
    assert rows["ours: resnet18"] == {**empty, "10": "12.00 ± 2.65 (3)", "100": "6.00 (1)"}
    assert rows["ours: resnet50"]["10"] == "7.00 ± 2.65 (3)"
    assert rows["ours: mean shape of the training images"]["10"] == "31.00 ± 1.00 (3)"
    assert set(rows["published: CL, ResNet-50, hypercolumn"].values()) == {""}


def test_scaled_runs_say_so_and_are_not_averaged_with_whole_ones(tmp_path):
    leave(tmp_path, few(10), 10.0)
    leave(tmp_path, few(10, 1), 50.0, scale=0.01, test_images=120, random_network=True)
    leave(tmp_path, few(20), 9.0)
    text, _ = write(tmp_path)
    rows = table(text, "few_shot")
    assert rows["ours: resnet18"]["10"] == "10.00 (1)"
    assert rows[f"ours: {WHOLE}, SCALED: 1 % of the epochs"]["10"] == "50.00 (1)"
    assert "NOT a reproduction" in text and "with random weights" in text


def test_other_test_images_than_the_benchmarks_are_told(tmp_path):
    leave(tmp_path, Run(FACES, "MAFLAligned", "resnet50"), 2.8)
    leave(tmp_path, Run(FACES, "AFLW", "resnet50"), 2.8, test_images=120)
    told = "> **Other data than the benchmark: test images of AFLW_R 120, not 2991.**"
    assert told in write(tmp_path)[0].split("\n")


def test_csv_has_a_line_for_each_run(tmp_path):
    leave(tmp_path, few(10, 1), 10.0, scale=0.01)
    leave(tmp_path, few(1), 20.0)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet50"), 6.0, best=5.5)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet50", features=(3, True)), 6.0)
    leave(tmp_path, Run(FACES, "AFLW_MTFL", "resnet18"), 6.0)
    leave(tmp_path, Run(BIRDS, "CUB", "resnet50"), 60.0, best=63.0)
    lines = {line["run"]: line for line in write(tmp_path)[1]}
    assert list(lines) == [
        "AFLW_MTFL-resnet18-hypercolumn4-1annos-seed0",
        "AFLW_MTFL-resnet18-hypercolumn4-10annos-seed1",
        "AFLW_MTFL-resnet18-hypercolumn4",
        "AFLW_MTFL-resnet50-hypercolumn3",
        "AFLW_MTFL-resnet50-hypercolumn4",
        "CUB-resnet50-hypercolumn4",
    ]
    # Only the published model at the published layers repeats a figure.
    assert [line["published"] for line in lines.values()] == ["", "", "", "", "6.17", ""]
    _, scaled, _, _, face, bird = lines.values()
    assert (scaled["scale"], scaled["annotations"], scaled["seed"]) == ("0.01", "10", "1")
    assert face["experiments"] == "faces+layers"
    assert (face["headline"], face["last"], face["best"]) == ("6.0", "6.0", "5.5")
    assert face["published_source"].startswith("SCE-MAE")
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
    # A hypercolumn of four maps ends at the fourth of them, the deepest is the first.
    axes = draw_curves("layers", read_rows(tmp_path)[-3:-1]).axes[0]
    assert [line.lines[0].get_xydata().tolist() for line in axes.containers] == [
        *([[3, 6]], [[0, 9]])
    ]


def test_only_whole_records_of_the_folders_own_run_count(tmp_path):
    whole = leave(tmp_path, few(1), 20.0)
    assert [row.headline for row in read_folder(whole)] == [20.0]
    # An earlier result, beside the options of a run that was begun anew.
    record = json.loads((whole / "options.json").read_text())
    record["options"]["epochs"] = 3
    (whole / "options.json").write_text(json.dumps(record))
    cut = leave(tmp_path, few(1, 1), 20.0)
    (cut / "result.json").write_text((cut / "result.json").read_text()[:-9])
    leave(tmp_path, few(1, 2), 20.0).rename(tmp_path / "someone_elses")
    leave(tmp_path, few(1, 2), 20.0).rename(tmp_path / few(1, 3).name)
    leave(tmp_path, made(UNTRAINED), 20.0).rename(tmp_path / made(UNTRAINED, None).name)
    leave(tmp_path, few(3), 20.0)  # no experiment has three annotations
    # A result without the record of its pre-training.
    left = leave(tmp_path, made("dense"), 10.0)
    assert seen(read_folder(left)[0]) == (10, 40, 1000)
    shutil.rmtree(tmp_path / "pretraining-dense-resnet18")
    assert read_rows(tmp_path) == []


def test_every_run_belongs_to_its_experiment_and_has_a_column():
    names = {True: {}, False: {}}
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs(None, seeds=3):
            assert getattr(run, experiment.axis, "warped") in experiment.columns
            # No two runs are in one folder.
            assert names[name in PAPER].setdefault(run.name, run) == run
    # One run of AFLW_M with a hypercolumn of four maps serves two experiments.
    assert len(names[True]) == 8 + 2 * 6 * 3 + 10 + 8 - 1
    # Four encoders and two readouts with 6 numbers of faces and all of them, and three with the
    # third readout; then the encoders after each fifth, of which the untrained and the last ones
    # are among the former; and matching.
    assert len(names[False]) == (4 * 2 + 3) * (6 * 3 + 1) + (11 - 3) * 3 + 4
    assert not set(names[True]) & set(names[False])


def test_encoders_are_compared_by_annotations_and_readout(tmp_path):
    leave(tmp_path, made(UNTRAINED, 50), 30.0)
    for seed in range(2):
        leave(tmp_path, made("dense", 50, seed), 10.0 + seed)
    leave(tmp_path, made("dense", None), 9.0)
    leave(tmp_path, made(UNTRAINED, None, recipe=FACES), 20.0)
    leave(tmp_path, made(UNTRAINED, 50, recipe=FEW_FACES), 25.0)
    text, _ = write(tmp_path)
    assert ">" not in text  # none is scaled, and an untrained encoder is what is asked for
    ridge, published = table(text, "encoders"), table(text, "regressor")
    assert list(ridge) == [
        *(f"ours: {WHOLE}", "ours: resnet18, dense", "ours: mean shape of the training images")
    ]
    for row, fifty, whole in (
        (ridge[f"ours: {WHOLE}"], "30.00 (1)", ""),
        (ridge["ours: resnet18, dense"], "10.50 ± 0.71 (2)", "9.00 (1)"),
        (published[f"ours: {WHOLE}"], "25.00 (1)", "20.00 (1)"),
    ):
        assert (row["50"], row["all"]) == (fifty, whole)
    # The paper's experiments keep to encoders of the user's.
    assert all(row.startswith("published") for row in table(text, "faces"))


def test_scaled_runs_of_two_recipes_share_a_row(tmp_path):
    """Few and all annotations have other numbers of epochs, of which the same part was trained."""
    leave(tmp_path, made(UNTRAINED, 50, recipe=FEW_FACES), 25.0, scale=0.1)
    leave(tmp_path, made(UNTRAINED, None, recipe=FACES), 20.0, scale=0.1)
    rows = table(write(tmp_path)[0], "regressor")
    row = rows[f"ours: {WHOLE}, SCALED: 10 % of the epochs"]
    assert (row["50"], row["all"]) == ("25.00 (1)", "20.00 (1)")


@pytest.mark.parametrize(
    ("scale", "scaled", "epochs"),
    [(1.0, "", ("", "4", "10")), (0.5, ", SCALED: pre-trained for 5 of 10 epochs", ("", "2", "5"))],
)
def test_steps_begin_at_the_untrained_encoder(tmp_path, scale, scaled, epochs):
    leave(tmp_path, made(UNTRAINED), 30.0)
    for part in (2, 5):
        leave(tmp_path, made("dense", part=part), 20.0 - part, scale=scale)
    text, lines = write(tmp_path)
    rows = table(text, "steps")
    assert rows[f"ours: {WHOLE}"]["0 %"] == "30.00 (1)"
    dense = rows[f"ours: resnet18, dense{scaled}"]
    assert (dense["40 %"], dense["60 %"], dense["100 %"]) == ("18.00 (1)", "", "15.00 (1)")
    assert tuple(line["pretraining_epochs"] for line in lines) == epochs
    assert {line["readout"] for line in lines} == {"ridge"}
    axes = draw_curves("steps", read_rows(tmp_path)).axes[0]
    untrained, dense = (container.lines[0].get_xydata().tolist() for container in axes.containers)
    assert untrained == [[0, 30]]
    # Over pairs, of 100 images an epoch.
    assert dense == [[0, 30], [100 * int(epochs[1]), 18], [100 * int(epochs[2]), 15]]
    assert [path.name for path in write_curves(tmp_path)] == ["steps.png"]


def test_a_projection_has_seen_what_both_of_its_stages_saw(tmp_path):
    leave(tmp_path, made("projected"), 12.0)
    leave(tmp_path, made("projected", recipe=FEW_FACES), 13.0)
    row, other = read_rows(tmp_path)
    # A step of MoCo has 256 pairs, one of the projection 32.
    assert seen(row) == seen(other) == (8 + 2, 8 * 1 + 2 * 4, 8 * 100 + 2 * 100)
    assert not row.scaled and row.variant == "resnet18, MoCo + projection"
    text, _ = write(tmp_path)
    for name, cell in (("encoders", "12.00 (1)"), ("regressor", "13.00 (1)")):
        assert table(text, name)["ours: resnet18, MoCo + projection"]["50"] == cell
    assert "saw as many pairs as the others" in text


def test_fine_tuned_runs_are_counted_in_steps(tmp_path):
    leave(tmp_path, made(UNTRAINED, 10, recipe=FINETUNE), 15.0)
    leave(tmp_path, made(UNTRAINED, 50, recipe=FINETUNE), 9.0, scale=0.1)
    text, (whole, _) = write(tmp_path)
    rows = table(text, "finetune")
    assert rows[f"ours: {WHOLE}"]["10"] == "15.00 (1)"
    scaled = rows[f"ours: {WHOLE}, SCALED: 10 % of the steps"]
    assert (scaled["10"], scaled["50"]) == ("", "9.00 (1)")
    assert (whole["readout"], whole["epochs"], whole["counted"]) == ("finetune", "300", "steps")
    assert (whole["best_epoch"], whole["headline"]) == ("11", "15.0")


def test_matching_has_a_figure_for_each_kind_of_pairs(tmp_path):
    leave(tmp_path, made(UNTRAINED, None, recipe=MATCHING), 2.0)
    cut = leave(tmp_path, made("dense", None, recipe=MATCHING), 1.0)
    text, lines = write(tmp_path)
    rows = table(text, "matching")
    warped, others = "an image and its warp", "two images"
    assert rows[f"ours: {WHOLE}"] == {warped: "2.00", others: "6.00"}
    assert rows["ours: resnet18, dense"] == {warped: "1.00", others: "3.00"}
    assert rows["ours: points left where they were"] == {warped: "5.00", others: "9.00"}
    published = [row for row in rows if row.startswith("published: ")]
    assert [rows[row][others] for row in published] == ["2.06", "1.61"]
    assert "in pixels of the network input" in text and ">" not in text
    assert [line["pair"] for line in lines] == ["warped", "others"] * 2
    assert {line["metric"] for line in lines} == {"MatchingDistance (px)"}
    assert write_curves(tmp_path) == []
    record = json.loads((cut / "matching.json").read_text())
    (cut / "matching.json").write_text(json.dumps({**record, "pairs": 10}))
    assert read_folder(cut) == []
