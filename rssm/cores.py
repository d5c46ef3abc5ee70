"""The recurrence of the three generations, side by side.

A core turns (state, action) into h, predicts z from h alone (prior) and infers it from h and the frame (posterior). What
depends on actions and frames only is computed for all steps at once, before the scan over time; the prior of recorded
sequences after it.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.nn.precision import at_least_float32, in_float32
from reverie.rssm.config import NUM_BLOCKS, WorldModelConfig
from reverie.rssm.latents import CategoricalLatent, GaussianLatent, Latent
from reverie.rssm.layers import BlockLinear, dense, elu_mlp, layer_norm, linear, norm_mlp
from reverie.rssm.norm import NormSiLU
from reverie.rssm.scan import StepLinear, merge_blocks, split_blocks
from reverie.rssm.state import State, stack
from reverie.rssm.steps import Linears, ObservedStep, observed_step

UNIMIX = 0.01
"""Share of the uniform distribution in V3's latents."""


class Core(nn.Module):
    """What the generations share.

    Args:
      deter: width of h.
      latent: the distribution of z.
      priors: K networks from h to the parameters of z.
    """

    def __init__(self, deter: int, latent: Latent, priors: list[nn.Sequential]):
        super().__init__()
        self.deter, self.latent = deter, latent
        self.priors = nn.ModuleList(priors)
        self.observed_step: ObservedStep = observed_step
        """May be replaced by the same, compiled."""

    @property
    def feature_size(self) -> int:
        """Width of h and z together."""
        return self.deter + self.latent.size

    def initial(self, batch_size: int) -> State:
        """The state before anything is seen: zeros."""
        like = next(self.parameters())
        return State(like.new_zeros(batch_size, self.deter), like.new_zeros(batch_size, self.latent.size))

    def observe(self, state: State, actions: Tensor, embed: Tensor, keep: Tensor) -> tuple[State, Tensor]:
        """Posterior states along recorded sequences.

        Args:
          state: (B, ...) before the first step.
          actions: (B, T, A) the action that led to each frame.
          embed: (B, T, E) encoded frames.
          keep: (B, T) 0 where the past must be forgotten first, else 1.

        Returns:
          States (B, T, ...) and the posterior's parameters (B, T, P).
        """
        linears = self.linears()
        codes = (actions * keep[..., None]).flatten(0, 1)
        action_in = self.action_part(linears, codes).unflatten(0, keep.shape)
        embed_in = self.embed_part(embed)
        step = self.observed_step if embed.shape[1] > 1 else observed_step  # not for who plays, one by one
        states, parameters = [], []
        for t in range(embed.shape[1]):
            state, drawn_from = step(self, linears, state, keep[:, t], action_in[:, t], embed_in[:, t])
            states.append(state)
            parameters.append(drawn_from)
        return stack(states), torch.stack(parameters, dim=1)

    def step(self, linears: Linears, state: State, action: Tensor, prior: nn.Module | None = None) -> State:
        """One imagined step: states (N, ...), actions (N, A) -> the next states, z from `prior`, by default `any_prior`."""
        deter = self.recur(linears, state, self.action_part(linears, action))
        return State(deter, self.latent.sample((prior or self.any_prior())(deter)))

    def any_prior(self) -> nn.Module:
        """One member of the ensemble, drawn at random."""
        return self.priors[0 if len(self.priors) == 1 else int(torch.randint(len(self.priors), ()))]

    def prior(self, deter: Tensor) -> Tensor:
        """Parameters (B, T, P) of the prior along sequences h (B, T, D); each step by one random member of the ensemble."""
        if len(self.priors) == 1:
            return self.priors[0](deter)
        members = torch.randint(len(self.priors), (deter.shape[1],)).tolist()
        return torch.stack([self.priors[m](deter[:, t]) for t, m in enumerate(members)], dim=1)

    def all_priors(self, deter: Tensor) -> Tensor:
        """(..., D) -> (K, ..., P): every member's parameters."""
        return torch.stack([network(deter) for network in self.priors])

    @abstractmethod
    def feature(self, state: State) -> Tensor:
        """What heads see: h and z, (..., D + S)."""

    @abstractmethod
    def linears(self) -> Linears:
        """The layers that run at every step; make them anew for every pass over time."""

    @abstractmethod
    def action_part(self, linears: Linears, action: Tensor) -> Tensor:
        """What the action (N, A) adds to the first layer."""

    @abstractmethod
    def embed_part(self, embed: Tensor) -> Tensor:
        """What the frame (..., E) adds to the posterior's first layer."""

    @abstractmethod
    def recur(self, linears: Linears, state: State, action_in: Tensor) -> Tensor:
        """The next h (N, D)."""

    @abstractmethod
    def posterior(self, linears: Linears, deter: Tensor, embed_in: Tensor) -> Tensor:
        """Parameters (N, P) of z given h and the frame."""


class EluCore(Core):
    """What V1 and V2 share: [z, a] enter through one ELU layer, the posterior has another, heads see [z, h]."""

    def __init__(self, config: WorldModelConfig, latent: Latent, action_size: int, embed_size: int):
        deter, hidden = config.deter, config.hidden
        norm, members = config.layer_norm, range(config.prior_members)
        priors = [elu_mlp(deter, hidden, 1, latent.num_parameters, norm) for _ in members]
        super().__init__(deter, latent, priors)
        self.inputs = dense(latent.size + action_size, hidden)
        self.inputs_norm = layer_norm(hidden, norm)
        self.posterior_in = dense(deter + embed_size, hidden)
        self.posterior_norm = layer_norm(hidden, norm)
        self.posterior_out = dense(hidden, latent.num_parameters)

    def feature(self, state: State) -> Tensor:
        """[z, h]."""
        return torch.cat([state.stoch, state.deter], dim=-1)

    def linears(self) -> Linears:
        """See `Core`."""
        return {
            "stoch": StepLinear(self.inputs.weight[:, : self.latent.size].T),
            "deter": StepLinear(self.posterior_in.weight[:, : self.deter].T),
            "out": StepLinear(self.posterior_out.weight.T, self.posterior_out.bias),
        }

    def action_part(self, linears: Linears, action: Tensor) -> Tensor:
        """See `Core`."""
        return F.linear(action, self.inputs.weight[:, self.latent.size :], self.inputs.bias)

    def embed_part(self, embed: Tensor) -> Tensor:
        """See `Core`."""
        return F.linear(embed, self.posterior_in.weight[:, self.deter :], self.posterior_in.bias)

    def posterior(self, linears: Linears, deter: Tensor, embed_in: Tensor) -> Tensor:
        """See `Core`."""
        return linears["out"](F.elu(self.posterior_norm(linears["deter"](deter) + embed_in)))


class GaussianCore(EluCore):
    """V1: Gaussian latents, a plain GRU."""

    def __init__(self, config: WorldModelConfig, action_size: int, embed_size: int):
        super().__init__(config, GaussianLatent(config.stoch), action_size, embed_size)
        self.cell = _keras_gru(config.hidden, config.deter)

    def recur(self, linears: Linears, state: State, action_in: Tensor) -> Tensor:
        """h' = GRU(ELU(W [z, a]), h)."""
        x = F.elu(self.inputs_norm(linears["stoch"](state.stoch) + action_in))
        with in_float32(x.device):  # the cell's output is the state, which autocast would round at every step
            return self.cell(at_least_float32(x), state.deter)


class LayerNormCore(EluCore):
    """V2: categorical latents, a GRU with one LayerNorm over its gates."""

    def __init__(self, config: WorldModelConfig, action_size: int, embed_size: int):
        latent = CategoricalLatent(config.stoch, config.classes, unimix=0.0)
        super().__init__(config, latent, action_size, embed_size)
        self.gates = dense(config.hidden + config.deter, 3 * config.deter)
        self.gates_norm = layer_norm(3 * config.deter)

    def linears(self) -> Linears:
        """See `Core`."""
        return super().linears() | {"gates": StepLinear(self.gates.weight.T, self.gates.bias)}

    def recur(self, linears: Linears, state: State, action_in: Tensor) -> Tensor:
        """h' = LayerNormGRU(ELU(W [z, a]), h)."""
        x = F.elu(self.inputs_norm(linears["stoch"](state.stoch) + action_in))
        gates = self.gates_norm(linears["gates"](torch.cat([x, state.deter], dim=-1)))
        return gru_update(gates, state.deter)


class BlockCore(Core):
    """V3: categorical latents with a uniform share, a GRU of 8 blocks behind input layers, RMSNorm and SiLU."""

    def __init__(self, config: WorldModelConfig, action_size: int, embed_size: int):
        latent = CategoricalLatent(config.stoch, config.classes, UNIMIX)
        deter, hidden = config.deter, config.hidden
        priors = [norm_mlp(deter, hidden, 2, latent.num_parameters) for _ in range(config.prior_members)]
        super().__init__(deter, latent, priors)
        self.deter_in, self.deter_norm = linear(deter, hidden), NormSiLU(hidden)
        self.stoch_in, self.stoch_norm = linear(latent.size, hidden), NormSiLU(hidden)
        self.action_in, self.action_norm = linear(action_size, hidden), NormSiLU(hidden)
        self.mix = BlockLinear(deter + 3 * NUM_BLOCKS * hidden, deter, NUM_BLOCKS)
        self.mix_norm = NormSiLU(deter)
        self.gates = BlockLinear(deter, 3 * deter, NUM_BLOCKS)
        self.posterior_in = linear(deter + embed_size, hidden)
        self.posterior_norm = NormSiLU(hidden)
        self.posterior_out = linear(hidden, latent.num_parameters)

    def feature(self, state: State) -> Tensor:
        """[h, z]."""
        return torch.cat([state.deter, state.stoch], dim=-1)

    def linears(self) -> Linears:
        """See `Core`. `mix` is taken apart: each block's own rows, and those that all blocks' inputs share, as one matrix."""
        own, hidden = self.deter // NUM_BLOCKS, self.posterior_in.out_features
        shared = self.mix.weight[:, own:].transpose(0, 1).flatten(1)  # (3 hidden, D)
        return {
            "deter_in": StepLinear(self.deter_in.weight.T, self.deter_in.bias),
            "stoch_in": StepLinear(self.stoch_in.weight.T, self.stoch_in.bias),
            "own": StepLinear(self.mix.weight[:, :own]),
            "shared": StepLinear(shared[: 2 * hidden]),
            "action": StepLinear(shared[2 * hidden :], self.mix.bias),
            "gates": StepLinear(self.gates.weight, self.gates.bias.unflatten(0, (NUM_BLOCKS, 1, -1))),
            "deter": StepLinear(self.posterior_in.weight[:, : self.deter].T),
            "out": StepLinear(self.posterior_out.weight.T, self.posterior_out.bias),
        }

    def action_part(self, linears: Linears, action: Tensor) -> Tensor:
        """Clipped to [-1, 1] by its magnitude, through its input layer and its rows of `mix`."""
        action = action / action.detach().abs().clamp_min(1)
        return linears["action"](self.action_norm(self.action_in(action)))

    def embed_part(self, embed: Tensor) -> Tensor:
        """See `Core`."""
        return F.linear(embed, self.posterior_in.weight[:, self.deter :], self.posterior_in.bias)

    def recur(self, linears: Linears, state: State, action_in: Tensor) -> Tensor:
        """Every block of h' sees its own block of h and all of the input layers' outputs."""
        blocks = split_blocks(state.deter, NUM_BLOCKS)
        from_deter = self.deter_norm(linears["deter_in"](state.deter))
        from_stoch = self.stoch_norm(linears["stoch_in"](state.stoch))
        shared = linears["shared"](torch.cat([from_deter, from_stoch], dim=-1))
        x = self.mix_norm(merge_blocks(linears["own"](blocks)) + shared + action_in)
        gates = linears["gates"](split_blocks(x, NUM_BLOCKS))
        return merge_blocks(gru_update(gates, blocks))

    def posterior(self, linears: Linears, deter: Tensor, embed_in: Tensor) -> Tensor:
        """See `Core`."""
        return linears["out"](self.posterior_norm(linears["deter"](deter) + embed_in))


def gru_update(gates: Tensor, deter: Tensor) -> Tensor:
    """h' = u tanh(r c) + (1 - u) h of gates (..., 3 D), where u = sigmoid(update - 1): V2, and each block of V3."""
    reset, candidate, update = gates.float().chunk(3, dim=-1)
    candidate = torch.tanh(reset.sigmoid() * candidate)
    return torch.lerp(deter, candidate, torch.sigmoid(update - 1))


def _keras_gru(inputs: int, deter: int) -> nn.GRUCell:
    cell = nn.GRUCell(inputs, deter)
    nn.init.xavier_uniform_(cell.weight_ih)
    nn.init.orthogonal_(cell.weight_hh)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    return cell


CORES: dict[str, type[GaussianCore] | type[LayerNormCore] | type[BlockCore]] = {
    "v1": GaussianCore,
    "v2": LayerNormCore,
    "v3": BlockCore,
}
