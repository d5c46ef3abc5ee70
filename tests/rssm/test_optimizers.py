"""LaProp, adaptive clipping and the Adams."""

import pytest
import torch

from reverie.rssm.config import OptimizerConfig
from reverie.rssm.optimizers import ClippedAdam, LaProp, clip_adaptively_, make_optimizer, set_learning_rates
from reverie.rssm.presets import preset
from tests.rssm.models import small_model


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def test_laprop_by_hand():
    w = parameter(0.0)
    optimizer = LaProp([{"params": [w], "lr": 0.1}], clip=1e12)
    for gradient, expected in ((1.0, -0.1), (-2.0, -0.0808041)):
        w.grad = torch.tensor([gradient])
        optimizer.step()
        assert w.item() == pytest.approx(expected, abs=1e-7)


def test_adaptive_clipping_by_hand():
    weights = [parameter(2.0, 0.0), parameter(0.0, 0.0), parameter(10.0, 0.0)]
    gradients = [torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])]
    clip_adaptively_(weights, gradients, 0.3)
    assert gradients[0][1].item() == pytest.approx(0.6)  # scale 0.2
    assert gradients[1].norm().item() == pytest.approx(3e-4)
    assert gradients[2].tolist() == [0, 3]


def test_laprop_resumes():
    def run(optimizer, weights, steps):
        for step in steps:
            torch.manual_seed(step)
            for w in weights:
                w.grad = torch.randn_like(w)
            optimizer.step()

    def new():
        weights = [parameter(1.0, 2.0), parameter(-1.0)]
        return weights, LaProp([{"params": weights, "lr": 0.01}])

    weights, optimizer = new()
    run(optimizer, weights, range(6))
    again, first = new()
    run(first, again, range(3))
    second = LaProp([{"params": again, "lr": 0.01}])
    second.load_state_dict(first.state_dict())
    run(second, again, range(3, 6))
    for a, b in zip(weights, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_adam_clips_each_part_and_decays_whatever_the_rate():
    a, b = parameter(3.0, 4.0), parameter(1.0)
    optimizer = ClippedAdam(
        [{"params": [p], "lr": 1e-3, "clip": 1.0, "weight_decay": 1e-6 / 1e-3} for p in (a, b)], eps=1e-5
    )
    reference = torch.nn.Parameter(a.detach().clone())
    plain = torch.optim.Adam([reference], 1e-3, eps=1e-5)
    # Two steps: the first alone is the same for gradients of any size.
    for gradient, clipped in (([300.0, 400.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):
        a.grad, b.grad = torch.tensor(gradient), torch.zeros(1)
        optimizer.step()
        reference.data.mul_(1 - 1e-6)
        reference.grad = torch.tensor(clipped)
        plain.step()
        torch.testing.assert_close(a, reference, rtol=1e-7, atol=2e-7)
    assert b.item() == pytest.approx(1 - 2e-6, abs=2e-7)


def test_groups_rates_and_warm_up():
    model = small_model("v3")
    config = OptimizerConfig(model_lr=1e-3, actor_lr=2e-3, critic_lr=3e-3, warmup_steps=10)
    optimizer = make_optimizer(model, config)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    set_learning_rates(optimizer, config, 0)
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0, 0]
    set_learning_rates(optimizer, config, 5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 1e-3, 1.5e-3])
    set_learning_rates(optimizer, config, 1000)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 2e-3, 3e-3])


def test_published_settings():
    v1, v2, v3 = (preset(name).optimizer for name in ("v1", "v2-atari", "v3-12m"))
    assert (v1.model_lr, v1.actor_lr, v1.critic_lr, v1.clip) == (6e-4, 8e-5, 8e-5, 100)
    assert (v2.model_lr, v2.actor_lr, v2.critic_lr, v2.weight_decay) == (2e-4, 4e-5, 1e-4, 1e-6)
    assert (v3.name, v3.model_lr, v3.warmup_steps, v3.clip) == ("laprop", 4e-5, 1000, 0.3)
