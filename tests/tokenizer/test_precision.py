"""The tokenizer under bfloat16 autocast: its decoder does not change, and gradients stay those of float32."""

import pytest
import torch

from reverie.nn.precision import bfloat16
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from tests.batches import frame_batch

CPU = torch.device("cpu")
CONFIG = TokenizerConfig(
    frame_size=(16, 16),
    patch_size=4,
    width=32,
    num_heads=2,
    num_kv_heads=2,
    encoder_depth=2,
    decoder_depth=2,
    time_every=2,
    bottleneck_tokens=4,
    bottleneck_channels=8,
    context_length=2,
)
PARTS = ("encoder", "decoder", "patch_in", "latent_out", "latent_in", "patch_out", "queries", "positions")


def room(seed: int):
    """A background that never changes and a white square somewhere."""
    batch = frame_batch(8, 2, 16, 16, seed=seed)
    scenery = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(0))
    batch.frames[:] = scenery.to(torch.uint8)
    for frame in batch.frames.flatten(0, 1):
        y, x = (4 * torch.randint(0, 4, (2,))).tolist()
        frame[y : y + 4, x : x + 4] = 255
    return batch


@pytest.fixture(scope="module")
def trained() -> TokenizerObjective:
    """Knows the background: rounding repeats there in every frame, while what is left to learn is small."""
    torch.manual_seed(0)
    config = TokenizerObjectiveConfig(lpips_weight=0.0, max_mask_probability=0.0)
    objective = TokenizerObjective(Tokenizer(CONFIG), config, None)
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    for step in range(20):
        objective(room(step))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    return objective.eval()


def gradients(objective: TokenizerObjective, half: bool) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    with bfloat16(CPU, half):
        loss, _ = objective(room(1000))
    assert loss.dtype == torch.float32
    loss.backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def test_gradients_point_where_those_of_float32_do(trained):
    """With the stream or the decoder rounded these cosines lie between 0.994 and 0.9996."""
    exact, rounded = (gradients(trained, half) for half in (False, True))
    for part in PARTS:
        a, b = (torch.cat([g[n].flatten() for n in g if part in n]) for g in (exact, rounded))
        assert torch.cosine_similarity(a, b, dim=0) > 0.9998, part


@torch.no_grad()
def test_the_decoder_is_the_same_to_the_bit(trained):
    latents = torch.rand(2, 3, *CONFIG.latent_shape) * 2 - 1
    expected = trained.model.decode(latents)
    with bfloat16(CPU):
        assert torch.equal(trained.model.decode(latents), expected)
        assert trained.model.decode(latents.bfloat16()).dtype == torch.float32


@torch.no_grad()
def test_the_encoder_multiplies_in_bfloat16_and_returns_float32(trained):
    frames, types = room(0).frames, set()
    hook = trained.model.encoder.layers[0].attention.out.register_forward_hook(
        lambda *seen: types.add(seen[-1].dtype)
    )
    with bfloat16(CPU):
        latents = trained.model.encode(frames)
    hook.remove()
    assert types == {torch.bfloat16} and latents.dtype == torch.float32
    assert not torch.equal(latents, trained.model.encode(frames))
