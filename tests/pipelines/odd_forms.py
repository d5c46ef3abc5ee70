"""What `record`, `evaluate` and online training are tried with: every form of `tests.environments.odd_games`."""

from typing import Any

from tests.environments.odd_games import ACTIONS, NO_ACTIONS, NO_PICTURES, NO_REWARDS, PICTURES, REWARDS

FORMS = ("four values", "arrays", "observation alone", "unseeded")
FAILS = ("raise", "exit", "os._exit", "kill", "segfault", "reward", "picture", "reset")

PLAYABLE: list[dict[str, Any]] = [
    *({"picture": name} for name in PICTURES),
    *({"action": name} for name in ACTIONS),
    *({"reward": name} for name in REWARDS),
    *({"form": form} for form in FORMS),
    *({"picture": p, "action": a} for p, a in zip(PICTURES, [*ACTIONS, *ACTIONS], strict=False)),
    {
        "picture": "float tensor, channels first",
        "action": "nested",
        "reward": "tensor",
        "form": "four values",
    },
]
UNPLAYABLE: list[dict[str, Any]] = [
    *({"picture": name} for name in NO_PICTURES),
    *({"action": name} for name in NO_ACTIONS),
    *({"reward": name} for name in NO_REWARDS),
    {"form": "three values"},
    {"fails": "making"},
    {"fails": "size", "often": 1},
    *({"fails": how, "often": 1} for how in FAILS),
]
"""Refused, or failing in every episode."""


def name(make: dict[str, Any]) -> str:
    return ", ".join(map(str, make.values()))
