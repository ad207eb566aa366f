"""The whole method in minutes on two cores: drawn faces, pre-training, regressors, images.

Runs the scripts as a user would, printing each command, and ends with a table of test errors:
guessing the mean shape, a regressor on an untrained encoder, and one on the pre-trained encoder.
Everything goes to demo/ below the current folder. With ``--quick`` it takes seconds: a few images
and one epoch, to see that all steps run.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("demo")
RUNS = OUT / "runs"
FACES = OUT / "faces" / "celeba"
FRAME = "--image_size 90 --image_crop 13 --model resnet18 --num_workers 2"
PRETRAIN = "--nce_t 0.2 --alpha 0.99 --cosine"
FEATURES = "--layer 4 --use_hypercol"
FIT = "--adam --cosine --learning_rate 0.03 --print_freq 1000"
ENCODERS = {
    "random": "--random_network",
    "pretrained": f"--trained_model_path {RUNS / 'moco' / 'current.pth'}",
}


class Sizes(NamedTuple):
    """Numbers that decide how long the demo takes.

    Attributes:
        images: unlabelled images.
        train: labelled training images.
        test: test images.
        batch_size: images in a step, of pre-training and of the regressors.
        nce_k: keys in the queue.
        pretrain_epochs: epochs of pre-training.
        epochs: epochs of each regressor.
    """

    images: int
    train: int
    test: int
    batch_size: int
    nce_k: int
    pretrain_epochs: int
    epochs: int


FULL = Sizes(2000, 1200, 300, batch_size=32, nce_k=512, pretrain_epochs=5, epochs=10)
QUICK = Sizes(8, 4, 4, batch_size=4, nce_k=8, pretrain_epochs=1, epochs=1)


def main() -> None:
    """Run all steps, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few images and one epoch")
    sizes = QUICK if parser.parse_args().quick else FULL
    start = time.perf_counter()
    data = f"--data_folder {FACES} {FRAME} --batch_size {sizes.batch_size}"
    runs = f"--model_path {RUNS} --overwrite"
    log = f"--log_path {OUT / 'log.txt'}"
    run(
        "datasets/synthetic.py",
        f"--out {OUT / 'faces'} --images {sizes.images} --mafl_train {sizes.train} "
        f"--mafl_test {sizes.test}",
    )
    pretrain = f"{PRETRAIN} --nce_k {sizes.nce_k} --epochs {sizes.pretrain_epochs}"
    run("train_moco.py", f"{data} {pretrain} {runs} --model_name moco")
    fit = f"{FIT} --epochs {sizes.epochs}"
    for name, encoder in ENCODERS.items():
        run("eval_face.py", f"{data} {encoder} {FEATURES} {fit} {runs} --model_name {name} {log}")
    for name, encoder in ENCODERS.items():
        sheets = f"--vis_keypoints --vis_PCA --vis_path {OUT / 'images' / name}"
        regressor = f"--ckpt_path {RUNS / name / f'ckpt_epoch_{sizes.epochs}.pth'}"
        run("vis_face.py", f"{data} {encoder} {FEATURES} {regressor} {sheets} {log}")
    print_results(sizes.test, (time.perf_counter() - start) / 60)


def run(script: str, options: str) -> None:
    """Run a script, printing its command first; end with its status if it fails."""
    print(f"\n$ python {script} {options}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *shlex.split(options)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def print_results(test_images: int, minutes: float) -> None:
    """Print the table of test errors after the last epoch, and where the images are."""
    results = {name: json.loads((RUNS / name / "result.json").read_text()) for name in ENCODERS}
    random, pretrained = (results[name]["last"]["Test"]["InterOcularError"] for name in ENCODERS)
    rows = {
        "mean shape": results["random"]["mean_shape"]["InterOcularError"],
        "random encoder": random,
        "pre-trained encoder": pretrained,
    }
    print(
        f"\nTest error, % of the inter-ocular distance ({test_images} faces of people "
        "never seen before)"
    )
    for name, error in rows.items():
        print(f"  {name:<20} {error:6.1f}")
    if pretrained >= random:
        print("In these minutes pre-training did not pay (README.md, 'What the demo shows').")
    print("Images:")
    for name in ENCODERS:
        for sheet in ("contact_sheet.png", "pca_sheet.png"):
            print(f"  {OUT / 'images' / name / sheet}")
    print(f"{minutes:.1f} minutes")


if __name__ == "__main__":
    main()
