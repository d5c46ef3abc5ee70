"""Numbers that say how a picture changed into the next one: how much, where to, and which way it turned.

They are few, need no training, and mean the same in every game, so that they can be compared with logged actions.
"""

import numpy as np
from einops import rearrange

SIDE = 32
"""Pictures are looked at in grey, in about this many cells a side."""
DISPLACEMENTS = (1, 2, 4)
"""Cells by which the picture before is moved to meet the next one."""
_PROJECTIONS = 16
_SMALL = 1e-3


def changes(frames: np.ndarray) -> np.ndarray:
    """How each frame differs from the one before.

    Args:
        frames: (n, H, W, 3) uint8, or latents (n, N_z, D_z); n >= 2.

    Returns:
        (n - 1, F) float64; row i belongs to frame i + 1.
    """
    if frames.ndim == 3:
        return _latent_changes(
            rearrange(frames.astype(np.float64), "n tokens channels -> n (tokens channels)")
        )
    grey = _grey(frames)
    before, after = grey[:-1], grey[1:]
    if min(grey.shape[1:]) < 3:  # too small to move in
        return _amounts(before, after)
    return np.concatenate([_amounts(before, after), _shifts(before, after), _flow(before, after)], axis=1)


def _grey(frames: np.ndarray) -> np.ndarray:
    """(n, h, w) in [0, 1], cells of whole pixels, at least SIDE and less than 2 SIDE of them where there are that many."""
    ph, pw = (max(1, size // SIDE) for size in frames.shape[1:3])
    whole = frames[:, : frames.shape[1] // ph * ph, : frames.shape[2] // pw * pw]
    cells = rearrange(whole, "n (h ph) (w pw) c -> n h w (ph pw c)", ph=ph, pw=pw)
    return np.asarray(cells.mean(-1, dtype=np.float32), np.float64) / 255


def _amounts(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Logarithms of the mean change and of the share of cells that change, overall and in each ninth of the picture."""
    change = np.abs(after - before)
    rows = np.array_split(np.arange(change.shape[1]), 3)
    columns = np.array_split(np.arange(change.shape[2]), 3)
    ninths = [change[:, r][:, :, c].mean((1, 2)) for r in rows for c in columns if len(r) and len(c)]
    overall = [change.mean((1, 2)), (change > 0.02).mean((1, 2)), (after - before).mean((1, 2)) ** 2]
    return np.log(np.stack([*overall, *ninths], axis=1) + _SMALL)


def _shifts(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """For each displacement and axis: by how much moving the picture forth explains the next one better than moving it back."""
    return np.stack(
        [
            _preference(before, after, axis, by)
            for axis in (1, 2)
            for by in DISPLACEMENTS
            if by < before.shape[axis]
        ],
        axis=1,
    )


def _preference(before: np.ndarray, after: np.ndarray, axis: int, by: int) -> np.ndarray:
    """(n,) in [-1, 1]: 1 where the content moved by `by` cells towards higher indices."""
    n = before.shape[axis]

    def cut(x: np.ndarray, start: int, stop: int) -> np.ndarray:
        return x[:, start:stop] if axis == 1 else x[:, :, start:stop]

    forth = np.abs(cut(after, by, n) - cut(before, 0, n - by)).mean((1, 2))
    back = np.abs(cut(after, 0, n - by) - cut(before, by, n)).mean((1, 2))
    preference: np.ndarray = (back - forth) / (back + forth + _SMALL)
    return preference


def _flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Translation, growth and turn (n, 4) of the picture that explain its change best: least squares on the gradient.

    after - before = -(g_y (v_y + growth y - turn x) + g_x (v_x + growth x + turn y)), y and x from the middle.
    """
    gy, gx = np.gradient((before + after) / 2, axis=(1, 2))
    y, x = (np.linspace(-1, 1, size) for size in before.shape[1:])
    y, x = y[:, None], x[None]
    design = rearrange([gy, gx, gy * y + gx * x, gx * y - gy * x], "k n h w -> n (h w) k")
    target = rearrange(before - after, "n h w -> n (h w) 1")
    gram = np.swapaxes(design, 1, 2) @ design + _SMALL * np.eye(4)
    return np.linalg.solve(gram, np.swapaxes(design, 1, 2) @ target)[..., 0]


def _latent_changes(latents: np.ndarray) -> np.ndarray:
    """Of latents: the amount of change, and the change along fixed random directions."""
    change = np.diff(latents, axis=0)
    directions = np.random.default_rng(0).standard_normal((change.shape[1], _PROJECTIONS))
    amount = np.log(np.abs(change).mean(1, keepdims=True) + _SMALL)
    return np.concatenate([amount, change @ directions / np.sqrt(change.shape[1])], axis=1)
