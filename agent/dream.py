"""The world model in pixels: videos that go on frame by frame, with actions that nobody knows beforehand.

Every frame costs the same, however long the dream lasts: encoder, dynamics and decoder keep their past in ring caches. The
frames are those of `generate` on the same context, actions and seed.
"""

import torch
from torch import Tensor

from reverie.dynamics.doubt import doubt
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import Continuation
from reverie.dynamics.model import Dynamics
from reverie.nn.cache import FRAMES_PER_PASS
from reverie.nn.frames import to_uint8
from reverie.nn.precision import bfloat16
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.streaming import decode_next, encode_long, warm_decoder


class Dream:
    """N videos side by side inside a world model.

    Args:
      tokenizer, dynamics: the trained models, on one device.
      frames: (N, C, H, W, 3) uint8, what is true so far; with C = 0 the videos start from nothing.
      led: the actions that led to `frames`, (N, C, ...) and (N, C), on any device.
      sampling_steps: denoising steps K for a frame.
      seed: of the noise.
      frames_per_pass: frames N C that a model sees at once.
      half: multiply matrices in bfloat16 (see `reverie.nn.precision`).
      fast: compile what makes a frame.
    """

    @torch.inference_mode()
    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        frames: Tensor,
        led: Step,
        *,
        sampling_steps: int = 4,
        seed: int = 0,
        frames_per_pass: int = FRAMES_PER_PASS,
        half: bool = False,
        fast: bool = False,
    ):
        self.tokenizer, self.device, self.half, self.fast = tokenizer, tokenizer.mask_token.device, half, fast
        with bfloat16(self.device, self.half):
            if frames.shape[1]:
                latents = encode_long(tokenizer, frames, frames_per_pass)
            else:
                latents = torch.zeros(len(frames), 0, *tokenizer.config.latent_shape, device=self.device)
            self._cache = warm_decoder(tokenizer, latents, frames_per_pass)
            self._continuation = Continuation(
                dynamics,
                latents,
                led.to(self.device),
                sampling_steps=sampling_steps,
                generator=torch.Generator(self.device).manual_seed(seed),
                frames_per_pass=frames_per_pass,
                fast=fast,
            )

    @torch.inference_mode()
    def next(self, step: Step) -> Tensor:
        """The frames (N, H, W, 3) uint8 that `step`'s actions lead to; where its mask is False they are unknown."""
        with bfloat16(self.device, self.half):
            latents = self._continuation.next(step.to(self.device))
            return to_uint8(decode_next(self.tokenizer, latents, self._cache, fast=self.fast))[:, 0]

    @torch.inference_mode()
    def doubt(self, *, refinement: bool = True, noises: bool = True) -> dict[str, Tensor]:
        """How far the last frames of `next` are to be doubted, (N,) each, see `reverie.dynamics.doubt`.

        The dream goes on as if nobody had asked. Empty before the first frame. `noises` costs as much as the frame did,
        `refinement` one pass of it.
        """
        with bfloat16(self.device, self.half):
            return doubt(self._continuation, refinement=refinement, noises=noises)
