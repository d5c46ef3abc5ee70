"""Keys and mouse of the game's screen, pressed through the X server's test extension."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import Xlib.display
import Xlib.error
from Xlib import XK, X
from Xlib.ext import xtest

from reverie.environments.game import GameCrashed

KEYSYMS = {
    **{"forward": "w", "back": "s", "left": "a", "right": "d", "jump": "space", "sneak": "Shift_L"},
    **{"sprint": "Control_L", "drop": "q", "inventory": "e", "ESC": "Escape"},
    **{f"hotbar.{number}": str(number) for number in range(1, 10)},
}
"""Name of the action -> the key that does it here."""
BUTTONS = {"attack": 1, "use": 3}
"""Name of the action -> the mouse button that does it here."""


class Inputs:
    """The keyboard and the mouse of one display. Raises `GameCrashed` when the X server is gone."""

    def __init__(self, display: str) -> None:
        with _explained():
            self._display = Xlib.display.Display(display)
            # A key that is held repeats by the real clock, and an inventory would open and shut in one slow step.
            self._display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeOff)
            codes = {
                name: self._display.keysym_to_keycode(XK.string_to_keysym(key))
                for name, key in KEYSYMS.items()
            }
        self._events = {
            **{name: (X.KeyPress, X.KeyRelease, code) for name, code in codes.items()},
            **{name: (X.ButtonPress, X.ButtonRelease, number) for name, number in BUTTONS.items()},
        }
        self.held: set[str] = set()

    def focus(self) -> bool:
        """Gives the game's window the keyboard; False while there is no window."""
        with _explained():
            windows = self._display.screen().root.query_tree().children
            for window in windows:
                if window.get_attributes().map_state == X.IsViewable:
                    window.set_input_focus(X.RevertToParent, X.CurrentTime)
                    self._display.sync()
                    return True
        return False

    def hold(self, names: set[str]) -> None:
        """Presses and releases until exactly these are held; names without a key here do nothing."""
        wanted = names & self._events.keys()
        with _explained():
            for name in sorted(self.held - wanted):
                self._send(name, 1)
            for name in sorted(wanted - self.held):
                self._send(name, 0)
            self._display.sync()
        self.held = wanted

    def move(self, x: int, y: int) -> None:
        """Puts the pointer at a pixel of the screen."""
        with _explained():
            xtest.fake_input(self._display, X.MotionNotify, x=x, y=y)
            self._display.sync()

    def close(self) -> None:
        """Leaves the X server."""
        with suppress(Xlib.error.ConnectionClosedError, OSError):  # it may have left us
            self._display.close()

    def _send(self, name: str, which: int) -> None:
        event = self._events[name]
        xtest.fake_input(self._display, event[which], event[2])


@contextmanager
def _explained() -> Iterator[Any]:
    try:
        yield
    except (Xlib.error.ConnectionClosedError, Xlib.error.DisplayConnectionError, OSError):
        raise GameCrashed(
            "game 'luanti': its X server has ended; reset the game to start it again."
        ) from None
