"""Random states: seeding, and carrying them from one process to the next."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), and have cuDNN choose repeatable kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def random_states() -> dict:
    """Return the state of every generator as tensors and plain values, for a checkpoint."""
    version, words, position, has_gauss, gauss = np.random.get_state()
    key = np.asarray(words, np.int64)
    py_version, py_words, py_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [version, torch.from_numpy(key), position, has_gauss, gauss],
        "python": [py_version, list(py_words), py_gauss],
    }


def restore_random_states(states: dict) -> None:
    """Set every generator to a state that `random_states` returned."""
    torch.set_rng_state(states["torch"].cpu())
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), device)
    version, words, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((version, words.numpy().astype(np.uint32), position, has_gauss, gauss))
    py_version, py_words, py_gauss = states["python"]
    random.setstate((py_version, tuple(py_words), py_gauss))
