"""Segments of one VPT session, joined into one episode where they follow each other without a gap.

The recorder begins a new file every five minutes, and some files are missing. Two segments follow each other if the
clocks say so: `serverTick` and `milli`, those of them that both lines have, go on by at most 3 ticks from the last line of
one to the first line of the next, and no statistic falls. Without a clock, or where one line alone has statistics, nothing
is joined.

Segments are converted one by one and know nothing of each other. What crosses the border is decided when all are
converted, and put into their clips on the way into the shards: a segment that could not be used just splits an episode.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from reverie.data.files.durable import canonical_json
from reverie.data.shards.steps import Steps
from reverie.data.sources.vpt.dimensions import NETHER_END
from reverie.data.sources.vpt.minecraft import KEYS, SPACE
from reverie.data.sources.vpt.tasks import risen, task_events

MAX_TICKS = 3
"""Most ticks, of 50 ms, from the last line of a segment to the first line of the next."""
_TICK_MILLISECONDS = 50
_LARGEST = 1 << 62

Action = dict[str, Any]
"""Component -> a number or a list of numbers."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one line says about when it was recorded; None where it does not."""

    server_tick: int | None
    milli: float | None
    hotbar: int | None
    stats: dict[str, Any] | None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Tick":
        """Of a line of the log, {} for a damaged one."""
        slot, stats = line.get("hotbar"), line.get("stats")
        return cls(
            server_tick=_number(line.get("serverTick")),
            milli=_number(line.get("milli")),
            hotbar=slot if isinstance(slot, int) and 0 <= slot <= 8 else None,
            stats=stats if isinstance(stats, dict) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Both ends of a segment's log, and the action taken at its last frame, None where that is unknown."""

    first: Tick
    last: Tick
    action: Action | None

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Edges":
        """Inverse of `to_json`."""
        return cls(first=Tick(**data["first"]), last=Tick(**data["last"]), action=data["action"])


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A converted segment: the episode it would be alone, its frames, its group (`Sample.group`) and its edges."""

    episode: str
    frames: int
    group: str | None
    edges: Edges


@dataclass(frozen=True, kw_only=True)
class Join:
    """What a segment of a joined episode has to change in its clips.

    episode       the name of all, that of the first segment
    start         frames of the segments before
    group         of all
    follows       there is a segment before; the next three speak of the border to it
    action_before the action that led to the first frame, None if unknown
    events        task numbers accomplished on arriving at the first frame
    hotbar        the key of the slot that differs from the one before; None if none does
    is_followed   there is a segment after
    action        the action taken at the last frame, None if unknown
    """

    episode: str
    start: int
    group: str | None
    follows: bool
    action_before: Action | None
    events: list[int]
    hotbar: str | None
    is_followed: bool
    action: Action | None


def continues(before: Edges, after: Edges) -> bool:
    """The segment of `after` begins where that of `before` ends."""
    last, first = before.last, after.first
    clocks = [(last.server_tick, first.server_tick, 1), (last.milli, first.milli, _TICK_MILLISECONDS)]
    steps = [(b - a) / unit for a, b, unit in clocks if a is not None and b is not None]
    # One server tick may last for two lines, but time always goes on.
    go_on = bool(steps) and all(0 <= step <= MAX_TICKS for step in steps) and any(steps)
    return go_on and _have_grown(last.stats, first.stats)


def join(segments: Sequence[Segment]) -> list[Join | None]:
    """For each segment of one session, in order of time, what to change; None where it is an episode of its own."""
    follows = [False] + [continues(a.edges, b.edges) for a, b in pairwise(segments)]
    starts = [number for number, joined in enumerate(follows) if not joined]
    joins: list[Join | None] = []
    for start, stop in pairwise([*starts, len(segments)]):
        chain = segments[start:stop]
        joins += _join_chain(chain) if len(chain) > 1 else [None]
    return joins


def joined_clip(
    members: Mapping[str, bytes], entry: Mapping[str, Any], change: Join
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members and index entry of a clip of a segment, as part of the joined episode."""
    steps = deepcopy(Steps.from_npz(members["steps.npz"]))  # what comes from a file is read-only
    if change.follows and entry["start"] == 0:
        steps = _with_border(steps, change)
    if change.is_followed and entry["is_last"]:
        steps = _with_last_action(steps, change.action)
    changed = {
        "episode": change.episode,
        "start": change.start + entry["start"],
        "is_first": entry["is_first"] and not change.follows,
        "is_last": entry["is_last"] and not change.is_followed,
        "labelled": bool(steps.action_mask.any() or steps.action_mask_before),
        "events": None if entry["events"] is None else np.argwhere(steps.events).tolist(),
        "group": change.group,
    }
    meta = canonical_json({**json.loads(members["meta.json"]), **changed})
    return {**members, "steps.npz": steps.to_npz(), "meta.json": meta}, {**entry, **changed}


def _join_chain(chain: Sequence[Segment]) -> list[Join | None]:
    group = NETHER_END if any(segment.group == NETHER_END for segment in chain) else chain[0].group
    joins: list[Join | None] = []
    start = 0
    for number, segment in enumerate(chain):
        follows, is_followed = number > 0, number < len(chain) - 1
        last = chain[number - 1].edges.last if follows else None
        joins.append(
            Join(
                episode=chain[0].episode,
                start=start,
                group=group,
                follows=follows,
                action_before=chain[number - 1].edges.action if follows else None,
                events=_border_events(last, segment.edges.first),
                hotbar=_pressed_slot(last, segment.edges.first),
                is_followed=is_followed,
                action=segment.edges.action if is_followed else None,
            )
        )
        start += segment.frames
    return joins


def _border_events(last: Tick | None, first: Tick) -> list[int]:
    """Tasks whose statistics rose between two segments."""
    if last is None or last.stats is None:
        return []
    return np.flatnonzero(task_events(risen([last.stats, first.stats]))[1]).tolist()


def _pressed_slot(last: Tick | None, first: Tick) -> str | None:
    """The hotbar key that a changed slot stands for, as within a segment."""
    if last is None or None in (last.hotbar, first.hotbar) or last.hotbar == first.hotbar:
        return None
    assert first.hotbar is not None
    return f"hotbar.{first.hotbar + 1}"


def _with_border(steps: Steps, change: Join) -> Steps:
    """The first row as the one after another segment's last; changes `steps`."""
    steps.events[0, change.events] = 1
    steps.reward[0] = len(change.events)
    if change.hotbar is not None and steps.action_mask[0]:
        steps.actions["keys"][0, KEYS.index(change.hotbar)] = True
    if change.action_before is None:
        return steps
    known = np.ones((), np.bool_)
    return replace(steps, action_before=_arrays(change.action_before), action_mask_before=known)


def _with_last_action(steps: Steps, action: Action | None) -> Steps:
    """The last row with its action, which the next segment shows the effect of."""
    if action is not None:
        for name, value in _arrays(action).items():
            steps.actions[name][-1] = value
        steps.action_mask[-1] = True
    return steps


def _arrays(action: Action) -> dict[str, np.ndarray]:
    return {name: np.asarray(action[name], null.dtype) for name, null in SPACE.null_numpy().items()}


def _number(value: Any) -> Any:
    """`value` if it is a number that a clock can show."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < _LARGEST else None


def _have_grown(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> bool:
    """Counts of one world never fall."""
    if before is None or after is None:
        return before is after
    counts = [(count, after.get(name, 0)) for name, count in before.items() if isinstance(count, int | float)]
    return all(isinstance(now, int | float) and now >= count for count, now in counts)
