"""Dreams of several people inside one model: each goes on, goes back and ends by itself; those who wait go on together.

A frame is made in two halves. `show` samples and decodes it, which is all that a person waits for; `keep` makes it past, and
says what an agent makes of it. Noise comes from a generator of each dream, so nothing but rounding depends on the company.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reverie.agent.model import Agent
from reverie.data.actions import Binary, Categorical
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import commit, denoise, prefill
from reverie.dynamics.model import Dynamics
from reverie.nn.cache import RingCache
from reverie.nn.distributions import ActionDistribution
from reverie.nn.frames import to_uint8
from reverie.nn.precision import bfloat16
from reverie.nn.together import Slot, next_slot, step_back, together
from reverie.nn.twohot import twohot_mean
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import decode_next, encode_long, warm_decoder

Action = Mapping[str, np.ndarray]
"""Component -> (...), one action."""


@dataclass(frozen=True)
class Reading:
    """What an agent makes of a frame.

    value           expected return from here on
    reward          expected reward on arriving here
    continues       probability that the episode goes on
    policy          component -> probabilities of its classes, of its keys being down, or means of its numbers
    """

    value: float
    reward: float
    continues: float
    policy: dict[str, list[float]]


@dataclass(frozen=True)
class _Before:
    """All that a frame changes, as it was before."""

    frame: np.ndarray
    state: Tensor | None
    noise: Tensor
    dynamics: Slot
    decoder: Slot


@dataclass
class DreamRow:
    """One dream; `Dreams` alone changes it.

    frame           (H, W, 3) uint8, the frame now seen
    frames          how many were made since the dream began
    sampling_steps  denoising steps K of the next frame
    context_level   signal level at which frames become past; None for the model's own
    task            what the agent plays for, -1 for none
    """

    frame: np.ndarray
    sampling_steps: int
    context_level: float | None
    task: int
    generator: torch.Generator
    dynamics: RingCache
    decoder: RingCache
    before: deque[_Before]
    frames: int = 0
    state: Tensor | None = None
    made: tuple[Tensor, Step] | None = field(default=None, repr=False)

    @property
    def can_go_back(self) -> int:
        """How many frames can be undone."""
        return len(self.before)


class Dreams:
    """Makes the frames of any number of `DreamRow`s on one model.

    Args:
      tokenizer, dynamics: the trained models, on one device.
      agent: whose world model `dynamics` is, or None.
      history: frames that a dream can go back.
      half: multiply matrices in bfloat16 (see `reverie.nn.precision`).
      fast: compile what makes a frame; dreams then go on one by one, since each number of rows is a graph of its own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        agent: Agent | None = None,
        *,
        history: int = 300,
        half: bool = False,
        fast: bool = False,
    ):
        assert agent is None or agent.dynamics is dynamics
        self.tokenizer, self.dynamics, self.agent = tokenizer, dynamics, agent
        self.history, self.half, self.fast = history, half, fast
        self.device = tokenizer.mask_token.device

    @torch.inference_mode()
    def begin(
        self,
        frames: Tensor,
        led: Step,
        *,
        seed: int,
        sampling_steps: int = 4,
        context_level: float | None = None,
        task: int = -1,
    ) -> DreamRow:
        """A dream that goes on from frames (1, C, H, W, 3) uint8 and what led to them, (1, C, ...); C = 0: from nothing."""
        with bfloat16(self.device, self.half):
            latents = self._encoded(frames)
            generator = torch.Generator(self.device).manual_seed(seed)
            noise = torch.randn(latents.shape, generator=generator, device=self.device)
            row = DreamRow(
                frame=self._last(frames),
                sampling_steps=sampling_steps,
                context_level=context_level,
                task=task,
                generator=generator,
                dynamics=self.dynamics.new_cache(1),
                decoder=warm_decoder(self.tokenizer, latents),
                before=deque(maxlen=self.history),
            )
            self._allocate(row, latents)
            states = prefill(
                *(self.dynamics, row.dynamics, latents, led.to(self.device), noise),
                agent_tokens=self._agent_tokens([row], latents.shape[1]),
            )
        row.state = None if states is None else states[:, -1:, 0]
        return row

    @torch.inference_mode()
    def show(self, rows: Sequence[DreamRow], actions: Sequence[Action]) -> list[np.ndarray]:
        """The frames (H, W, 3) uint8 that the actions lead to, of rows with the same K; `keep` must follow."""
        if self.fast and len(rows) > 1:
            return [frame for row, action in zip(rows, actions) for frame in self.show([row], [action])]
        for row in rows:
            self._remember(row)
        noise = torch.cat([self._noise(row) for row in rows])
        step = self._step(actions)
        with bfloat16(self.device, self.half):
            cache = together([row.dynamics for row in rows])
            steps = rows[0].sampling_steps
            latents = denoise(self.dynamics, cache, step, noise, steps, fast=self.fast)
            decoder = together([row.decoder for row in rows])
            shown = to_uint8(decode_next(self.tokenizer, latents, decoder, fast=self.fast))[:, 0]
        for i, (row, frame) in enumerate(zip(rows, shown.cpu().numpy())):
            one = slice(i, i + 1)
            row.made, row.frame, row.frames = (latents[one], step.rows(one)), frame, row.frames + 1
        return [row.frame for row in rows]

    @torch.inference_mode()
    def keep(self, rows: Sequence[DreamRow]) -> list[Reading | None]:
        """Makes the frames of the last `show` past, and says what the agent makes of them."""
        if self.fast and len(rows) > 1:
            return [reading for row in rows for reading in self.keep([row])]
        made = [row.made for row in rows if row.made is not None]
        assert len(made) == len(rows), "show the frames first"
        noise = torch.cat([self._noise(row) for row in rows])
        with bfloat16(self.device, self.half):
            states = commit(
                self.dynamics,
                together([row.dynamics for row in rows]),
                torch.cat([latents for latents, _ in made]),
                _joined([step for _, step in made]),
                noise,
                agent_tokens=self._agent_tokens(rows, 1),
                signal_index=self._levels(rows),
                fast=self.fast,
            )
        for i, row in enumerate(rows):
            row.made, row.state = None, None if states is None else states[i : i + 1, :, 0]
        return self.read(rows)

    @torch.inference_mode()
    def back(self, row: DreamRow, frames: int) -> int:
        """Undoes up to `frames` frames, exactly; returns how many."""
        undone = min(frames, len(row.before))
        for _ in range(undone):
            last = row.before.pop()
            row.frame, row.state, row.frames = last.frame, last.state, row.frames - 1
            row.generator.set_state(last.noise)
            step_back(row.dynamics, last.dynamics)
            step_back(row.decoder, last.decoder)
        return undone

    @torch.inference_mode()
    def act(self, row: DreamRow, generator: torch.Generator, *, greedy: bool = False) -> Action:
        """What the agent does at the frame now seen."""
        assert self.agent is not None and row.state is not None
        policy = self.agent.act(row.state)
        taken = policy.mode() if greedy else policy.sample(generator)
        return {name: x[0, 0].cpu().numpy() for name, x in taken.items()}

    @torch.inference_mode()
    def read(self, rows: Sequence[DreamRow]) -> list[Reading | None]:
        """What the agent makes of the frames now seen; None where there is no agent, or no frame."""
        agent, states = self.agent, [row.state for row in rows]
        if agent is None or any(state is None for state in states):
            return [self.read([row])[0] if len(rows) > 1 else None for row in rows]
        h = torch.cat([state for state in states if state is not None])
        value = twohot_mean(agent.value_head.nearest(h))[:, 0].tolist()
        reward = twohot_mean(agent.reward_head.nearest(h))[:, 0].tolist()
        continues = agent.continue_head.nearest(h)[:, 0, 0].sigmoid().tolist()
        policy = _probabilities(agent.act(h))
        return [
            Reading(v, r, c, {name: x[i] for name, x in policy.items()})
            for i, (v, r, c) in enumerate(zip(value, reward, continues))
        ]

    def _encoded(self, frames: Tensor) -> Tensor:
        if frames.shape[1]:
            return encode_long(self.tokenizer, frames)
        return torch.zeros(1, 0, *self.tokenizer.config.latent_shape, device=self.device)

    def _last(self, frames: Tensor) -> np.ndarray:
        """The last frame; grey where there is none."""
        if frames.shape[1]:
            return frames[0, -1].cpu().numpy()
        return np.full((*self.tokenizer.config.frame_size, 3), 127, np.uint8)

    def _allocate(self, row: DreamRow, latents: Tensor) -> None:
        """Gives both caches their buffers, before anything is past: by a pass whose result nobody sees."""
        blank = torch.zeros(1, 1, *self.tokenizer.config.latent_shape, device=self.device)
        if not row.decoder.allocated:
            self.tokenizer.decode(blank, cache=row.decoder.past(1))
        if not latents.shape[1]:
            null = self._step([{k: v[0] for k, v in self.dynamics.action_space.null_numpy(1).items()}])
            self.dynamics.predict(
                blank,
                self.dynamics.action_embedding(null.actions, null.action_mask),
                self.dynamics.shortcut_tokens(*torch.zeros(2, 1, 1, dtype=torch.int64, device=self.device)),
                cache=row.dynamics.past(1),
                agent_tokens=self._agent_tokens([row], 1),
            )

    def _remember(self, row: DreamRow) -> None:
        if self.history:
            slots = next_slot(row.dynamics), next_slot(row.decoder)
            row.before.append(_Before(row.frame, row.state, row.generator.get_state(), *slots))

    def _noise(self, row: DreamRow) -> Tensor:
        shape = 1, 1, *self.tokenizer.config.latent_shape
        return torch.randn(shape, generator=row.generator, device=self.device)

    def _step(self, actions: Sequence[Action]) -> Step:
        space = self.dynamics.action_space
        led = {
            name: torch.from_numpy(np.stack([action[name] for action in actions]))[:, None].to(self.device)
            for name in space.components
        }
        return Step(led, torch.ones(len(actions), 1, dtype=torch.bool, device=self.device))

    def _agent_tokens(self, rows: Sequence[DreamRow], steps: int) -> Tensor | None:
        if self.agent is None:
            return None
        task = torch.tensor([row.task for row in rows], dtype=torch.int64, device=self.device)
        return self.agent.agent_tokens(task[:, None].expand(-1, steps))

    def _levels(self, rows: Sequence[DreamRow]) -> Tensor | None:
        """The rows' context levels on the grid of K_max; None where all have the model's own."""
        config = self.dynamics.config
        if all(row.context_level is None for row in rows):
            return None
        most = config.max_sampling_steps
        levels = [
            config.context_signal_index if x is None else min(round(x * most), most - 1) for x in _of(rows)
        ]
        return torch.tensor(levels, device=self.device)[:, None]


def _of(rows: Sequence[DreamRow]) -> list[float | None]:
    return [row.context_level for row in rows]


def _joined(steps: Sequence[Step]) -> Step:
    names = steps[0].actions
    actions = {name: torch.cat([step.actions[name] for step in steps]) for name in names}
    return Step(actions, torch.cat([step.action_mask for step in steps]))


def _probabilities(policy: ActionDistribution) -> dict[str, list[list[float]]]:
    """Component -> rows -> probabilities, or means of numbers."""
    found = {}
    for name, component in policy.space.components.items():
        parameters = policy.parameters[name][:, 0]
        if isinstance(component, Categorical):
            x = parameters.softmax(-1)
        elif isinstance(component, Binary):
            x = parameters.sigmoid()
        else:
            x = policy.mode()[name][:, 0]
        found[name] = x.tolist()
    return found
