"""A dream frame by frame is what `generate` and the decoder make of the same context, actions and seed."""

import pytest
import torch

from reverie.agent.dream import Dream
from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import generate
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.frames import to_uint8
from reverie.nn.precision import round_weights
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from tests.graphs import num_graphs, trace_frames

SPACE = ActionSpace({"keys": Binary(3), "move": Categorical(4)})
SIZES = {"width": 32, "num_heads": 2, "context_length": 5}


def models() -> tuple[Tokenizer, Dynamics]:
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(
        frame_size=(16, 24), num_kv_heads=2, bottleneck_tokens=4, bottleneck_channels=8, **SIZES
    )
    dynamics = DynamicsConfig(latent_shape=(4, 8), depth=4, num_kv_heads=1, **SIZES)
    return Tokenizer(tokenizer).eval(), Dynamics(dynamics, SPACE).eval()


def actions(steps: int) -> Step:
    g = torch.Generator().manual_seed(3)
    keys = torch.rand(2, steps, 3, generator=g) < 0.5
    return Step(
        {"keys": keys, "move": torch.randint(4, (2, steps), generator=g)},
        torch.rand(2, steps, generator=g) < 0.8,
    )


@pytest.mark.parametrize("context", [0, 1, 7, 23])
@torch.no_grad()
def test_a_dream_is_what_generate_makes(context: int) -> None:
    tokenizer, dynamics = models()
    frames = torch.randint(
        256, (2, context, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    led, future = actions(context + 9).at(slice(0, context)), actions(context + 9).at(slice(context, None))
    dream = Dream(tokenizer, dynamics, frames, led, sampling_steps=2, seed=4, frames_per_pass=8)
    found = torch.stack([dream.next(future.at(slice(t, t + 1))) for t in range(9)], 1)

    latents = tokenizer.encode(frames) if context else torch.zeros(2, 0, 4, 8)
    expected = generate(
        dynamics,
        latents,
        led.actions,
        led.action_mask,
        future.actions,
        future.action_mask,
        sampling_steps=2,
        generator=torch.Generator().manual_seed(4),
    )
    whole = to_uint8(tokenizer.decode(torch.cat([latents, expected], 1)))[:, context:]
    assert (found.int() - whole.int()).abs().max() <= 1  # rounding of equal floats at a half
    assert found.float().std() > 1 and not torch.equal(found[:, 0], found[:, -1])


@torch.no_grad()
def test_half_precision_dreams_about_the_same() -> None:
    tokenizer, dynamics = models()
    frames = torch.randint(
        256, (2, 3, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    first, second = (
        Dream(tokenizer, dynamics, frames, actions(3), sampling_steps=1, half=half).next(actions(1))
        for half in (False, True)
    )
    difference = (first.int() - second.int()).abs()
    assert 0 < difference.float().mean() < 8


@torch.no_grad()
def test_weights_rounded_beforehand_dream_the_same_bits() -> None:
    """bfloat16 by autocast, with what it rounds at every frame rounded once; the rest stays as it was."""
    tokenizer, dynamics = models()
    frames = torch.randint(256, (2, 3, 16, 24, 3), dtype=torch.uint8)
    found = []
    for rounded in (False, True):
        if rounded:
            round_weights(dynamics)
        dream = Dream(tokenizer, dynamics, frames, actions(3), sampling_steps=2, half=True)
        found.append(torch.stack([dream.next(actions(4).at(slice(t, t + 1))) for t in range(4)]))
    assert torch.equal(found[0], found[1])
    kinds = {
        name.split(".")[-1]: m.weight.dtype for name, m in dynamics.named_modules() if hasattr(m, "weight")
    }
    assert kinds["qkv"] == kinds["gate_up"] == torch.bfloat16
    assert kinds["latent_in"] == kinds["latent_out"] == torch.float32


@pytest.mark.slow
def test_compiled_dreams_are_the_same_and_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dreams of seven frames each: one graph for the frames' latents, one for their pixels."""
    trace_frames(monkeypatch)
    tokenizer, dynamics = models()
    frames = torch.randint(256, (2, 3, 16, 24, 3), dtype=torch.uint8)
    began = num_graphs()
    for seed in (0, 1):
        slow, fast = (
            Dream(tokenizer, dynamics, frames, actions(3), sampling_steps=1, seed=seed, fast=fast)
            for fast in (False, True)
        )
        for t in range(7):
            step = actions(7).at(slice(t, t + 1))
            assert (slow.next(step).int() - fast.next(step).int()).abs().max() <= 1
    assert num_graphs() - began == 2
