"""Do actions stand where the pictures answer them, or a frame early or late?

A change into a frame is predicted, by ridge regression, from the change before it and from the actions one frame early, in place
and one frame late, all together. What the prediction loses when one of the three is withheld is what that action alone explains;
an action that merely resembles its neighbours loses nothing. Losses are of frames that the regression has not seen, and are
compared over stretches of recordings, of which neighbouring frames are no independent evidence.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from reverie.data.actions import ActionSpace, Categorical, Continuous
from reverie.data.shards.motion import changes
from reverie.data.shards.steps import Steps

LAGS = (-1, 0, 1)
MOST_FRAMES = 20_000
"""Frames that are compared; of larger corpora clips spread over all of them."""
_STRETCH = 64
_FOLDS = 5
_RIDGE = 10.0
_MIN_STRETCHES = 12
_MIN_SHARE = 0.003
_MIN_SCORE = 5.0
_MOST_IN_PLACE = 0.5


class Verdict(Enum):
    """What the comparison says."""

    FITS = "fits"
    LATE = "late"
    EARLY = "early"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Evidence:
    """What actions explain of the changes of pictures, when moved by `LAGS` frames.

    frames     changes that were compared
    stretches  pieces of recordings, of up to 64 of them, that count as independent
    shares     (3,) share of the changes' variance that only the action of this lag explains
    leads      (3,) how far above 0 that share is, in standard errors over stretches
    rivals     (3,) the same of its difference to the share of lag 0
    """

    frames: int
    stretches: int
    shares: np.ndarray
    leads: np.ndarray
    rivals: np.ndarray

    @property
    def verdict(self) -> Verdict:
        """LATE or EARLY only on strong evidence.

        That is at least 12 stretches, a share of 0.003, 5 standard errors ahead of lag 0, which explains less than half as much.
        """
        best = int(np.argmax(self.shares))
        if self.stretches < _MIN_STRETCHES or self.shares[best] < _MIN_SHARE or self.leads[best] < _MIN_SCORE:
            return Verdict.UNCLEAR
        if LAGS[best] == 0:
            return Verdict.FITS
        in_place = self.shares[LAGS.index(0)]
        if self.rivals[best] < _MIN_SCORE or in_place > _MOST_IN_PLACE * self.shares[best]:
            return Verdict.UNCLEAR
        return Verdict.LATE if LAGS[best] > 0 else Verdict.EARLY


class Alignment:
    """Gathers clips, then compares.

    Args:
        space: of the logged actions.
        total_frames: of all clips that will be offered; where they are more than `most`, clips are taken evenly.
        most: frames to look at.
    """

    def __init__(self, space: ActionSpace, total_frames: int, most: int = MOST_FRAMES):
        self._space, self._share = space, most / max(1, total_frames)
        self._seen = self._taken = 0
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._stretches: list[int] = []

    def wants(self, n: int) -> bool:
        """Whether the next clip, of `n` frames, is to be added; to be asked once for each."""
        wanted = bool(self._space.components) and self._taken <= self._share * self._seen
        self._seen += n
        self._taken += n if wanted else 0
        return wanted

    def add(self, frames: np.ndarray, steps: Steps) -> None:
        """Takes a clip: frames (n, H, W, 3) uint8 or latents (n, N_z, D_z), and their log."""
        if len(frames) < 4:
            return
        actions, known = steps.actions_into(0, len(frames))
        change, action, known = changes(frames), _columns(actions, self._space)[1:], known[1:]
        at = np.arange(1, len(change) - 1)
        at = at[known[at - 1] & known[at] & known[at + 1]]
        for part in np.split(at, range(_STRETCH, len(at), _STRETCH)):
            if len(part):
                around = np.stack([action[part + lag] for lag in LAGS], axis=1)
                self._rows.append((change[part], change[part - 1], around))

    def evidence(self) -> Evidence | None:
        """The comparison; None without five stretches of known actions, and where no picture changes."""
        if len(self._rows) < _FOLDS:
            return None
        target, before, around = (np.concatenate(part) for part in zip(*self._rows))
        stretch = np.repeat(np.arange(len(self._rows)), [len(rows[0]) for rows in self._rows])
        target, before = _standard(target), _standard(before)
        if not target.shape[1]:  # still pictures
            return None
        actions = [_standard(around[:, i]) for i in range(len(LAGS))]
        complete = _losses(target, [before, *actions], stretch)
        lost = [
            np.bincount(
                stretch, _losses(target, [before, *actions[:i], *actions[i + 1 :]], stretch) - complete
            )
            for i in range(len(LAGS))
        ]
        return Evidence(
            frames=len(target),
            stretches=len(self._rows),
            shares=np.array([x.sum() / len(target) for x in lost]),
            leads=np.array([_score(x) for x in lost]),
            rivals=np.array([_score(x - lost[LAGS.index(0)]) for x in lost]),
        )


def _columns(actions: dict[str, np.ndarray], space: ActionSpace) -> np.ndarray:
    """(n, columns): classes one by one, keys, numbers and their sizes."""
    columns: list[np.ndarray] = []
    for name, component in space.components.items():
        values = actions[name].reshape(len(actions[name]), -1).astype(np.float64)
        if isinstance(component, Categorical):
            values = (values == np.arange(component.n)).astype(np.float64)
        columns += [values, np.abs(values)] if isinstance(component, Continuous) else [values]
    return np.concatenate(columns, axis=1)


def _standard(columns: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1; what never varies is left out."""
    spread = columns.std(0)
    return (columns - columns.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]


def _losses(target: np.ndarray, known: list[np.ndarray], stretch: np.ndarray) -> np.ndarray:
    """(n,) mean squared errors of ridge regressions that have not seen the stretch they are asked about."""
    design = np.concatenate([np.ones((len(target), 1)), *known], axis=1)
    losses = np.zeros(len(target))
    for fold in range(_FOLDS):
        asked = stretch % _FOLDS == fold
        seen, answer = design[~asked], target[~asked]
        weights = np.linalg.solve(seen.T @ seen + _RIDGE * np.eye(design.shape[1]), seen.T @ answer)
        losses[asked] = ((target[asked] - design[asked] @ weights) ** 2).mean(1)
    return losses


def _score(sums: np.ndarray) -> float:
    """A sum over stretches in its standard errors."""
    error = float(np.sqrt(((sums - sums.mean()) ** 2).sum() * len(sums) / (len(sums) - 1)))
    return float(sums.sum()) / error if error > 0 else 0.0
