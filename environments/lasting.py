"""Games that fail: an episode is tried again in a new game, then given up, and the others go on.

An episode may fail by chance (a simulator lost its connection) or by itself, every time (it is a function of its seed). One that
fails twice in the same words fails by itself.
"""

from collections.abc import Callable

from reverie.data.errors import UserError
from reverie.environments.game import GameCrashed, GameEnv

ATTEMPTS = 3
"""How often an episode is begun when its game crashes."""
MOST_IN_A_ROW = 10
"""Episodes given up one after the other; then the game itself does not work."""


class LastingGame:
    """One game at a time, made by `make`, and made anew after a crash."""

    def __init__(self, make: Callable[[], GameEnv]) -> None:
        self._make = make
        self._game: GameEnv | None = None

    def attempt(self, play: Callable[[GameEnv], object]) -> list[str]:
        """Lets `play` play an episode. Returns nothing, or why it was given up: what happened in each attempt."""
        reasons: list[str] = []
        while not is_hopeless(reasons):
            try:
                self._game = self._game or self._make()
                play(self._game)
            except GameCrashed as error:
                reasons.append(str(error))
                self.close()
            else:
                return []
        return reasons

    def close(self) -> None:
        """Closes the present game; another one is made when it is needed."""
        if self._game is not None:
            self._game.close()
            self._game = None


class Streak:
    """Counts episodes given up one after the other.

    Args:
      where: where their reasons are kept, in brackets; may be empty.
    """

    def __init__(self, where: str = "") -> None:
        self._where, self._length = where, 0

    def see(self, reasons: list[str]) -> None:
        """An episode is over; `reasons`: why it was given up, if it was. Raises `UserError` when none gets through."""
        self._length = self._length + 1 if reasons else 0
        if self._length >= MOST_IN_A_ROW:
            raise UserError(
                f"{reasons[-1].rstrip('.')}; {self._length} episodes in a row have failed{self._where}, so repair the game first."
            )


def none_got_through(reasons: list[str], where: str = "") -> UserError:
    """The error of a game that failed in every episode, lastly for `reasons`."""
    return UserError(f"{reasons[-1].rstrip('.')}; every episode has failed{where}, so repair the game first.")


def is_hopeless(reasons: list[str]) -> bool:
    """Whether an episode that failed for these `reasons` is to be given up."""
    return len(reasons) >= ATTEMPTS or len(set(reasons)) < len(reasons)
