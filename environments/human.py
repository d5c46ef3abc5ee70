"""A person as a player: a window with the frames, the keyboard and the mouse, one step at a time in real time.

Minecraft's actions are read as Minecraft does; a mouse movement becomes classes whose remainder is carried over. Other
games get one key for every class and every switch.
"""

import os
from typing import Any

import numpy as np

from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.data.errors import UserError
from reverie.data.sources.vpt.minecraft import BINS, KEYBOARD, KEYS, MOUSE_BUTTONS, SPACE, decode_camera
from reverie.data.sources.vpt.recordings import DEGREES_PER_PIXEL, SCREEN_HEIGHT
from reverie.environments.game import GameEnv

END, LEAVE = "f10", "f12"
"""Keys that end the episode, and the recording with it."""
SIMPLE_KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
"""Keys of games with simple actions, in order."""
_MOUSE = {1: MOUSE_BUTTONS[0], 3: MOUSE_BUTTONS[1], 2: MOUSE_BUTTONS[2]}
_PYGAME_NAMES = {"left.shift": "left shift", "left.control": "left ctrl"}
_TURNS = decode_camera(np.arange(BINS))[:, 1]
"""Degrees of the bins of one axis."""
_HOTBAR = tuple(f"hotbar.{number}" for number in range(1, 10))
_HEADLESS = ("dummy", "offscreen")


class EpisodeOver(Exception):
    """The person ends the episode here."""


class PlayerLeft(Exception):
    """The person does not play any more."""


class Window:
    """What is held before a window, and the movement of the mouse since it was last asked for.

    Sizes are those of the frames; the window is larger by a whole factor, about as high as VPT's contractors had it.
    """

    def __init__(self, height: int, width: int) -> None:
        self._pygame = _pygame()
        factor = max(1, SCREEN_HEIGHT // height)
        self._surface = self._pygame.display.set_mode((width * factor, height * factor))
        self._pygame.display.set_caption(f"{END.upper()} ends the episode, {LEAVE.upper()} the recording")
        self._clock = self._pygame.time.Clock()
        self.has_left = False
        self._pygame.event.clear()
        self.forget()

    def forget(self) -> None:
        """Nothing is held or waits to be read. Raises `EpisodeOver` when the window was closed meanwhile."""
        if self._pygame.event.peek(self._pygame.QUIT):
            self._press(LEAVE)
        self._pygame.event.clear()
        self.held: dict[str, None] = {}  # in the order in which they were pressed
        self.tapped: dict[str, None] = {}
        self.moved, self.scrolled = np.zeros(2), 0

    def capture(self) -> None:
        """Takes the mouse for turns: it is hidden, and its movement has no end."""
        self._pygame.mouse.set_visible(False)
        self._pygame.event.set_grab(True)

    def show(self, frame: np.ndarray) -> None:
        """Shows (H, W, 3) uint8."""
        picture = self._pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        self._pygame.transform.scale(picture, self._surface.get_size(), self._surface)
        self._pygame.display.flip()

    def wait(self, fps: float) -> None:
        """Until the next step is due; then `held`, `tapped`, `moved` (x, y in pixels) and `scrolled` tell about it.

        Raises `EpisodeOver` when the person wants that.
        """
        self._clock.tick(fps)
        self.tapped, self.moved, self.scrolled = {}, np.zeros(2), 0
        for event in self._pygame.event.get():
            self._read(event)

    def pressed(self) -> list[str]:
        """Keys and mouse buttons that are held or were pressed since the last step, the latest last."""
        return list(dict.fromkeys([*self.held, *self.tapped]))

    def _read(self, event: Any) -> None:
        kinds = self._pygame
        match event.type:
            case kinds.KEYDOWN:
                self._press(kinds.key.name(event.key))
            case kinds.KEYUP:
                self.held.pop(kinds.key.name(event.key), None)
            case kinds.MOUSEBUTTONDOWN if event.button in _MOUSE:
                self._press(f"mouse {event.button}")
            case kinds.MOUSEBUTTONUP:
                self.held.pop(f"mouse {event.button}", None)
            case kinds.MOUSEMOTION:
                self.moved += event.rel
            case kinds.MOUSEWHEEL:
                self.scrolled += event.y
            case kinds.WINDOWFOCUSLOST:
                self.held = {}
            case kinds.QUIT:
                self._press(LEAVE)

    def _press(self, name: str) -> None:
        if name in (END, LEAVE):
            self.has_left = name == LEAVE
            raise EpisodeOver
        self.held[name] = self.tapped[name] = None


class HumanPlayer:
    """Plays one episode of `game` from a window, which stays open from episode to episode.

    Raises `UserError` where there is no display, or when keys cannot say the game's actions.
    """

    def __init__(self, game: GameEnv) -> None:
        _pygame()
        self._game = game
        is_minecraft = game.action_space_spec == SPACE
        self._read = _Minecraft() if is_minecraft else _Simple(game.action_space_spec, game.name)
        self._captures = is_minecraft
        self._began = False

    def act(self) -> dict[str, np.ndarray]:
        """What the person does within the next step. Raises `EpisodeOver`."""
        window = Desk.open(*self._game.frame_size)
        if not self._began:
            self._began = True
            window.forget()
            if self._captures:
                window.capture()
        window.show(self._game.frame())
        window.wait(self._game.fps)
        return self._read(window)


class Turns:
    """Movements of the mouse as camera classes; what a class does not turn is carried over to the next.

    A class never turns further than the mouse: the view comes to rest with the mouse.
    """

    def __init__(self) -> None:
        self.left = np.zeros(2)  # pitch, yaw in degrees

    def take(self, pixels: np.ndarray) -> int:
        """The class of a step in which the mouse moved by (x, y) pixels."""
        self.left += pixels[::-1] * DEGREES_PER_PIXEL
        pitch, yaw = (_towards(degrees) for degrees in self.left)
        self.left -= _TURNS[[pitch, yaw]]
        return BINS * pitch + yaw


class _Minecraft:
    """Minecraft's keys, where they are on its keyboard; the wheel turns through the hotbar from the slot used last."""

    def __init__(self) -> None:
        self._turns, self._slot = Turns(), 0
        self._names = {_PYGAME_NAMES.get(key, key): name for key, name in KEYBOARD.items()}
        self._names |= {f"mouse {number}": name for number, name in _MOUSE.items()}

    def __call__(self, window: Window) -> dict[str, np.ndarray]:
        names = [self._names[key] for key in window.pressed() if key in self._names]
        for name in names:
            if name in _HOTBAR:
                self._slot = _HOTBAR.index(name)
        if window.scrolled:
            self._slot = (self._slot - window.scrolled) % len(_HOTBAR)
            names.append(_HOTBAR[self._slot])
        return {
            "keys": np.array([name in names for name in KEYS]),
            "mouse": np.asarray(self._turns.take(window.moved), np.int64),
        }


class _Simple:
    """One key for each class but the null one, and for each switch."""

    def __init__(self, space: ActionSpace, name: str) -> None:
        self._space = space
        self.keys: dict[str, tuple[str, int]] = {}  # key -> component and its class or switch
        for component, kind in space.components.items():
            if not isinstance(kind, Categorical | Binary):
                raise UserError(f"players: game {name!r} has actions that keys cannot say; leave human out.")
            free = SIMPLE_KEYS[len(self.keys) :]
            numbers = [i for i in range(kind.n) if not (isinstance(kind, Categorical) and i == kind.null)]
            if len(numbers) > len(free):
                raise UserError(f"players: game {name!r} has more actions than keys; leave human out.")
            self.keys |= {key: (component, number) for key, number in zip(free, numbers, strict=False)}

    def __call__(self, window: Window) -> dict[str, np.ndarray]:
        action = self._space.null_numpy()
        for key in window.pressed():
            component, number = self.keys.get(key, ("", 0))
            if isinstance(self._space.components.get(component), Binary):
                action[component][number] = True
            elif component:
                action[component] = np.asarray(number, np.int64)
        return action


def instructions(game: GameEnv) -> str:
    """How to play `game`, in a line. Raises as `HumanPlayer` does."""
    space = game.action_space_spec
    ends = f"{END.upper()} ends the episode, {LEAVE.upper()} or closing the window the recording."
    if space == SPACE:
        return f"Minecraft's keys and mouse; {ends}"
    words = []
    for key, (component, number) in _Simple(space, game.name).keys.items():
        names = space.components[component].names
        words.append(f"{key} {names[number] if names else f'{component} {number}'}")
    return f"{', '.join(words)}; {ends}"


class Desk:
    """The one window of this process, if there is one."""

    window: Window | None = None

    @classmethod
    def open(cls, height: int, width: int) -> Window:
        """The window, opened if need be."""
        cls.window = cls.window or Window(height, width)
        return cls.window

    @classmethod
    def require_present(cls) -> None:
        """Raises `PlayerLeft` once the person has ended the recording."""
        if cls.window is not None and cls.window.has_left:
            raise PlayerLeft

    @classmethod
    def close(cls) -> None:
        """Closes the window."""
        if cls.window is not None:
            _pygame().display.quit()
            cls.window = None


def _towards(degrees: float) -> int:
    """The bin that turns furthest towards `degrees`, but not further."""
    middle = BINS // 2
    steps = int((np.abs(_TURNS[middle:]) <= abs(degrees)).sum()) - 1
    return middle + (steps if degrees > 0 else -steps)


def _pygame() -> Any:
    """The library, with a display. Raises `UserError` without either."""
    try:
        import pygame
    except ModuleNotFoundError:
        raise UserError(
            "players: human needs the package 'pygame'; run `pip install 'reverie[human]'`."
        ) from None
    try:
        pygame.display.init()
    except pygame.error as error:
        raise UserError(
            f"players: human needs a display ({error}); set DISPLAY, or play where there is a screen."
        ) from None
    if pygame.display.get_driver() in _HEADLESS and "SDL_VIDEODRIVER" not in os.environ:
        raise UserError("players: human needs a display; set DISPLAY, or play where there is a screen.")
    return pygame
