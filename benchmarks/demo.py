"""The whole method in minutes on two cores: drawn faces, pre-training, readouts, images.

Runs the scripts as a user would, printing each command, and ends with a table of test errors by
the number of annotated faces: guessing the mean shape, and reading the landmarks off an untrained
and off the pre-trained encoder. Everything goes to demo/ below the current folder. With
``--quick`` it takes seconds: a few images and one epoch, to see that all steps run.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FRAME = "--image_size 90 --image_crop 13 --model resnet18 --num_workers 2"
READOUT = "--layer 4 --use_hypercol --regressor ridge"
PRETRAINED = "--trained_model_path demo/runs/dense/current.pth"
ENCODERS = {"random": "--random_network", "pretrained": PRETRAINED}
LABELS = {"random": "untrained encoder", "pretrained": "pre-trained encoder"}
SHEETS = [f"{name}/{kind}_sheet.png" for name in ENCODERS for kind in ("contact", "pca")]
TITLE = 28  # pixels of a contact sheet above its first row, see utils/drawing.py


class Sizes(NamedTuple):
    """Numbers that decide how long the demo takes."""

    images: int  # without labels
    annotations: tuple[int, int, int]  # training images, most last; sheets are of the middle one
    test: int  # test images
    batch_size: int  # images in a step of pre-training, and that are encoded at once
    epochs: int  # of pre-training
    pairs: int  # of test images that are matched


FULL = Sizes(1600, (10, 50, 1200), test=300, batch_size=32, epochs=6, pairs=100)
QUICK = Sizes(8, (2, 3, 6), test=4, batch_size=4, epochs=1, pairs=2)


def main() -> None:
    """Run all steps, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few images and one epoch")
    sizes = QUICK if parser.parse_args().quick else FULL
    start = time.perf_counter()
    data = f"--data_folder demo/faces/celeba {FRAME} --batch_size {sizes.batch_size}"
    runs, log = "--model_path demo/runs --overwrite", "--log_path demo/log.txt"
    _, sheets, most = sizes.annotations
    drawn = f"--images {sizes.images} --mafl_train {most} --mafl_test {sizes.test}"
    run("datasets/synthetic.py", f"--out demo/faces {drawn}")
    run("train_dense.py", f"{data} --epochs {sizes.epochs} --amp off {runs} --model_name dense")
    for name, encoder in ENCODERS.items():
        for count in sizes.annotations:
            fit = f"--restrict_annos {count} {runs} --model_name {name}_{count}"
            run("eval_face.py", f"{data} {encoder} {READOUT} {fit} {log}")
        shown = f"--vis_keypoints --vis_PCA --vis_path demo/images/{name}"
        readout = f"--ckpt_path demo/runs/{name}_{sheets}/current.pth"
        run("vis_face.py", f"{data} {encoder} {READOUT} {readout} {shown} {log}")
    pairs = f"--layer 4 --use_hypercol --pairs {sizes.pairs} --out demo/images/matching"
    run("eval_matching.py", f"{data} {PRETRAINED} {pairs} {log}")
    save_overview(Path("demo/images"))
    print_results(sizes)
    print("Images:")
    for image in [*SHEETS, "matching/matches.png", "overview.jpg"]:
        print(f"  demo/images/{image}")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")


def run(script: str, options: str) -> None:
    """Run a script, printing its command first; end with its status if it fails."""
    print(f"\n$ python {script} {options}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *options.split()], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def save_overview(images: Path) -> None:
    """Save the upper halves of both encoders' contact sheets, one above the other, at half size."""
    sheets = [Image.open(images / name / "contact_sheet.png") for name in ENCODERS]
    width, height = sheets[0].width, (sheets[0].height + TITLE) // 2  # two of four rows
    page = Image.new("RGB", (width, len(sheets) * height))
    for place, sheet in enumerate(sheets):
        page.paste(sheet.crop((0, 0, width, height)), (0, place * height))
    page.resize((page.width // 2, page.height // 2)).save(images / "overview.jpg", quality=85)


def print_results(sizes: Sizes) -> None:
    """Print the table of test errors."""
    rows: dict[str, list[float]] = {"mean shape": []}
    for name, label in LABELS.items():
        paths = [Path(f"demo/runs/{name}_{count}/result.json") for count in sizes.annotations]
        results = [json.loads(path.read_text()) for path in paths]
        # The mean shape knows no encoder.
        rows["mean shape"] = [result["mean_shape"]["InterOcularError"] for result in results]
        rows[label] = [result["last"]["Test"]["InterOcularError"] for result in results]
    print(
        f"\nTest error, % of the inter-ocular distance ({sizes.test} faces of people never seen "
        "before),\nby the number of annotated faces"
    )
    print(" " * 22 + "".join(f"{count:>8,}" for count in sizes.annotations))
    for label, errors in rows.items():
        print(f"  {label:<20}" + "".join(f"{error:8.1f}" for error in errors))


if __name__ == "__main__":
    main()
