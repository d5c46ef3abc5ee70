"""Settings of the three generations, by name, from their released code; docs/baselines.md lists what differs.

Sources: danijar/dreamer (V1), danijar/dreamerv2 (V2), danijar/dreamerv3 as of the Nature version (V3), V-D4RL (v2-offline).
`v1-atari` alone is from a paper, whose code was not released.
"""

from dataclasses import replace

from reverie.data.errors import UserError
from reverie.rssm.config import BehaviourConfig, DreamerConfig, OptimizerConfig, WorldModelConfig


def _v1() -> DreamerConfig:
    """DreamerV1 on DMC vision: constant discount, gradients through the dynamics."""
    return DreamerConfig(
        world_model=WorldModelConfig(
            generation="v1",
            deter=200,
            hidden=200,
            stoch=30,
            classes=0,
            depth=32,
            units=400,
            reward_layers=2,
            continue_layers=3,
            discount=0.99,
            continue_scale=0.0,
            prior_scale=1.0,
            posterior_scale=1.0,
            free_nats=3.0,
            burn_in=0,
        ),
        behaviour=BehaviourConfig(
            units=400,
            actor_layers=4,
            critic_layers=3,
            actor_gradient="dynamics",
            entropy_scale=0.0,
            slow_critic="none",
            slow_scale=0.0,
            normalize_returns=False,
            replay_value_scale=0.0,
        ),
        optimizer=OptimizerConfig(
            name="adam",
            model_lr=6e-4,
            actor_lr=8e-5,
            critic_lr=8e-5,
            warmup_steps=0,
            epsilon=1e-7,
            clip=100.0,
        ),
    )


def _v1_atari() -> DreamerConfig:
    """DreamerV1's variant for discrete actions and games that end: the released code's options with the paper's weights."""
    base = _v1()
    return replace(
        base,
        world_model=replace(
            base.world_model,
            continue_scale=10.0,
            prior_scale=0.1,
            posterior_scale=0.1,
            reward_transform="tanh",
        ),
        behaviour=replace(base.behaviour, horizon=10),
    )


def _v2(
    deter: int, kl_scale: float, free_nats: float, discount: float, continue_scale: float
) -> DreamerConfig:
    """DreamerV2: what its variants share."""
    return DreamerConfig(
        world_model=WorldModelConfig(
            generation="v2",
            deter=deter,
            hidden=deter,
            stoch=32,
            classes=32,
            depth=48,
            units=400,
            reward_layers=4,
            continue_layers=4,
            discount=discount,
            continue_scale=continue_scale,
            prior_scale=0.8 * kl_scale,
            posterior_scale=0.2 * kl_scale,
            free_nats=free_nats,
            burn_in=0,
        ),
        behaviour=BehaviourConfig(
            units=400,
            actor_layers=4,
            critic_layers=4,
            slow_critic="copy",
            slow_scale=0.0,
            normalize_returns=False,
            replay_value_scale=0.0,
        ),
        optimizer=OptimizerConfig(name="adam", warmup_steps=0, epsilon=1e-5, clip=100.0, weight_decay=1e-6),
    )


def _v2_atari() -> DreamerConfig:
    base = _v2(600, 0.1, 0.0, 0.999, 5.0)
    return replace(
        base,
        world_model=replace(base.world_model, reward_transform="tanh"),
        behaviour=replace(base.behaviour, entropy_scale=1e-3),
        optimizer=replace(base.optimizer, model_lr=2e-4, actor_lr=4e-5, critic_lr=1e-4),
    )


def _v2_dmc() -> DreamerConfig:
    base = _v2(200, 1.0, 1.0, 0.99, 0.0)
    return replace(
        base,
        behaviour=replace(base.behaviour, actor_gradient="dynamics", entropy_scale=1e-4),
        optimizer=replace(base.optimizer, model_lr=3e-4, actor_lr=8e-5, critic_lr=8e-5),
    )


def _v2_crafter() -> DreamerConfig:
    """LayerNorm in every layer, and rewards through tanh, the released code's default."""
    base = _v2(1024, 1.0, 0.0, 0.999, 1.0)
    return replace(
        base,
        world_model=replace(base.world_model, reward_transform="tanh", layer_norm=True),
        behaviour=replace(base.behaviour, entropy_scale=3e-3, layer_norm=True),
        optimizer=replace(base.optimizer, model_lr=1e-4, actor_lr=1e-4, critic_lr=1e-4),
    )


def _v2_offline() -> DreamerConfig:
    """V-D4RL's Offline DV2: 7 prior heads whose disagreement is paid for, horizon 5; world model first, then the policy."""
    base = _v2_dmc()
    return replace(
        base,
        world_model=replace(base.world_model, prior_members=7),
        behaviour=replace(base.behaviour, horizon=5, penalty="meandis", penalty_scale=10.0),
    )


def _v3(width: int) -> DreamerConfig:
    """DreamerV3 at a size: hidden = units = width, deter 8 width, classes = depth = width / 16.

    `burn_in` stands in for the original's stored states.
    """
    return DreamerConfig(
        world_model=WorldModelConfig(
            deter=8 * width, hidden=width, classes=width // 16, depth=width // 16, units=width
        ),
        behaviour=BehaviourConfig(units=width),
    )


PRESETS: dict[str, DreamerConfig] = {
    "v1": _v1(),
    "v1-atari": _v1_atari(),
    "v2-atari": _v2_atari(),
    "v2-dmc": _v2_dmc(),
    "v2-crafter": _v2_crafter(),
    "v2-offline": _v2_offline(),
    **{
        f"v3-{name}": _v3(width)
        for name, width in (
            ("1m", 64),
            ("12m", 256),
            ("25m", 384),
            ("50m", 512),
            ("100m", 768),
            ("200m", 1024),
            ("400m", 1536),
        )
    },
}
"""Settings by name."""


def preset(name: str) -> DreamerConfig:
    """The settings called `name`. Raises `UserError` listing the names."""
    if name not in PRESETS:
        raise UserError(f"--preset {name}: not known; use one of {', '.join(PRESETS)}.")
    return PRESETS[name]
