"""Gymnasium's plugin: `gymnasium.make("reverie/dream-v0", world=...)` finds the dream once Reverie is installed."""

from gymnasium.envs.registration import register

DREAM = "dream-v0"
"""Its name within the namespace `reverie`, which the entry point in pyproject.toml gives."""


def register_dream(namespace: str = "") -> None:
    """Tells Gymnasium of the dream; nothing is loaded before it is made.

    Args:
      namespace: `reverie/` where no plugin has opened that namespace.
    """
    place = "reverie.pipelines.worlds.gymnasium_env"
    register(
        id=f"{namespace}{DREAM}",
        entry_point=f"{place}:DreamEnv",
        vector_entry_point=f"{place}:DreamVectorEnv",
    )
