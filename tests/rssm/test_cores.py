"""The recurrences, taken apart for speed, against their formulas written plainly on the same weights."""

import pytest
import torch
import torch.nn.functional as F

from reverie.rssm.config import NUM_BLOCKS
from reverie.rssm.cores import BlockCore, Core, GaussianCore, LayerNormCore
from reverie.rssm.state import State
from tests.rssm.models import GENERATIONS, small_model


def with_all_weights_drawn(generation: str, norm: bool) -> Core:
    """Biases and gains too, which are 0 and 1 at first and would hide a mistake."""
    core = small_model(generation, layer_norm=norm).world_model.core
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.normal_(0, 0.3)
    return core


def gru(gates: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    reset, candidate, update = gates.chunk(3, -1)
    u = torch.sigmoid(update - 1)
    return u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * h


def normed(x: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
    """Keras' LayerNormalization, whose epsilon is 1e-3, where the core has one."""
    if isinstance(norm, torch.nn.Identity):
        return x
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()
    return x * norm.weight + norm.bias


def plain_recurrence(core: Core, h: torch.Tensor, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    match core:
        case GaussianCore():
            return core.cell(F.elu(core.inputs(torch.cat([z, a], -1))), h)
        case LayerNormCore():
            x = F.elu(normed(core.inputs(torch.cat([z, a], -1)), core.inputs_norm))
            return gru(normed(core.gates(torch.cat([x, h], -1)), core.gates_norm), h)
        case BlockCore():
            a = a / a.abs().clamp_min(1)
            parts = [
                core.deter_norm(core.deter_in(h)),
                core.stoch_norm(core.stoch_in(z)),
                core.action_norm(core.action_in(a)),
            ]
            shared, blocks = torch.cat(parts, -1), h.chunk(NUM_BLOCKS, -1)
            biases = core.mix.bias.chunk(NUM_BLOCKS)
            mixed = [
                torch.cat([block, shared], -1) @ core.mix.weight[g] + biases[g]
                for g, block in enumerate(blocks)
            ]
            x = core.mix_norm(torch.cat(mixed, -1)).chunk(NUM_BLOCKS, -1)
            biases = core.gates.bias.chunk(NUM_BLOCKS)
            gates = [x[g] @ core.gates.weight[g] + biases[g] for g in range(NUM_BLOCKS)]
            return torch.cat([gru(gates[g], blocks[g]) for g in range(NUM_BLOCKS)], -1)
    raise AssertionError(core)


def plain_posterior(core: Core, h: torch.Tensor, embed: torch.Tensor) -> torch.Tensor:
    assert isinstance(core, GaussianCore | LayerNormCore | BlockCore)
    x = core.posterior_in(torch.cat([h, embed], -1))
    if isinstance(core, BlockCore):
        return core.posterior_out(core.posterior_norm(x))
    return core.posterior_out(F.elu(normed(x, core.posterior_norm)))


@pytest.mark.parametrize(("generation", "norm"), [*((g, False) for g in GENERATIONS), ("v2", True)])
def test_a_step_equals_the_formulas(generation: str, norm: bool) -> None:
    torch.manual_seed(0)
    core = with_all_weights_drawn(generation, norm)
    embed_size = core.posterior_in.in_features - core.deter
    width = core.action_in if isinstance(core, BlockCore) else core.inputs
    action_size = width.in_features - (0 if isinstance(core, BlockCore) else core.latent.size)
    h, z = torch.randn(5, core.deter), torch.randn(5, core.latent.size)
    a, embed = 2 * torch.randn(5, 1, action_size), torch.randn(5, 1, embed_size)
    keep = torch.tensor([1, 1, 0, 1, 0])[:, None]
    states, posterior = core.observe(State(h, z), a, embed, keep)
    expected = plain_recurrence(core, h * keep, z * keep, a[:, 0] * keep)
    torch.testing.assert_close(states.deter[:, 0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        posterior[:, 0], plain_posterior(core, states.deter[:, 0], embed[:, 0]), atol=1e-6, rtol=1e-6
    )
    torch.manual_seed(1)
    imagined = core.step(core.linears(), State(h, z), a[:, 0])
    torch.testing.assert_close(imagined.deter, plain_recurrence(core, h, z, a[:, 0]), atol=1e-5, rtol=1e-5)
