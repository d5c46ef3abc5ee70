"""Frames by one graph of fixed shapes: the same as without, one compilation for a whole rollout; contexts in pieces."""

import pytest
import torch

from reverie.data.errors import UserError
from reverie.dynamics.fast_frame import FRAMES_THAT_PAY, use_fast
from reverie.dynamics.frame import Finished, Step
from reverie.dynamics.generation import commit, denoise, generate, prefill
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.compilation import cannot_compile
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.streaming import decode_next, encode_next
from tests.batches import SPACE, random_actions
from tests.graphs import num_graphs, trace_frames

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=3, num_registers=2)
SMALL = TokenizerConfig(
    frame_size=(8, 8), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=2, context_length=3
)


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    trace_frames(monkeypatch)


def make():
    torch.manual_seed(0)
    return Dynamics(CONFIG, SPACE).double().eval()


def steps(rows, length):
    actions = random_actions(rows, length)
    actions["arm"] = actions["arm"].double()
    return Step(actions, torch.rand(rows, length) < 0.7)


def noise(rows, length):
    return torch.randn(rows, length, 4, 8, dtype=torch.float64)


@torch.inference_mode()
def test_a_rollout_round_the_ring_is_one_graph_and_the_same():
    """From nothing, three windows long, one row restarting."""
    dynamics, before = make(), None
    slow, fast, compilations = dynamics.new_cache(2), dynamics.new_cache(2), []
    for frame in range(3 * CONFIG.context_length + 2):
        step, z0 = steps(2, 1), noise(2, 1)
        restarts = torch.tensor([frame == 6, False])
        slow.reset(restarts)
        fast.reset(restarts)
        expected = denoise(dynamics, slow, step, z0, 2, before=before)
        found = denoise(dynamics, fast, step, z0, 2, before=before, fast=before is not None)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
        before = Finished(expected, step, noise(2, 1))
        compilations.append(num_graphs())
    assert compilations[1] == compilations[0] + 1 == compilations[-1]


@pytest.mark.slow
@torch.inference_mode()
def test_frames_that_become_past_are_one_graph_and_the_same():
    """As in imagination: K passes, then one with the agent tokens."""
    dynamics = make()
    slow, fast, began = dynamics.new_cache(2), dynamics.new_cache(2), num_graphs()
    for _ in range(2 * CONFIG.context_length + 2):
        step, z0, tokens = steps(2, 1), noise(2, 1), torch.randn(2, 1, 1, 32, dtype=torch.float64)
        if slow.position > 0:
            a, b = denoise(dynamics, slow, step, z0, 2), denoise(dynamics, fast, step, z0, 2, fast=True)
            torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)
        frame = noise(2, 1), step, noise(2, 1)
        expected = commit(dynamics, slow, *frame, agent_tokens=tokens)
        found = commit(dynamics, fast, *frame, agent_tokens=tokens, fast=True)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert num_graphs() - began == 2


@pytest.mark.slow
@torch.inference_mode()
def test_frames_through_the_tokenizer_are_one_graph_each_and_the_same():
    torch.manual_seed(0)
    tokenizer, began = Tokenizer(SMALL).eval(), num_graphs()
    caches = [tokenizer.encoder_cache(2), tokenizer.encoder_cache(2)]
    decoders = [tokenizer.decoder_cache(2), tokenizer.decoder_cache(2)]
    for _ in range(2 * SMALL.context_length + 2):
        frames = torch.randint(256, (2, 1, 8, 8, 3), dtype=torch.uint8)
        a, b = (encode_next(tokenizer, frames, cache, fast=i == 1) for i, cache in enumerate(caches))
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
        c, d = (decode_next(tokenizer, a, cache, fast=i == 1) for i, cache in enumerate(decoders))
        torch.testing.assert_close(d, c, atol=1e-5, rtol=1e-4)
    assert num_graphs() - began == 2


@torch.no_grad()
@pytest.mark.parametrize("frames_per_pass", [1, 4, 7, 14, 100])
@pytest.mark.parametrize("segments", [False, True])
def test_a_context_in_pieces_is_the_whole_one(frames_per_pass, segments):
    """In states, and in the frame after it: three rows of seven frames, more than twice the window."""
    dynamics = make()
    whole, parts = dynamics.new_cache(3), dynamics.new_cache(3)
    segment = torch.tensor([[0] * 7, [0] * 5 + [1] * 2, [0, 1, 1, 1, 1, 1, 2]]) if segments else None
    context = noise(3, 7), steps(3, 7), noise(3, 7)
    tokens = torch.randn(3, 7, 1, 32, dtype=torch.float64)
    passed = []
    dynamics.transformer.register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0].shape[:2]))
    expected = commit(dynamics, whole, *context, agent_tokens=tokens, segment=segment)
    passed.clear()
    rows = dynamics, parts, *context
    found = prefill(*rows, agent_tokens=tokens, segment=segment, frames_per_pass=frames_per_pass)
    most = 7 if segments else min(frames_per_pass, 7)  # rows with segments are not cut
    assert max(b * t for b, t in passed if t > 1 or frames_per_pass == 1) <= max(frames_per_pass, most, 3)
    assert sum(b * t for b, t in passed) == 21
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    step, z0 = steps(3, 1), noise(3, 1)
    after = [denoise(dynamics, cache, step, z0, 2) for cache in (whole, parts)]
    torch.testing.assert_close(after[1], after[0], atol=1e-10, rtol=1e-10)


def test_generated_latents_may_enter_a_loss():
    """Though made in inference mode."""
    torch.manual_seed(0)
    dynamics = Dynamics(CONFIG, SPACE).eval()
    step = Step(random_actions(1, 2), torch.ones(1, 2, dtype=torch.bool))
    nothing = torch.zeros(1, 0, 4, 8), random_actions(1, 0), torch.ones(1, 0, dtype=torch.bool)
    made = generate(dynamics, *nothing, step.actions, step.action_mask, sampling_steps=1)
    (made * torch.ones(8, requires_grad=True)).sum().backward()
    assert not made.is_inference()


def test_auto_compiles_long_runs_on_a_cpu(monkeypatch):
    cpu = torch.device("cpu")
    assert not use_fast("auto", cpu, None) and not use_fast("auto", cpu, FRAMES_THAT_PAY - 1)
    assert not use_fast("off", cpu, FRAMES_THAT_PAY)
    assert use_fast("auto", cpu, FRAMES_THAT_PAY) == (cannot_compile(cpu) is None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    cannot_compile.cache_clear()
    try:
        assert not use_fast("auto", cpu, FRAMES_THAT_PAY)
        with pytest.raises(UserError, match="--compile on: there is no C"):
            use_fast("on", cpu, None)
    finally:
        cannot_compile.cache_clear()
