"""What the arrays of one episode mean: which are pictures, actions, rewards and ends, and at which frame each row stands.

Three conventions are in use, for n pictures, numbered from 0:

    taken    n actions, n rewards   row i: the action taken at picture i, and the reward that it brought
    between  n - 1 of both          the same; the last picture is what the last action led to
    led to   n actions, n rewards   row i: the action that LED TO picture i, and the reward on arriving there (Dreamer)

`Steps` stores an action at the frame at which it was taken, a reward at the frame on whose arrival it came.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reverie.data.errors import UserError
from reverie.data.sources.arrays.columns import Columns, require_sane
from reverie.data.sources.layout import Layout

_ACTION = ("action", "actions")
_REWARD = ("reward", "rewards")
_TERMINAL = ("is_terminal", "terminals", "terminal", "terminations", "dones", "done")
_DISCOUNT = ("discount", "discounts")
_NEXT = "next_"
Fields = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Names of arrays.

    pictures  of the episode
    action    component -> array
    reward    None where rewards are unknown, as with `terminal`
    terminal  1 where the episode ended for good
    discount  0 where it did, without `terminal`
    led_to    rows hold the action that led to their picture
    """

    pictures: str
    action: dict[str, str]
    reward: str | None
    terminal: str | None
    discount: str | None
    led_to: bool


def find_roles(columns: Columns, layout: Layout, led_to: bool) -> Roles:
    """What `layout` says, else what usual names tell. Raises `UserError`, without a place, where that is not enough."""
    actions = _chosen(columns, layout.action)
    if actions is None:
        found = _first(columns, _ACTION)
        nested = [name for name in columns if name.split("/")[0] in _ACTION]
        actions = [found] if found else sorted(nested)
    return Roles(
        pictures=_pictures(columns, layout.frames),
        action={_component(name): name for name in actions},
        reward=_one(columns, layout.reward, _REWARD),
        terminal=_one(columns, layout.terminal, _TERMINAL),
        discount=_one(columns, None, _DISCOUNT),
        led_to=led_to if layout.led_to is None else layout.led_to,
    )


def following(columns: Columns, pictures: str) -> str | None:
    """The array that holds, for each row of `pictures`, the picture after it."""
    parts = pictures.split("/")
    for place in range(len(parts)):
        name = "/".join([*parts[:place], _NEXT + parts[place], *parts[place + 1 :]])
        if name in columns and columns[name].shape == columns[pictures].shape:
            return name
    return None


def read_fields(columns: Columns, roles: Roles) -> tuple[int, Fields]:
    """The number of pictures n, and the fields of a log with n rows, as `data.sources.logs` has them.

    Raises `UserError`, without a place, where arrays have other lengths than a convention allows.
    """
    n = len(columns[roles.pictures])
    extra = following(columns, roles.pictures) is not None and not roles.led_to
    names = [*roles.action.values(), *([roles.reward] if roles.reward else [])]
    rows = {name: columns[name].numbers(name) for name in names}
    lengths = {name: len(values) for name, values in rows.items()}
    if set(lengths.values()) - {n, n - 1} or len(set(lengths.values())) > 1:
        raise UserError(f"holds {n} pictures, but rows of other numbers: {_told(lengths)}")
    between = n - 1 in lengths.values()
    if between and roles.led_to:
        raise UserError(f"holds {n} pictures and {n - 1} actions, which cannot be those that led to each")
    if extra and not between:
        n += 1
    fields = {f"action/{name}": _at(rows[array], n, roles.led_to) for name, array in roles.action.items()}
    if roles.reward:
        rewards = _flat(rows[roles.reward], roles.reward)
        fields["reward"], fields["reward_mask"] = _arriving(rewards, n, roles.led_to)
    fields["is_terminal"] = np.array(_ended(columns, roles))
    return n, fields


def _at(rows: np.ndarray, n: int, led_to: bool) -> np.ndarray:
    """(n, ...) actions taken at each picture; the last was never taken, so its row may hold anything."""
    taken = rows[1:] if led_to else rows[: n - 1]
    flat = taken.reshape(len(taken), -1) if taken.ndim > 2 else taken
    return np.concatenate([flat, np.zeros((1, *flat.shape[1:]), flat.dtype)])


def _arriving(rows: np.ndarray, n: int, led_to: bool) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rewards on arriving at each picture and whether they are known: where rows tell what follows, not the first."""
    if led_to:
        return rows, np.ones(n, np.bool_)
    return np.concatenate([np.zeros(1, rows.dtype), rows[: n - 1]]), np.arange(n) > 0


def _ended(columns: Columns, roles: Roles) -> bool:
    """What the last row says of the end."""
    name = roles.terminal or roles.discount
    if name is None or not len(columns[name]):
        return False
    column = columns[name]
    last = np.asarray(column.cut(len(column) - 1, len(column)).numbers(name)).ravel()
    if len(last) != 1:
        raise UserError(f"{name} has {len(last)} numbers in a row, not one")
    return bool(last[0] != 0) if roles.terminal else bool(last[0] == 0)


def one_hot(fields: Fields) -> set[str]:
    """Components of which every known row is 1 at one place and 0 elsewhere."""
    return {
        name.removeprefix("action/")
        for name, values in fields.items()
        if name.startswith("action/") and _is_one_hot(values[:-1])
    }


def _is_one_hot(rows: np.ndarray) -> bool:
    if rows.ndim != 2 or rows.shape[1] < 2 or not len(rows):
        return False
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all())


def as_classes(fields: Fields, components: Iterable[str]) -> Fields:
    """`fields` with the numbers of the classes for one-hot `components`."""
    classes = {
        f"action/{name}": fields[f"action/{name}"].argmax(axis=1)
        for name in components
        if fields[f"action/{name}"].ndim == 2
    }
    return {**fields, **classes}


def _pictures(columns: Columns, chosen: str | None) -> str:
    if chosen is not None:
        if chosen not in columns:
            raise UserError(f"has no array {chosen!r} for --layout.frames; it has {_listed(columns)}")
        require_sane(columns[chosen], chosen)
        return chosen
    found = [name for name, column in columns.items() if column.is_pictures and not _follows(name, columns)]
    if not found:
        raise UserError(
            f"has no array of pictures (rows of uint8, at least 8 x 8); it has {_listed(columns)}"
        )
    if len(found) > 1:
        raise UserError(
            f"has several arrays of pictures; choose one with --layout.frames: {', '.join(sorted(found))}"
        )
    require_sane(columns[found[0]], found[0])
    return found[0]


def _follows(name: str, columns: Columns) -> bool:
    """Whether an array holds the pictures after those of another."""
    return any(part.startswith(_NEXT) for part in name.split("/"))


def _chosen(columns: Columns, listed: str | None) -> list[str] | None:
    if listed is None:
        return None
    names = [name for part in listed.split(",") if (name := part.strip())]
    if missing := [name for name in names if name not in columns]:
        raise UserError(f"has no array {missing[0]!r} for --layout.action; it has {_listed(columns)}")
    return names


def _one(columns: Columns, chosen: str | None, usual: tuple[str, ...]) -> str | None:
    if chosen is not None and chosen not in columns:
        raise UserError(f"has no array {chosen!r}, which the layout names; it has {_listed(columns)}")
    return chosen or _first(columns, usual)


def _first(columns: Columns, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _component(array: str) -> str:
    """The name of a component: of actions/gripper it is gripper."""
    last = array.rpartition("/")[2]
    return "action" if last in _ACTION else last


def _flat(values: np.ndarray, name: str) -> np.ndarray:
    """(n,) of (n,) or (n, 1)."""
    if values.ndim > 2 or values.shape[1:] not in ((), (1,)):
        raise UserError(f"{name} has rows of shape {values.shape[1:]}, not one number each")
    return values.reshape(len(values))


def _told(lengths: dict[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in lengths.items())


def _listed(columns: Columns) -> str:
    names = [f"{name} {column.dtype} {column.shape}" for name, column in list(columns.items())[:8]]
    more = f" and {len(columns) - 8} more" if len(columns) > 8 else ""
    return ", ".join(names) + more if names else "none"
