import csv
import json
import math

import pytest
from PIL import Image

from engine.reproduction.experiments import EXPERIMENTS, PAPER, published_figure
from engine.reproduction.results import read_folder, read_rows
from engine.reproduction.runs import (
    BIRDS,
    FACES,
    FEW_FACES,
    FINETUNE,
    MATCHING,
    PROJECTED,
    RIDGE,
    UNTRAINED,
    Run,
)
from engine.reproduction.tables import (
    draw_curves,
    format_cell,
    mean_std,
    write_curves,
    write_tables,
)


def leave(
    out,
    run,
    score,
    *,
    epochs=None,
    test_images=None,
    best=1.0,
    random_network=False,
    encoder="encoder.pth",
):
    """Leave the records of a finished run in its folder, as the evaluation scripts do."""
    birds, few = run.recipe is BIRDS, run.recipe in (FEW_FACES, RIDGE, FINETUNE)
    epochs = epochs or run.recipe.epochs
    counts = {"MAFLAligned": 1000, "AFLW_MTFL": 2995, "AFLW": 2991, "ThreeHundredW": 689}
    options = {
        "data_folder": str(out),
        "dataset": run.dataset,
        "model": run.model,
        "layer": run.features[0],
        "use_hypercol": run.features[1],
        "restrict_annos": run.annotations if few and run.annotations else -1,
        "imagelist": run.options(out).get("imagelist"),
        "seed": run.seed,
        run.recipe.counted: epochs,
        "num_per_epoch": 1000,
        "random_network": random_network,
        "trained_model_path": None if random_network else encoder,
        "regressor": run.recipe.name or "published",
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
    if run.recipe in (RIDGE, FINETUNE):
        del result["best"]
    if run.recipe is FINETUNE:
        result |= {"epochs": 12, "finetune": {"steps": epochs, "best_round": 11}}
    folder = out / run.name
    folder.mkdir(parents=True)
    (folder / "options.json").write_text(json.dumps({"options": options}))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def few(annotations, seed, model="resnet18"):
    return Run(FEW_FACES, "AFLW_MTFL", model, annotations=annotations, seed=seed)


def match(out, encoder, warped, others, pairs=1000, file=None):
    """Leave the records of a run of `eval_matching.py`."""
    run = Run(MATCHING, "MAFLAligned", "resnet18", encoder=encoder)
    folder = out / run.name
    folder.mkdir(parents=True)
    options = {
        "data_folder": "celeba",
        "dataset": "MAFLAligned",
        "model": "resnet18",
        "layer": 4,
        "use_hypercol": True,
    }
    options |= {"seed": 0, "pairs": pairs, "random_network": file is None}
    options |= {"trained_model_path": file}
    px = {"warped": warped, "warped_copied": 5.0, "others": others, "others_copied": 9.0}
    result = {"pairs": pairs, "images": {"Test": 1000}, "px": px}
    (folder / "options.json").write_text(json.dumps({"options": options}))
    (folder / "matching.json").write_text(json.dumps(result))
    return folder


def pretrain(out, method, images, batch_size, init=None):
    """Leave the record of a pre-training, as its script does."""
    folder = out / f"pretraining-{method}-resnet18"
    folder.mkdir()
    options = {"batch_size": batch_size, "init": init}
    record = {"options": options, "derived": {"images": images}}
    (folder / "options.json").write_text(json.dumps(record))
    return folder


def read_off(encoder, annotations=50, seed=0, recipe=RIDGE):
    return Run(recipe, "MAFLAligned", "resnet18", (4, True), annotations, seed, encoder)


def seen(row):
    return tuple(row.columns[f"pretraining_{what}"] for what in ("epochs", "steps", "pairs"))


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
    scaled = "ours: resnet18, untrained encoder, SCALED: 1 % of the epochs"
    assert rows[scaled]["10"] == "50.00 (1)"
    assert "NOT a reproduction" in text and "with random weights" in text
    paths = write_curves(tmp_path)
    assert [path.name for path in paths] == ["few_shot.png"]


def test_other_test_images_than_the_benchmarks_are_told(tmp_path):
    leave(tmp_path, Run(FACES, "MAFLAligned", "resnet50"), 2.8)
    leave(tmp_path, Run(FACES, "AFLW", "resnet50"), 2.8, test_images=120)
    write_tables(tmp_path)
    told = "> **Other data than the benchmark: test images of AFLW_R 120, not 2991.**"
    assert told in (tmp_path / "results.md").read_text().split("\n")


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
    assert [row.headline for row in read_folder(whole)] == [20.0]
    # An earlier result, beside the options of a run that was begun anew.
    record = json.loads((whole / "options.json").read_text())
    record["options"]["epochs"] = 3
    (whole / "options.json").write_text(json.dumps(record))
    cut = leave(tmp_path, few(1, 1), 20.0)
    (cut / "result.json").write_text((cut / "result.json").read_text()[:-9])
    leave(tmp_path, few(1, 2), 20.0).rename(tmp_path / "someone_elses")
    leave(tmp_path, few(1, 2), 20.0).rename(tmp_path / few(1, 3).name)
    few_of_all = leave(tmp_path, read_off(UNTRAINED, 50), 20.0, random_network=True)
    few_of_all.rename(tmp_path / read_off(UNTRAINED, None).name)
    leave(tmp_path, few(3, 0), 20.0)  # no experiment has three annotations
    (tmp_path / "moco").mkdir()
    (tmp_path / "moco/options.json").write_text('{"options": {"dataset": "CelebA"}}')
    (tmp_path / "moco/result.json").write_text("{}")
    assert read_rows(tmp_path) == []


def test_published_figures_belong_to_the_run_that_repeats_them():
    assert published_figure(Run(FACES, "AFLW", "resnet50"))[0] == 5.69
    assert published_figure(Run(FACES, "AFLW", "resnet18")) is None
    assert published_figure(Run(FACES, "AFLW_MTFL", "resnet50", features=(3, True))) is None
    assert published_figure(few(10, 0, "resnet50")) is None


def test_every_run_belongs_to_its_experiment_and_has_a_column():
    names = {}
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs(None, None, None, 3):
            assert experiment.includes(run) and experiment.find_column(run) in experiment.columns
            names.setdefault(name in PAPER, {}).setdefault(run.name, run)
            if run.pair is None or run.pair == "warped":  # a folder has both of its figures
                assert names[name in PAPER][run.name] == run  # no two runs in one folder
    # One run of AFLW_M with a hypercolumn of four maps serves two experiments.
    assert len(names[True]) == 8 + 2 * 6 * 3 + 10 + 8 - 1
    # Four encoders and two readouts with 6 numbers of faces and all of them, and three with the
    # third readout; then the encoders after each fifth, of which the untrained and the last ones
    # are among the former; and matching.
    assert len(names[False]) == (4 * 2 + 3) * (6 * 3 + 1) + (11 - 3) * 3 + 4
    assert not set(names[True]) & set(names[False])


def test_encoders_are_compared_by_annotations_and_readout(tmp_path):
    dense = str(pretrain(tmp_path, "dense", 100, 32) / "ckpt_epoch_10.pth")
    for seed in range(2):
        leave(tmp_path, read_off(UNTRAINED, 50, seed), 30.0 + seed, random_network=True)
        leave(tmp_path, read_off("dense", 50, seed), 10.0 + seed, encoder=dense)
    leave(tmp_path, read_off("dense", None), 9.0, encoder=dense)
    whole = read_off(UNTRAINED, None, recipe=FACES)
    leave(tmp_path, whole, 20.0, random_network=True)
    leave(tmp_path, read_off(UNTRAINED, 50, recipe=FEW_FACES), 25.0, random_network=True)
    write_tables(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert ">" not in text  # none is scaled, and an untrained encoder is what is asked for
    ridge, published = table(text, "encoders"), table(text, "regressor")
    untrained = "ours: resnet18, untrained encoder"
    assert list(ridge) == [
        untrained,
        "ours: resnet18, dense",
        "ours: mean shape of the training images",
    ]
    assert ridge[untrained]["50"] == "30.50 ± 0.71 (2)" and ridge[untrained]["all"] == ""
    assert ridge["ours: resnet18, dense"]["50"] == "10.50 ± 0.71 (2)"
    assert ridge["ours: resnet18, dense"]["all"] == "9.00 (1)"
    assert published[untrained]["50"] == "25.00 (1)" and published[untrained]["all"] == "20.00 (1)"
    # The paper's experiments keep to encoders of the user's.
    assert set(table(text, "faces")) == {
        row for row in table(text, "faces") if row.startswith("published")
    }


def test_scaled_runs_of_two_recipes_share_a_row(tmp_path):
    """Few and all annotations have other numbers of epochs, of which the same part was trained."""
    few_annotations = read_off(UNTRAINED, 50, recipe=FEW_FACES)
    leave(tmp_path, few_annotations, 25.0, epochs=100, random_network=True)
    leave(tmp_path, read_off(UNTRAINED, None, recipe=FACES), 20.0, epochs=20, random_network=True)
    write_tables(tmp_path)
    rows = table((tmp_path / "results.md").read_text(), "regressor")
    row = rows["ours: resnet18, untrained encoder, SCALED: 10 % of the epochs"]
    assert (row["50"], row["all"]) == ("25.00 (1)", "20.00 (1)")


def test_curves_of_steps_begin_at_the_untrained_encoder(tmp_path):
    folder = pretrain(tmp_path, "dense", 100, 32)
    leave(tmp_path, read_off(UNTRAINED), 30.0, random_network=True)
    for part in (1, 5):
        file = str(folder / f"ckpt_epoch_{2 * part}.pth")
        leave(
            tmp_path,
            read_off("dense" if part == 5 else f"dense_{part}of5"),
            20.0 - part,
            encoder=file,
        )
    axes = draw_curves("steps", read_rows(tmp_path)).axes[0]
    untrained, dense = (container.lines[0] for container in axes.containers)
    assert untrained.get_xydata().tolist() == [[0, 30]]
    assert dense.get_xydata().tolist() == [[0, 30], [200, 19], [1000, 15]]


def test_steps_are_those_of_the_checkpoint(tmp_path):
    folder = pretrain(tmp_path, "moco", 100, 32)  # 4 steps an epoch
    leave(tmp_path, read_off(UNTRAINED), 30.0, random_network=True)
    for part in (2, 5):
        file = str(folder / f"ckpt_epoch_{part}.pth")
        leave(
            tmp_path,
            read_off("moco" if part == 5 else f"moco_{part}of5"),
            20.0 - part,
            encoder=file,
        )
    write_tables(tmp_path)
    rows = table((tmp_path / "results.md").read_text(), "steps")
    assert rows["ours: resnet18, untrained encoder"]["0 %"] == "30.00 (1)"
    moco = rows["ours: resnet18, MoCo, SCALED: pre-trained for 5 of 10 epochs"]
    assert (moco["40 %"], moco["60 %"], moco["100 %"]) == ("18.00 (1)", "", "15.00 (1)")
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["pretraining_steps"] for line in lines] == ["", "8", "20"]
    assert {line["readout"] for line in lines} == {"ridge"}
    assert [path.name for path in write_curves(tmp_path)] == ["steps.png"]


def test_a_result_without_the_record_of_its_pretraining_does_not_count(tmp_path):
    file = str(tmp_path / "pretraining-dense-resnet18/ckpt_epoch_10.pth")
    left = leave(tmp_path, read_off("dense"), 10.0, encoder=file)
    assert read_folder(left) == []
    pretrain(tmp_path, "dense", 100, 32)
    assert seen(read_folder(left)[0]) == (10, 40, 1000)


def test_a_projection_has_seen_what_both_of_its_stages_saw(tmp_path):
    first = pretrain(tmp_path, "projected_moco", 100, 32) / "ckpt_epoch_8.pth"
    second = pretrain(tmp_path, "projected", 100, 16, str(first)) / "ckpt_epoch_2.pth"
    leave(tmp_path, read_off(PROJECTED), 12.0, encoder=str(second))
    leave(tmp_path, read_off(PROJECTED, recipe=FEW_FACES), 13.0, encoder=str(second))
    (row, other) = read_rows(tmp_path)
    assert seen(row) == seen(other) == (8 + 2, 8 * 4 + 2 * 7, 8 * 100 + 2 * 100)
    assert not row.scaled and row.variant == "resnet18, MoCo + projection"
    write_tables(tmp_path)
    text = (tmp_path / "results.md").read_text()
    for name, cell in (("encoders", "12.00 (1)"), ("regressor", "13.00 (1)")):
        assert table(text, name)["ours: resnet18, MoCo + projection"]["50"] == cell
    assert "saw as many pairs as the others" in text


def test_fine_tuned_runs_are_counted_in_steps(tmp_path):
    leave(tmp_path, read_off(UNTRAINED, 10, recipe=FINETUNE), 15.0, random_network=True)
    leave(
        *(tmp_path, read_off(UNTRAINED, 50, recipe=FINETUNE), 9.0), epochs=30, random_network=True
    )
    write_tables(tmp_path)
    rows = table((tmp_path / "results.md").read_text(), "finetune")
    assert rows["ours: resnet18, untrained encoder"]["10"] == "15.00 (1)"
    scaled = "ours: resnet18, untrained encoder, SCALED: 10 % of the steps"
    assert (rows[scaled]["10"], rows[scaled]["50"]) == ("", "9.00 (1)")
    with (tmp_path / "results.csv").open() as file:
        whole, _ = csv.DictReader(file)
    assert (whole["readout"], whole["epochs"], whole["counted"]) == ("finetune", "300", "steps")
    assert (whole["best_epoch"], whole["headline"]) == ("11", "15.0")
    assert [path.name for path in write_curves(tmp_path)] == ["finetune.png"]


def test_matching_has_a_figure_for_each_kind_of_pairs(tmp_path):
    match(tmp_path, UNTRAINED, 2.0, 20.0)
    dense = str(pretrain(tmp_path, "dense", 100, 32) / "ckpt_epoch_10.pth")
    cut = match(tmp_path, "dense", 1.0, 5.0, file=dense)
    write_tables(tmp_path)
    text = (tmp_path / "results.md").read_text()
    rows = table(text, "matching")
    warped, others = "an image and its warp", "two images"
    assert rows["ours: resnet18, untrained encoder"] == {warped: "2.00", others: "20.00"}
    assert rows["ours: resnet18, dense"] == {warped: "1.00", others: "5.00"}
    assert rows["ours: points left where they were"] == {warped: "5.00", others: "9.00"}
    published = [row for row in rows if row.startswith("published: ")]
    assert [rows[row][others] for row in published] == ["2.06", "1.61"]
    assert "in pixels of the network input" in text and ">" not in text
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["pair"], line["metric"]) for line in lines[:2]] == [
        *(("warped", "MatchingDistance (px)"), ("others", "MatchingDistance (px)"))
    ]
    assert write_curves(tmp_path) == []
    record = json.loads((cut / "matching.json").read_text())
    (cut / "matching.json").write_text(json.dumps({**record, "pairs": 10}))
    assert read_folder(cut) == []
