"""A bounded number of places, one for each visitor; who loses the connection finds the dream again for a while."""

import contextlib
import secrets
import time
from dataclasses import dataclass

from reverie.data.errors import UserError
from reverie.pipelines.interactive.house import House
from reverie.pipelines.interactive.visitor import Visitor

GRACE = 20.0
"""Seconds for which a place is kept after a connection broke; a page that is closed gives its place back at once."""


@dataclass
class Place:
    """A visitor's place. `key` finds it again; `left`: when its connection broke, None while there is one."""

    key: str
    visitor: Visitor
    left: float | None = None


class Places:
    """At most `most` visitors at a time, in `house`; used from one event loop."""

    def __init__(self, house: House, most: int, grace: float = GRACE) -> None:
        self._house, self._most, self._grace = house, most, grace
        self._taken: dict[str, Place] = {}
        self._came = 0

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return len(self._taken)

    async def take(self, key: str | None) -> Place | None:
        """The place that `key` belongs to, or a free one, its first dream begun; None when all are taken."""
        await self.clear()
        known = self._taken.get(key or "")
        if known is not None and known.left is not None:
            known.left = None
            return known
        if len(self._taken) >= self._most:
            return None
        place = Place(secrets.token_urlsafe(16), Visitor(self._house, self._came))
        self._came += 1
        self._taken[place.key] = place
        try:
            await place.visitor.enter()
        except BaseException:
            del self._taken[place.key]
            raise
        return place

    async def leave(self, place: Place, *, for_good: bool) -> None:
        """The connection has ended; the place is kept for a while, unless it is given up `for_good`."""
        place.left = time.monotonic()
        if for_good:
            await self._free(place)

    async def clear(self) -> None:
        """Frees the places whose visitors did not come back."""
        now = time.monotonic()
        for place in list(self._taken.values()):
            if place.left is not None and now - place.left > self._grace:
                await self._free(place)

    async def close(self) -> None:
        """Ends all visits."""
        for place in list(self._taken.values()):
            await self._free(place)

    async def _free(self, place: Place) -> None:
        if self._taken.pop(place.key, None) is not None:
            with contextlib.suppress(UserError):  # nobody is left to hear of it
                await place.visitor.leave()
