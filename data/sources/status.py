"""What a game like Minecraft says of its player beside pictures; the log of a recorded episode keeps it frame by frame.

Names and units are Minecraft's, as in VPT's recordings (`data.sources.vpt.writer`).
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Inventory = tuple[tuple[str, int], ...]
_PREFIX = "status/"
_COLUMNS = 10
"""Numbers in `PlayerStatus.row`."""


@dataclass(frozen=True, kw_only=True)
class PlayerStatus:
    """Where the player is and what it has open.

    position      (x, y, z) in blocks: east, up, south
    view          (yaw, pitch) in degrees: clockwise from south, downwards
    slot          of the hotbar, 0 to 8
    cursor        (x, y) on a screen of 1280 x 720 pixels; its middle without an open screen
    in_gui        a screen with a cursor is open; in_inventory: it is the inventory
    """

    position: tuple[float, float, float]
    view: tuple[float, float]
    slot: int
    cursor: tuple[float, float]
    in_gui: bool
    in_inventory: bool

    def row(self) -> list[float]:
        """All of it as numbers."""
        return [*self.position, *self.view, self.slot, *self.cursor, self.in_gui, self.in_inventory]

    @classmethod
    def of_row(cls, row: Sequence[float]) -> "PlayerStatus":
        """Inverse of `row`."""
        x, y, z, yaw, pitch, slot, cursor_x, cursor_y, in_gui, in_inventory = row
        return cls(
            position=(x, y, z),
            view=(yaw, pitch),
            slot=int(slot),
            cursor=(cursor_x, cursor_y),
            in_gui=bool(in_gui),
            in_inventory=bool(in_inventory),
        )


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the game says at one frame; None: nothing.

    stats      `kind:item` -> how often since the episode began
    inventory  (item, number) of all slots that hold something
    """

    stats: Mapping[str, int]
    player: PlayerStatus | None = None
    inventory: Inventory | None = None


class StatusLog:
    """The statuses of an episode of N frames. Holds what changes, for counts and inventories change rarely."""

    def __init__(self) -> None:
        self._frames = 0
        self._numbers: dict[str, int] = {}  # statistic -> its number
        self._counts: list[tuple[int, int, int]] = []  # frame, number of the statistic, its new count
        self._players = array("d")  # `_COLUMNS` numbers a frame
        self._inventories: list[tuple[int, str]] = []  # frame, as JSON
        self._stats: dict[str, int] = {}

    def __len__(self) -> int:
        return self._frames

    def add(self, status: Status) -> None:
        """Notes what is said at the next frame. All or none of an episode tell the player and the inventory."""
        for name, total in status.stats.items():
            if self._stats.get(name, 0) != total:
                number = self._numbers.setdefault(name, len(self._numbers))
                self._counts.append((self._frames, number, total))
                self._stats[name] = total
        if status.player is not None:
            self._players.extend(status.player.row())
        if status.inventory is not None:
            text = json.dumps(status.inventory)
            if not self._inventories or self._inventories[-1][1] != text:
                self._inventories.append((self._frames, text))
        self._frames += 1

    def __iter__(self) -> Iterator[Status]:
        stats: dict[str, int] = {}
        inventory: Inventory | None = None
        names, counts, inventories = list(self._numbers), iter(self._counts), iter(self._inventories)
        count, change = next(counts, None), next(inventories, None)
        for frame in range(self._frames):
            if count is not None and count[0] == frame:
                stats = dict(stats)
            while count is not None and count[0] == frame:
                stats[names[count[1]]] = count[2]
                count = next(counts, None)
            if change is not None and change[0] == frame:
                inventory = tuple((item, number) for item, number in json.loads(change[1]))
                change = next(inventories, None)
            row = self._players[frame * _COLUMNS : (frame + 1) * _COLUMNS]
            player = PlayerStatus.of_row(row) if row else None
            yield Status(stats=stats, player=player, inventory=inventory)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields of an episode's log, which `of_arrays` reads."""
        fields = {
            "frames": np.int64(self._frames),
            "names": np.array(list(self._numbers), np.str_),
            "counts": np.array(self._counts, np.int64).reshape(-1, 3),
            "players": np.array(self._players, np.float64).reshape(-1, _COLUMNS),
            "inventory_frames": np.array([frame for frame, _ in self._inventories], np.int64),
            "inventories": np.array([text for _, text in self._inventories], np.str_),
        }
        return {f"{_PREFIX}{name}": np.asarray(value) for name, value in fields.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "StatusLog | None":
        """Inverse of `arrays`; None where there are none. Raises `KeyError` or `ValueError` for damaged ones."""
        fields = {
            name.removeprefix(_PREFIX): value for name, value in arrays.items() if name.startswith(_PREFIX)
        }
        if not fields:
            return None
        log = cls()
        log._frames = int(fields["frames"])
        log._numbers = {str(name): number for number, name in enumerate(fields["names"])}
        log._counts = [(frame, number, total) for frame, number, total in fields["counts"].tolist()]
        log._players = array("d", fields["players"].ravel().tolist())
        texts = fields["inventories"].tolist()
        log._inventories = list(zip(fields["inventory_frames"].tolist(), texts, strict=True))
        if any(number >= len(log._numbers) for _, number, _ in log._counts):
            raise ValueError("counts of a statistic without a name")
        if log._players and len(log._players) != log._frames * _COLUMNS:
            raise ValueError(f"{len(log._players)} numbers of players for {log._frames} frames")
        return log
