"""Long rollouts: the measures are what they say, held-out video does not drift, and freezing and exploding are told."""

import numpy as np
import pytest
import torch

from reverie.evaluation.drift import MEASURES, Block, Drift, drift

from .test_rollouts import CONTEXT, make_windows, moving
from .test_trust import dynamics, tokenizer  # noqa: F401


def filled(latents: torch.Tensor, frames: torch.Tensor) -> Block:
    """Of (T, B, N, D) latents and (T, B, H, W, 3) frames."""
    block = Block()
    for t, (z, x) in enumerate(zip(latents, frames, strict=True)):
        block.add(z, x, frames[t - 1] if t else None)
    return block


def test_measures_against_numpy() -> None:
    rng = np.random.default_rng(0)
    z, x = rng.normal(1, 2, (6, 3, 2, 4)), rng.integers(0, 256, (6, 3, 8, 10, 3)).astype(np.uint8)
    other = rng.normal(0, 1, (6, 3, 2, 4))
    found = filled(torch.tensor(z), torch.tensor(x)).measures(filled(torch.tensor(other), torch.tensor(x)))
    a, b, y = z.reshape(18, 8), other.reshape(18, 8), x / 255.0
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum() + ((a.std(0) - b.std(0)) ** 2).sum()
    assert found["distance"] == pytest.approx(gap / b.var(0).sum())
    gradient = np.abs(np.diff(y, axis=2)).mean() + np.abs(np.diff(y, axis=3)).mean()
    assert found["sharpness"] == pytest.approx(gradient, rel=1e-5)
    assert found["motion"] == pytest.approx(np.abs(np.diff(y, axis=0)).mean(), rel=1e-5)
    assert found["spread"] == pytest.approx(y.std(1).mean(), rel=1e-5)


def test_the_same_frames_have_no_distance() -> None:
    z, x = torch.randn(4, 3, 2, 4), torch.randint(256, (4, 3, 8, 8, 3), dtype=torch.uint8)
    assert filled(z, x).measures(filled(z, x))["distance"] == pytest.approx(0, abs=1e-9)


def curve(**changes: float) -> Drift:
    """Of a world that is like held-out video but for the measures given, in its second half."""
    level = {"distance": 0.1, "sharpness": 0.2, "motion": 0.05, "spread": 0.3}
    curves = {name: [level[name]] * 20 + [changes.get(name, level[name])] * 20 for name in MEASURES}
    return Drift(4, 400, list(range(40)), curves, level, finite=True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "stays"),
        ({"distance": 20.0}, "leaves"),
        ({"motion": 0.001}, "freezes"),
        ({"sharpness": 0.05}, "blurs"),
        ({"spread": 0.001}, "same picture"),
    ],
)
def test_the_verdict_names_what_happened(change: dict[str, float], word: str) -> None:
    assert word in curve(**change).verdict


def test_a_long_rollout_is_measured_block_by_block(tokenizer, dynamics) -> None:  # noqa: F811  # type: ignore[no-untyped-def]
    windows = make_windows(moving())
    seen: list[int] = []
    found = drift(
        tokenizer,
        dynamics,
        windows,
        context=CONTEXT,
        length=90,
        videos=2,
        sampling_steps=1,
        finished=seen.append,
    )
    assert sum(seen) == 90 and len(found.frames) == 40 and found.frames == sorted(found.frames)
    assert all(len(found.curves[name]) == 40 and np.isfinite(found.curves[name]).all() for name in MEASURES)
    assert found.held_out["motion"] > 0.2, "noise moves everywhere"
    again = drift(tokenizer, dynamics, windows, context=CONTEXT, length=90, videos=2, sampling_steps=1)
    assert again == found
