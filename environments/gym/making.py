"""How a Gymnasium environment comes to be: the library or module that registers it, and what `gymnasium.make` is given."""

import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium

from reverie.data.errors import UserError
from reverie.environments.game import require_steps
from reverie.environments.gym.answers import AnyForm

LIBRARIES = {
    "ALE/": ("ale_py", "ale-py"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "dm_control/": ("shimmy", "'shimmy[dm-control]'"),
}
"""Beginning of an id -> the module that registers it with Gymnasium, and the package to install for it."""


def make(
    place: str, game_id: str, *, max_steps: int | None, further: Mapping[str, Any], renders: bool
) -> gymnasium.Env:
    """The environment `game_id`, which may begin with the module that registers it (MODULE:ID).

    `max_steps` replaces its own limit, `further` are arguments of `gymnasium.make`, `renders`: it is to draw pictures.
    Raises `UserError` naming `place`.
    """
    module, _, _ = game_id.rpartition(":")
    if module:
        _import(place, module)
    _register(place, game_id)
    limit = {} if max_steps is None else {"max_episode_steps": require_steps(max_steps, game_id)}
    drawing = {"render_mode": "rgb_array"} if renders else {}
    try:
        made = gymnasium.make(game_id, **{"disable_env_checker": True, **drawing, **limit, **further})
    except gymnasium.error.Error as error:
        hint = (
            ""
            if module
            else "; an environment of your own is named gym:MODULE:ID, with the module that registers it"
        )
        raise UserError(f"{place}: Gymnasium cannot make it ({_words(error)}){hint}.") from None
    except TypeError as error:
        raise UserError(
            f"{place}: does not take the render mode 'rgb_array', or what `make` holds ({_words(error)})."
        ) from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{place}: cannot be made ({type(error).__name__}: {_words(error)}).") from None
    return _speaking_any_form(made, place)


def _speaking_any_form(env: gymnasium.Env, place: str) -> gymnasium.Env:
    """With `AnyForm` inside all other wrappers: a limit of steps must count steps of either form."""
    outer: Any = env
    while outer is not outer.unwrapped and outer.env is not outer.unwrapped:
        outer = outer.env
    if outer is outer.unwrapped:
        return AnyForm(env, place)
    outer.env = AnyForm(outer.env, place)
    return env


def _import(place: str, module: str) -> None:
    """Imports the user's module; the working folder is where it is looked for last."""
    try:
        importlib.import_module(module)
        return
    except ModuleNotFoundError as error:
        if not _is_part(error.name, module):
            raise _unimportable(place, module, error) from None
    except (Exception, SystemExit) as error:
        raise _unimportable(place, module, error) from None
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()
        return _import(place, module)
    raise UserError(
        f"{place}: there is no module {module!r}, neither installed nor in {os.getcwd()}; go to its folder, or put that on "
        f"PYTHONPATH."
    )


def _is_part(missing: str | None, module: str) -> bool:
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _unimportable(place: str, module: str, error: BaseException) -> UserError:
    return UserError(
        f"{place}: its module {module!r} cannot be imported ({type(error).__name__}: {_words(error)})."
    )


def _register(place: str, game_id: str) -> None:
    for prefix, (module, package) in LIBRARIES.items():
        if game_id.startswith(prefix):
            if prefix == "dm_control/":
                # Drawn in software MuJoCo loads Mesa's LLVM; Triton's, loaded later by torch, would crash on it.
                with suppress(ImportError):
                    importlib.import_module("triton")
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                raise UserError(f"{place}: is not installed; run `pip install {package}`.") from None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
