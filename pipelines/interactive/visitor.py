"""One visitor: a dream of their own, the way it came about, what is recorded of it; and what they ask for.

A visitor's messages are answered one after the other, in the loop of the server. The model works in its own thread, files and
games in others.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from reverie.agent.dreams import Action, DreamRow, Dreams
from reverie.data.errors import UserError
from reverie.pipelines.interactive import messages, tape
from reverie.pipelines.interactive.beside import GameBeside
from reverie.pipelines.interactive.contexts import Context
from reverie.pipelines.interactive.house import House, Wire
from reverie.pipelines.interactive.pictures import as_png, decoded, encoded
from reverie.pipelines.interactive.records import Records
from reverie.pipelines.interactive.replay import Replay
from reverie.pipelines.interactive.tape import Change, StartAt, Tape
from reverie.pipelines.interactive.world import PlayWorld

_decoding = asyncio.Semaphore(1)
"""Pictures of strangers are decoded one at a time, so that many of them take no more memory than one."""


class Visitor:
    """Made by `enter`, ended by `leave`. `number` counts visitors, and chooses where each begins."""

    def __init__(self, house: House, number: int) -> None:
        self.house, self.number = house, number
        self._next = {"clip": number, "game": house.world.seed + number}
        self._dreams = 0
        self._row: DreamRow | None = None
        self._game: GameBeside | None = None
        self._records = Records(house.shelf, house.checklist)
        self._agent_plays, self._task = False, 0 if house.world.tasks else -1
        self._sampling_steps = house.world.sampling_steps
        self._context_level: float | None = None
        self._replay: Replay | None = None
        self._tape = Tape(StartAt(kind="nothing"))
        self._place = ""
        self._luck = torch.Generator().manual_seed(house.world.seed + number)
        self._milliseconds = 0.0

    @property
    def row(self) -> DreamRow:
        """The dream under way."""
        assert self._row is not None, "enter first"
        return self._row

    async def enter(self) -> None:
        """Begins the first dream."""
        await self._begin(self._first())

    async def leave(self) -> None:
        """Ends the episode and the game."""
        await self._records.end()
        await self._end_game()
        self._row = None

    async def answer(self, message: messages.Message, wire: Wire) -> None:
        """Does what is asked for. Raises `UserError` for what cannot be done; the dream then stays as it was."""
        if isinstance(message, messages.Act):
            return await self._act(message, wire)
        if isinstance(message, messages.Save):
            return await wire.say(
                {"type": "session", "text": self._tape.text(self.house.world.key, self.row.frame)}
            )
        if isinstance(message, messages.Begin):
            await self._begin(self._wanted(message))
        elif isinstance(message, messages.Back):
            await self._back(message.frames)
        elif isinstance(message, messages.Set):
            await self._set(message)
        elif isinstance(message, messages.Replay):
            await self._play_again(Replay(tape.read(message.session), self.house.world))
        elif isinstance(message, messages.Mark):
            await self._mark(message)
        await self.greet(wire, halt=not isinstance(message, messages.Set))

    async def picture(self, content: bytes, wire: Wire) -> None:
        """Begins in an uploaded picture."""
        async with _decoding:
            frame = await asyncio.to_thread(decoded, content, self.house.world.frame_size)
        await self._begin(StartAt(kind="picture", picture=tape.as_base64(as_png(frame))))
        await self.greet(wire)

    async def greet(self, wire: Wire, *, halt: bool = True) -> None:
        """Tells the page all there is to know, and shows the frame; `halt`: something else is seen now, so time stops."""
        await wire.say({**self.to_json(), "halt": halt})
        await self._show(wire)
        if (reading := (await self.house.engine.do(lambda dreams: dreams.read([self.row])))[0]) is not None:
            await wire.say({"type": "reading", "frame": self.row.frames, **asdict(reading)})

    def to_json(self) -> dict[str, Any]:
        """What the page shows beside the pictures."""
        world, row = self.house.world, self.row
        config = world.dreams.dynamics.config
        return {
            "type": "state",
            "world": world.name,
            "fps": world.fps,
            "size": list(world.frame_size),
            "controls": self.house.controls.to_json(),
            "policy": _labels(world),
            "starts": world.starts,
            "start": self._tape.start.kind,
            "place": self._place,
            "frames": row.frames,
            "can_go_back": row.can_go_back,
            "sampling_steps": row.sampling_steps,
            "most_sampling_steps": config.max_sampling_steps,
            "context_level": row.context_level or config.context_signal_index / config.max_sampling_steps,
            "seed": self._seed,
            "tasks": list(world.tasks),
            "task": self._task,
            "agent": self._agent_plays,
            "game": None if self._game is None else self._game.name,
            "can_record": self.house.shelf is not None,
            "record": self._records.wanted,
            "replaying": 0 if self._replay is None else self._replay.left,
            "attempt": self._records.attempt,
            "checklist": None if self.house.checklist is None else self.house.checklist.to_json(),
        }

    async def _act(self, message: messages.Act, wire: Wire) -> None:
        began = time.perf_counter()
        before = self.row.frame
        action, frame, read = await self.house.engine.frame(self.row, self._choice(message))
        try:
            if self._game is not None:
                await asyncio.to_thread(self._game.step, action)
            self._milliseconds = 1000 * (time.perf_counter() - began)
            self._tape.add(tape.flat(self.house.world.space, action))
            await self._show(wire, action)
            await self._records.add(before, action, frame)
        finally:  # the dream goes on only when this frame is past
            reading = await asyncio.wrap_future(read)
        if reading is not None:
            await wire.say({"type": "reading", "frame": self.row.frames, **asdict(reading)})
        await self._follow_replay(wire)

    def _choice(self, message: messages.Act) -> Callable[[Dreams], Action]:
        """Who acts: a person who presses something, else the session that is replayed, else the agent."""
        controls = self.house.controls
        mine = controls.action(message.codes, message.mouse, message.values)
        if message.codes or any(message.mouse):
            self._replay = None
        elif self._replay is not None:
            recorded = self._replay.next()
            return lambda dreams: recorded
        elif self._agent_plays and self.row.state is not None:
            return lambda dreams: dreams.act(self.row, self._luck)
        return lambda dreams: mine

    async def _show(self, wire: Wire, action: Action | None = None) -> None:
        row, game = self.row, self._game
        pictures = [encoded(row.frame)] + ([] if game is None else [encoded(game.frame)])
        content: dict[str, Any] = {"type": "frame", "frame": row.frames, "can_go_back": row.can_go_back}
        content |= {"milliseconds": round(self._milliseconds, 1)}
        if action is not None:
            content["action"] = tape.flat(self.house.world.space, action)
        if game is not None:
            content |= {"over": game.over, "alike": _alike(row.frame, game.frame)}
        await wire.show(content, pictures)

    async def _back(self, frames: int) -> None:
        undone = await self.house.engine.do(lambda dreams: dreams.back(self.row, frames))
        self._replay = None
        self._tape.back(undone, self._now())
        await self._records.back(undone)
        if self._game is not None and undone:
            await self._return_to_game()

    async def _return_to_game(self) -> None:
        """A game cannot go back: it is played again up to the frame that is now seen."""
        start = self._tape.start
        again = start.model_copy(update={"played": [*start.played, *self._tape.taken]})
        await self._end_game()
        _, self._game = await asyncio.to_thread(self.house.world.context, again)

    def _now(self) -> Change:
        row = self.row
        return Change(
            at=min(row.frames, tape.MOST_FRAMES),
            sampling_steps=row.sampling_steps,
            context_level=row.context_level,
        )

    async def _set(self, message: messages.Set) -> None:
        row, world = self.row, self.house.world
        if message.sampling_steps is not None:
            world.require_steps(message.sampling_steps)
            row.sampling_steps = self._sampling_steps = message.sampling_steps
        if message.context_level is not None:
            row.context_level = self._context_level = message.context_level
        if message.task is not None:
            if message.task >= len(world.tasks):
                raise UserError(f"task: this agent knows {len(world.tasks)} tasks.")
            row.task = self._task = message.task
        if message.agent is not None:
            if message.agent and not world.tasks:
                raise UserError("agent: this world has none; give --agent.")
            self._agent_plays = message.agent
        if message.seed is not None:
            await self._reseed(message.seed)
        if message.record is not None:
            await self._records.want(message.record)
        if (message.sampling_steps, message.context_level, message.seed) != (None, None, None):
            self._replay = None
            self._tape.set(self._now().model_copy(update={"seed": message.seed}))

    async def _reseed(self, seed: int) -> None:
        row = self.row
        self._seed = seed
        await self.house.engine.do(lambda dreams: row.generator.manual_seed(seed))

    async def _play_again(self, replay: Replay) -> None:
        self._sampling_steps, self._context_level = replay.steps, replay.first.context_level
        await self._begin(replay.start, seed=replay.seed)
        self._agent_plays = False
        self._replay = replay if replay.left else None
        await self._apply_changes(replay)

    async def _follow_replay(self, wire: Wire) -> None:
        """After a frame: the settings that were changed then, or how it ended."""
        replay = self._replay
        if replay is None:
            return
        if replay.left:
            return await self._apply_changes(replay)
        self._replay = None
        await wire.say({"type": "replayed", "as": replay.compare(self.row.frame)})

    async def _apply_changes(self, replay: Replay) -> None:
        row = self.row
        for change in replay.changes(row.frames):
            if change.sampling_steps is not None:
                row.sampling_steps, row.context_level = change.sampling_steps, change.context_level
            if change.seed is not None:
                await self._reseed(change.seed)
            self._tape.set(change)

    def _first(self) -> StartAt:
        kinds = self.house.world.starts
        return StartAt(kind=kinds[0], number=self._next.get(kinds[0], 0))  # type: ignore[arg-type]

    def _wanted(self, message: messages.Begin) -> StartAt:
        """The start that is asked for."""
        present = self._tape.start
        if message.kind == "again":
            return present
        if message.kind == "here":
            if present.kind != "game":
                raise UserError("begin: there is no game beside the dream.")
            return present.model_copy(
                update={"played": [*present.played, *self._tape.taken][: tape.MOST_FRAMES]}
            )
        number = message.number
        if number is None and message.kind in self._next:
            self._next[message.kind] += 1
            number = self._next[message.kind]
        return StartAt(kind=message.kind, number=number or 0)

    async def _begin(self, start: StartAt, seed: int | None = None) -> None:
        """A dream from `start`, with a noise that no other of this visitor has."""
        world = self.house.world
        await self._records.end()
        context, game = await asyncio.to_thread(self._context, start)
        seed = world.seed + 1000 * self.number + self._dreams if seed is None else seed
        settings = {"sampling_steps": self._sampling_steps, "context_level": self._context_level}
        self._row = await self.house.engine.do(
            lambda dreams: dreams.begin(context.frames, context.led, seed=seed, task=self._task, **settings)  # type: ignore[arg-type]
        )
        await self._end_game()
        self._seed, self._game, self._place, self._dreams = seed, game, context.place, self._dreams + 1
        self._replay = None
        self._tape = Tape(start, [self._now().model_copy(update={"seed": seed})])
        self._milliseconds = 0.0

    def _context(self, start: StartAt) -> tuple[Context, GameBeside | None]:
        task = self._records.task
        if task is not None and task.clip is not None and self.house.world.contexts is not None:
            return self.house.world.contexts.named(task.clip, task.frame), None
        return self.house.world.context(start)

    async def _end_game(self) -> None:
        game, self._game = self._game, None
        if game is not None:
            await asyncio.to_thread(game.close)

    async def _mark(self, message: messages.Mark) -> None:
        """Ends the task that is asked for and begins the next one."""
        await self._records.mark(message, self.row.frames, self._place)
        await self._begin(self._wanted(messages.Begin(type="begin", kind="clip")))


def _labels(world: PlayWorld) -> dict[str, list[str]]:
    """Component -> what its classes, keys or numbers are called."""
    return {
        name: list(component.names) or [f"{name} {i}" for i in range(component.n)]
        for name, component in world.space.components.items()
    }


def _alike(dream: np.ndarray, game: np.ndarray) -> float:
    """Share of pixels in which dream and game differ by less than an eighth of the range."""
    return float((np.abs(dream.astype(np.int16) - game).max(-1) < 32).mean())
