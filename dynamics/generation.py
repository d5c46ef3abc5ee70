"""Generation, frame by frame: K shortcut steps from noise, then the frame joins the key-value cache (Dreamer 4, section 3.2).

Past frames enter slightly corrupted, at the context signal level with d = d_min; where the next action is known already, in the
same pass as the next frame's first step. Cost per frame is constant: only time layers look back, through a ring cache of
`context_length` frames.

Where a function takes `fast`, the passes of one frame are one compiled graph (`reverie.nn.compilation`) that serves every frame
of every rollout of the same sizes; results differ by rounding alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once

import torch
from torch import Tensor

from reverie.dynamics.model import Dynamics
from reverie.dynamics.objective import corrupt
from reverie.nn.cache import FRAMES_PER_PASS, Past, RingCache
from reverie.nn.compilation import Compile, compiled, use_compile

FRAMES_THAT_PAY = 20_000
"""Generated frames (of a batch) from which compiling pays on a CPU: it takes one to three minutes there, and saves some
hundredths of a second a frame."""


def use_fast(choice: Compile, device: torch.device, frames: int | None) -> bool:
    """Whether to make frames by compiled functions; `auto` does on GPUs, and on CPUs for `FRAMES_THAT_PAY`.

    Args:
      frames: how many will be made, a batch at a time counted once; None where nobody knows.

    Raises:
      UserError: `choice` is on, and this machine cannot.
    """
    pays = device.type == "cuda" or (frames is not None and frames >= FRAMES_THAT_PAY)
    return use_compile(choice, device, pays=pays, flag="--compile")


@dataclass(frozen=True)
class Step:
    """One frame's actions (B, 1, ...) and mask (B, 1): what led to it. Several frames' in a prefill."""

    actions: Mapping[str, Tensor]
    action_mask: Tensor

    def at(self, frames: slice) -> "Step":
        """What led to some of the frames."""
        return Step({name: x[:, frames] for name, x in self.actions.items()}, self.action_mask[:, frames])

    def rows(self, rows: slice) -> "Step":
        """What led to the frames of some videos."""
        return Step({name: x[rows] for name, x in self.actions.items()}, self.action_mask[rows])

    def to(self, device: torch.device) -> "Step":
        """The same on `device`."""
        return Step({name: x.to(device) for name, x in self.actions.items()}, self.action_mask.to(device))


@dataclass(frozen=True)
class Finished:
    """A frame that is finished but not yet past: latents and noise (B, 1, N_z, D_z), and what led to it."""

    latents: Tensor
    step: Step
    noise: Tensor


def sample(predict: Callable[[Tensor, int], Tensor], noise: Tensor, sampling_steps: int) -> Tensor:
    """From tau = 0: z <- z + (z_hat - z) / (1 - tau) d, with d = 1/K, K times.

    Args:
      predict: (z, i) -> z_hat at tau = i / K, of one shape.
      noise: z0 ~ N(0, 1).
      sampling_steps: K.
    """
    z = noise
    for i in range(sampling_steps):
        z = torch.lerp(z, predict(z, i), 1 / (sampling_steps - i))
    return z


def denoise(
    dynamics: Dynamics,
    cache: RingCache,
    step: Step,
    noise: Tensor,
    sampling_steps: int,
    *,
    before: Finished | None = None,
    fast: bool = False,
) -> Tensor:
    """Samples the next frame's latents, see `sample`. The cache is left as it was, but for `before`.

    Args:
      noise: (B, 1, N_z, D_z) z0 ~ N(0, 1).
      sampling_steps: K, a power of two up to K_max.
      before: the frame before this one, if it is still to become past. It does so in the first of the K passes, which saves
        the pass that `commit` would take.
      fast: compile the K passes; the first frame of an empty cache runs as it is.

    Returns:
      (B, 1, N_z, D_z) float32.

    Raises:
      ValueError: K is not a power of two up to K_max.
    """
    _check_sampling_steps(dynamics, sampling_steps)
    fast = fast and cache.allocated
    run = _fast_frame() if fast else _frame
    latents = run(dynamics, cache, step, noise, sampling_steps, before, fast)
    if before is not None:
        cache.advance(1)
    return latents


def _frame(
    dynamics: Dynamics,
    cache: RingCache,
    step: Step,
    noise: Tensor,
    sampling_steps: int,
    before: Finished | None,
    fixed: bool,
) -> Tensor:
    """`denoise` without its last act, that `before` becomes past; of fixed shapes it is one graph, good for every frame."""
    shortcuts = _shortcut_tokens(dynamics, sampling_steps)
    action_tokens = dynamics.action_embedding(step.actions, step.action_mask)
    first, ahead = None, 0
    if before is not None:
        both = cache.past(2, fixed=fixed)
        first, ahead = _with_finished(dynamics, both, before, action_tokens, noise, shortcuts[0]), 1
    past = cache.past(1, ahead=ahead, fixed=fixed)  # the same for all other passes

    def predict(z: Tensor, i: int) -> Tensor:
        if i == 0 and first is not None:
            return first
        return dynamics.predict(z, action_tokens, shortcuts[i], cache=past)[0]

    return sample(predict, noise, sampling_steps)


@once
def _fast_frame() -> Callable[..., Tensor]:
    return compiled(_frame, "generation, a frame")


def _check_sampling_steps(dynamics: Dynamics, sampling_steps: int) -> None:
    k_max = dynamics.config.max_sampling_steps
    if sampling_steps < 1 or sampling_steps & (sampling_steps - 1) or sampling_steps > k_max:
        raise ValueError(f"sampling_steps must be a power of two from 1 to {k_max}, got {sampling_steps}")


def _shortcut_tokens(dynamics: Dynamics, sampling_steps: int) -> Tensor:
    """The K passes' tokens for (tau, d), (K, 1, 1, 1, D)."""
    k_max = dynamics.config.max_sampling_steps
    levels = torch.arange(0, k_max, k_max // sampling_steps, device=dynamics.registers.device)
    step_index = torch.full_like(levels, sampling_steps.bit_length() - 1)
    return dynamics.shortcut_tokens(levels, step_index)[:, None, None]


def _with_finished(
    dynamics: Dynamics,
    past: Past,
    before: Finished,
    action_tokens: Tensor,
    z: Tensor,
    shortcut_token: Tensor,
) -> Tensor:
    """z_hat of the next frame, from one pass over it and the frame before."""
    finished, past_token = _as_past(dynamics, before.latents, before.noise)
    before_tokens = dynamics.action_embedding(before.step.actions, before.step.action_mask)
    z_hat, _ = dynamics.predict(
        torch.cat([finished, z], 1),
        torch.cat([before_tokens, action_tokens], 1),
        torch.cat([past_token, shortcut_token], 1),
        cache=past,
    )
    return z_hat[:, 1:]


def _as_past(
    dynamics: Dynamics, latents: Tensor, noise: Tensor, signal_index: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Finished frames with d_min at the context signal level, or at `signal_index`: z_tilde, shortcut token (1 or B, 1, 1, D)."""
    config = dynamics.config
    if signal_index is None:
        signal_index = torch.full((1, 1), config.context_signal_index, device=latents.device)
    token = dynamics.shortcut_tokens(signal_index, torch.full_like(signal_index, config.num_step_sizes - 1))
    return corrupt(latents, noise, signal_index / config.max_sampling_steps), token


def commit(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    *,
    agent_tokens: Tensor | None = None,
    segment: Tensor | None = None,
    signal_index: Tensor | None = None,
    fast: bool = False,
) -> Tensor | None:
    """Makes finished frames part of the past, corrupted to the context signal level.

    Args:
      latents: (B, T, N_z, D_z); T > 1 only as a prefill of an empty cache.
      step: the actions that led to these frames, (B, T, ...).
      noise: like latents.
      agent_tokens: (B, T, A, D) or None.
      segment: (B, T), for a prefill.
      signal_index: (B, 1) other levels than the context signal level, on the grid of K_max.
      fast: compile the pass, if it is over one frame.

    Returns:
      The agent tokens' outputs (B, T, A, D), or None.
    """
    steps = latents.shape[1]
    if fast and steps == 1 and cache.allocated and signal_index is None:
        agent_states = _fast_past()(dynamics, cache, latents, step, noise, agent_tokens)
    else:
        past = cache.past(steps, segment)
        agent_states = _become_past(dynamics, past, latents, step, noise, agent_tokens, segment, signal_index)
    cache.advance(steps)
    return agent_states


def prefill(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    *,
    agent_tokens: Tensor | None = None,
    segment: Tensor | None = None,
    frames_per_pass: int = FRAMES_PER_PASS,
) -> Tensor | None:
    """`commit` of a context (B, T, ...), T >= 0, into an empty cache, with bounded memory.

    At most `frames_per_pass` frames go through the model at once: as many rows as that allows, and where one row is longer, the
    first frames of each and then the others one by one. Rows with `segment` pass whole.
    """
    b, steps = latents.shape[:2]
    first = steps if segment is not None else min(steps, max(1, frames_per_pass))
    states = (
        [
            _prefill_rows(dynamics, cache, latents, step, noise, agent_tokens, segment, first, rows)
            for rows in _rows(b, max(1, frames_per_pass // max(1, first)))
        ]
        if steps
        else []
    )
    cache.advance(first)
    begun = [_join(states, 0)] if steps else []
    for t in range(first, steps):
        now = slice(t, t + 1)
        tokens = None if agent_tokens is None else agent_tokens[:, now]
        begun.append(
            commit(dynamics, cache, latents[:, now], step.at(now), noise[:, now], agent_tokens=tokens)
        )
    return _join(begun, 1)


def _prefill_rows(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    agent_tokens: Tensor | None,
    segment: Tensor | None,
    steps: int,
    rows: slice,
) -> Tensor | None:
    """The first `steps` frames of some rows."""
    pieces = None if segment is None else segment[rows]
    tokens = None if agent_tokens is None else agent_tokens[rows, :steps]
    past = cache.past(steps, pieces, rows=rows)
    frames = latents[rows, :steps], step.rows(rows).at(slice(0, steps)), noise[rows, :steps]
    return _become_past(dynamics, past, *frames, tokens, pieces)


def _join(states: Sequence[Tensor | None], dim: int) -> Tensor | None:
    """Agent states of all parts together, None without agents."""
    there = [x for x in states if x is not None]
    return torch.cat(there, dim) if there else None


def _rows(batch_size: int, most: int) -> list[slice]:
    return [slice(i, min(i + most, batch_size)) for i in range(0, batch_size, most)]


def _become_past(
    dynamics: Dynamics,
    past: Past,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    agent_tokens: Tensor | None,
    segment: Tensor | None,
    signal_index: Tensor | None = None,
) -> Tensor | None:
    z_tilde, shortcut_token = _as_past(dynamics, latents, noise, signal_index)
    action_tokens = dynamics.action_embedding(step.actions, step.action_mask)
    _, agent_states = dynamics.predict(
        z_tilde, action_tokens, shortcut_token, segment=segment, cache=past, agent_tokens=agent_tokens
    )
    return agent_states


def _one_becomes_past(
    dynamics: Dynamics,
    cache: RingCache,
    latents: Tensor,
    step: Step,
    noise: Tensor,
    agent_tokens: Tensor | None,
) -> Tensor | None:
    past = cache.past(1, fixed=True)
    return _become_past(dynamics, past, latents, step, noise, agent_tokens, None)


@once
def _fast_past() -> Callable[..., Tensor | None]:
    return compiled(_one_becomes_past, "generation, a frame that becomes past")


class Continuation:
    """Videos that are continued frame by frame, at constant cost; what `generate` does, for actions not known beforehand.

    The frames are inference tensors, which autograd does not take; clone them for that.

    Args:
      dynamics: the world model.
      context_latents: (B, C, N_z, D_z) or (B, 0, N_z, D_z), on its device.
      context: the actions that led to them, (B, C, ...) and (B, C).
      sampling_steps, generator, segment, frames_per_pass, fast: as in `generate`.
    """

    @torch.inference_mode()
    def __init__(
        self,
        dynamics: Dynamics,
        context_latents: Tensor,
        context: Step,
        *,
        sampling_steps: int = 4,
        generator: torch.Generator | None = None,
        segment: Tensor | None = None,
        frames_per_pass: int = FRAMES_PER_PASS,
        fast: bool = False,
    ):
        self.dynamics, self.sampling_steps, self.generator, self.fast = (
            dynamics,
            sampling_steps,
            generator,
            fast,
        )
        self._frame = context_latents[:, :0].new_empty(len(context_latents), 1, *context_latents.shape[2:])
        self._before: Finished | None = None
        self._cache = dynamics.new_cache(len(context_latents))
        noise = _noise_like(context_latents, generator) if context_latents.shape[1] else context_latents
        rows = dynamics, self._cache, context_latents, context, noise
        prefill(*rows, segment=segment, frames_per_pass=frames_per_pass)

    @torch.inference_mode()
    def next(self, step: Step) -> Tensor:
        """The latents of the frame that `step`'s actions lead to, (B, 1, N_z, D_z) float32."""
        noise = _noise_like(self._frame, self.generator)
        before = self._before
        latents = denoise(
            self.dynamics,
            self._cache,
            step,
            noise,
            self.sampling_steps,
            before=before,
            fast=self.fast and before is not None,  # a graph for the first frame alone would not pay
        )
        self._before = Finished(latents, step, _noise_like(noise, self.generator))
        return latents


@torch.no_grad()
def generate(
    dynamics: Dynamics,
    context_latents: Tensor,
    context_actions: Mapping[str, Tensor],
    context_mask: Tensor,
    future_actions: Mapping[str, Tensor],
    future_mask: Tensor,
    *,
    sampling_steps: int = 4,
    generator: torch.Generator | None = None,
    segment: Tensor | None = None,
    frames_per_pass: int = FRAMES_PER_PASS,
    fast: bool = False,
) -> Tensor:
    """Continues videos with given actions.

    Args:
      context_latents: (B, C, N_z, D_z); C may be 0: then videos start from nothing.
      context_actions, context_mask: component -> (B, C, ...) and (B, C), the actions that led to the context frames.
      future_actions, future_mask: component -> (B, H, ...) and (B, H), those that lead to the frames to generate.
      sampling_steps: K per frame.
      generator: source of noise, on the latents' device.
      segment: (B, C) pieces within the context rows.
      frames_per_pass: most frames B C of the context that the model sees at once, see `prefill`.
      fast: compile what makes a frame.

    Returns:
      (B, H, N_z, D_z) float32.
    """
    continuation = Continuation(
        dynamics,
        context_latents,
        Step(context_actions, context_mask),
        sampling_steps=sampling_steps,
        generator=generator,
        segment=segment,
        frames_per_pass=frames_per_pass,
        fast=fast,
    )
    future = Step(future_actions, future_mask)
    steps = [future.at(slice(t, t + 1)) for t in range(future_mask.shape[1])]
    return torch.cat([continuation.next(step) for step in steps], dim=1)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
