"""Generation: cached equals uncached over several windows, an oracle lands on the data, cost does not grow."""

import pytest
import torch

from reverie.dynamics.frame import Finished, Step, sample
from reverie.dynamics.generation import commit, denoise, generate
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import corrupt
from tests.batches import SPACE, latent_batch, random_actions

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=8, context_length=4, num_registers=2)


def make():
    torch.manual_seed(0)
    return Dynamics(CONFIG, SPACE).eval()


@torch.no_grad()
def uncached(dynamics, latents, actions, mask, horizon, noises, context_noises, sampling_steps):
    """The same sampling, every pass over the whole sequence so far and no cache."""
    b, c = latents.shape[:2]
    z = latents
    for h in range(horizon):
        t = c + h
        current = noises[:, h : h + 1]
        for i in range(sampling_steps):
            signal = torch.full((b, t + 1), CONFIG.context_signal_index)
            step = torch.full((b, t + 1), CONFIG.num_step_sizes - 1)
            signal[:, -1], step[:, -1] = i * 64 // sampling_steps, sampling_steps.bit_length() - 1
            past = corrupt(z, context_noises[:, :t], signal[:, :t] / 64)
            inputs = torch.cat([past, current], 1)
            now = {name: x[:, : t + 1] for name, x in actions.items()}
            z_hat = dynamics(inputs, signal, step, now, mask[:, : t + 1])[0][:, -1:]
            tau = i / sampling_steps
            current = current + (z_hat - current) / (1 - tau) / sampling_steps
        z = torch.cat([z, current], 1)
    return z[:, c:]


@torch.no_grad()
@pytest.mark.parametrize("context", [0, 1, 6])
@pytest.mark.parametrize("sampling_steps", [1, 4])
@pytest.mark.parametrize("fused", [False, True])
def test_cached_equals_uncached_beyond_several_windows(context, sampling_steps, fused):
    """In float64: an untrained model fed with its own frames is chaotic, a change of 1e-6 grows to 1 within ten frames."""
    dynamics, horizon = make().double(), 14
    torch.manual_seed(1)
    latents = torch.rand(2, context, 4, 8).double()
    actions, mask = random_actions(2, context + horizon), torch.rand(2, context + horizon) < 0.7
    actions["arm"] = actions["arm"].double()
    noises = torch.randn(2, horizon, 4, 8).double()
    context_noises = torch.randn(2, context + horizon, 4, 8).double()
    cache, frames, before = dynamics.new_cache(2), [], None

    def step(a, b):
        return Step({name: x[:, a:b] for name, x in actions.items()}, mask[:, a:b])

    if context:
        commit(dynamics, cache, latents, step(0, context), context_noises[:, :context])
    for h in range(horizon):
        now = step(context + h, context + h + 1)
        frames.append(denoise(dynamics, cache, now, noises[:, h : h + 1], sampling_steps, before=before))
        context_noise = context_noises[:, context + h : context + h + 1]
        if fused:
            before = Finished(frames[-1], now, context_noise)
        else:
            commit(dynamics, cache, frames[-1], now, context_noise)
    expected = uncached(dynamics, latents, actions, mask, horizon, noises, context_noises, sampling_steps)
    torch.testing.assert_close(torch.cat(frames, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampling_steps", [1, 2, 4, 64])
def test_an_oracle_denoiser_lands_on_the_data(sampling_steps):
    """Whatever the noise."""
    z = torch.rand(3, 1, 4, 8, dtype=torch.float64)
    out = sample(lambda _, i: z, torch.randn_like(z), sampling_steps)
    torch.testing.assert_close(out, z, atol=1e-12, rtol=0)


def test_sampling_is_the_shortcut_equation():
    """For a denoiser that is a function of z and tau, step by step as the paper writes it."""
    z = noise = torch.randn(2, 1, 4, 8, dtype=torch.float64)
    for tau in (0.0, 0.25, 0.5, 0.75):
        z = z + (torch.sin(z + tau) - z) / (1 - tau) * 0.25
    found = sample(lambda x, i: torch.sin(x + i / 4), noise, 4)
    torch.testing.assert_close(found, z, atol=1e-12, rtol=0)


@pytest.mark.parametrize("sampling_steps", [0, 3, 128])
def test_other_numbers_of_steps_are_refused(sampling_steps):
    dynamics = make()
    step = Step(random_actions(1, 1), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="power of two"):
        denoise(dynamics, dynamics.new_cache(1), step, torch.rand(1, 1, 4, 8), sampling_steps)


def test_generate_is_a_function_of_its_seed_and_its_actions():
    dynamics, batch = make(), latent_batch(b=2, t=6)
    context = (batch.latents, batch.actions, batch.action_mask)
    future = random_actions(2, 5)
    known = torch.ones(2, 5, dtype=torch.bool)

    def run(actions, seed):
        return generate(dynamics, *context, actions, known, generator=torch.Generator().manual_seed(seed))

    assert run(future, 0).shape == (2, 5, 4, 8)
    assert torch.equal(run(future, 0), run(future, 0))
    assert not torch.equal(run(future, 0), run(future, 1))
    other = {**future, "mouse": future["mouse"].clone()}
    other["mouse"][:, 3] = (other["mouse"][:, 3] + 1) % 5
    a, b = run(future, 0), run(other, 0)
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.equal(a[:, 3], b[:, 3])


@torch.no_grad()
def test_memory_of_a_long_rollout_is_constant():
    """The buffers of the first frame serve all others."""
    dynamics = make()
    cache, z = dynamics.new_cache(1), torch.rand(1, 1, 4, 8)
    step = Step(random_actions(1, 1), torch.ones(1, 1, dtype=torch.bool))
    buffers = []
    for _ in range(50):
        commit(dynamics, cache, z, step, torch.randn_like(z))
        buffers.append([(x.data_ptr(), x.shape) for layer in cache.past(1).layers for x in layer])
    assert buffers[0] == buffers[-1]
    assert {shape[-2] for _, shape in buffers[0]} == {CONFIG.context_length + 1}
    assert cache.position == 50
