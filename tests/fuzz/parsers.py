"""Every parser of other people's files: how to write it a good file, and how to read it."""

import argparse
import gzip
import io
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from data_loader.data_loaders_animal import CUB, InatAve
from data_loader.data_loaders_face import (
    AFLW,
    AFLW_MTFL,
    CelebAPrunedAligned_MAFLVal,
    MAFLAligned,
    ThreeHundredW,
)
from data_loader.few_shot import load_picks
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.readers.coco_keypoints import read_coco_boxes
from data_loader.readers.images import (
    has_pages,
    image_size,
    open_image,
    oriented_size,
    value_range,
)
from data_loader.readers.keypoint_files import read_keypoints
from data_loader.readers.keypoint_table import KeypointTable
from data_loader.storage.shards import find_shards
from data_loader.storage.shards import images as shard_images
from datasets.fetching.installation import unpack
from engine.features.encoder_loading import load_projection, read_encoder_state
from engine.points.splits import annotation_files
from engine.pretraining.checkpoint import Position, State
from engine.pretraining.objective import Descent
from engine.readouts.kinds import read_readout
from engine.readouts.ridge import Ridge
from engine.run.resumption import open_checkpoint
from engine.run.settings import RunSettings
from models.ridge import RidgeReadout
from tests.data_loader import own_files as own
from tests.data_loader.layouts import (
    CELEBA_MAFL,
    CELEBA_PARTS,
    write_300w,
    write_aflw,
    write_celeba,
    write_cub,
    write_mtfl,
    write_text,
)
from tests.data_loader.shard_files import image, write_index, write_tar
from tests.fuzz.mutations import gzipped, mat_packed, pickle_inside, png_sealed, with_pickle
from train_dense import DenseContrast
from utils.checkpoint import load_checkpoint, load_weights
from utils.log import RunLog

FRAME = {"pair_image": False, "do_augmentations": False, "imwidth": 32, "crop": 2}
NAMES_300W = {"afw": ["a.jpg", "b.jpg"], "helen/trainset": ["c.jpg"]}


@dataclass(frozen=True)
class Parser:
    """One kind of file.

    Attributes:
        write: makes all that is needed in a folder; returns the file to damage.
        read: reads it, given the folder.
        text: whether it is one.
        inside: takes out of the file what is damaged, if not all.
        seal: makes a file again of that, damaged, and of the good file.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    text: bool = False
    inside: Callable[[bytes], bytes] = bytes
    seal: Callable[[bytes, bytes], bytes] = lambda data, whole: data


# ---- images ----


def write_image(folder: Path, image: Image.Image, kind: str, **options) -> Path:
    image.save(folder / "a.jpg", format=kind, **options)
    return folder / "a.jpg"


def read_image(folder: Path) -> None:
    assert open_image(folder / "a.jpg").mode == "RGB"
    image_size(folder / "a.jpg")
    turned = open_image(folder / "a.jpg", oriented=True)
    assert turned.size == oriented_size(folder / "a.jpg")[0]


def images() -> dict[str, Parser]:
    values = np.random.RandomState(0).randint(0, 256, (23, 31, 3), dtype=np.uint8)
    noise = Image.fromarray(values)
    palette = noise.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "jpeg": (noise, "JPEG", {"exif": exif}),
        "jpeg progressive": (noise, "JPEG", {"progressive": True}),
        "jpeg cmyk": (noise.convert("CMYK"), "JPEG", {}),
        "gif": (palette, "GIF", {"transparency": 3}),
        "bmp": (noise, "BMP", {}),
        "webp": (noise, "WEBP", {}),
        "ppm": (noise, "PPM", {}),
        "png": (palette, "PNG", {"transparency": bytes(range(256))}),
        "png 16 bits": (Image.fromarray(values[..., 0].astype(np.uint16) * 257), "PNG", {}),
    }
    parsers = {
        name: Parser(partial(write_image, image=image, kind=kind, **options), read_image)
        for name, (image, kind, options) in kinds.items()
    }
    sealed = [name for name in kinds if name.startswith("png")]
    parsers |= {
        f"{n} sealed": Parser(parsers[n].write, read_image, seal=png_sealed) for n in sealed
    }
    return parsers


def write_tiff(folder: Path, values: np.ndarray, **options) -> Path:
    tifffile.imwrite(folder / "a.tif", values, **options)
    return folder / "a.tif"


def read_own_image(folder: Path) -> None:
    path = folder / "a.tif"
    has_pages(path)
    assert open_image(path, oriented=True).size == oriented_size(path)[0]
    open_image(path, oriented=True, levels=(0, 4095))
    value_range(path, oriented=True)


def own_images() -> dict[str, Parser]:
    values = np.random.RandomState(0).randint(0, 2**16, (23, 31, 3)).astype(np.uint16)
    tiles = {"tile": (16, 16), "compression": "zlib", "predictor": True}
    kinds = {
        "tiff": ((values >> 8).astype(np.uint8), {"extratags": [(0x0112, 3, 1, 6, True)]}),
        "tiff packed": ((values >> 8).astype(np.uint8), tiles),
        "tiff 16 bits": (values, {}),
        "tiff 16 bits packed": (values, {**tiles, "byteorder": ">"}),
        "tiff grey": (values[..., 0], {}),
        "tiff pages": (values[..., 0].reshape(23, 31, 1, 1), {"photometric": "minisblack"}),
    }
    parsers = {
        name: Parser(partial(write_tiff, values=kept, **options), read_own_image)
        for name, (kept, options) in kinds.items()
    }

    def write_heic(folder: Path) -> Path:
        image = Image.fromarray((values >> 8).astype(np.uint8))
        image.save(folder / "a.tif", format="HEIF", quality=50)
        return folder / "a.tif"

    return parsers | {"heic": Parser(write_heic, read_own_image)}


# ---- annotations ----


def read_all(build: Callable[[Path], object], folder: Path) -> None:
    """Build a data set, and read all its images and points."""
    dataset = build(folder)
    if isinstance(dataset, LandmarkDataset):
        dataset.annotation_tensors()
    assert all(dataset[index][0].isfinite().all() for index in range(len(dataset)))


def layout(write: Callable, file: str, build: Callable, text: bool = True, **more) -> Parser:
    def written(folder: Path) -> Path:
        write(folder)
        return folder / file

    return Parser(written, partial(read_all, build), text, **more)


def celeba(folder: Path) -> None:
    write_celeba(folder, CELEBA_PARTS, **CELEBA_MAFL)


def inat(folder: Path) -> None:
    write_celeba(folder, {"000001.jpg": 0, "000002.jpg": 0})
    write_text(folder / "list.txt", *(f"Img/img_align_celeba_hq/00000{i}.jpg" for i in (1, 2)))


def name_list(folder: Path) -> Path:
    celeba(folder)
    write_text(folder / "namelist.txt", *CELEBA_MAFL["mafl_train"])
    return folder / "namelist.txt"


def annotations() -> dict[str, Parser]:
    pre = partial(CelebAPrunedAligned_MAFLVal, **FRAME)
    mafl, aflw, mtfl, w300 = (
        partial(c, **FRAME) for c in (MAFLAligned, AFLW, AFLW_MTFL, ThreeHundredW)
    )
    cub = partial(CUB, train=True, imwidth=32)
    native, w300_files = partial(write_cub, native=True), partial(write_300w, names=NAMES_300W)
    landmarks, boxes = (
        "Anno/list_landmarks_align_celeba.txt",
        "Bounding Boxes/bounding_boxes_afw.mat",
    )
    csv, mat = "aflw_cropped/facedata_cropped.csv", "aflw_train_keypoints.mat"
    return {
        "celeba landmarks": layout(celeba, landmarks, mafl),
        "celeba partition": layout(celeba, "Eval/list_eval_partition.txt", pre),
        "mafl list": layout(celeba, "MAFL/training.txt", mafl),
        "aflw list": layout(write_aflw, "aflw_train_images.txt", aflw),
        "aflw mat": layout(write_aflw, mat, aflw, text=False),
        "aflw mat packed": layout(write_aflw, mat, aflw, text=False, seal=mat_packed),
        "mtfl csv": layout(write_mtfl, csv, mtfl),
        "mtfl list": layout(write_mtfl, "MTFL/testing.txt", partial(mtfl, train=False)),
        "300-w points": layout(w300_files, "afw/a.pts", w300),
        "300-w boxes": layout(w300_files, boxes, w300, text=False),
        "300-w boxes packed": layout(w300_files, boxes, w300, text=False, seal=mat_packed),
        "cub dat": layout(write_cub, "anno/train.dat", cub, text=False),
        "cub split": layout(write_cub, "split/train.txt", cub),
        "cub ids": layout(native, "images.txt", cub),
        "cub parts": layout(native, "parts/part_locs.txt", cub),
        "inat list": layout(
            inat, "list.txt", lambda f: InatAve(f, imagelist=f / "list.txt", **FRAME)
        ),
        "name list": Parser(name_list, lambda f: load_picks(f, MAFLAligned(f, **FRAME)), text=True),
    }


def own_points(write: Callable[[Path], Path], y_up: bool = False) -> Parser:
    def written(folder: Path) -> Path:
        path = write(folder)
        return path.rename(folder / "points")

    return Parser(written, lambda f: read_keypoints(f / "points", f, y_up=y_up), text=True)


def in_latin_1(data: bytes, whole: bytes) -> bytes:
    return data.replace("\xb5".encode(), b"\xb5")


def own_folder(write: Callable[[Path], Path], damaged: str) -> Parser:
    def read(folder: Path) -> KeypointTable:
        return read_keypoints(list(map(Path, annotation_files(str(folder / "parts")))), folder)

    return Parser(lambda folder: write(folder) / damaged, read, text=True)


def own_annotations() -> dict[str, Parser]:
    return {
        "tabs": own_points(lambda f: own.write_wide_between(f, "\t")),
        "sep=;": own_points(lambda f: own.write_wide_between(f, ";", "sep=;")),
        "imagej results": own_points(own.write_imagej),
        "imagej results with tabs": own_points(partial(own.write_imagej, between="\t")),
        "imagej files": own_folder(own.write_imagej_files, "a.csv"),
        "several files": own_folder(own.write_several, "b.tsv"),
        "several files with coco": own_folder(own.write_several, "c.json"),
        "wide csv": own_points(partial(own.write_wide, points=own.turned()), y_up=True),
        "long csv": own_points(own.write_long),
        "deeplabcut csv": own_points(own.write_dlc),
        "deeplabcut csv of parts": own_points(partial(own.write_dlc, parts=True)),
        "deeplabcut csv of animals": own_points(own.write_individuals),
        "tps": own_points(own.write_tps),
        "tps of others": replace(own_points(own.write_tps_of_others), seal=in_latin_1),
        "coco keypoints": own_points(own.write_coco),
        "coco keypoints without names": own_points(own.write_coco_without_names),
        "coco boxes": Parser(
            own.write_coco, lambda f: read_coco_boxes(f / "points.json"), text=True
        ),
    }


# ---- checkpoints ----


def write_checkpoint(folder: Path, old: bool) -> Path:
    state = torch.nn.Linear(2, 3).state_dict()
    module = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "opt": argparse.Namespace(model="resnet18", lr_decay_epochs=[120, 160]),
        **{"model": state, "model_ema": dict(state), "contrast": dict(state), "epoch": 3},
        **{"optimizer": optimizer.state_dict(), "best_error": np.float64(7.5)},
    }
    torch.save(content, folder / "c.pth", _use_new_zipfile_serialization=not old)
    return folder / "c.pth"


def read_checkpoint(folder: Path) -> None:
    keys = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")
    content = load_checkpoint(folder / "c.pth", keys)
    for key in ("model", "model_ema", "contrast"):
        load_weights(torch.nn.Linear(2, 3), content[key], folder / "c.pth", "--model x")


def write_ridge(folder: Path) -> Path:
    ridge = RidgeReadout(4, 2, 32, None).state_dict()
    content = {"opt": argparse.Namespace(), "epoch": 1, "ridge": ridge, "encoder_digest": "0a"}
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


def read_ridge(folder: Path) -> None:
    path = str(folder / "c.pth")
    _, content = read_readout(path, Ridge)
    load_weights(RidgeReadout(4, 2, 32, None), content["ridge"], path, "--layer 4")


class TinyDense(torch.nn.Module):
    """What a checkpoint of train_dense.py holds the weights of, in little."""

    def __init__(self) -> None:
        super().__init__()
        module = torch.nn.Sequential(OrderedDict(conv1=torch.nn.Linear(2, 3)))
        wrapped = torch.nn.Sequential(OrderedDict(module=module))
        self.encoder = torch.nn.Sequential(OrderedDict(encoder=wrapped))
        self.head = torch.nn.Linear(3, 2)

    def state(self, run: RunSettings) -> State:
        """Return the state of a run, within an epoch."""
        optimizer = torch.optim.AdamW(self.parameters())
        self.head(self.encoder(torch.ones(1, 2))).sum().backward()
        optimizer.step()
        numbers = {"places": 16, "detail": 0.0, "temperature": 0.1, "radius": 0.12}
        objective = DenseContrast(self, optimizer, None, **numbers)
        descent = Descent(optimizer, torch.device("cpu"), "off")
        position = Position(torch.ones(2), 8, 4, 1, 1, 4)
        return State(run, "8 images", {}, objective, descent, position)


def dense_run(folder: Path, resume: str = "") -> RunSettings:
    options = argparse.Namespace(
        model_path="", epochs=3, nce_t=0.1, init=None, model="x", dimensions=2
    )
    return RunSettings(options, folder, "", resume, False, False, 1)


def write_dense(folder: Path) -> Path:
    TinyDense().state(dense_run(folder)).save()
    return folder / "current.pth"


def read_dense(folder: Path) -> None:
    """Resume from it, and start from its encoder."""
    path, tiny, log = folder / "current.pth", TinyDense(), RunLog()
    run = dense_run(folder, str(path))
    found = open_checkpoint(run, DenseContrast.entries, log)
    tiny.state(run).restore(*found, log)
    state = read_encoder_state(str(path), tiny.encoder, "x", log)
    load_weights(tiny.encoder, state, path, "--model x")


class TinyEncoder(torch.nn.Linear):
    levels = (5, 4, 3, 2)

    def feature_channels(self, levels: Sequence[int]) -> int:
        return 4


def write_projection(folder: Path) -> Path:
    torch.manual_seed(0)
    content = {"model": TinyEncoder(2, 3).state_dict(), "head": torch.nn.Linear(4, 5).state_dict()}
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


def read_projection(folder: Path) -> None:
    torch.manual_seed(0)
    load_projection(str(folder / "c.pth"), TinyEncoder(2, 3), "e.pth")


def checkpoints() -> dict[str, Parser]:
    new, old = partial(write_checkpoint, old=False), partial(write_checkpoint, old=True)
    inner = {"inside": pickle_inside, "seal": with_pickle}
    return {
        "checkpoint": Parser(new, read_checkpoint),
        "checkpoint's pickle": Parser(new, read_checkpoint, **inner),
        "checkpoint of old": Parser(old, read_checkpoint),
        "ridge": Parser(write_ridge, read_ridge),
        "ridge's pickle": Parser(write_ridge, read_ridge, **inner),
        "dense checkpoint": Parser(write_dense, read_dense),
        "dense checkpoint's pickle": Parser(write_dense, read_dense, **inner),
        "projection": Parser(write_projection, read_projection),
        "projection's pickle": Parser(write_projection, read_projection, **inner),
    }


# ---- archives ----


def write_archive(folder: Path, kind: str) -> Path:
    members = {"a/one.txt": b"1" * 700, "a/b/two.txt": b"2", "\u00fc" * 60: b"3"}
    if kind == "zip":
        with zipfile.ZipFile(folder / "a.any", "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return folder / "a.any"
    with tarfile.open(folder / "a.any", kind) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "a.any"


def read_archive(folder: Path) -> None:
    unpack(folder / "a.any", folder / "out")


def archives() -> dict[str, Parser]:
    zip_file, tar = partial(write_archive, kind="zip"), partial(write_archive, kind="w")
    packed = partial(write_archive, kind="w:gz")
    return {
        "zip": Parser(zip_file, read_archive),
        "tar": Parser(tar, read_archive),
        "tar.gz": Parser(packed, read_archive),
        "tar in gz": Parser(packed, read_archive, inside=gzip.decompress, seal=gzipped),
    }


# ---- shards ----


def write_shard(folder: Path) -> Path:
    members = [("0.jpg", image(0)), ("0.cls", b"1"), ("a/1.png", image(1))]
    write_index(folder / "shards.json", ("a.tar", 2))
    return write_tar(folder / "a.tar", members, format=tarfile.PAX_FORMAT)


def read_shards(folder: Path, data_folder: str) -> None:
    for shard in find_shards(str(folder / data_folder)):
        for name, data in shard_images(shard, 0, shard.count):
            open_image(name, data)


def write_shard_index(folder: Path) -> Path:
    write_shard(folder)
    return folder / "shards.json"


def shards() -> dict[str, Parser]:
    return {
        "shard": Parser(write_shard, partial(read_shards, data_folder="a.tar")),
        "shard of an index": Parser(write_shard, partial(read_shards, data_folder="shards.json")),
        "index of shards": Parser(
            write_shard_index, partial(read_shards, data_folder="shards.json"), text=True
        ),
    }


PARSERS = {
    **{**images(), **own_images(), **annotations(), **own_annotations()},
    **{**checkpoints(), **archives(), **shards()},
}
