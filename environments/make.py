"""Games by name. Each library is imported only when one of its games is asked for."""

from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed, GameEnv

NAMES = (
    "minigrid-doorkey[-SIZE]",
    "minigrid-empty[-SIZE]",
    "minigrid-empty-random[-SIZE]",
    "crafter",
    "luanti",
    "minecraft-minerl",
    "minecraft-minestudio",
    "gym:<Gymnasium id>",
)
QUEST_GAMES = ("luanti", "minecraft-minerl", "minecraft-minestudio")
"""Games that have a `quest`; they are evaluated in processes of their own."""
_TRIES = 5
"""How often a game is made whose first episode fails at once."""


def make_env(name: str, *, seed: int | None = None, **options: Any) -> GameEnv:
    """The game called `name`, ready for `reset`. `seed` starts the first episode if its reset gets none.

    Options: `max_steps` for all; `tile_size`, `highlight` for MiniGrid; those of `GymGame` and `timeout` for `gym:`;
    `action_type` for MineStudio; `frame_size`, `inventory`, `viewing_range` for Luanti.
    Raises `UserError` for an unknown name, an unknown option, or a library that is not installed.
    """
    try:
        return _build(name, seed, options)
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise UserError(f"game {name!r}: knows not all of the options {', '.join(options)}.") from None
        raise


def with_limit(options: Mapping[str, Any], max_steps: int | None) -> dict[str, Any]:
    """`options` of a game and its longest episode, where one is given."""
    return dict(options) if max_steps is None else {**options, "max_steps": max_steps}


def _build(name: str, seed: int | None, options: dict[str, Any]) -> GameEnv:
    family, _, rest = name.partition(":")
    if family == "gym" and rest:
        return _gym(name, rest, seed, options)
    if name.startswith("minigrid-"):
        from reverie.environments.minigrid.game import MiniGridGame

        return MiniGridGame(name, seed=seed, **options)
    if name == "crafter":
        return _crafter(seed, options)
    if name == "luanti":
        return _luanti(seed, options)
    if name == "minecraft-minerl":
        from reverie.environments.minecraft.minerl import MineRLGame

        return MineRLGame(seed=seed, **options)
    if name == "minecraft-minestudio":
        from reverie.environments.minecraft.minestudio import MineStudioGame

        return MineStudioGame(seed=seed, **options)
    raise UserError(f"game {name!r}: is not known; use one of {', '.join(NAMES)}.")


def _gym(name: str, game_id: str, seed: int | None, options: dict[str, Any]) -> GameEnv:
    """In a process of its own: its code is anybody's, and may end the process that it runs in."""
    from reverie.environments.apart import TIMEOUT, GameApart
    from reverie.environments.gym.game import GymGame

    own = {key: value for key, value in options.items() if key != "timeout"}
    signature(GymGame).bind(game_id, seed=seed, **own)
    timeout = options.get("timeout", TIMEOUT)
    if not isinstance(timeout, (int, float)) or not timeout > 0:
        raise UserError(f"game {name!r}: timeout must be a number of seconds above 0, got {timeout!r}.")
    for attempt in range(_TRIES):
        # What the game is like is seen in its first episode, which may be one of those that fail.
        first = None if seed is None else seed + attempt
        try:
            return GameApart(name, partial(GymGame, game_id, seed=first, **own), seed=seed, timeout=timeout)
        except GameCrashed:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError(_TRIES)


def _crafter(seed: int | None, options: dict[str, Any]) -> GameEnv:
    try:
        from reverie.environments.crafter.game import CrafterGame
    except ModuleNotFoundError as error:
        raise UserError(
            f"game 'crafter': needs the package {error.name!r}; run `pip install 'reverie[crafter]'`."
        ) from None
    return CrafterGame(seed=seed, **options)


def _luanti(seed: int | None, options: dict[str, Any]) -> GameEnv:
    try:
        from reverie.environments.luanti.game import LuantiGame
    except ModuleNotFoundError as error:
        raise UserError(
            f"game 'luanti': needs the package {error.name!r}; run `make luanti`, "
            f"or `pip install 'reverie[luanti]'`."
        ) from None
    return LuantiGame(seed=seed, **options)
