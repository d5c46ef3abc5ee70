"""Parameter counts of the published sizes, counted independently from the papers' code."""

import pytest
import torch

from reverie.data.actions import ActionSpace, Categorical, Continuous
from reverie.rssm.model import Dreamer
from reverie.rssm.presets import PRESETS, preset

SIX = ActionSpace({"joints": Continuous(6)})


def build(name: str, channels: int, space: ActionSpace) -> Dreamer:
    with torch.device("meta"):
        return Dreamer(preset(name), (64, 64, channels), space)


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def test_v1():
    model = build("v1", 3, SIX)
    world = model.world_model
    assert count(world.encoder) == 690_144
    assert count(world.core) == 557_920
    assert count(world.decoder) == 3_795_555
    assert count(world.reward_head) == 253_201
    assert count(world) == 5_296_820
    assert count(model.behaviour.critic) == 413_601
    assert count(model.behaviour.actor) == 578_412
    assert count(model) == 6_288_833


def test_v2_atari():
    model = build("v2-atari", 1, ActionSpace({"action": Categorical(18)}))
    world = model.world_model
    assert count(world.encoder) == 1_549_776
    assert count(world.core) == 5_664_848
    assert count(world.decoder) == 10_497_553
    assert count(world.reward_head) == count(world.continue_head) == 1_131_601
    assert count(world) == 19_975_379
    assert count(model.behaviour.actor) == 1_138_418
    assert count(model.behaviour.critic) == 1_131_601
    assert count(model) == 22_245_398


def test_v2_dmc_and_crafter():
    model = build("v2-dmc", 3, SIX)
    assert count(model.world_model) == 13_656_772
    assert count(model) == 15_604_385
    crafter = build("v2-crafter", 3, ActionSpace({"action": Categorical(17)}))
    norms = 2 * (
        48 * (1 + 2 + 4 + 8)  # encoder
        + 48 * (4 + 2 + 1)  # decoder, but for its first and last layer
        + 3 * 1024  # before and behind the GRU, and the posterior
        + 4 * 4 * 400  # reward, discount, actor, critic
    )
    assert count(crafter) == 31_053_751 + norms  # 31.05M without them


@pytest.mark.parametrize(
    "name, total, core, decoder, encoder",
    [
        ("v3-1m", 687_875, 377_408, 80_595, 14_304),
        ("v3-12m", 10_498_259, 5_982_464, 1_272_003, 220_416),
        ("v3-25m", 23_495_475, 13_446_528, 2_857_635, 493_824),
        ("v3-50m", 41_658_259, 23_892_480, 5_076_355, 876_032),
        ("v3-100m", 93_480_531, 53_730_048, 11_413_059, 1_966_848),
        ("v3-200m", 165_965_075, 95_495_168, 20_282_115, 3_492_864),
        ("v3-400m", 372_920_979, 214_808_064, 45_617_283, 7_850_496),
    ],
)
def test_v3(name, total, core, decoder, encoder):
    model = build(name, 3, ActionSpace({"action": Categorical(17)}))
    world = model.world_model
    assert (count(model), count(world.core), count(world.decoder), count(world.encoder)) == (
        total,
        core,
        decoder,
        encoder,
    )


def test_v3_heads():
    model = build("v3-12m", 3, ActionSpace({"action": Categorical(17)}))
    behaviour, world = model.behaviour, model.world_model
    assert count(world.reward_head) == 721_407
    assert count(world.continue_head) == 656_129
    assert count(behaviour.actor) == 792_337
    assert count(behaviour.critic) == 853_503


@pytest.mark.parametrize("name", PRESETS)
def test_the_slow_critic_is_not_trained_and_presets_build(name):
    model = build(name, 3, SIX)
    slow = model.behaviour.slow
    assert slow is None or not any(p.requires_grad for p in slow.parameters())
    assert (slow is None) == name.startswith("v1")
