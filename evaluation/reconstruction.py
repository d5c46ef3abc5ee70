"""The tokenizer on held-out video: what encoding and decoding costs, without any prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.evaluation.curves import METRICS
from reverie.evaluation.metrics import FrameScores, decibels, frame_scores
from reverie.evaluation.statistics import Estimate, bootstrap
from reverie.nn.frames import to_uint8
from reverie.tokenizer.model import Tokenizer

MAX_FRAMES = 64
"""Frames taken from one clip, its first ones."""


@dataclass(frozen=True)
class Reconstruction:
    """Scores on held-out clips and some frames to look at, from as many clips as possible.

    scores   psnr, psnr_frame, ssim and lpips with bootstrap intervals over clips; what was not measured is missing
    truth    (G, H, W, 3) uint8
    decoded  (G, H, W, 3) uint8, their reconstructions
    """

    clips: int
    frames: int
    scores: dict[str, Estimate]
    truth: np.ndarray
    decoded: np.ndarray


def choose_clips(index: ShardIndex, count: int, seed: int, split: str) -> list[Sample]:
    """At most `count` clips of `split`, drawn without replacement."""
    samples = index.samples(split)
    order = np.random.default_rng(seed).permutation(len(samples))[:count]
    return [samples[i] for i in order]


@torch.no_grad()
def reconstruct(
    tokenizer: Tokenizer,
    index: ShardIndex,
    clips: list[Sample],
    *,
    num_shown: int = 10,
    lpips: nn.Module | None = None,
    finished: Callable[[int], object] = lambda _: None,
) -> Reconstruction:
    """Encodes and decodes each clip from its first frame on and scores every frame.

    `finished` is told after each clip.
    """
    reader = ShardReader(index)
    scores: list[FrameScores] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    per_clip = -(-num_shown // len(clips))
    for sample in clips:
        truth = torch.from_numpy(reader.frames(sample, 0, min(sample.n, MAX_FRAMES)))
        decoded = round_trip(tokenizer, truth)
        scores.append(frame_scores(decoded, truth, lpips))
        finished(1)
        if len(shown) < num_shown:
            picked = np.linspace(0, len(truth) - 1, per_clip + 2).round().astype(int)[1:-1]
            shown += [(truth[i].numpy(), decoded[i].numpy()) for i in picked]
    return Reconstruction(
        clips=len(clips),
        frames=sum(len(score.mse) for score in scores),
        scores=_estimates(scores),
        truth=np.stack([truth for truth, _ in shown]),
        decoded=np.stack([decoded for _, decoded in shown]),
    )


def round_trip(tokenizer: Tokenizer, frames: Tensor) -> Tensor:
    """(T, H, W, C) uint8 encoded and decoded, on the CPU."""
    device = tokenizer.mask_token.device
    return to_uint8(tokenizer.decode(tokenizer.encode(frames[None].to(device))))[0].cpu()


def _estimates(scores: list[FrameScores]) -> dict[str, Estimate]:
    """Means over all frames; whole clips are drawn again, as frames of one clip are alike."""
    weights = np.array([len(score.mse) for score in scores], np.float64)
    columns = {
        "psnr": [score.mse for score in scores],
        "psnr_frame": [score.psnr for score in scores],
        "ssim": [score.ssim for score in scores],
        "lpips": [score.lpips for score in scores if score.lpips is not None],
    }
    found: dict[str, Estimate] = {}
    for name in METRICS:
        sums = [float(column.sum()) for column in columns[name]]
        if sums and np.isfinite(sums).all():
            rows = np.stack([np.array(sums), weights], axis=1)
            found[name] = bootstrap(rows, _pooled_psnr if name == "psnr" else _weighted_mean)[0]
    return found


def _weighted_mean(rows: np.ndarray) -> np.ndarray:
    total, weight = rows.sum(0)
    return np.array([total / weight])


def _pooled_psnr(rows: np.ndarray) -> np.ndarray:
    return decibels(torch.from_numpy(_weighted_mean(rows))).numpy()
