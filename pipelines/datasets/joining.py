"""Which staged sources are segments of one episode."""

from collections.abc import Mapping
from typing import Any

from reverie.data.sources.source import Source
from reverie.data.sources.vpt.segments import Edges, Join, Segment, join


def find_joins(staged: Mapping[Source, Mapping[str, Any]]) -> dict[Source, Join]:
    """What to change in the clips of VPT segments that continue each other; `staged`: source -> summary of `stage`."""
    sessions: dict[str, list[Source]] = {}
    for source in sorted(
        staged, key=lambda s: (s.video.stem, s.name)
    ):  # a session's stems end in date and time
        if source.session is not None and staged[source]["edges"] is not None:
            sessions.setdefault(source.session, []).append(source)
    found: dict[Source, Join] = {}
    for sources in sessions.values():
        changes = join([_segment(source, staged[source]) for source in sources])
        found |= {source: change for source, change in zip(sources, changes) if change is not None}
    return found


def _segment(source: Source, summary: Mapping[str, Any]) -> Segment:
    return Segment(
        episode=source.episode,
        frames=summary["frames"],
        group=summary["group"],
        edges=Edges.from_json(summary["edges"]),
    )
