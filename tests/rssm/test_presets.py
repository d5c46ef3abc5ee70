"""Presets against the figures of the released configurations.

danijar/dreamer (define_config), danijar/dreamerv2 and danijar/dreamerv3 (configs.yaml), conglu1997/v-d4rl (README, configs.yaml).
"""

from dataclasses import replace

import pytest

from reverie.data.errors import UserError
from reverie.pipelines.presets import BASELINES
from reverie.rssm.presets import PRESETS, preset


def test_v1_plays_5000_frames_and_learns_100_times_every_1000_at_action_repeat_2() -> None:
    collect, batches = BASELINES["v1"]["collect"], BASELINES["v1"]["batches"]
    frames = 100 * batches.batch_size * batches.length
    assert collect.train_ratio == frames / (1000 / 2) == 500
    assert (collect.prefill, collect.pretrain, collect.noise) == (5000 / 2, 100, 0.3)


@pytest.mark.parametrize(
    ("name", "train_every", "prefill", "pretrain"),
    [("v2-atari", 16, 50_000, 1), ("v2-dmc", 5, 1000, 100), ("v2-crafter", 5, 10_000, 1)],
)
def test_v2_learns_every_so_many_steps(name: str, train_every: int, prefill: int, pretrain: int) -> None:
    collect, batches = BASELINES[name]["collect"], BASELINES[name]["batches"]
    assert (batches.batch_size, batches.length) == (16, 50)
    assert collect.train_ratio == 16 * 50 / train_every
    assert (collect.prefill, collect.pretrain, collect.noise) == (prefill, pretrain, 0)


@pytest.mark.parametrize(
    ("suite", "ratio"), [("atari", 32), ("atari100k", 256), ("dmc", 256), ("crafter", 512)]
)
def test_v3_has_the_ratio_of_the_suite_and_begins_with_a_batch(suite: str, ratio: int) -> None:
    chosen = BASELINES[f"v3-{suite}"]
    collect, batches = chosen["collect"], chosen["batches"]
    assert collect.train_ratio == ratio
    assert collect.prefill == batches.batch_size * batches.length == 16 * 64
    assert (chosen["model"].world_model.deter, chosen["model"].world_model.classes) == (8192, 64)


def test_presets_without_a_suite_claim_no_way_of_playing() -> None:
    with_suite = {name for name, fields in BASELINES.items() if "collect" in fields}
    assert with_suite == {
        "v1", "v2-atari", "v2-dmc", "v2-crafter", "v3-atari", "v3-atari100k", "v3-dmc", "v3-crafter"
    }  # fmt: skip


def test_evaluation_as_released_is_greedy_but_for_v3() -> None:
    assert all(fields["collect"].greedy is None for fields in BASELINES.values() if "collect" in fields)


@pytest.mark.parametrize("name", [n for n in PRESETS if not n.startswith("v3")])
def test_v1_and_v2_lose_no_steps_to_burn_in(name: str) -> None:
    assert preset(name).world_model.burn_in == 0


@pytest.mark.parametrize(
    ("name", "deter", "rates", "free", "scale", "discount", "ends", "rewards", "entropy", "gradient", "norm"),
    [
        ("v2-atari", 600, (2e-4, 4e-5, 1e-4), 0, 0.1, 0.999, 5, "tanh", 1e-3, "reinforce", False),
        ("v2-crafter", 1024, (1e-4, 1e-4, 1e-4), 0, 1, 0.999, 1, "tanh", 3e-3, "reinforce", True),
        ("v2-dmc", 200, (3e-4, 8e-5, 8e-5), 1, 1, 0.99, 0, "identity", 1e-4, "dynamics", False),
        ("v2-offline", 200, (3e-4, 8e-5, 8e-5), 1, 1, 0.99, 0, "identity", 1e-4, "dynamics", False),
    ],
)
def test_v2_variants(
    name: str,
    deter: int,
    rates: tuple[float, ...],
    free: float,
    scale: float,
    discount: float,
    ends: float,
    rewards: str,
    entropy: float,
    gradient: str,
    norm: bool,
) -> None:
    world, behaviour, optimizer = (
        getattr(preset(name), x) for x in ("world_model", "behaviour", "optimizer")
    )
    assert (world.deter, world.hidden, world.stoch, world.classes) == (deter, deter, 32, 32)
    assert (optimizer.model_lr, optimizer.actor_lr, optimizer.critic_lr) == rates
    assert (optimizer.epsilon, optimizer.clip, optimizer.weight_decay) == (1e-5, 100, 1e-6)
    assert (world.free_nats, world.discount, world.continue_scale) == (free, discount, ends)
    assert (world.prior_scale, world.posterior_scale) == pytest.approx((0.8 * scale, 0.2 * scale))
    assert (world.reward_transform, world.layer_norm, behaviour.layer_norm) == (rewards, norm, norm)
    assert (behaviour.entropy_scale, behaviour.actor_gradient) == (entropy, gradient)
    assert (behaviour.slow_critic, behaviour.slow_every, behaviour.trace_decay) == ("copy", 100, 0.95)


def test_offline_v2_is_the_readmes_command() -> None:
    fields, behaviour = BASELINES["v2-offline"], preset("v2-offline").behaviour
    assert (behaviour.penalty, behaviour.penalty_scale, behaviour.horizon) == ("meandis", 10, 5)
    assert preset("v2-offline").world_model.prior_members == 7
    assert (fields["batches"].batch_size, fields["batches"].length) == (64, 50)
    hundreds = -(-25_001 // 100)
    assert (fields["training"].steps, fields["policy"].steps) == (100 * hundreds, 200_000)


def test_layer_norm_is_v2s_alone() -> None:
    config = preset("v3-1m")
    with pytest.raises(UserError, match="behaviour.layer_norm: only v2 has it"):
        replace(config, behaviour=replace(config.behaviour, layer_norm=True))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("world_model", "discount", 0.0),
        ("world_model", "discount", 1.5),
        ("world_model", "prior_members", 0),
        ("world_model", "classes", 1),
        ("world_model", "deter", 12),
        ("behaviour", "horizon", 1),
        ("behaviour", "trace_decay", 1.5),
        ("behaviour", "dynamics_share", -0.1),
    ],
)
def test_wrong_settings_are_named(part: str, field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{part}.{field}"):
        replace(getattr(preset("v3-1m"), part), **{field: value})
