"""The whole method in minutes on two cores: drawn faces, pre-training, regressors, images.

Runs the scripts as a user would, printing each command, and ends with a table of test errors:
guessing the mean shape, a regressor on an untrained encoder, and one on the pre-trained encoder.
Everything goes to demo/ below the current folder; run it from the repository's root.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("demo")
FACES = OUT / "faces" / "celeba"
SYNTHETIC = f"--out {OUT / 'faces'} --images 2000 --mafl_train 1200 --mafl_test 300"
FRAME = "--image_size 90 --image_crop 13 --model resnet18 --num_workers 2"
PRETRAIN = "--batch_size 32 --nce_k 512 --nce_t 0.2 --alpha 0.99 --cosine --epochs 5"
FEATURES = "--layer 4 --use_hypercol"
EPOCHS = 10
FIT = f"--adam --cosine --learning_rate 0.03 --epochs {EPOCHS} --batch_size 32 --print_freq 1000"
ENCODERS = {
    "random": "--random_network",
    "pretrained": f"--trained_model_path {OUT / 'moco' / 'current.pth'}",
}


def main() -> None:
    """Run all steps, then print the table."""
    start = time.perf_counter()
    data = f"--data_folder {FACES} {FRAME}"
    runs = f"--model_path {OUT} --overwrite"
    log = f"--log_path {OUT / 'log.txt'}"
    run("datasets/synthetic.py", SYNTHETIC)
    run("train_moco.py", f"{data} {PRETRAIN} {runs} --model_name moco")
    for name, encoder in ENCODERS.items():
        run("eval_face.py", f"{data} {encoder} {FEATURES} {FIT} {runs} --model_name {name} {log}")
    for name, encoder in ENCODERS.items():
        drawn = f"--vis_keypoints --vis_PCA --vis_path {OUT / 'images' / name}"
        regressor = f"--ckpt_path {OUT / name / f'ckpt_epoch_{EPOCHS}.pth'}"
        run("vis_face.py", f"{data} {encoder} {FEATURES} {regressor} {drawn} {log}")
    print_results((time.perf_counter() - start) / 60)


def run(script: str, options: str) -> None:
    """Run a script, printing its command first; end with its status if it fails."""
    print(f"\n$ python {script} {options}", flush=True)
    done = subprocess.run([sys.executable, script, *shlex.split(options)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def print_results(minutes: float) -> None:
    """Print the table of test errors after the last epoch, and where the images are."""
    results = {name: json.loads((OUT / name / "result.json").read_text()) for name in ENCODERS}
    random, pretrained = (results[name]["last"]["Test"]["InterOcularError"] for name in ENCODERS)
    rows = {
        "mean shape": results["random"]["mean_shape"]["InterOcularError"],
        "random encoder": random,
        "pre-trained encoder": pretrained,
    }
    print("\nTest error, % of the inter-ocular distance (300 faces of people never seen before)")
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
