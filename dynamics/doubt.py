"""When not to believe a generated frame: signals that need no truth, read off a `Continuation` after each frame.

refinement  the finished frame is corrupted once more to tau = 1 - d and completed by one step at the finer d / 2; what that
            changes. A frame that the model would have made again is left as it is.
noises      the same frame made from other noise; how far the two differ. Where past and action say what comes, they agree.

Both are mean squared differences of latents, at least 0, per video. How well they foretell errors: `reverie.evaluation.trust`.
"""

import torch
from torch import Tensor

from reverie.dynamics.frame import Finished
from reverie.dynamics.generation import Continuation, denoise
from reverie.dynamics.model import Dynamics
from reverie.dynamics.objective import corrupt
from reverie.nn.cache import RingCache

_SEED = 0x0D0B7


@torch.inference_mode()
def doubt(
    continuation: Continuation, *, refinement: bool = True, noises: bool = True, seed: int = _SEED
) -> dict[str, Tensor]:
    """The signals of the frame that `continuation.next` made last; the continuation goes on as if nobody had asked.

    Args:
      refinement: costs one pass of the model.
      noises: costs K passes, as much as the frame.
      seed: of the noise, which is not the continuation's.

    Returns:
      Name of each signal asked for -> (B,) float32; empty before the first frame.
    """
    cache, last = continuation.last
    if last is None:
        return {}
    generator = torch.Generator(last.latents.device).manual_seed(seed)
    noise = torch.randn(last.latents.shape, generator=generator, device=last.latents.device)
    dynamics, found = continuation.dynamics, dict[str, Tensor]()
    if refinement:
        again = refined(dynamics, cache, last, noise, continuation.sampling_steps)
        found["refinement"] = difference(again, last.latents)
    if noises:
        other = denoise(dynamics, cache, last.step, noise, continuation.sampling_steps)
        found["noises"] = difference(other, last.latents)
    return found


def refined(
    dynamics: Dynamics, cache: RingCache, frame: Finished, noise: Tensor, sampling_steps: int
) -> Tensor:
    """z_hat (B, 1, N_z, D_z) of (1 - tau) z0 + tau z at tau = 1 - 1/K, with step size 1/(2 K), at least 1/K_max."""
    k_max = dynamics.config.max_sampling_steps
    # At K = 1 nothing of the frame would be left to refine.
    k = max(2, sampling_steps)
    level = torch.full((1, 1), k_max - k_max // k, device=noise.device)
    step_index = torch.full_like(level, dynamics.config.step_index(min(2 * k, k_max)))
    actions = dynamics.action_embedding(frame.step.actions, frame.step.action_mask)
    token = dynamics.shortcut_tokens(level, step_index)
    z_tilde = corrupt(frame.latents, noise, level / k_max)
    return dynamics.predict(z_tilde, actions, token, signal_level=level / k_max, cache=cache.past(1))[0]


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference (B,) of latents (B, 1, N_z, D_z)."""
    return (a - b).square().mean((1, 2, 3))
