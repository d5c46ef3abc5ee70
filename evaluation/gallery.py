"""The pictures and videos of the report, made from results."""

from collections.abc import Mapping, Sequence

import numpy as np

from reverie.evaluation.pictures import png
from reverie.evaluation.reconstruction import Reconstruction
from reverie.evaluation.report import Media
from reverie.evaluation.rollouts import Rollouts
from reverie.evaluation.video import (
    reconstruction_grid,
    rollout_strip,
    rollout_video,
)

NUM_STRIPS = 3
"""Rollouts that are also shown frame by frame."""
_SHOWN = ("model", "shuffled", "copy")


def reconstruction_media(reconstruction: Reconstruction) -> list[Media]:
    """One picture: frames of different held-out clips above what the tokenizer makes of them."""
    picture = reconstruction_grid(reconstruction.truth, reconstruction.decoded)
    return [Media("reconstruction.png", "Held-out frames and their reconstructions", png(picture))]


def rollout_films(rollouts: Rollouts, keys: Sequence[str], fps: float) -> list[Media]:
    """A video per example: truth and methods side by side."""
    return [
        Media(f"rollout-{i}.mp4", keys[i], rollout_video(truth, predicted, rollouts.given, fps))
        for i, (truth, predicted) in enumerate(_examples(rollouts))
    ]


def rollout_strips(rollouts: Rollouts, keys: Sequence[str], name: str = "rollout") -> list[Media]:
    """The first examples frame by frame; files and captions begin with `name`."""
    return [
        Media(f"{name}-{i}.png", f"{name}: {keys[i]}", png(rollout_strip(truth, predicted, rollouts.given)))
        for i, (truth, predicted) in enumerate(_examples(rollouts)[:NUM_STRIPS])
    ]


def _examples(rollouts: Rollouts) -> list[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
    shown = {name: x.numpy() for name, x in rollouts.examples.items() if name in _SHOWN}
    truth = rollouts.truth.numpy()
    return [(truth[i], {name: x[i] for name, x in shown.items()}) for i in range(len(truth))]
