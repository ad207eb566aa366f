"""A small data set of drawn dots, and its features."""

import numpy as np
import torch
from PIL import Image

from data_loader.landmark_dataset import LandmarkDataset
from engine.features.cache import FeatureCache
from engine.features.images import Encoding, encode_dataset
from engine.readouts.evaluation import add_evaluation_arguments
from engine.readouts.readout import EvaluationSettings
from models.encoders import choose_levels, weights_digest
from utils.arguments import ArgumentParser
from utils.log import RunLog


class Dots(LandmarkDataset):
    """Three coloured dots at random places of a grey image."""

    eyes = (0, 1)
    num_landmarks = 3

    def __init__(self, root, count, warp=False):
        self.count = count
        super().__init__(root, True, False, 72, 4, False, warp)

    def read(self, root, train):
        random = np.random.RandomState(5)
        points = random.randint(8, 48, (self.count, 3, 2)).astype(float)
        points[:, 1] = points[:, 0] + (0, 15)  # eyes at a distance of their own
        names = []
        for i, triple in enumerate(points.astype(int)):
            image = np.full((72, 72, 3), 90, np.uint8)
            for (x, y), colour in zip(triple, np.eye(3) * 255, strict=True):
                image[y - 2 : y + 3, x - 2 : x + 3] = colour
            names.append(f"{i}.png")
            Image.fromarray(image).save(root / names[-1])
        return root, names, {"keypoints": points}

    def square(self, image, index):
        return image


def encoded(
    dataset,
    encoder,
    *,
    layer=4,
    use_hypercol=True,
    mode="memory",
    shuffle=False,
    log=None,
    budget=None,
):
    return encode_dataset(
        Encoding(encoder, weights_digest(encoder), choose_levels(encoder, layer, use_hypercol)),
        dataset,
        batch_size=4,
        num_workers=0,
        seed=0,
        shuffle=shuffle,
        cache=FeatureCache(mode, dataset.folder / "cache", budget, torch.device("cpu")),
        log=log or RunLog(),
    )


def evaluation_settings(folder, flags) -> EvaluationSettings:
    """Return the settings of a run ``dots``, whose own folder is made below ``folder``."""
    parser = ArgumentParser("")
    add_evaluation_arguments(parser, batch_size=4, num_workers=0, save_freq=1)
    flags = f"--model_name dots --model_path {folder}/runs --log_path {folder}/log {flags}"
    options = parser.parse_args(flags.split())
    options.dataset = "Dots"
    settings = EvaluationSettings.from_options(options)
    settings.folder.mkdir(parents=True)
    return settings
