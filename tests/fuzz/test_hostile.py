"""Files made to do harm: nothing of them is run, and nothing outside the folder changes."""

import argparse
import builtins
import functools
import io
import operator
import os
import pickle
import runpy
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.fetching.archives import unpack
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
        "os.mkdir": mkdir,
        "os.system": Call(os.system, f"mkdir {path}"),
        "subprocess": Call(subprocess.check_call, ["mkdir", path]),
        "popen": Call(subprocess.Popen, ["mkdir", path]),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "open": Call(builtins.open, path, "w"),
        "getattr": Call(getattr, mkdir, "real"),
        "map": Call(list, Call(map, os.mkdir, [path])),
        "partial": Call(functools.partial, os.mkdir, path),
        "methodcaller": Call(operator.methodcaller, "mkdir", path),
        "runpy": Call(runpy.run_path, path),
        "copytree": Call(shutil.copytree, str(canary.parent), path),
        "torch.load": Call(torch.load, path),
        "torch.hub": Call(torch.hub.download_url_to_file, "file:///etc/hostname", path),
        "numpy.load": Call(np.load, path),
        "object array": holder,
        "in a namespace": argparse.Namespace(model="resnet18", extra=mkdir),
        "in a state": Stateful({"a": mkdir}),
        "state of a tensor": Call(torch.Tensor, state=(mkdir,)),
        "in tuples and lists": [({"a": (1, [mkdir])},)],
        "as a key": {Call(os.mkdir, path): 1},
        "module": torch.nn.Sequential(torch.nn.Linear(1, 1)),
        "scalar of an object": Call(np._core.multiarray.scalar, np.dtype("O"), mkdir),
        "compile": Call(builtins.compile, code, "x", "exec"),
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
    refused(path, tmp_path, lambda: read(path))


@pytest.mark.parametrize("make", [raw, installed])
@pytest.mark.parametrize(
    "function",
    [("os", "mkdir"), ("posix", "mkdir"), ("nt", "mkdir"), ("builtins", "eval")]
    + [("__builtin__", "eval"), ("torch.serialization", "os.mkdir"), ("numpy", "f2py.os.mkdir")]
    + [("torch._utils", "os.mkdir"), ("argparse", "_os.mkdir"), ("collections", "_sys.exit")],
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


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.pax_headers = fields
    return info


def tars() -> dict:
    """Return hostile members, each after a good file."""
    link = tarfile.SYMTYPE
    return {
        "parent": [tar_member("../evil")],
        "parent later": [tar_member("a/b/../../../evil")],
        "absolute": [tar_member("/tmp/contrastlandmark_evil")],
        "absolute by pax": [tar_member("evil", path="/tmp/contrastlandmark_evil")],
        "parent by pax": [tar_member("evil", path="../evil")],
        "drive": [tar_member("C:/evil")],
        "backslash": [tar_member("..\\evil")],
        "link": [tar_member("evil", link, "/etc")],
        "through a link": [tar_member("evil", link, ".."), tar_member("evil/x")],
        "link by pax": [tar_member("evil", link, "good", linkpath="..")],
        "hard link": [tar_member("evil", tarfile.LNKTYPE, "../data.tar")],
        "device": [tar_member("evil", tarfile.CHRTYPE)],
        "pipe": [tar_member("evil", tarfile.FIFOTYPE)],
        "sparse": [tar_member("evil", tarfile.GNUTYPE_SPARSE)],
        "huge sparse": [
            tar_member(
                "evil",
                **{"GNU.sparse.major": "0", "GNU.sparse.minor": "1"},
                **{"GNU.sparse.map": "0,0", "GNU.sparse.size": "9" * 15},
            )
        ],
        "twice": [tar_member("good")],
        "twice, otherwise written": [tar_member("./good")],
        "below a file": [tar_member("good/evil")],
        "deep": [tar_member("/".join("evil" for _ in range(200)))],
        "long": [tar_member("evil" * 200)],
    }


def zips() -> dict:
    def special(kind):
        info = zipfile.ZipInfo("evil")
        info.external_attr = (kind | 0o777) << 16
        return info

    return {
        "parent": "../evil",
        "parent later": "a/../../evil",
        "absolute": "/tmp/contrastlandmark_evil",
        "drive": "C:/evil",
        "backslash": "..\\evil",
        "link": special(stat.S_IFLNK),
        "pipe": special(stat.S_IFIFO),
        "device": special(stat.S_IFBLK),
        "twice": "good",
        "twice, otherwise written": "./good",
        "below a file": "good/evil",
        "long": "evil" * 200,
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


@pytest.mark.parametrize("name", tars())
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_hostile_tars(tmp_path, name, mode):
    path = tmp_path / "data.tar"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tar_member("good"), io.BytesIO())
        for member in tars()[name]:
            tar.addfile(member, io.BytesIO())
    unpacked_or_refused(path, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", zips())
def test_hostile_zips(tmp_path, name):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good", b"good")
        file.writestr(zips()[name], b"..")
    unpacked_or_refused(path, tmp_path)
