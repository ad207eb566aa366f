"""The choice of a readout by cross-validation on the annotated images: ``--regressor auto``.

[spec 17] Each candidate is fitted to all folds but one, by an ordinary run in a folder of its own,
and judged by the images of that fold. Letters: N annotated images.
"""

import json
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch

from data_loader.few_shot import restrict
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.splits import folds
from engine.readouts.evaluation import run_evaluation
from engine.readouts.kinds import AUTO, READOUTS
from engine.readouts.readout import EvaluationSettings
from engine.readouts.task import Task
from engine.run.settings import as_json, find_held
from utils.arguments import changeable_options
from utils.errors import InputError
from utils.files import read_json, write_text
from utils.log import RunLog
from utils.process_group import world_size

FOLDS = 3
LEAST_IMAGES = 4  # two to learn from in each fold, and one to judge by
CANDIDATES, CHOICE, RESULT = "candidates", "choice.json", "result.json"  # in a run's folder


class Candidate(NamedTuple):
    """A kind of readout, of the given encoder or of an untrained one.

    ``mirrored`` says whether it learns from mirrored images, too, where that is left open.
    """

    regressor: str
    untrained: bool
    mirrored: bool | None = None

    @property
    def usually_mirrored(self) -> bool:
        """Whether mirrored images are used unless tried otherwise: see ``--mirror``."""
        return READOUTS[self.regressor].trains_encoder

    @property
    def name(self) -> str:
        """What its folders are called, and it itself in the log."""
        encoder = "untrained" if self.untrained else "encoder"
        if self.mirrored in (None, self.usually_mirrored):
            return f"{self.regressor}-{encoder}"
        return f"{self.regressor}-{encoder}-{'mirrored' if self.mirrored else 'unmirrored'}"

    def settings(self, given: EvaluationSettings, **changes: Any) -> EvaluationSettings:
        """Return given settings, and some changes, as those of a run of this candidate."""
        if self.mirrored is not None:
            given = given.recording(mirror="on" if self.mirrored else "off")
        path = None if self.untrained else given.trained_model_path
        encoder = {"trained_model_path": path, "random_network": self.untrained}
        return given.with_options(regressor=self.regressor, **encoder, **changes)


def list_candidates(settings: EvaluationSettings, mirror: bool) -> list[Candidate]:
    """Return what is tried: all kinds of readout on the encoder; training an untrained one, too.

    A frozen untrained encoder needn't be tried: it has not been the best of any data. ``mirror``
    says that it is left open whether mirrored images are used.
    """
    kinds = [  # training the encoder on would change what a projection belongs to
        kind for kind in READOUTS.values() if not (kind.trains_encoder and settings.projection)
    ]
    found = [Candidate(kind.kind, settings.random_network) for kind in kinds]
    if not settings.random_network:
        found += [Candidate(kind.kind, True) for kind in kinds if kind.trains_encoder]
    return [one._replace(mirrored=one.usually_mirrored) for one in found] if mirror else found


def choose_readout(
    settings: EvaluationSettings,
    device: torch.device,
    task: Task,
    train_set: LandmarkDataset,
    groups: Sequence[str] | None = None,
) -> EvaluationSettings:
    """Return the settings of the readout that finds the annotated images' landmarks best.

    Settings that name a readout are returned as they are. The others say also whether mirrored
    images are learnt from, as is found best.

    Its scores and those of the others are written to ``choice.json`` in the run's folder. A run
    that resumes takes up the candidates where it stopped.

    Args:
        settings: of the evaluation.
        device: to compute on.
        task: metrics, the first of which judges.
        train_set: all annotated images; of them, those of ``--restrict_annos`` are taken.
        groups: of each image of ``train_set``; those of one group stay in one fold. Each image is
            a group of its own, if None.

    Raises:
        InputError: if there are too few images or groups to be split, or for a flag that a choice
            can't be made with.
    """
    if settings.regressor != AUTO:
        return settings
    if world_size() > 1:
        raise InputError("--regressor auto: in one process alone, without torchrun")
    for flag in ("TPS_aug", "repeat"):
        if getattr(settings.options, flag):
            raise InputError(f"--regressor auto: not with --{flag}")
    find_held(settings)  # refused before the work, not after it
    log, images = RunLog(), copy(train_set)
    log.open(settings.log_path)
    picks = restrict(
        images,
        settings.restrict_annos,
        repeat=False,
        num_per_epoch=0,
        seed=settings.seed,
        noted_in=settings.folder if settings.resume else None,
    )
    groups = train_set.filenames if groups is None else groups
    places = range(len(train_set)) if picks is None else picks.places
    parts = split([groups[place] for place in places], settings.seed)

    def try_out(*candidates: Candidate) -> Candidate:
        """Return the best of all candidates so far, these included."""
        for one in candidates:
            scores[one] = cross_validate(settings, one, device, task, images, parts, log)
        return (min if task.lower_is_better else max)(scores, key=lambda one: scores[one])

    # Their pairs are known, and no flag says whether to use them.
    mirror = images.flip_order is not None and getattr(settings.options, "mirror", "") == "auto"
    scores: dict[Candidate, float] = {}
    best = try_out(*list_candidates(settings, mirror))
    if mirror:  # of the best alone, as it takes long
        best = try_out(best._replace(mirrored=not best.mirrored))
    log.line(f"--regressor auto: takes {best.name}")
    record = {"metric": next(iter(task.metrics)), "folds": len(parts), "taken": best.name}
    record["scores"] = {candidate.name: score for candidate, score in scores.items()}
    write_text(settings.folder / CHOICE, f"{json.dumps(record, indent=1)}\n")
    return best.settings(settings)


def cross_validate(
    settings: EvaluationSettings,
    candidate: Candidate,
    device: torch.device,
    task: Task,
    images: LandmarkDataset,
    parts: Sequence[np.ndarray],
    log: RunLog,
) -> float:
    """Return a candidate's score: the first metric's mean over folds, weighted by their images.

    ``parts`` holds the places of each fold's images; see `choose_readout` for the others.
    """
    metric, of_folds = next(iter(task.metrics)), []
    for number, fold in enumerate(parts, 1):
        own = candidate.settings(
            settings,
            restrict_annos=-1,
            model_path=settings.folder / CANDIDATES,
            model_name=f"{candidate.name}-fold{number}",
            resume="",
            overwrite=True,
        )
        result: dict[str, Any] = {}
        begun_with = read_json(own.folder / "options.json").get("options")
        if isinstance(begun_with, dict) and comparable(begun_with) == comparable(
            as_json(own.options)
        ):
            own = own.with_options(resume="auto", overwrite=False)
            result = read_json(own.folder / RESULT)
        if "last" not in result:
            result = judge(own, device, task, images, fold)
        of_folds.append(result["last"]["Test"][metric])
    mean = float(np.average(of_folds, weights=[len(fold) for fold in parts]))
    log.line(f"{candidate.name}: {metric} {mean:.3f} in cross-validation")
    return mean


def judge(
    settings: EvaluationSettings,
    device: torch.device,
    task: Task,
    images: LandmarkDataset,
    fold: np.ndarray,
) -> dict[str, Any]:
    """Fit a candidate to all images but those at a fold's places; return what these say of it."""
    if not settings.resume:
        (settings.folder / RESULT).unlink(missing_ok=True)  # of other options
    learnt, judged = copy(images), copy(images)
    learnt.select(np.setdiff1d(np.arange(len(images)), fold).tolist())
    judged.select(fold.tolist())
    learnt.notices = judged.notices = []  # said once, of all images
    result = run_evaluation(settings, device, task, learnt, {"Val": judged, "Test": judged})
    assert result is not None  # in a single process
    return result


def split(groups: Sequence[str], seed: int) -> list[np.ndarray]:
    """Return the places of each fold's images; those of a group are all in one fold.

    Raises:
        InputError: if there are too few images or groups.
    """
    distinct = len(set(groups))
    if len(groups) < LEAST_IMAGES or distinct < 2:
        raise InputError(
            f"--regressor auto: {len(groups)} annotated images in {distinct} groups, expected at "
            f"least {LEAST_IMAGES} in 2, to choose by cross-validation; name a readout instead"
        )
    count = min(FOLDS, distinct)
    fold_of = folds(groups, count, seed)  # (N,)
    return [np.flatnonzero(fold_of == number) for number in range(count)]


def comparable(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that results depend on, of all options as they are in JSON."""
    changeable = changeable_options()
    return {name: value for name, value in options.items() if name not in changeable}
