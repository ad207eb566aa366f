"""What a GPU brings, in about eight minutes and one command.

  python -m benchmarks.gpu --out gpu
  python -m benchmarks.gpu --short --device cpu   # to see that all parts run

Runs the CUDA tests first, then one part after another. Each finished part is written to gpu.json
and gpu.md in --out at once; started again with the same options, what is there is kept. Images are
drawn faces, which takes minutes of its own, or those of --data_folder. End to end means a script's
own command, whose last epoch's images a second are taken; a step is timed apart, on random images.
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
from typing import Any, NamedTuple

import torch

from benchmarks import measure
from benchmarks.measure import CROP, ROOT, SIZE, run_command, seconds_of
from benchmarks.steps import Epoch, dense_steps, moco_steps
from datasets.synthetic import generate
from engine.run.settings import choose_device
from utils.errors import InputError
from utils.files import write_text
from utils.randomness import seed_everything
from utils.script import available_cores, run_script

BUDGET_SECONDS = 480  # the curve of errors begins no new point after these
ADAM = "--adam --cosine --learning_rate 0.001 --weight_decay 0.0005"  # as published
VIEW_TURNS = 5
TESTS = ["tests/scripts/test_cuda.py", "tests/data_loader/views/test_batch_views.py"]
STEPS: dict[str, tuple[Callable[..., Epoch], dict[str, Any]]] = {
    "step, float32": (moco_steps, {"amp": "off"}),
    "step, bf16": (moco_steps, {"amp": "bf16"}),
    "step, bf16, compiled": (moco_steps, {"amp": "bf16", "compiled": True}),
    "step, bf16, --recompute": (moco_steps, {"amp": "bf16", "recompute": True}),
    "step, bf16, cuDNN not deterministic": (moco_steps, {"amp": "bf16"}),
    "dense step, float32": (dense_steps, {"amp": "off"}),
    "dense step, bf16": (dense_steps, {"amp": "bf16"}),
}
WAYS = {  # flags of a script, end to end
    "train_moco.py, float32, Pillow": "--amp off",
    "train_moco.py, bf16": "--amp bf16",
    "train_moco.py, compiled": "--amp off --compile",
    "train_moco.py, device views": "--amp off --augment device",
    "train_moco.py, image cache": "--amp off --image_cache",
    "train_moco.py, bf16, image cache": "--amp bf16 --image_cache",
    "train_moco.py, bf16, device views, image cache": "--amp bf16 --augment device --image_cache",
    "train_moco.py, all of them": "--amp bf16 --augment device --image_cache --compile",
    "train_dense.py, float32": "--amp off",
    "train_dense.py, bf16, image cache": "--amp bf16 --image_cache",
}

Figures = dict[str, float | str]


class Sizes(NamedTuple):
    """What decides how long it takes."""

    model: str  # of all parts
    batch_size: int  # images a step
    images: int  # without labels
    annotated: int  # training images with landmarks, of those drawn; MAFL has 19,000
    few: int  # as many of them for the curve
    test: int  # test images
    epochs: int  # of the regressor
    steps: int  # timed
    curve: tuple[int, ...]  # epochs of dense contrast before landmarks are read off


FULL = Sizes("resnet50", 256, 4096, 19_000, 1000, 300, 200, 20, (1, 2, 4, 8, 16))
SHORT = Sizes("resnet18", 4, 4, 4, 4, 2, 1, 1, (1,))


def main() -> None:
    """Measure all parts that aren't there yet, writing the results after each."""
    parser = measure.build_parser(__doc__, data_folder=None, device="auto")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results")
    parser.add_argument("--short", action="store_true", help="each part for a moment")
    args = parser.parse_args()
    out, drawn = args.out.absolute(), args.data_folder is None
    faces = out / "faces" / "celeba" if drawn else Path(args.data_folder).absolute()
    bench = Bench(out, faces, choose_device(args.device, None), SHORT if args.short else FULL)
    setting = {"machine": measure.machine(), "device": bench.device.type, "short": args.short}
    setting["faces"] = "drawn" if drawn else args.data_folder
    found = open_results(out / "gpu.json", setting)
    parts = {"images": bench.draw} if drawn else {}
    start = time.perf_counter()
    for name, part in (parts | bench.parts()).items():
        if name not in found:
            if name.startswith("curve") and time.perf_counter() - start > BUDGET_SECONDS:
                print(f"{name}: no time is left", flush=True)
                continue
            found[name] = part()
            add_share(name, found)
        print(f"{name}: {in_words(found[name])}", flush=True)
        text = json.dumps({"setting": setting, "parts": found}, indent=1)
        write_text(out / "gpu.json", text + "\n")
        about = ", ".join(f"{name}: {value}" for name, value in setting.items())
        lines = [f"| {name} | {in_words(figures)} |" for name, figures in found.items()]
        lines = [about, "", "| what | figures |", "|---|---|", *lines, ""]
        write_text(out / "gpu.md", "\n".join(lines))


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


def add_share(name: str, found: dict[str, Figures]) -> None:
    """Add which part of its time the GPU is busy: end to end, by the step's own speed."""
    kind = {"train_moco.py": "step", "train_dense.py": "dense step"}.get(name.split(",")[0])
    if kind is None or "--compile" in WAYS[name]:  # whose step is another one
        return
    step = found[f"{kind}, {'bf16' if 'bf16' in name else 'float32'}"]["images/s"]
    found[name]["share of the step's speed"] = float(found[name]["images/s"]) / float(step)


def in_words(figures: Figures) -> str:
    """Return a part's figures as one line."""
    return ", ".join(f"{n} {v:,.2f}" if isinstance(v, float) else v for n, v in figures.items())


class Bench(NamedTuple):
    """Where a run works, on what and how much; its parts return their figures."""

    out: Path  # folder of all that is written
    faces: Path  # a CelebA layout
    device: torch.device
    sizes: Sizes

    @property
    def short(self) -> bool:
        """Whether each part takes but a moment."""
        return self.sizes is SHORT

    def parts(self) -> dict[str, Callable[[], Figures]]:
        """Return all parts by name, in their order."""
        parts: dict[str, Callable[[], Figures]] = {"CUDA tests": self.test}
        for name, (steps_of, how) in STEPS.items():
            if not (self.short and "compiled" in how):
                parts[name] = partial(self.time_steps, steps_of, "not det" not in name, **how)
        parts["views alone"] = self.time_views
        for name, flags in WAYS.items():
            if not (self.short and "--compile" in flags):
                parts[name] = partial(self.pretrain, name.split(",")[0], flags)
        parts["regressor"] = partial(self.fit, f"{ADAM} --epochs {self.sizes.epochs}")
        parts["ridge"] = partial(self.fit, "--regressor ridge")
        if self.device.type == "cuda":
            for count in sorted({1, torch.cuda.device_count()}):
                flags = WAYS["train_moco.py, bf16, image cache"]
                parts[f"NCCL, {count} GPUs"] = partial(self.pretrain, "train_moco.py", flags, count)
        for epochs in self.sizes.curve:
            parts[f"curve, {epochs} epochs"] = partial(self.error_after, epochs)
        return parts

    def draw(self) -> Figures:
        """Draw the faces."""
        generate(
            self.faces.parent,
            images=self.sizes.images,
            mafl_train=self.sizes.annotated,
            mafl_test=self.sizes.test,
            workers=1 if self.short else None,
            overwrite=True,
        )
        return {"drawn": float(self.sizes.images)}

    def test(self) -> Figures:
        """Run the CUDA tests; return pytest's last line."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
        done = subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, 5):  # failures are a result, too, which has to be seen
            print(done.stdout[-4000:])
        return {"result": done.stdout.strip().splitlines()[-1].strip("= ")}

    def time_steps(self, steps_of: Callable[..., Epoch], exact: bool, **how: Any) -> Figures:
        """Time steps on what is on the device, by cuDNN's deterministic kernels or any."""
        seed_everything(0)
        torch.backends.cudnn.deterministic = exact
        sizes, on_gpu = self.sizes, self.device.type == "cuda"
        epoch = steps_of(sizes.model, sizes.batch_size, sizes.steps, self.device, **how)
        epoch()  # kernels are chosen and compiled
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        figures: Figures = {"images/s": sizes.steps * sizes.batch_size / seconds_of(epoch)}
        if on_gpu:
            figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
            torch.cuda.empty_cache()
        torch.backends.cudnn.deterministic = True
        return figures

    def time_views(self) -> Figures:
        """Time views of batches on the device, and one by one with Pillow on one core."""
        count = self.sizes.batch_size
        dataset, squares, images = measure.decoded(str(self.faces), count, SIZE, CROP)
        whole, generator = measure.batch_views(dataset), torch.Generator().manual_seed(0)
        images = images.to(self.device)
        ways: dict[str, Callable[[], object]] = {
            f"{self.device.type} views/s": lambda: whole(images, generator),
            "Pillow views/s": lambda: [dataset.view(square) for square in squares],
        }
        figures: Figures = {}
        for name, way in ways.items():
            way()  # tables are made
            seconds = [seconds_of(way) for _ in range(VIEW_TURNS)]
            figures[name] = count / statistics.median(seconds)
        return figures

    def run(self, name: str, flags: str, ranks: int = 0) -> tuple[str, float]:
        """Run a script, by torchrun on some GPUs if asked for: see `run_command`."""
        launcher: list[str] = []
        workers = 0 if self.short else available_cores()
        flags += f" --model {self.sizes.model} --image_size {SIZE} --image_crop {CROP}"
        flags += f" --device {self.device.type} --num_workers {workers} --model_path runs"
        if ranks:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        elif self.device.type == "cuda":
            flags += " --gpu 0"  # DataParallel would take all
        data = ["--data_folder", self.faces, "--overwrite"]
        return run_command(name, [*flags.split(), *data], self.out, launcher)

    def pretrain(self, name: str, flags: str, ranks: int = 0) -> Figures:
        """Pre-train for two epochs; return the second one's speed."""
        flags += f" --batch_size {self.sizes.batch_size} --epochs 2 --model_name speed"
        printed, seconds = self.run(name, flags, ranks)
        speed = float(re.findall(r"([\d.]+) images/s", printed)[-1])
        return {"images/s": speed, "seconds": seconds}

    def fit(self, flags: str, encoder: str = "--random_network") -> Figures:
        """Fit a readout; return its seconds, start and encoding included, and its error."""
        flags += f" --batch_size 32 --model_name fit --layer 4 --use_hypercol {encoder}"
        _, seconds = self.run("eval_face.py", flags)
        result = json.loads((self.out / "runs" / "fit" / "result.json").read_text())
        error = result["last"]["Test"]["InterOcularError"]
        return {"seconds": seconds, "error %": float(error)}

    def error_after(self, epochs: int) -> Figures:
        """Pre-train for some epochs of dense contrast; return the error of the ridge readout."""
        batch = min(self.sizes.batch_size, 64)
        flags = f"--batch_size {batch} --epochs {epochs} --model_name curve --image_cache"
        _, seconds = self.run("train_dense.py", flags)
        ridge = f"--regressor ridge --restrict_annos {self.sizes.few}"
        error = self.fit(ridge, "--trained_model_path runs/curve/current.pth")["error %"]
        steps = epochs * -(-self.sizes.images // batch)
        return {"steps": float(steps), "pre-training seconds": seconds, "error %": error}


if __name__ == "__main__":
    run_script(main)
