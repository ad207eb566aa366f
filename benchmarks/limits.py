"""How far a step of pre-training is from what the processor could do with the same products.

The operations of a step are counted: those of its convolutions and matrix products, forward and
backward. The processor's rate is that of square matrix products in the same precision, the best of
some sizes. Operations by rate are the seconds that no step with these products can do without.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import build_parser, machine, seconds_of, spread
from benchmarks.steps import SIDE, steps_of
from engine.run.acceleration import PRECISIONS
from engine.run.settings import choose_device
from utils.randomness import seed_everything
from utils.script import run_script

STEPS = 2  # of a turn, after one that chooses kernels


def main() -> None:
    """Print, for each script and precision, operations and seconds of a step, and the limit."""
    size = {"batch_size": 32, "rounds": 5, "sizes": [1024, 2048, 4096]}
    kinds = {"model": "resnet18", "device": "auto", "precisions": ["off", "bf16"]}
    flags = {"compile": False, "recompute": False, "any_kernels": False}
    args = build_parser(__doc__, **kinds, **size, **flags).parse_args()
    device, how = choose_device(args.device, None), {"recompute": args.recompute}
    seed_everything(0)
    torch.backends.cudnn.deterministic = not args.any_kernels
    print(f"{machine()}\n{args.model}, {SIDE} px, batch {args.batch_size}, {args.rounds} turns")
    for amp in args.precisions:
        kind = PRECISIONS[amp] or torch.float32
        pairs = {2 * n**3: torch.randn(2, n, n, device=device).to(kind) for n in args.sizes}
        products = {operations: partial(torch.mm, *pair) for operations, pair in pairs.items()}
        for product in products.values():
            product()  # kernels are chosen
        for script in ("train_moco.py", "train_dense.py"):
            given = (script, args.model, args.batch_size)
            operations = count_operations(steps_of(*given, 1, device, amp))
            steps = steps_of(*given, STEPS, device, amp, compiled=args.compile, **how)
            steps()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            rates, seconds = [], []  # operations a second, and seconds a step, in turns
            for _ in range(args.rounds):
                rates.append(max(n / seconds_of(product) for n, product in products.items()))
                seconds.append(seconds_of(steps) / STEPS)
            shares = [operations / r / s for r, s in zip(rates, seconds, strict=True)]
            peak = f"; peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
            print(
                f"  {script}, --amp {amp}: {operations / 1e9:.1f} GFLOP and "
                f"{spread([1000 * s for s in seconds], 0)} ms a step; "
                f"products {spread([r / 1e9 for r in rates], 0)} GFLOP/s; "
                f"the products' share of a step {spread(shares, 2)}"
                + (peak if device.type == "cuda" else "")
            )


def count_operations(steps: Callable[[], object]) -> int:
    """Return the floating-point operations of convolutions and products: two for each product."""
    with FlopCounterMode(display=False) as counter:
        steps()
    return counter.get_total_flops()


if __name__ == "__main__":
    run_script(main)
