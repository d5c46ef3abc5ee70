"""The stretches of a video that become episodes, and the account of what was left out between them.

A video is one episode as long as nothing is missing in it. A gap in time and a damaged stretch end an episode; what
follows is the next, whose name has the number of its first frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reverie.data.actions import ActionSpace
from reverie.data.shards.steps import Steps
from reverie.data.sources.clips import StoredClip
from reverie.data.sources.source import Source
from reverie.data.video.shown import Frames, Shown
from reverie.data.video.source import VideoError
from reverie.data.video.times import Rhythm, on_screen, parts

_MOST_LISTED = 5


@dataclass(frozen=True)
class EpisodePart:
    """Stored frames that follow each other without a gap.

    name         of the episode
    first, n     rows of the source's steps that belong to it: the first, and how many
    ends_source  its last frame is the last of the source
    """

    name: str
    first: int
    n: int
    ends_source: bool

    def steps(self, of_source: Steps, space: ActionSpace) -> Steps:
        """Its rows. What was done at the border to a missing frame led nowhere, so it counts as unknown."""
        if self.first == 0 and self.n == len(of_source):
            return of_source
        rows = of_source.cut(self.first, self.first + self.n)
        rows = replace(rows, action_before=space.null_numpy(), action_mask_before=np.zeros((), np.bool_))
        return rows if self.ends_source else _without_last_action(rows, space)


class Tally:
    """Counts what the video at `path` shows while it goes by, and what is left out of it."""

    def __init__(self, path: Path) -> None:
        self.total = 0
        self._path = path
        self._good, self._kept, self._num_parts = 0, 0, 0
        self._bad: list[tuple[int, int]] = []
        self._gaps: list[float] = []

    def moments(self, frames: Frames, rhythm: Rhythm, fps: float | None) -> Iterator[tuple[int, Shown]]:
        """(part, frame) of each frame to be stored: at `fps`, or each good frame once where that is None."""
        good = self._watched(parts(self._counted(frames), rhythm))
        last = None
        for part, shown in good if fps is None else on_screen(good, rhythm, fps):
            self._kept += shown is not last
            last = shown
            yield part, shown
        self._miss(frames.total)
        self.total = frames.total

    def require_some(self) -> None:
        """Raises `VideoError` when nothing is left."""
        if not self._good:
            raise VideoError(
                f"{self._path}: none of its frames can be decoded; remove it or record it again."
            )

    def notes(self, rhythm: Rhythm, fps: float, has_log: bool) -> list[str]:
        """Sentences for the user: damage, gaps, and how a variable rate was stored. Empty where all was stored as it was."""
        notes = []
        if self._bad:
            count = sum(stop - start for start, stop in self._bad)
            notes.append(
                f"{count} of {self.total} frames are damaged, or follow damage before the next keyframe "
                f"({_listed(self._bad)}), and are left out"
            )
        if self._gaps:
            notes.append(f"time stands still {len(self._gaps)} times, for {max(self._gaps):.0f} s at most")
        if self._num_parts > 1:
            notes.append(f"stored as {self._num_parts} episodes")
        if not rhythm.is_steady and not has_log:
            share = 100 * self._kept / max(self._good, 1)
            notes.append(
                f"has a variable rate ({rhythm.fps:.4g} Hz on average): stored at {fps:g} Hz, "
                f"which keeps {_percent(share)} of its frames"
            )
        return notes

    def _counted(self, frames: Iterable[Shown]) -> Iterator[Shown]:
        for shown in frames:
            self._miss(shown.place)
            self.total = shown.place + 1
            if shown.is_good:
                self._good += 1
            else:
                self._note_bad(shown.place, shown.place + 1)
            yield shown

    def _watched(self, good: Iterable[tuple[int, Shown]]) -> Iterator[tuple[int, Shown]]:
        before, last = None, 0
        for part, shown in good:
            self._num_parts = part + 1
            if before is not None and part != last and shown.place == before.place + 1:
                assert shown.seconds is not None and before.seconds is not None
                self._gaps.append(max(0.0, shown.seconds - before.seconds))
            before, last = shown, part
            yield part, shown

    def _miss(self, place: int) -> None:
        """Frames between the last one and `place` never came."""
        if place > self.total:
            self._note_bad(self.total, place)

    def _note_bad(self, start: int, stop: int) -> None:
        if self._bad and self._bad[-1][1] == start:
            start = self._bad.pop()[0]
        self._bad.append((start, stop))


def episode_parts(
    source: Source, clips: Iterable[StoredClip], total: int, *, has_log: bool
) -> list[EpisodePart]:
    """The episodes that `clips` of a source with `total` frames form, in their order."""
    groups: dict[int, list[StoredClip]] = {}
    for clip in clips:
        groups.setdefault(clip.part, []).append(clip)
    found = []
    for group in groups.values():
        place, n = group[0].place, sum(clip.n for clip in group)
        name = source.episode if len(groups) == 1 else f"{source.episode}@{place:08d}"
        first = place if has_log else group[0].start
        found.append(EpisodePart(name, first, n, ends_source=not has_log or first + n == total))
    return found


def _without_last_action(steps: Steps, space: ActionSpace) -> Steps:
    mask = steps.action_mask.copy()
    mask[-1] = False
    null = space.null_numpy()
    actions = {
        name: np.concatenate([value[:-1], null[name][None].astype(value.dtype)])
        for name, value in steps.actions.items()
    }
    return replace(steps, actions=actions, action_mask=mask)


def _listed(stretches: list[tuple[int, int]]) -> str:
    texts = [
        f"frame {start}" if stop == start + 1 else f"frames {start} to {stop - 1}"
        for start, stop in stretches[:_MOST_LISTED]
    ]
    more = len(stretches) - _MOST_LISTED
    return ", ".join(texts) + (f" and {more} more stretches" if more > 0 else "")


def _percent(share: float) -> str:
    """Never 100 % where something is missing."""
    return "100 %" if share == 100 else f"{min(share, 99.9):.1f} %"
