"""Whether a predicted world does what the actions say: its error where the picture changes and, in games on a grid, its tiles.

PSNR hardly sees whether a small player took the step that was asked for: most pixels stand still. Here only those count that
change in truth from one frame to the next.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from reverie.data.errors import UserError

CHANGED = 8
"""A pixel has changed when a channel differs by more than this many of 255 levels; codecs flicker by less."""
SAME_TILE = 2e-3
"""Mean squared difference, of values in [0, 1], up to which two true tiles show the same thing."""
MOST_TILES = 1024
"""More different tiles than a game on a grid has."""


@dataclass(frozen=True)
class ChangeScores:
    """One value per frame, each of the leading shape of the frames compared, float64, on the CPU.

    error     squared error of values in [0, 1], summed over the pixels that change in truth
    motion    the same for the true frame before: what standing still would cost; 0 where nothing changes
    right     1 where every tile shows what it should, else 0; None where the game has no tiles
    changing  1 where a tile shows something else than in the true frame before, else 0; None with `right`
    """

    error: Tensor
    motion: Tensor
    right: Tensor | None
    changing: Tensor | None


class Tiles:
    """What the tiles of a game on a grid can show: (N, side, side, C) appearances found in true frames."""

    def __init__(self, appearances: Tensor):
        self.side = appearances.shape[1]
        self._flat = appearances.flatten(1).double() / 255

    def __len__(self) -> int:
        return len(self._flat)

    @classmethod
    def found_in(cls, frames: Tensor, side: int) -> "Tiles":
        """The different tiles of (..., H, W, C) uint8 frames; those within `SAME_TILE` of each other count as one.

        Raises `UserError` where `side` does not divide the frames or there are more than `MOST_TILES`.
        """
        require_whole_tiles(side, frames.shape[-3], frames.shape[-2])
        tiles = _cut(frames, side).flatten(0, -4)
        # The most frequent first: what a codec blurred joins what it blurred.
        different, counts = tiles.flatten(1).unique(dim=0, return_counts=True)
        found = different.new_zeros(0, different.shape[1])
        for tile in different[counts.argsort(descending=True, stable=True)]:
            gaps = ((found.float() - tile.float()) / 255).square().mean(1)
            if not len(found) or gaps.min() > SAME_TILE:
                found = torch.cat([found, tile[None]])
            if len(found) > MOST_TILES:
                raise UserError(
                    f"--tile {side}: the frames show more than {MOST_TILES} different tiles, so this is no game on a grid; "
                    f"leave --tile out."
                )
        return cls(found.unflatten(1, tiles.shape[1:]))

    def classes(self, frames: Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., rows, columns) int64: which appearance each tile is nearest to."""
        tiles = _cut(frames, self.side).flatten(-3).double() / 255
        return torch.cdist(tiles.flatten(0, -2), self._flat.to(tiles.device)).argmin(1).view(tiles.shape[:-1])


def require_whole_tiles(side: int, height: int, width: int) -> None:
    """Raises `UserError` unless tiles of `side` pixels fill frames of `height` x `width`."""
    if side < 1 or height % side or width % side:
        raise UserError(
            f"--tile {side}: does not divide frames of {height} x {width}; give the side of a tile in pixels."
        )


def change_scores(
    predicted: Tensor, truth: Tensor, before: Tensor, tiles: Tiles | None = None
) -> ChangeScores:
    """Compares (..., H, W, C) uint8 frames; `before` holds the true frame before each of `truth`."""
    changed = ((truth.int() - before.int()).abs() > CHANGED).any(-1, keepdim=True)
    error, motion = (
        (((x.double() - truth.double()) / 255).square() * changed).sum((-3, -2, -1)).cpu()
        for x in (predicted, before)
    )
    if tiles is None:
        return ChangeScores(error, motion, None, None)
    should, was, shown = (tiles.classes(x) for x in (truth, before, predicted))
    right, changing = (shown == should).all(-1).all(-1), (was != should).any(-1).any(-1)
    return ChangeScores(error, motion, right.double().cpu(), changing.double().cpu())


def _cut(frames: Tensor, side: int) -> Tensor:
    return rearrange(frames, "... (y p) (x q) c -> ... y x p q c", p=side, q=side)
