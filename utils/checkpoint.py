"""Checkpoint files: written whole or not at all, read without running anything in them."""

import argparse
import re
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.errors import InputError
from utils.files import check_is_file, excerpt, reason, write_atomically

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # the formats' first bytes

_SCALAR = np.float64(0).__reduce__()[0]  # which makes NumPy's scalars from their bytes
# What a checkpoint may hold beside tensors and plain values: the options, and NumPy's scalars (a
# published best score is one), under the name that NumPy 1 gave them too.
PLAIN_CLASSES = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
]

# Of the published layout [spec 7], and of readouts; `state_dict` is DVE's.
STATES = "model model_ema contrast head optimizer state_dict regressor ridge heatmaps best".split()
ENTRY_TYPES = {"opt": argparse.Namespace, "epoch": int, **dict.fromkeys(STATES, dict)}


def save_checkpoint(path: Path, content: dict, before: Callable[[], None] | None = None) -> None:
    """Write a checkpoint as `write_atomically` does, which see for ``before``.

    Raises:
        InputError: if it can't be written (no space, no permission); names the file.
    """
    try:
        write_atomically(path, lambda file: torch.save(content, file), before)
    except (OSError, RuntimeError) as error:
        # torch goes on to close the archive, and complains of that rather than of the full disk.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        said = getattr(cause, "strerror", None) or reason(cause)
        raise InputError(f"{path}: can't write the checkpoint ({said})") from None


def noted_options(path: str | Path) -> dict[str, Any]:
    """Return the options that a checkpoint notes; none if it can't be read, which is said later."""
    with suppress(InputError):
        return vars(load_checkpoint(path, ("opt",))["opt"])
    return {}


def load_checkpoint(path: str | Path, keys: tuple[str, ...]) -> dict:
    """Read a checkpoint onto the CPU; of classes it may hold ``PLAIN_CLASSES`` alone.

    Args:
        path: the file.
        keys: entries that must be there.

    Raises:
        InputError: if the file is absent, damaged, holds code, or lacks an entry or has it of
            another kind.
    """
    check_is_file(path, "no such checkpoint")
    try:
        _check_container(Path(path))
        with torch.serialization.safe_globals(PLAIN_CLASSES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_storages(content, Path(path).stat().st_size)
    except Exception as error:  # torch.load raises whatever the damage leads to
        # Of code, torch writes a page, in which stands what the checkpoint would call.
        # Before, it advises to load the file without that guard.
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = re.search(r"WeightsUnpickler error:\s*(.*)", str(error))
        said = f"it would call {called[1]}" if called else reason(fault[1] if fault else error)
        raise InputError(f"{path}: not a readable checkpoint ({said})") from None
    check_entries(path, content, keys)
    return content


def check_entries(path: str | Path, content: Any, keys: tuple[str, ...]) -> None:
    """Raise an `InputError` unless what a file holds has these entries, each of its kind."""
    missing = [k for k in keys if not isinstance(content, dict) or k not in content]
    if missing:
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else "no dict"
        wanted = ", ".join(keys)
        raise InputError(f"{path}: expected a checkpoint with {wanted}; found {excerpt(found)}")
    for key in keys:
        if not isinstance(content[key], kind := ENTRY_TYPES.get(key, object)):
            raise InputError(f"{path}: {key} is {type(content[key]).__name__}, not {kind.__name__}")


def load_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a module's weights: a checkpoint's ``model`` or ``state_dict``, or the whole file.

    A ``.safetensors`` file is read by the safetensors package.

    Raises:
        InputError: see `load_checkpoint`.
    """
    if Path(path).suffix == ".safetensors":
        return _load_safetensors(path)
    content = load_checkpoint(path, ())
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a checkpoint; found {type(content).__name__}")
    entry = next((key for key in ("model", "state_dict") if key in content), None)
    check_entries(path, content, () if entry is None else (entry,))
    state = content if entry is None else content[entry]
    return {str(key): value for key, value in state.items()}


def _load_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    check_is_file(path, "no such checkpoint")
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path}: safetensors isn't installed; pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises whatever the damage leads to
        raise InputError(f"{path}: not a readable checkpoint ({reason(error)})") from None


def _check_container(path: Path) -> None:
    """Check that a file is in one of PyTorch's two formats and whole; nothing is unpickled.

    Since PyTorch 1.6 it is a ZIP file without compression, whose checksums PyTorch itself doesn't
    compare. Before, it was a series of pickles without checksums: there a changed number goes
    unnoticed, unless it is no longer finite.

    Raises:
        ValueError: if it is in neither, compressed (what it unpacks to may fill the memory), or
            a part of it is damaged.
        zipfile.BadZipFile: if it is cut short.
    """
    with path.open("rb") as file:
        head = file.read(len(ZIP))
    if head.startswith(PICKLE):
        return
    if head != ZIP:
        raise ValueError("neither of PyTorch's formats")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("an entry appears twice")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} differs")


def _check_storages(content: object, size: int) -> None:
    """Raise a `ValueError` if the tensors of a file claim more bytes than it has.

    PyTorch 2.6 doesn't look, and would read beyond the end of what it loaded.
    """
    claimed, seen, left = {}, set(), [content]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            claimed[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            left += item.values()
        elif isinstance(item, list | tuple):
            left += item
    if sum(claimed.values()) > size:
        raise ValueError("its tensors are larger than the file")


def load_weights(module: nn.Module, state: dict, path: str | Path, hint: str) -> None:
    """Load a state dict strictly.

    For messages, ``path`` says where it came from and ``hint`` what the module was built from.

    Raises:
        InputError: naming the first key that is missing, superfluous or of another shape, or
            that holds a number which isn't finite.
    """
    own = module.state_dict()
    if not all(isinstance(key, str) and key.isprintable() for key in state):
        raise InputError(f"{path}: holds weights whose keys are no names")
    for key in (*own, *state):
        if key not in state:
            fault = f"{key} is missing"
        elif key not in own:
            fault = f"{key} has no place there"
        elif not isinstance(state[key], torch.Tensor) or state[key].shape != own[key].shape:
            found = tuple(getattr(state[key], "shape", ()))
            fault = f"{key} is {found}, expected {tuple(own[key].shape)}"
        elif state[key].is_complex():
            fault = f"{key} holds complex numbers"
        else:
            continue
        raise InputError(f"{path}: holds another architecture than {hint}: {fault}")
    try:
        for key, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise InputError(f"{path}: {key} holds a number that isn't finite")
        module.load_state_dict(state)
    except (RuntimeError, TypeError) as error:  # of sparse tensors and the like
        raise InputError(f"{path}: doesn't fit {hint} ({reason(error)})") from None
