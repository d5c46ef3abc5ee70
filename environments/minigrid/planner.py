"""A planner for rooms with a key, a locked door and a goal: breadth-first search over what actions change.

A state is the player's cell and direction, whether the key is in hand, and the door: locked, closed or open.
The shortest action sequence is kept and followed as long as nothing else happens.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from minigrid.core.constants import DIR_TO_VEC
from minigrid.core.world_object import Door, Goal, Key, Wall

from reverie.environments.minigrid.game import ACTIONS, MiniGridGame

Cell = tuple[int, int]
LEFT, RIGHT, FORWARD, PICKUP, TOGGLE, DONE = (
    ACTIONS.index(name) for name in ("left", "right", "forward", "pickup", "toggle", "done")
)
STEPS = [(int(x), int(y)) for x, y in DIR_TO_VEC]


class State(NamedTuple):
    """What actions change. `door`: "locked", "closed" or "open"."""

    cell: Cell
    direction: int
    has_key: bool
    door: str


class Room(NamedTuple):
    """What stays. A key in hand lies nowhere; a room without a door or key has None there."""

    walls: frozenset[Cell]
    goal: Cell
    key: Cell | None
    door: Cell | None


class Planner:
    """Proposes the first action of a shortest solution; `done` where there is none."""

    def __init__(self, game: MiniGridGame) -> None:
        self.game = game
        self._plan: deque[int] = deque()

    def act(self) -> int:
        """The next action."""
        if not self._plan:
            self._plan = deque(solve(*read(self.game)))
        return self._plan.popleft() if self._plan else DONE

    def disturbed(self) -> None:
        """Forgets the plan."""
        self._plan.clear()


def read(game: MiniGridGame) -> tuple[Room, State]:
    """The room and the state in which the game is now."""
    things = game.objects()
    door = next(((cell, thing) for cell, thing in things.items() if isinstance(thing, Door)), None)
    room = Room(
        walls=frozenset(cell for cell, thing in things.items() if isinstance(thing, Wall)),
        goal=next(cell for cell, thing in things.items() if isinstance(thing, Goal)),
        key=next((cell for cell, thing in things.items() if isinstance(thing, Key)), None),
        door=door[0] if door else None,
    )
    inner = game.inner
    state = State(
        cell=(int(inner.agent_pos[0]), int(inner.agent_pos[1])),
        direction=int(inner.agent_dir),
        has_key=isinstance(inner.carrying, Key),
        door=_door_state(door[1]) if door else "open",
    )
    return room, state


def solve(room: Room, start: State) -> list[int]:
    """The shortest list of actions from `start` onto the goal; empty when there is none."""
    came_from: dict[State, tuple[State, int]] = {}
    seen, queue = {start}, deque([start])
    while queue:
        state = queue.popleft()
        if state.cell == room.goal:
            return _backtrack(came_from, start, state)
        for action, after in _moves(room, state):
            if after not in seen:
                seen.add(after)
                came_from[after] = (state, action)
                queue.append(after)
    return []


def _moves(room: Room, state: State) -> Iterator[tuple[int, State]]:
    yield LEFT, state._replace(direction=(state.direction - 1) % 4)
    yield RIGHT, state._replace(direction=(state.direction + 1) % 4)
    step = STEPS[state.direction]
    ahead = (state.cell[0] + step[0], state.cell[1] + step[1])
    if ahead == room.key and not state.has_key:
        yield PICKUP, state._replace(has_key=True)
    elif ahead == room.door and state.door != "open":
        if state.door == "closed" or state.has_key:
            yield TOGGLE, state._replace(door="open")
    elif ahead not in room.walls:
        yield FORWARD, state._replace(cell=ahead)


def _backtrack(came_from: dict[State, tuple[State, int]], start: State, state: State) -> list[int]:
    actions: list[int] = []
    while state != start:
        state, action = came_from[state]
        actions.append(action)
    return actions[::-1]


def _door_state(door: Door) -> str:
    if door.is_open:
        return "open"
    return "locked" if door.is_locked else "closed"
