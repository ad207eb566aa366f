"""Files made to do harm: nothing of them is run, and nothing outside the folder changes."""

import argparse
import builtins
import io
import os
import pickle
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.fetching.installation import unpack
from tests.fuzz.mutations import with_pickle
from tests.fuzz.test_parsers import stand, watched
from utils.checkpoint import load_checkpoint
from utils.errors import InputError


class Call:
    """Unpickles as what a function returns, or, with a state, as that after it was set."""

    def __init__(self, function, *arguments, state=None):
        self.made_of = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made_of


class Stateful:
    """Has its harm in its state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return argparse.Namespace, (), self.state


def raw(module: str, name: str, argument: str) -> bytes:
    """Return a pickle that calls a function with a text."""
    text = argument.encode()
    size = struct.pack("<I", len(text))
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X" + size + text + b"\x85R."


def installed(module: str, name: str, argument: str) -> bytes:
    """Return the same, by protocol 0's INST."""
    return b"\x80\x02(S" + repr(argument).encode() + f"\ni{module}\n{name}\n.".encode()


def objects(canary) -> dict:
    """Return contents of a checkpoint that would make the canary's folder."""
    path, code = str(canary), f"__import__('os').mkdir({str(canary)!r})"
    mkdir = Call(os.mkdir, path)
    holder = np.empty(1, dtype=object)
    holder[0] = mkdir
    return {
        "os.system": Call(os.system, f"mkdir {path}"),
        "eval": Call(builtins.eval, code),
        "getattr": Call(getattr, mkdir, "real"),
        "torch.load": Call(torch.load, path),
        "object array": holder,
        "in a namespace": argparse.Namespace(model="resnet18", extra=mkdir),
        "in a state": Stateful({"a": mkdir}),
        "state of a tensor": Call(torch.Tensor, state=(mkdir,)),
        "module": torch.nn.Sequential(torch.nn.Linear(1, 1)),
        "scalar of an object": Call(np._core.multiarray.scalar, np.dtype("O"), mkdir),
    }


OBJECTS = sorted(objects(Path("x")))


def refused(path, folder, action) -> str:
    """Check that a call names a file and leaves all else as it is; return what it says."""
    before = stand(folder)
    with watched(20), pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert path.name in message and len(message.splitlines()) == 1 and len(message) < 1000
    assert stand(folder) == before
    return message


def read(path):
    return load_checkpoint(path, ("opt", "model"))


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_in_a_checkpoint(tmp_path, name, form):
    path = tmp_path / "evil.pth"
    content = {"opt": argparse.Namespace(), "model": objects(tmp_path / "canary")[name]}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    said = refused(path, tmp_path, lambda: read(path))
    assert ": not a readable checkpoint" in said
    assert name != "os.system" or form != "zip" or said.endswith(" (it would call posix.system)")


@pytest.mark.parametrize("make", [raw, installed])
@pytest.mark.parametrize(
    "function",
    [
        ("os", "mkdir"),
        ("__builtin__", "eval"),
        ("torch._utils", "os.mkdir"),
        ("numpy", "f2py.os.mkdir"),
    ],
    ids=".".join,
)
def test_pickles_written_by_hand(tmp_path, make, function):
    good, path = io.BytesIO(), tmp_path / "evil.pth"
    torch.save({"opt": 1}, good)
    path.write_bytes(with_pickle(make(*function, str(tmp_path / "canary")), good.getvalue()))
    refused(path, tmp_path, lambda: read(path))
    path.write_bytes(make(*function, str(tmp_path / "canary")))
    refused(path, tmp_path, lambda: read(path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, and of its parts
def test_a_program_of_torch_is_not_loaded(tmp_path):
    path = tmp_path / "evil.pth"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    refused(path, tmp_path, lambda: read(path))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_the_oldest_format_is_not_unpacked(tmp_path, kind):
    path = tmp_path / "evil.pth"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Call(os.mkdir, str(tmp_path / "canary")))
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "evil.pth")
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    assert "neither of PyTorch's formats" in refused(path, tmp_path, lambda: read(path))


def test_packed_checkpoints_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data.pkl", b"\x80\x02}.")
        file.writestr("bomb/data/0", bytes(10**7))
    assert "packed" in refused(path, tmp_path, lambda: read(path))


def test_a_storage_larger_than_its_entry(tmp_path):
    good, path = io.BytesIO(), tmp_path / "evil.pth"
    torch.save({"opt": argparse.Namespace(), "model": {"w": torch.zeros(100)}}, good)
    with zipfile.ZipFile(good) as file:
        inside = file.read("archive/data.pkl")
    inside = inside.replace(b"K\x64", b"J" + struct.pack("<i", 10**6))
    path.write_bytes(with_pickle(inside, good.getvalue()))
    refused(path, tmp_path, lambda: read(path))


# ---- archives ----


# tarfile's filter and zipfile see to most of it: one of each kind of way out.
LINK = tarfile.SYMTYPE
TARS = {
    "parent": [("../evil", tarfile.REGTYPE, "")],
    "absolute": [("/tmp/contrastlandmark_evil", tarfile.REGTYPE, "")],
    "link": [("evil", LINK, "/etc")],
    "through a link": [("evil", LINK, ".."), ("evil/x", tarfile.REGTYPE, "")],
    "hard link": [("evil", tarfile.LNKTYPE, "../data.tar")],
    "device": [("evil", tarfile.CHRTYPE, "")],
    "sparse": [("evil", tarfile.GNUTYPE_SPARSE, "")],
    "below a file": [("good/evil", tarfile.REGTYPE, "")],
}
ZIPS = {
    "parent": ("../evil", 0),
    "absolute": ("/tmp/contrastlandmark_evil", 0),
    "link": ("evil", stat.S_IFLNK),
    "below a file": ("good/evil", 0),
}


def unpacked_or_refused(path, folder):
    """Check that what an archive holds lands in its folder, without links, or is refused."""
    before = stand(folder)
    with watched(20):
        try:
            unpack(path, folder / "out")
        except InputError as error:
            assert path.name in str(error) and len(str(error).splitlines()) == 1
    assert all(p.is_dir() or p.is_file() and not p.is_symlink() for p in folder.rglob("*"))
    shutil.rmtree(folder / "out", ignore_errors=True)
    assert stand(folder) == before
    assert not os.path.lexists("/tmp/contrastlandmark_evil")


@pytest.mark.parametrize("name", TARS)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_hostile_tars(tmp_path, name, mode):
    path = tmp_path / "data.tar"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for member, kind, link in [("good", tarfile.REGTYPE, ""), *TARS[name]]:
            info = tarfile.TarInfo(member)
            info.type, info.linkname = kind, link
            tar.addfile(info, io.BytesIO())
    unpacked_or_refused(path, tmp_path)


@pytest.mark.parametrize("name", ZIPS)
def test_hostile_zips(tmp_path, name):
    path, (member, kind) = tmp_path / "data.zip", ZIPS[name]
    entry = zipfile.ZipInfo(member)
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good", b"good")
        file.writestr(entry, b"..")
    unpacked_or_refused(path, tmp_path)
