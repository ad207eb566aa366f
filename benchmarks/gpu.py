"""What a GPU brings, in about eight minutes and one command.

  python -m benchmarks.gpu --out gpu
  python -m benchmarks.gpu --short --device cpu   # to see that all parts run

Runs the CUDA tests first, then one part after another. Each finished part is written to gpu.json
and gpu.md in --out at once; started again with the same options, what is there is kept. Images are
drawn faces, which takes minutes of its own, or those of --data_folder. End to end means a script's
own command, whose last epoch's images a second are taken; a step is timed apart, on random images.
Letters: B images a step.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.dense import dense_steps
from benchmarks.measure import images_of, machine, seconds_of
from benchmarks.pretrain import CROP, SIZE, moco_steps
from data_loader.views.batch_views import BatchViews
from data_loader.views.random_view import RandomView, channels
from datasets.synthetic import generate
from engine.run import choose_device
from utils.arguments import ArgumentParser
from utils.errors import InputError
from utils.files import write_text
from utils.randomness import seed_everything
from utils.script import available_cores, run_script

ROOT = Path(__file__).resolve().parents[1]
BUDGET_SECONDS = 480  # the curve of errors begins no new point after these
ADAM = "--adam --cosine --learning_rate 0.001 --weight_decay 0.0005"  # as published
VIEW_TURNS, SMALLEST_SCALE = 5, 0.2
TESTS = ["tests/scripts/test_cuda.py", "tests/data_loader/views/test_batch_views.py"]
# Flags of train_moco.py and train_dense.py, end to end.
WAYS = {
    "float32, Pillow": "--amp off",
    "bf16": "--amp bf16",
    "compiled": "--amp off --compile",
    "device views": "--amp off --augment device",
    "image cache": "--amp off --image_cache",
    "bf16, image cache": "--amp bf16 --image_cache",
    "bf16, device views, image cache": "--amp bf16 --augment device --image_cache",
    "all of them": "--amp bf16 --augment device --image_cache --compile",
}
DENSE_WAYS = {"float32": "--amp off", "bf16, image cache": "--amp bf16 --image_cache"}
STEP_WAYS: dict[str, tuple[str, bool, bool]] = {  # precision, compiled, recomputing
    "float32": ("off", False, False),
    "bf16": ("bf16", False, False),
    "bf16, compiled": ("bf16", True, False),
    "bf16, --recompute": ("bf16", False, True),
}
DENSE_STEP_WAYS = {"float32": "off", "bf16": "bf16"}

Figures = dict[str, float | str]
Parts = dict[str, Callable[[], Figures]]


class Sizes(NamedTuple):
    """What decides how long it takes.

    Attributes:
        model: of all parts.
        batch_size: B.
        images: unlabelled images.
        annotated: training images with landmarks, of those drawn; MAFL has 19,000.
        few: as many of them for the curve.
        test: test images.
        epochs: of the regressor.
        steps: timed steps.
        curve: epochs of dense contrast before landmarks are read off.
    """

    model: str
    batch_size: int
    images: int
    annotated: int
    few: int
    test: int
    epochs: int
    steps: int
    curve: tuple[int, ...]


FULL = Sizes("resnet50", 256, 4096, 19_000, 1000, 300, 200, 20, (1, 2, 4, 8, 16))
SHORT = Sizes("resnet18", 4, 4, 4, 4, 2, 1, 1, (1,))


class Bench(NamedTuple):
    """Where a run works, on what and how much."""

    out: Path
    faces: Path
    device: torch.device
    sizes: Sizes
    short: bool


def main() -> None:
    """Measure all parts that aren't there yet."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results")
    parser.add_argument("--data_folder", type=Path, help="a CelebA layout; drawn if not given")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--short", action="store_true", help="each part for a moment")
    args = parser.parse_args()
    sizes = SHORT if args.short else FULL
    faces = args.data_folder or args.out / "faces" / "celeba"
    out, device = args.out.absolute(), choose_device(args.device, None)
    bench = Bench(out, faces.absolute(), device, sizes, args.short)
    setting = {"machine": machine(), "device": device.type, "short": args.short}
    setting["faces"] = str(args.data_folder or "drawn")
    found = open_results(out / "gpu.json", setting)
    if args.data_folder is None and "images" not in found:
        draw(bench)
        found["images"] = {"drawn": float(sizes.images)}
    measure(bench, setting, found)


def open_results(path: Path, setting: dict[str, object]) -> dict[str, Figures]:
    """Return the parts that are there already.

    Raises:
        InputError: if they are of another machine or other options.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return {}
    content = json.loads(path.read_text())
    if content["setting"] != setting:
        raise InputError(f"{path}: of another machine or other options; give another --out")
    return content["parts"]


def draw(bench: Bench) -> None:
    """Draw the faces."""
    sizes = bench.sizes
    generate(
        bench.out / "faces",
        images=sizes.images,
        mafl_train=sizes.annotated,
        mafl_test=sizes.test,
        workers=1 if bench.short else None,
        overwrite=True,
    )


def measure(bench: Bench, setting: dict[str, object], found: dict[str, Figures]) -> None:
    """Run each part that is missing, and write the results after each."""
    start = time.perf_counter()
    for name, part in list_parts(bench).items():
        if name not in found:
            if name.startswith("curve") and time.perf_counter() - start > BUDGET_SECONDS:
                print(f"{name}: no time is left", flush=True)
                continue
            found[name] = part()
            add_share(name, found)
        print(f"{name}: {in_words(found[name])}", flush=True)
        text = json.dumps({"setting": setting, "parts": found}, indent=1)
        write_text(bench.out / "gpu.json", text + "\n")
        write_text(bench.out / "gpu.md", as_markdown(setting, found))


def add_share(name: str, found: dict[str, Figures]) -> None:
    """Add which part of its time the GPU is busy: end to end, by the step's own speed."""
    script, _, way = name.partition(", ")
    kind = {"train_moco.py": "step", "train_dense.py": "dense step"}.get(script)
    if kind is None or way in ("compiled", "all of them"):  # whose step is another one
        return
    precision = "bf16" if "bf16" in way else "float32"
    step = found.get(f"{kind}, {precision}", {}).get("images/s")
    speed = found[name].get("images/s")
    if isinstance(step, float) and isinstance(speed, float):
        found[name]["share of the step's speed"] = speed / step


def in_words(figures: Figures) -> str:
    """Return a part's figures as one line."""
    return ", ".join(f"{n} {v:,.2f}" if isinstance(v, float) else v for n, v in figures.items())


def as_markdown(setting: dict[str, object], found: dict[str, Figures]) -> str:
    """Return all parts as a table."""
    rows = [f"| {name} | {in_words(figures)} |" for name, figures in found.items()]
    about = ", ".join(f"{name}: {value}" for name, value in setting.items())
    return "\n".join([about, "", "| what | figures |", "|---|---|", *rows, ""])


def list_parts(bench: Bench) -> Parts:
    """Return all parts by name, in their order."""
    parts: Parts = {"CUDA tests": partial(run_tests, bench)}
    for name, (amp, compiled, recompute) in STEP_WAYS.items():
        if not (compiled and bench.short):
            parts[f"step, {name}"] = partial(time_step, bench, amp, compiled, recompute)
    deterministic = partial(time_step, bench, "bf16", False, False, deterministic=False)
    parts["step, bf16, cuDNN not deterministic"] = deterministic
    for name, amp in DENSE_STEP_WAYS.items():
        parts[f"dense step, {name}"] = partial(time_dense_step, bench, amp)
    parts["views alone"] = partial(time_views, bench)
    for script, ways in (("train_moco.py", WAYS), ("train_dense.py", DENSE_WAYS)):
        for name, flags in ways.items():
            if not ("--compile" in flags and bench.short):
                parts[f"{script}, {name}"] = partial(pretrain, bench, script, flags)
    parts["regressor"] = partial(fit, bench, f"{ADAM} --epochs {bench.sizes.epochs}")
    parts["ridge"] = partial(fit, bench, "--regressor ridge")
    for count in gpu_counts(bench.device):
        parts[f"NCCL, {count} GPUs"] = partial(pretrain_in_ranks, bench, count)
    for epochs in bench.sizes.curve:
        parts[f"curve, {epochs} epochs"] = partial(error_after, bench, epochs)
    return parts


def gpu_counts(device: torch.device) -> list[int]:
    """Return with how many GPUs NCCL is tried: one, and all."""
    return sorted({1, torch.cuda.device_count()}) if device.type == "cuda" else []


def run_tests(bench: Bench) -> Figures:
    """Run the CUDA tests; return pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
    done = subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):  # failures are a result, too, which has to be seen
        print(done.stdout[-4000:])
    return {"result": done.stdout.strip().splitlines()[-1].strip("= ")}


def time_step(
    bench: Bench, amp: str, compiled: bool, recompute: bool, deterministic: bool = True
) -> Figures:
    """Time the steps of `train_moco.py` on random images that are on the device."""
    seed_everything(0)
    torch.backends.cudnn.deterministic = deterministic
    batch_size, steps, device = bench.sizes.batch_size, bench.sizes.steps, bench.device
    ways = {"compiled": compiled, "recompute": recompute}
    epoch = moco_steps(bench.sizes.model, batch_size, steps, device, amp, **ways)
    epoch()  # kernels are chosen and compiled
    figures = speed_of(epoch, steps * batch_size, device)
    torch.backends.cudnn.deterministic = True
    return figures


def time_dense_step(bench: Bench, amp: str) -> Figures:
    """Time the steps of `train_dense.py`, views included, on squares that are on the device."""
    seed_everything(0)
    batch_size, steps, device = bench.sizes.batch_size, bench.sizes.steps, bench.device
    epoch = dense_steps(bench.sizes.model, batch_size, steps, device, amp)
    epoch()  # kernels are chosen
    return speed_of(epoch, steps * batch_size, device)


def speed_of(epoch: Callable[[], object], images: int, device: torch.device) -> Figures:
    """Return the images a second of an epoch, and a GPU's peak memory."""
    if device.type != "cuda":
        return {"images/s": images / seconds_of(epoch)}
    torch.cuda.reset_peak_memory_stats()
    figures: Figures = {"images/s": images / seconds_of(epoch)}
    figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.empty_cache()
    return figures


def time_views(bench: Bench) -> Figures:
    """Time views of batches on the device, and one by one with Pillow on one core."""
    dataset = images_of(str(bench.faces), bench.sizes.batch_size, SIZE, CROP)
    pictures = [dataset.base_item(n)[0] for n in range(len(dataset))]
    images = torch.stack([channels(picture) for picture in pictures]).to(bench.device)
    whole = BatchViews(SIZE, CROP, SMALLEST_SCALE, dataset.mean, dataset.std)
    single = RandomView(SIZE, SMALLEST_SCALE, CROP, dataset.mean, dataset.std)
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[], object]] = {
        f"{bench.device.type} views/s": lambda: whole(images, generator),
        "Pillow views/s": lambda: [single(picture) for picture in pictures],
    }
    figures: Figures = {}
    for name, way in ways.items():
        way()  # tables are made
        seconds = [seconds_of(way) for _ in range(VIEW_TURNS)]
        figures[name] = len(pictures) / statistics.median(seconds)
    return figures


def run(bench: Bench, script: str, flags: str, ranks: int = 0) -> tuple[str, float]:
    """Run a script; return what it prints and its seconds."""
    start = [sys.executable]
    device = ["--device", bench.device.type]
    if ranks:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    elif bench.device.type == "cuda":
        device += ["--gpu", "0"]  # DataParallel would take all
    common = f"--model {bench.sizes.model} --image_size 136 --image_crop 20"
    common += f" --num_workers {0 if bench.short else available_cores()} --model_path runs"
    data = ["--data_folder", str(bench.faces), "--overwrite"]
    before = time.perf_counter()
    done = subprocess.run(
        [*start, str(ROOT / script), *common.split(), *data, *device, *flags.split()],
        cwd=bench.out,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{script} {flags}\n{done.stderr[-4000:]}")
    return done.stdout, time.perf_counter() - before


def pretrain(bench: Bench, script: str, flags: str, ranks: int = 0) -> Figures:
    """Pre-train for two epochs; return the second one's speed."""
    batch = f"--batch_size {bench.sizes.batch_size} --epochs 2 --model_name speed"
    out, seconds = run(bench, script, f"{batch} {flags}", ranks)
    return {"images/s": float(re.findall(r"([\d.]+) images/s", out)[-1]), "seconds": seconds}


def pretrain_in_ranks(bench: Bench, ranks: int) -> Figures:
    """Pre-train on some GPUs by torchrun, the batch divided among them."""
    return pretrain(bench, "train_moco.py", WAYS["bf16, image cache"], ranks)


def fit(bench: Bench, flags: str, encoder: str = "--random_network") -> Figures:
    """Fit a readout; return its seconds, start and encoding included, and its error."""
    readout = f"--batch_size 32 --model_name fit --layer 4 --use_hypercol {encoder}"
    _, seconds = run(bench, "eval_face.py", f"{readout} {flags}")
    result = json.loads((bench.out / "runs" / "fit" / "result.json").read_text())
    error = result["last"]["Test"]["InterOcularError"]
    return {"seconds": seconds, "error %": float(error)}


def error_after(bench: Bench, epochs: int) -> Figures:
    """Pre-train for some epochs of dense contrast; return the error of the ridge readout."""
    batch = min(bench.sizes.batch_size, 64)
    flags = f"--batch_size {batch} --epochs {epochs} --model_name curve --image_cache"
    _, seconds = run(bench, "train_dense.py", flags)
    ridge = f"--regressor ridge --restrict_annos {bench.sizes.few}"
    figures = fit(bench, ridge, "--trained_model_path runs/curve/current.pth")
    steps = epochs * -(-bench.sizes.images // batch)
    return {"steps": float(steps), "pre-training seconds": seconds, "error %": figures["error %"]}


if __name__ == "__main__":
    run_script(main)
