"""Dynamics model: causality, agent firewall, action embeddings, labels mixed per frame."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reverie.data.actions import ActionSpace
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import draw_corruption
from tests.batches import SPACE, latent_batch, random_actions

CONFIG = DynamicsConfig(
    latent_shape=(4, 8), width=32, depth=8, context_length=4, num_registers=2, num_action_tokens=2
)


def make(space=SPACE):
    torch.manual_seed(0)
    return Dynamics(CONFIG, space).eval()


def inputs(b=2, t=9, seed=0):
    torch.manual_seed(seed)
    return dict(
        noisy_latents=torch.randn(b, t, 4, 8),
        signal_index=torch.randint(0, 64, (b, t)),
        step_index=torch.randint(0, 7, (b, t)),
        actions=random_actions(b, t),
        action_mask=torch.rand(b, t) < 0.7,
    )


@torch.no_grad()
@pytest.mark.parametrize("what", ["noisy_latents", "signal_index", "step_index", "mouse"])
def test_nothing_past_sees_a_change_of_frame_6(what):
    model, before, after = make(), inputs(), inputs()
    before["action_mask"][:] = after["action_mask"][:] = True
    if what == "noisy_latents":
        after[what][:, 6] += 1
    elif what == "mouse":
        after["actions"]["mouse"][:, 6] = (after["actions"]["mouse"][:, 6] + 1) % 5
    else:
        after[what][:, 6] = (after[what][:, 6] + 1) % 6
    a, b = model(**before)[0], model(**after)[0]
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.equal(a[:, 6], b[:, 6])


def test_agent_firewall():
    """Gradient of the world model's output with respect to agent tokens is exactly 0, values are bit-equal without them."""
    model, x = make(), inputs()
    tokens = torch.randn(2, 9, 1, 32, requires_grad=True)
    z_hat, states = model(**x, agent_tokens=tokens)
    (gradient,) = torch.autograd.grad(z_hat.square().sum(), tokens, retain_graph=True, allow_unused=True)
    assert gradient is None or gradient.abs().max() == 0
    (gradient,) = torch.autograd.grad(states.square().sum(), tokens)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(model(**x)[0], z_hat, atol=1e-6, rtol=1e-6)
    other = model(**x, agent_tokens=torch.randn(2, 9, 1, 32))[0]
    assert torch.equal(other, z_hat)


@torch.no_grad()
def test_agent_tokens_see_the_whole_frame():
    model, x = make(), inputs()
    tokens = torch.randn(2, 9, 1, 32)
    before = model(**x, agent_tokens=tokens)[1]
    x["noisy_latents"][:, 8] += 1
    after = model(**x, agent_tokens=tokens)[1]
    assert torch.equal(before[:, :8], after[:, :8]) and not torch.equal(before[:, 8], after[:, 8])


@torch.no_grad()
def test_an_unknown_action_has_no_influence_whatever_it_holds():
    model, a = make(), inputs()
    b = {**a, "actions": {k: v.clone() for k, v in a["actions"].items()}}
    b["actions"]["mouse"][~a["action_mask"]] = 4
    b["actions"]["arm"][~a["action_mask"]] = float("nan")
    assert torch.equal(model(**a)[0], model(**b)[0])


def test_unlabelled_frames_give_no_action_gradient():
    model, x = make(), inputs()
    x["action_mask"][:] = False
    model(**x)[0].square().sum().backward()
    for table in model.action_embedding.tables:
        assert table.grad is None or table.grad.abs().max() == 0
    assert model.action_embedding.no_action_embedding.grad.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("component", ["keys", "mouse", "arm"])
def test_every_component_matters_where_known(component):
    model, a = make(), inputs()
    a["action_mask"][:] = True
    b = {**a, "actions": {k: v.clone() for k, v in a["actions"].items()}}
    value = b["actions"][component]
    flip = {"keys": torch.logical_not, "mouse": lambda x: (x + 1) % 5, "arm": torch.neg}
    b["actions"][component] = flip[component](value)
    assert not torch.equal(model(**a)[0], model(**b)[0])


@torch.no_grad()
def test_binary_embedding_is_a_lookup_per_key_and_state():
    model = make()
    keys = torch.tensor([[[True, False, True]]])
    table = model.action_embedding.tables[0]
    expected = table[3 + 0] + table[1] + table[3 + 2]
    nothing = {"mouse": torch.zeros(1, 1, dtype=torch.long), "arm": torch.zeros(1, 1, 2), "keys": keys}
    only_keys = Dynamics(CONFIG, ActionSpace({"keys": SPACE.components["keys"]}))
    only_keys.action_embedding.tables[0].copy_(table)
    out = only_keys.action_embedding(nothing, torch.ones(1, 1, dtype=torch.bool))
    base = only_keys.action_embedding.no_action_embedding
    torch.testing.assert_close(out[0, 0].flatten() - base.flatten(), expected)


@torch.no_grad()
def test_video_without_any_actions():
    model, x = make(ActionSpace()), inputs()
    x["actions"] = {}
    assert model(**x)[0].shape == latent_batch(2, 9).latents.shape


def test_wrong_grids_are_named():
    with pytest.raises(ValueError, match="power of two"):
        DynamicsConfig(max_sampling_steps=48)
    with pytest.raises(ValueError, match="context_signal_level"):
        DynamicsConfig(context_signal_level=0.0)


@pytest.mark.parametrize(
    ("level", "steps", "index"), [(1.0, 64, 63), (0.995, 64, 63), (0.9, 64, 58), (0.9, 4, 3)]
)
def test_the_context_enters_at_a_level_that_training_draws(level, steps, index):
    config = DynamicsConfig(context_signal_level=level, max_sampling_steps=steps)
    assert config.context_signal_index == index
    latents = torch.zeros(2, 2000, 1, 1)
    drawn = draw_corruption(latents, config, torch.tensor([True, False]))
    assert drawn.signal_index.max() == steps - 1 >= config.context_signal_index


@pytest.mark.parametrize("agents", [1, 3])
def test_agent_states_alone_are_those_of_a_whole_pass_and_cost_less(agents):
    """Values and all gradients, in two segments; the last layers compute no latents."""
    model, x, tokens = make(), inputs(), torch.randn(2, 9, agents, 32, requires_grad=True)
    x |= {"segment": torch.arange(9).expand(2, 9) // 5, "agent_tokens": tokens}
    weight, results, flops = torch.randn(2, 9, agents, 32), [], []
    for run in (model.agent_states, lambda **given: model(**given)[1]):
        with FlopCounterMode(display=False) as counter:
            states = run(**x)
        flops.append(counter.get_total_flops())
        gradients = torch.autograd.grad(
            (states * weight).sum(), [tokens, *model.parameters()], allow_unused=True
        )
        results.append((states.detach(), *gradients))
    for alone, whole in zip(*results, strict=True):
        assert (alone is None) == (whole is None)
        if alone is not None:
            torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-4)
    assert flops[0] < 0.95 * flops[1]
