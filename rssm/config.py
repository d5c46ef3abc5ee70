"""Settings of the three RSSM generations; `rssm.presets` holds the published values.

`generation` chooses the parts (core, image networks, heads, loss forms); the numbers beside it are what papers and released
code vary.
"""

from dataclasses import dataclass, field
from typing import Literal

from reverie.data.errors import UserError

Generation = Literal["v1", "v2", "v3"]
ActorGradient = Literal["reinforce", "dynamics", "both"]
TruncatedGradient = Literal["exact", "released"]
Penalty = Literal["none", "meandis", "log_prob_ens", "mixstd"]
NUM_BLOCKS = 8
"""Blocks of V3's block-diagonal layers, at every size."""


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """Recurrent state-space model: sizes and loss."""

    generation: Generation = "v3"
    """v1: Gaussian latents; v2: categorical ones with KL balancing; v3: block GRU, RMSNorm, symexp two-hot."""
    deter: int = 2048
    """Width of the deterministic state h."""
    hidden: int = 256
    """Width of the layers around the recurrence."""
    stoch: int = 32
    """Latent variables z: Gaussian dimensions in v1, categoricals in v2 and v3."""
    classes: int = 16
    """Classes of each categorical; v1 has none and ignores it."""
    depth: int = 16
    """Base number of channels of the image networks."""
    units: int = 256
    """Width of reward and continue heads."""
    reward_layers: int = 1
    """Hidden layers of the reward head."""
    continue_layers: int = 1
    """Hidden layers of the continue head."""
    layer_norm: bool = False
    """v2: a LayerNorm in every hidden layer, as the original has for Crafter; the GRU has its own always."""
    discount: float = 1 - 1 / 333
    """gamma per frame; the continue head learns gamma (1 - terminal), so that its prediction holds gamma."""
    image_scale: float = 1.0
    """Weight of the image loss."""
    reward_scale: float = 1.0
    """Weight of the reward loss."""
    reward_transform: Literal["identity", "tanh"] = "identity"
    """Applied to the data's rewards before they are learned."""
    continue_scale: float = 1.0
    """Weight of the continue loss; 0 for no such head and a constant discount."""
    prior_scale: float = 1.0
    """Weight of KL(sg q || p), which trains the prior: v3's dyn, v2's scale x balance. v1's one KL has this weight."""
    posterior_scale: float = 0.1
    """Weight of KL(q || sg p), which trains the posterior: v3's rep, v2's scale x (1 - balance); not used by v1."""
    free_nats: float = 1.0
    """KL below which there is no gradient: of the batch mean in v1 and v2, of every step in v3."""
    prior_members: int = 1
    """K prior heads, one drawn at random for each step; their disagreement is Offline-DV2's penalty (7 there)."""
    burn_in: int = 4
    """Steps without loss where a piece of video starts in the middle of an episode, so that the state is not known."""

    def __post_init__(self) -> None:
        for name in ("deter", "hidden", "stoch", "depth", "units", "prior_members"):
            if getattr(self, name) < 1:
                raise UserError(f"world_model.{name}: must be at least 1, got {getattr(self, name)}.")
        if self.generation != "v1" and self.classes < 2:
            raise UserError(f"world_model.classes: {self.generation} needs at least 2, got {self.classes}.")
        if self.generation == "v3" and (self.deter % NUM_BLOCKS or self.depth % 2):
            raise UserError(
                f"world_model.deter and world_model.depth: v3 needs multiples of {NUM_BLOCKS} and 2, "
                f"got {self.deter} and {self.depth}."
            )
        if not 0 < self.discount <= 1:
            raise UserError(f"world_model.discount: must lie in (0, 1], got {self.discount}.")


@dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
    """Actor and critic, learned in imagination."""

    horizon: int = 15
    """Imagined steps; 5 in the Offline-DV2 recipe."""
    trace_decay: float = 0.95
    """lambda of the returns."""
    units: int = 256
    """Width of actor and critic."""
    actor_layers: int = 3
    """Hidden layers of the actor."""
    critic_layers: int = 3
    """Hidden layers of the critic."""
    layer_norm: bool = False
    """v2: a LayerNorm in every hidden layer of both."""
    actor_gradient: ActorGradient = "reinforce"
    """reinforce (score function), dynamics (through the world model), or both, mixed by `dynamics_share`."""
    dynamics_share: float = 0.1
    """rho of `both`: rho x dynamics + (1 - rho) x reinforce."""
    truncated_gradient: TruncatedGradient = "exact"
    """How a sample of v2's truncated Normal follows its mean and deviation: exact, or released, the (1, z) of the original's
    library, which leaves out that the ends of the interval move too."""
    entropy_scale: float = 3e-4
    """Weight of the policy's entropy."""
    slow_critic: Literal["none", "copy", "ema"] = "ema"
    """none (v1); copy every `slow_every` updates, which computes the returns (v2); moving average, which regularises (v3)."""
    slow_every: int = 100
    """Updates between copies."""
    slow_rate: float = 0.02
    """Rate of the moving average, every update."""
    slow_scale: float = 1.0
    """Weight of v3's regression to the slow critic's prediction."""
    normalize_returns: bool = True
    """Divide v3's advantages by the running 5 to 95 percentile range of the returns, if above 1."""
    replay_value_scale: float = 0.3
    """Weight of the value loss on the recorded sequences (v3); 0 for none."""
    cloning_scale: float = 0.0
    """Weight of the negative log-likelihood of the data's actions; 0 for none."""
    penalty: Penalty = "none"
    """Disagreement of the prior heads that imagined rewards pay for: meandis, log_prob_ens, mixstd, or none. Felt by the actor
    through the dynamics where it learns by them."""
    penalty_scale: float = 10.0
    """lambda of that penalty."""

    def __post_init__(self) -> None:
        if self.horizon < 2:
            raise UserError(f"behaviour.horizon: must be at least 2, got {self.horizon}.")
        for name in ("trace_decay", "dynamics_share", "slow_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"behaviour.{name}: must lie in [0, 1], got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """LaProp with adaptive clipping for all parts (v3), or one Adam for each of model, actor and critic (v1, v2)."""

    name: Literal["laprop", "adam"] = "laprop"
    """laprop or adam."""
    model_lr: float = 4e-5
    """Learning rate of the world model."""
    actor_lr: float = 4e-5
    """Learning rate of the actor."""
    critic_lr: float = 4e-5
    """Learning rate of the critic."""
    warmup_steps: int = 1000
    """Updates over which the rates rise linearly from 0."""
    epsilon: float = 1e-20
    """Added to the root of the squared gradients' average."""
    clip: float = 0.3
    """adam: largest global gradient norm of each part; laprop: largest norm of a gradient over that of its tensor."""
    weight_decay: float = 0.0
    """adam: weights are multiplied by 1 - this before each update, whatever the learning rate."""


@dataclass(frozen=True, kw_only=True)
class DreamerConfig:
    """A whole agent."""

    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    """World model."""
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    """Actor and critic."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Updates."""

    def __post_init__(self) -> None:
        model, behaviour = self.world_model, self.behaviour
        for name, part in (("world_model", model), ("behaviour", behaviour)):
            if part.layer_norm and model.generation != "v2":
                raise UserError(
                    f"{name}.layer_norm: only v2 has it, got {model.generation}; set it to false."
                )
        if behaviour.penalty != "none" and (model.prior_members < 2 or model.generation == "v1"):
            raise UserError(
                f"behaviour.penalty: {behaviour.penalty} needs world_model.prior_members of at least 2 and categorical "
                f"latents (v2, v3), got {model.prior_members} and {model.generation}."
            )
        if behaviour.replay_value_scale and model.generation != "v3":
            raise UserError(
                f"behaviour.replay_value_scale: only v3's values leave out the reward of their own state as that loss does; "
                f"set it to 0 for {model.generation}."
            )
