"""The passes of one frame as one compiled graph, which serves every frame of every rollout of the same sizes.

Results differ from `reverie.dynamics.frame` by rounding alone. On a GPU the graph is also recorded, see `reverie.nn.recording`.
"""

from collections.abc import Callable
from functools import cache as once

import torch
from torch import Tensor

from reverie.dynamics.frame import Finished, Step, become_past, make_frame
from reverie.dynamics.model import Dynamics
from reverie.nn.cache import RingCache
from reverie.nn.compilation import Compile, compiled, use_compile
from reverie.nn.recording import recorded

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


def fast_frame(
    dynamics: Dynamics,
    cache: RingCache,
    sampling_steps: int,
    step: Step,
    noise: Tensor,
    before: Finished | None,
) -> Tensor:
    """`make_frame` on a cache that has its buffers."""
    return recorded(cache, frame_graph(), (dynamics, sampling_steps), (step, noise, before))


def fast_past(dynamics: Dynamics, cache: RingCache, frame: Finished) -> Tensor | None:
    """`become_past` of one frame on a cache that has its buffers."""
    return recorded(cache, past_graph(), (dynamics,), (frame,))


@once
def frame_graph() -> Callable[..., Tensor]:
    """(cache, dynamics, K, step, noise, before) -> latents, compiled."""
    return compiled(one_frame, "generation, a frame")


@once
def past_graph() -> Callable[..., Tensor | None]:
    """(cache, dynamics, frame) -> agent states, compiled."""
    return compiled(one_becomes_past, "generation, a frame that becomes past")


def one_frame(
    cache: RingCache,
    dynamics: Dynamics,
    sampling_steps: int,
    step: Step,
    noise: Tensor,
    before: Finished | None,
) -> Tensor:
    """What `frame_graph` compiles."""
    return make_frame(dynamics, cache, sampling_steps, step, noise, before, fixed=True)


def one_becomes_past(cache: RingCache, dynamics: Dynamics, frame: Finished) -> Tensor | None:
    """What `past_graph` compiles."""
    return become_past(dynamics, cache.past(1, fixed=True), frame)
