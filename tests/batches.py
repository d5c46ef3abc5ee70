"""Random but valid `Batch` objects for model tests."""

import torch

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.batch import Batch

SPACE = ActionSpace({"keys": Binary(3), "mouse": Categorical(5), "arm": Continuous(2, -2.0, 2.0)})


def random_actions(b: int, t: int) -> dict[str, torch.Tensor]:
    return {
        "keys": torch.rand(b, t, 3) < 0.5,
        "mouse": torch.randint(0, 5, (b, t)),
        "arm": torch.rand(b, t, 2) * 4 - 2,
    }


def latent_batch(b: int = 4, t: int = 12, latent_shape: tuple[int, int] = (4, 8), seed: int = 0) -> Batch:
    """Latents with all kinds of actions, two segments a row, the second half of the rows relevant."""
    torch.manual_seed(seed)
    nothing = torch.zeros(b, t, dtype=torch.bool)
    return Batch(
        frames=None,
        latents=torch.rand(b, t, *latent_shape) * 2 - 1,
        actions=random_actions(b, t),
        action_mask=torch.rand(b, t) < 0.8,
        reward=torch.rand(b, t).round(),
        reward_mask=torch.rand(b, t) < 0.8,
        is_first=nothing,
        is_last=nothing,
        is_terminal=nothing,
        task=torch.randint(0, 2, (b, 1)).expand(b, t).clone(),
        segment=(torch.arange(t) >= 5).long().expand(b, t).clone(),
        relevant=torch.arange(b) >= b // 2,
        key=[f"row{i}" for i in range(b)],
    )


def frame_batch(b: int, t: int, height: int, width: int, seed: int = 0) -> Batch:
    """The same with random frames in place of latents."""
    batch = latent_batch(b, t, seed=seed)
    batch.latents = None
    batch.frames = torch.randint(0, 256, (b, t, height, width, 3), dtype=torch.uint8)
    return batch
