"""How far a step of pre-training is from what the processor could do with the same products.

  python -m benchmarks.limits --model resnet18 --batch_size 32

The operations of a step are counted: those of its convolutions and matrix products, forward and
backward. The processor's rate is that of square matrix products in the same precision, the best of
some sizes. Operations by rate are the seconds that no step with these products can do without.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import build_parser, machine, seconds_of, spread
from benchmarks.steps import SIDE, Epoch, dense_steps, moco_steps
from engine.run.acceleration import PRECISIONS
from engine.run.settings import choose_device

STEPS = 2  # of a turn, after one that chooses kernels
SCRIPTS: dict[str, Callable[..., Epoch]] = {
    "train_moco.py": moco_steps,
    "train_dense.py": dense_steps,
}


def main() -> None:
    """Print, for each script and precision, operations and seconds of a step, and the limit."""
    sizes = [1024, 2048, 4096]
    parser = build_parser(
        __doc__, model="resnet18", batch_size=32, device="auto", rounds=5, sizes=sizes
    )
    args = parser.parse_args()
    device = choose_device(args.device, None)
    print(f"{machine()}\n{args.model}, {SIDE} px, batch {args.batch_size}, {args.rounds} turns")
    for amp in ("off", "bf16"):
        products = {n: square_product(n, PRECISIONS[amp], device) for n in args.sizes}
        for script, steps_of in SCRIPTS.items():
            steps = steps_of(args.model, args.batch_size, STEPS, device, amp)
            operations = count_operations(steps) / STEPS
            rates, seconds = [], []  # operations a second, and seconds a step, in turns
            for _ in range(args.rounds):
                rates.append(max(2 * n**3 / seconds_of(p) for n, p in products.items()))
                seconds.append(seconds_of(steps) / STEPS)
            shares = [operations / r / s for r, s in zip(rates, seconds, strict=True)]
            print(
                f"  {script}, --amp {amp}: {operations / 1e9:.1f} GFLOP and "
                f"{spread([1000 * s for s in seconds], 0)} ms a step; "
                f"products {spread([r / 1e9 for r in rates], 0)} GFLOP/s; "
                f"the products' share of a step {spread(shares, 2)}"
            )


def square_product(
    size: int, precision: torch.dtype | None, device: torch.device
) -> Callable[[], torch.Tensor]:
    """Return a function that multiplies two matrices of so many rows, once it has warmed up."""
    a, b = torch.randn(2, size, size, device=device).to(precision or torch.float32)
    torch.mm(a, b)
    return lambda: torch.mm(a, b)


def count_operations(steps: Callable[[], object]) -> int:
    """Return the floating-point operations of convolutions and products: two for each product."""
    with FlopCounterMode(display=False) as counter:
        steps()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
