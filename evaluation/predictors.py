"""World models that continue video: Dreamer 4 in latents, Dreamer V1 to V3 in recurrent states."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reverie.dynamics.generation import generate
from reverie.dynamics.model import Dynamics
from reverie.evaluation.windows import Actions
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.nn.frames import to_uint8
from reverie.rssm.model import Dreamer
from reverie.rssm.state import State
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import decode_next, encode_long, warm_decoder

Generate = Callable[[Tensor, Actions, Actions, int], Tensor]
"""Context latents (B, C, N, D), context actions (B, C), future actions (B, H), noise seed -> (B, H, N, D)."""


@dataclass(frozen=True)
class LatentPredictor:
    """Dreamer 4: encodes the context, continues it by `generator`, and decodes frame by frame.

    The decoder's cache is warm from the context. Of the context the tokenizer sees at most `frames_per_pass` frames at once.
    `fast` compiles the decoder, as the generator may its own passes.
    """

    tokenizer: Tokenizer
    generator: Generate
    frames_per_pass: int = FRAMES_PER_PASS
    fast: bool = False

    @torch.no_grad()
    def __call__(
        self, truth: Tensor, actions: Actions, others: Actions | None, context: int, seed: int
    ) -> dict[str, Tensor]:
        """See `rollouts.Predictor`."""
        tokenizer, device, first = self.tokenizer, self.tokenizer.mask_token.device, self.frames_per_pass
        latents = encode_long(tokenizer, truth, first)
        known = latents[:, :context]
        past, future = actions.to(device).split(context)
        decode = partial(decode_future, tokenizer, known, frames_per_pass=first, fast=self.fast)
        frames = {
            "model": decode(self.generator(known, past, future, seed)),
            "tokenizer": decode(latents[:, context:]),
        }
        if others is not None:
            _, future = others.to(device).split(context)
            frames["shuffled"] = decode(self.generator(known, past, future, seed))
        return frames


@dataclass(frozen=True)
class RecurrentPredictor:
    """Dreamer V1 to V3: posterior states along the context, then open loop from the prior."""

    model: Dreamer

    @torch.no_grad()
    def __call__(
        self, truth: Tensor, actions: Actions, others: Actions | None, context: int, seed: int
    ) -> dict[str, Tensor]:
        """See `rollouts.Predictor`. Nothing before the first frame is known to the model."""
        model = self.model.world_model
        state = model.initial(len(truth))
        device = state.deter.device
        first = torch.zeros(truth.shape[:2], dtype=torch.bool, device=device)
        first[:, 0] = True
        known = actions.to(device)
        torch.manual_seed(seed)
        seen, _ = model.observe(state, known.values, known.known, truth.to(device), first)
        start = seen.map(lambda x: x[:, context - 1])
        frames = {
            "model": self._continue(start, actions, context, seed),
            "posterior": _frames(self.model, seen.map(lambda x: x[:, context:])),
        }
        if others is not None:
            frames["shuffled"] = self._continue(start, others, context, seed)
        return frames

    def _continue(self, start: State, actions: Actions, context: int, seed: int) -> Tensor:
        _, future = actions.to(start.deter.device).split(context)
        torch.manual_seed(seed)
        return _frames(self.model, self.model.world_model.imagine(start, future.values))


def dynamics_generator(
    dynamics: Dynamics, sampling_steps: int, frames_per_pass: int = FRAMES_PER_PASS, fast: bool = False
) -> Generate:
    """`generation.generate` as a `Generate`: its noise depends on the seed alone."""

    def run(latents: Tensor, past: Actions, future: Actions, seed: int) -> Tensor:
        return generate(
            dynamics,
            latents,
            past.values,
            past.known,
            future.values,
            future.known,
            sampling_steps=sampling_steps,
            generator=torch.Generator(latents.device).manual_seed(seed),
            frames_per_pass=frames_per_pass,
            fast=fast,
        )

    return run


def decode_future(
    tokenizer: Tokenizer,
    context: Tensor,
    future: Tensor,
    frames_per_pass: int = FRAMES_PER_PASS,
    *,
    fast: bool = False,
) -> Tensor:
    """Latents of context and future (B, T, N, D) -> the future's frames (B, T, H, W, C) uint8, one by one."""
    cache = warm_decoder(tokenizer, context, frames_per_pass)
    steps = [future[:, t : t + 1] for t in range(future.shape[1])]
    return torch.cat([to_uint8(decode_next(tokenizer, z, cache, fast=fast)) for z in steps], dim=1)


def _frames(model: Dreamer, states: State) -> Tensor:
    """States (B, T, ...) -> frames (B, T, H, W, C) uint8."""
    return to_uint8(model.world_model.decode(states))
