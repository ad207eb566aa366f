"""What a GPU brings, in about eight minutes and one command.

  python -m benchmarks.gpu --out gpu
  python -m benchmarks.gpu --short --device cpu   # to see that all parts run

Runs the CUDA tests first, then the other benchmarks and the scripts, end to end, one command after
another. What each prints of itself is written to gpu.json and gpu.md in --out at once; started
again with the same options, what is there is kept. Images are drawn faces, which takes minutes of
its own, or those of --data_folder. A script's last epoch tells its speed.
"""

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import CROP, ROOT, SIZE, build_parser, machine, run_command
from engine.run.settings import choose_device
from utils.errors import InputError
from utils.files import write_text
from utils.script import available_cores, run_script

BUDGET_SECONDS = 480  # the curve of errors begins no new point after these
ADAM = "--adam --cosine --learning_rate 0.001 --weight_decay 0.0005"  # as published
TESTS = "tests/scripts/test_cuda.py tests/data_loader/views/test_batch_views.py"
WAYS = [  # scripts and their flags, end to end
    "train_moco.py --amp off",
    "train_moco.py --amp bf16",
    "train_moco.py --amp off --compile",
    "train_moco.py --amp off --augment device",
    "train_moco.py --amp off --image_cache",
    "train_moco.py --amp bf16 --image_cache",
    "train_moco.py --amp bf16 --augment device --image_cache",
    "train_moco.py --amp bf16 --augment device --image_cache --compile",
    "train_dense.py --amp off",
    "train_dense.py --amp bf16 --image_cache",
]
# Images without labels; annotated ones, of which MAFL has 19,000, and fewer for the curve; test
# images. Epochs of the regressor, and of dense contrast before landmarks are read off.
FULL: dict[str, Any] = {"model": "resnet50", "batch": 256, "images": 4096, "annotated": 19_000}
FULL |= {"few": 1000, "test": 300, "epochs": 200, "turns": 5, "curve": (1, 2, 4, 8, 16)}
SHORT: dict[str, Any] = {"model": "resnet18", "batch": 4, "images": 4, "annotated": 4}
SHORT |= {"few": 4, "test": 2, "epochs": 1, "turns": 1, "curve": (1,)}
# What is kept of the lines that a command prints.
FIGURES = re.compile(
    r"train_\w+\.py, --amp .*|.* views/s.*|[\d.]+ images/s|InterOcularError [\d.]+|"
    r"\d+ (?:passed|failed|deselected|skipped).*|FAILED .*"
)


def main() -> None:
    """Run all commands that haven't run yet, writing the results after each."""
    kinds = {"data_folder": None, "device": "auto", "out": Path("gpu"), "short": False}
    args = build_parser(__doc__, **kinds).parse_args()
    device, out = choose_device(args.device, None).type, args.out.absolute()
    setting = {"machine": machine(), "device": device, "short": args.short}
    setting["faces"] = args.data_folder or "drawn"
    path, found = out / "gpu.json", dict[str, str]()
    if path.is_file():
        content = json.loads(path.read_text())
        found = content["parts"]
        if content["setting"] != setting:
            raise InputError(f"{path}: of another machine or other options; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for name, command in commands(args.data_folder, out, device, args.short).items():
        if name not in found:
            late = time.perf_counter() - start > BUDGET_SECONDS
            if late and name.startswith("curve") and name.endswith("epochs"):
                print(f"{name}: no time is left", flush=True)
                break
            # Failures of tests are a result, too.
            printed, seconds = run_command(shlex.split(command), ROOT, "pytest" in command)
            figures = [" ".join(line.split()) for line in FIGURES.findall(printed)]
            figures.append(f"{seconds:.2f} s")
            # A script's last epoch counts.
            found[name] = "; ".join(figures if "-m " in command[:3] else figures[-2:])
        print(f"{name}: {found[name]}", flush=True)
        write_text(path, json.dumps({"setting": setting, "parts": found}, indent=1) + "\n")
        about = ", ".join(f"{name}: {value}" for name, value in setting.items())
        rows = [f"| {name} | {figures} |" for name, figures in found.items()]
        lines = [about, "", "| what | figures |", "|---|---|", *rows, ""]
        write_text(out / "gpu.md", "\n".join(lines))


def commands(data_folder: str | None, out: Path, device: str, short: bool) -> dict[str, str]:
    """Return what Python runs, by name and in this order."""
    size, runs = SHORT if short else FULL, shlex.quote(str(out / "runs"))
    model, batch, turns = f"--model {size['model']}", size["batch"], f"--rounds {size['turns']}"
    drawn, workers = out / "faces", 0 if short else available_cores()
    faces = shlex.quote(str(Path(data_folder).absolute() if data_folder else drawn / "celeba"))
    run = f"{model} --data_folder {faces} --image_size {SIZE} --image_crop {CROP} --overwrite"
    run += f" --num_workers {workers} --model_path {runs} --device {device}"
    one = f"{run} --gpu 0" if device == "cuda" else run  # DataParallel would take all
    speed = f"--batch_size {batch} --epochs 2 --model_name speed"
    fit = f"eval_face.py --batch_size 32 --layer 4 --use_hypercol {one} --model_name fit"
    fit += f" --log_path {runs}_log"
    steps = f"-m benchmarks.limits {model} --batch_size {batch} --device {device} {turns}"
    steps += " --sizes 64 --precisions off" if short else ""
    views = f"-m benchmarks.augmentation --data_folder {faces} --batch_size {batch} {turns}"
    found: dict[str, str] = {}
    if data_folder is None:
        labels = f"--mafl_train {size['annotated']} --mafl_test {size['test']} --overwrite"
        out_drawn = f"--out {shlex.quote(str(drawn))} --images {size['images']}"
        found["images"] = f"-m datasets.synthetic {out_drawn} {labels}"
    found |= {
        "CUDA tests": f"-m pytest -q -p no:cacheprovider -m cuda {TESTS}",
        "steps": steps,
        "steps, --compile": f"{steps} --precisions bf16 --compile",
        "steps, --recompute": f"{steps} --precisions bf16 --recompute",
        "steps, cuDNN not deterministic": f"{steps} --precisions bf16 --any_kernels",
        "views alone": f"{views} --device {device}",
        **{way: f"{way} {speed} {one}" for way in WAYS},
        "regressor": f"{fit} --random_network {ADAM} --epochs {size['epochs']}",
        "ridge": f"{fit} --random_network --regressor ridge",
    }
    for count in sorted({1, torch.cuda.device_count()}) if device == "cuda" else []:
        launcher = f"-m torch.distributed.run --standalone --nproc_per_node={count}"
        found[f"NCCL, {count} GPUs"] = f"{launcher} {WAYS[5]} {speed} {run}"
    for epochs in size["curve"]:
        curve = f"--batch_size {min(batch, 64)} --epochs {epochs} --model_name curve"
        found[f"curve, {epochs} epochs"] = f"train_dense.py --image_cache {curve} {one}"
        ridge = f"--regressor ridge --restrict_annos {size['few']}"
        encoder = f"--trained_model_path {runs}/curve/current.pth"
        found[f"curve, {epochs} epochs, error"] = f"{fit} {ridge} {encoder}"
    # Compiling takes minutes.
    return {name: c for name, c in found.items() if not (short and "--compile" in c)}


if __name__ == "__main__":
    run_script(main)
