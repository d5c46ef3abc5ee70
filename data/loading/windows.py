"""Windows to rows of a `Batch`: frames or latents, shifted actions, rewards, flags."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.loading.streams import NO_TASK, RETURN_TASK, Piece
from reverie.data.shards.index import Episode, Sample
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.steps import Steps

Row = dict[str, np.ndarray]
"""Fields of one row: `action/<component>` (T, ...) and the fields of `Batch`, each (T, ...)."""


@dataclass(frozen=True)
class _Part:
    """The frames of a piece that lie in one clip."""

    sample: Sample
    start: int
    stop: int


class RowReader:
    """Assembles rows.

    Args:
        reader: of video or latent shards.
        episodes: what `Piece.episode` numbers.
        hidden: numbers of the episodes whose actions, rewards and events are treated as unknown.
        space: components of the rows' actions.
        knows_all_actions: whether the shards log all of `space`; if not, all actions count as unknown.
        task_numbers: task of a piece -> its number in the rows; without `NO_TASK`.
    """

    def __init__(
        self,
        reader: ShardReader,
        episodes: Sequence[Episode],
        hidden: frozenset[int],
        *,
        space: ActionSpace,
        knows_all_actions: bool,
        task_numbers: Mapping[int, int],
    ):
        self._reader, self._episodes, self._hidden = reader, episodes, hidden
        self._space, self._knows_all_actions = space, knows_all_actions
        self._task_numbers = {**task_numbers, NO_TASK: NO_TASK}
        self._visual = "frames" if reader.index.latent_shape is None else "latents"

    def row(self, pieces: Sequence[Piece]) -> Row:
        """All fields of a window. Raises `BrokenSample`."""
        fields: list[Row] = []
        for segment, piece in enumerate(pieces):
            for part in self._parts(piece):
                fields.append(self._part(part, piece, segment))
        if len(fields) == 1:
            return fields[0]
        return {name: np.concatenate([field[name] for field in fields]) for name in fields[0]}

    def key(self, pieces: Sequence[Piece]) -> str:
        """Where the row starts: episode and frame."""
        part = next(iter(self._parts(pieces[0])))
        return f"{part.sample.episode}:{part.sample.start + part.start}"

    def _parts(self, piece: Piece) -> list[_Part]:
        episode, parts, position = self._episodes[piece.episode], [], piece.start
        number = bisect_right(episode.starts, position) - 1
        while position < piece.start + piece.n:
            begin, end = episode.starts[number : number + 2]
            stop = min(piece.start + piece.n, end)
            parts.append(_Part(episode.samples[number], position - begin, stop - begin))
            position, number = stop, number + 1
        return parts

    def _part(self, part: _Part, piece: Piece, segment: int) -> Row:
        steps, n = self._reader.steps(part.sample), part.stop - part.start
        if piece.episode in self._hidden:
            steps = self._unknown(len(steps))
        if self._knows_all_actions:
            actions, action_mask = steps.actions_into(part.start, part.stop)
        else:
            actions, action_mask = self._space.null_numpy(n), np.zeros(n, np.bool_)
        reward, reward_mask = task_reward(steps.cut(part.start, part.stop), piece.task)
        return {
            self._visual: self._pixels(part),
            **{f"action/{name}": value for name, value in actions.items()},
            "action_mask": action_mask,
            "reward": reward,
            "reward_mask": reward_mask,
            **_flags(part),
            "task": np.full(n, self._task_numbers[piece.task], np.int64),
            "segment": np.full(n, segment, np.int64),
        }

    def _pixels(self, part: _Part) -> np.ndarray:
        if self._visual == "frames":
            return self._reader.frames(part.sample, part.start, part.stop)
        return self._reader.latents(part.sample, part.start, part.stop).astype(np.float32)

    def _unknown(self, n: int) -> Steps:
        return Steps.unknown(n, self._reader.index.action_space, len(self._reader.index.tasks))


def task_reward(steps: Steps, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (n,) and whether they are known: of the task, 1 when it was accomplished; as recorded for the return and none."""
    if task in (NO_TASK, RETURN_TASK):
        return steps.reward, steps.reward_mask
    return steps.events[:, task].astype(np.float32), np.ones(len(steps), np.bool_)


def _flags(part: _Part) -> Row:
    flags = {
        name: np.zeros(part.stop - part.start, np.bool_) for name in ("is_first", "is_last", "is_terminal")
    }
    flags["is_first"][0] = part.sample.is_first and part.start == 0
    at_end = part.stop == part.sample.n
    flags["is_last"][-1] = part.sample.is_last and at_end
    flags["is_terminal"][-1] = part.sample.is_terminal and at_end
    return flags
