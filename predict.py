r"""Find landmarks on images that nobody annotated: a folder, a list or a video of them.

  python predict.py --ckpt_path runs/wings/resnet18.pth \
    --trained_model_path runs/dense/current.pth --images wings --out predictions.csv
  python predict.py --ckpt_path runs/tuned/resnet18.pth --images clip.mp4 --out clip.csv \
    --out_video labelled.mp4

The readout's checkpoint says which network, layer and framing it was trained with, and how its
points are called. Points are in pixels of the image, confidence is from 0 to 1. A run that was
killed goes on where it was when it is started again. The ending of --out says the format: .csv,
_long.csv, .dlc.csv (DeepLabCut's), .json (COCO's) or .tps. [spec 18.]
"""

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from data_loader.folder import add_cutout_arguments
from data_loader.instances import with_boxes
from data_loader.loaders import add_loader_arguments, worker_notice
from data_loader.named_images import notices_on
from data_loader.readers.keypoint_files import file_key, read_keypoints
from data_loader.readers.keypoint_table import named
from data_loader.readers.prediction_files import prediction_format, write_predictions
from data_loader.readers.videos import count_missing
from data_loader.unannotated import ImageFiles, ImageSource, VideoFrames, open_source
from engine.pages.page import add_page_argument, check_page, write_page
from engine.prediction.export import export
from engine.prediction.pictures import (
    check_video,
    draw_least_certain,
    draw_video,
    not_annotated,
    page_records,
    suggest_images,
)
from engine.prediction.predictor import Frame, PredictionSettings, Trained, load_predictor
from engine.prediction.run import BESIDE, SUFFIX, PredictionRun
from engine.prediction.windows import add_window_arguments, box_notices, place_window, window_side
from engine.readouts.kinds import add_readout_argument
from engine.run.acceleration import add_precision_argument, choose_precision
from engine.run.settings import add_shared_arguments, choose_device, describe_device
from models.encoders import add_projection_argument, add_weights_arguments
from utils.arguments import ArgumentParser, as_list, check_paths, positive_int
from utils.errors import InputError
from utils.files import check_output
from utils.log import RunLog, Stopwatch
from utils.script import run_script


def build_parser() -> ArgumentParser:
    """Return the parser of all options."""
    parser = ArgumentParser(__doc__)
    group = parser.add_argument_group("readout")
    add_readout_argument(group)
    add_weights_arguments(group)
    add_projection_argument(group)
    group = parser.add_argument_group(
        "images", "--fit and --box_margin are the checkpoint's if they aren't given"
    )
    group.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="a folder, all images at any depth; an image; a text file with one image a line; or a "
        "video (pip install -e .[video])",
    )
    add_cutout_arguments(group, fit=None, margin=None)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the results; the ending says the format; several files are the same in several",
    )
    add_shared_arguments(group, "overwrite")
    group.add_argument(
        "--draw",
        type=positive_int,
        metavar="N",
        help="draw the N images of the least mean confidence into the folder OUT.drawn",
    )
    group.add_argument(
        "--out_video", type=Path, metavar="FILE", help="of a video: write it again with its points"
    )
    add_page_argument(group)
    add_window_arguments(group)
    group.add_argument(
        "--suggest",
        type=positive_int,
        metavar="K",
        help="list K images to annotate next in OUT.suggested.txt: those that most others look "
        "like, of the less certain half",
    )
    group.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write model.onnx, encoder and readout in one (pip install -e .[export]), or "
        "encoder.pth, a ResNet's weights in torchvision's names; --images isn't needed",
    )
    add_loader_arguments(parser, batch_size=32, num_workers=8)
    group = parser.add_argument_group("machine")
    add_shared_arguments(group, "device", "gpu")
    add_precision_argument(group, "the encoder")
    return parser


def check_places(
    settings: PredictionSettings, trained: Trained, source: ImageSource | None
) -> None:
    """Raise an `InputError` if an output is an image, or what the readout was trained with."""
    every = trained._asdict().items()
    noted = [(name, str(value)) for name, given in every for value in as_list(given)]
    used = [(name, path) for name, path in noted if os.path.isfile(path)]
    if source is not None:
        used += [("out", f"{settings.out}{ending}") for ending in (SUFFIX, *BESIDE)]
    if isinstance(source, ImageFiles):
        folders = {source.path(place).parent for place in range(source.count)}
        used += [("images", str(folder)) for folder in folders if os.path.isdir(folder)]
    check_paths([*vars(settings.options).items(), *used])


def check_extras(settings: PredictionSettings, source: ImageSource, frame: Frame) -> None:
    """Raise an `InputError` if something can't be made beside the results, before the work."""
    made = settings.windows is not None or settings.suggest is not None
    if made and isinstance(source, VideoFrames):
        flag = "--suggest" if settings.windows is None else "--windows"
        raise InputError(f"{flag}: of image files, not of a video")
    if settings.out_video is not None and not isinstance(source, VideoFrames):
        raise InputError(f"--out_video {settings.out_video}: --images is no video")
    if settings.windows is not None:
        check_output(settings.windows, settings.overwrite, "--windows")
        if prediction_format(settings.windows) != "coco":
            raise InputError(f"--windows {settings.windows}: its name must end in .json")
        window_side(frame, settings.window_size)
    elif settings.window_size is not None:
        raise InputError("--window_size: only with --windows")
    if settings.page is not None:
        check_page(settings.page, settings.overwrite)
    if settings.out_video is not None and isinstance(source, VideoFrames):
        check_output(settings.out_video, settings.overwrite, "--out_video")
        check_video(settings.out_video, source)


def make_extras(
    run: PredictionRun, annotated: ImageFiles | None, others: Iterable[int]
) -> Iterator[str]:
    """Make what is wanted beside the results; yield a line on each.

    ``others`` are the numbers of the source's images that aren't ``annotated``.
    """
    settings, source, names = run.settings, run.source, run.frame.names
    if settings.draw is not None:
        yield f"{draw_least_certain(run, settings.draw, run.drawn):,} drawings: {run.drawn}"
    if (video := settings.out_video) is not None and isinstance(source, VideoFrames):
        yield f"{draw_video(run, source, video):,} labelled frames: {video}"
    if settings.page is not None:
        page = write_page(
            settings.page,
            page_records(run),
            names=names,
            title=settings.out.name,
            overwrite=settings.overwrite,
        )
        yield f"a page to look through: {page}"
    if settings.windows is not None:
        side = window_side(run.frame, settings.window_size)
        windows = (f._replace(box=place_window(f, side)) for f in run.part.readable())
        write_predictions(settings.windows, names, windows, run.has_instances)
        count = run.part.count - run.part.bad
        yield f"{count:,} windows of {side} x {side} pixels: {settings.windows}"
    if settings.suggest is not None and isinstance(source, ImageFiles):
        suggested = suggest_images(run, source, others, annotated)
        yield f"{len(suggested)} images to annotate next: {run.suggested}"


def annotated_before(trained: Trained) -> ImageFiles | None:
    """Return the images that a readout was trained on or judged by, if they are still there."""
    files = [Path(str(file)) for file in as_list(trained.annotations)]
    if trained.annotations is None or not all(map(os.path.isfile, files)):
        return None
    folder = Path(trained.data_folder or files[0].parent)
    table = read_keypoints(
        files, folder, y_up=trained.y_up, y_down=trained.y_down, category=trained.category
    )
    if trained.boxes and Path(trained.boxes).is_file():
        table = with_boxes(table, Path(trained.boxes), folder)
    return ImageFiles(folder, table.images, table.boxes, table.ids)


def scales_before(trained: Trained, source: ImageSource) -> dict[int, float]:
    """Return the units per pixel of images that a readout's annotations say, by their numbers."""
    if trained.annotations is None or not isinstance(source, ImageFiles):
        return {}
    files = [Path(str(file)) for file in as_list(trained.annotations)]
    folder, known = Path(trained.data_folder or files[0].parent), dict[object, float]()
    for file in files:
        with suppress(InputError):  # it isn't needed
            scales = read_keypoints(file, folder).scales
            known |= {file_key(folder / name): scale for name, scale in scales.items()}
    keys = (file_key(source.path(number)) for number in range(source.count))
    return {number: known[key] for number, key in enumerate(keys) if key in known}


def parse_options() -> argparse.Namespace:
    """Return the options, of which ``also_out`` are the outputs after the first.

    Raises:
        InputError: if images or outputs are absent, or one is there twice.
    """
    args = build_parser().parse_args()
    outputs = args.out or [None]
    if len(set(outputs)) < len(outputs):
        raise InputError("--out: one of its files is there twice")
    if (args.images is None) != (args.out is None) or not (args.images or args.export):
        raise InputError("give the images by --images PATH and the results' file by --out FILE")
    return argparse.Namespace(**{**vars(args), "out": outputs[0], "also_out": outputs[1:]})


def main() -> None:
    """Predict, and write what was found."""
    args = parse_options()
    log, watch = RunLog(), Stopwatch()
    log.line(*worker_notice(args.num_workers))
    device = choose_device(args.device, args.gpu)
    amp = choose_precision(args.amp, device, None, log)
    settings = PredictionSettings.from_options(args)
    predictor, trained = load_predictor(settings, log)
    source = None
    if args.images is not None:
        source = open_source(args.images, None if args.boxes is None else Path(args.boxes))
        log.line(*source.notices, *box_notices(predictor.frame, source))
        images = source if isinstance(source, ImageFiles) else ImageFiles(Path(), [])
        images.levels = predictor.frame.levels
        log.line(*notices_on(images.path, images.count, own=True))
        check_extras(settings, source, predictor.frame)
    check_places(settings, trained, source)
    if args.export is not None:
        log.line(export(args.export, predictor, args.overwrite))
    if source is None:
        log.open()
        return
    annotated, others = None, list[int]()
    if args.suggest is not None and isinstance(source, ImageFiles):
        annotated = annotated_before(trained)
        others = not_annotated(source, annotated)
    predictor.amp = amp
    run = PredictionRun(predictor.to(device), source, settings, log)
    is_tps = "tps" in map(prediction_format, run.outputs)
    scales = scales_before(trained, source) if is_tps else {}
    if scales:
        files = named(as_list(trained.annotations))
        log.line(f"{files}: has the SCALE= of {len(scales):,} of the images")
    count = run.shown if source.count is None else f"{source.count:,} {run.shown}"
    where = describe_device(device, args.gpu)
    log.open(heading=f"{args.images}: {count}; {len(run.frame.names)} points; {where}")
    with run:
        run.predict()
        for line in make_extras(run, annotated, others):
            log.line(line)
        run.finish(scales)
    total, bad = run.part.count, run.part.bad
    outputs = ", ".join(map(str, run.outputs))
    log.line(f"{total - bad:,} of {total:,} {run.shown}: {outputs}; {watch.seconds():.1f} s")
    if isinstance(source, VideoFrames) and (missing := count_missing(source.path, total)):
        log.line(f"{args.images}: cut short: its header promises {missing:,} frames more")
    if bad:
        log.line(f"{bad:,} {run.shown} can't be read, skipped: listed in {run.bad_list}")


if __name__ == "__main__":
    run_script(main)
