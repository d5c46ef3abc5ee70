"""The interactive dynamics model (Dreamer 4, section 3.2): predicts clean latents from corrupted ones, given actions.

Tokens of one frame: [action tokens S_a][shortcut token (tau, d)][spatial tokens S_z][registers S_r] and, for the agent stage,
[agent tokens]. World tokens see each other and the past; agent tokens see everything of their frame and their own past; nothing
sees agent tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from reverie.data.actions import ActionSpace, Binary, Categorical, Component, Continuous
from reverie.nn.attention import init_linear
from reverie.nn.cache import Past, RingCache
from reverie.nn.dispatch import Backend, require_possible
from reverie.nn.distributions import scale_continuous
from reverie.nn.precision import Float32Linear, in_float32
from reverie.nn.transformer import BlockCausalTransformer, Group, TransformerConfig

EMBEDDING_STD = 0.5
"""Of the first embeddings of actions, tau and d: as large as embedded latents, or a short training hardly tells them apart."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Sizes of the dynamics model. Presets hold sizes that belong together."""

    latent_shape: tuple[int, int] = (16, 32)
    """(N_z, D_z) of the tokenizer; taken from the latent shards by the command line."""
    width: int = 128
    """Model width."""
    depth: int = 8
    """Layers; every `time_every`-th attends over time."""
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int = 2
    """Key and value heads (grouped-query attention)."""
    num_action_tokens: int = 1
    """Tokens S_a that carry the action."""
    num_registers: int = 4
    """Learned register tokens S_r."""
    time_every: int = 4
    """Every how many layers one attends over time."""
    context_length: int = 16
    """Frames C that a frame sees, itself included; train on longer windows."""
    max_sampling_steps: int = 64
    """K_max, a power of two: signal levels lie on the grid {0, 1/K_max, ..., 1}."""
    context_signal_level: float = 0.9
    """Signal level at which past frames enter during generation, rounded to the grid; above 1 - 1 / max_sampling_steps, the
    highest level that training draws, it counts as that level."""
    prediction: Literal["x", "v"] = "x"
    """What the network's output stands for: x, the clean latents (the paper), or v, the velocity z - z0."""
    shortcut: bool = True
    """Step sizes of 1 to 1/K_max, so that few steps make a frame (the paper); false: diffusion forcing, d_min alone, which stands
    for every number of sampling steps."""
    softcap: float | None = 50.0
    """Soft cap of attention logits; null for none."""
    backend: Backend = "auto"
    """Kernels of attention: auto, math, sdpa, flex or flash (docs/attention.md); only auto falls back on others."""

    def __post_init__(self) -> None:
        require_possible(self.backend, self.softcap)
        if self.max_sampling_steps < 2 or self.max_sampling_steps & (self.max_sampling_steps - 1):
            raise ValueError(f"max_sampling_steps must be a power of two >= 2, got {self.max_sampling_steps}")
        if not 0 < self.context_signal_level <= 1:
            raise ValueError(f"context_signal_level must lie in (0, 1], got {self.context_signal_level}")
        if self.width % 2:
            raise ValueError(f"width must be even, got {self.width}")

    @property
    def num_world_tokens(self) -> int:
        """Tokens per frame without agent tokens."""
        return self.num_action_tokens + 1 + self.latent_shape[0] + self.num_registers

    @property
    def frame_elements(self) -> int:
        """Numbers of one activation for a frame: tokens, without the agent's, times width."""
        return self.num_world_tokens * self.width

    @property
    def num_step_sizes(self) -> int:
        """Step sizes 1, 1/2, ..., 1/K_max; index i stands for 2^-i, the last one is d_min."""
        return self.max_sampling_steps.bit_length()

    def step_index(self, sampling_steps: int) -> int:
        """Index of the step size for K = `sampling_steps`, a power of two: that of 1/K, or of d_min without shortcuts."""
        return sampling_steps.bit_length() - 1 if self.shortcut else self.num_step_sizes - 1

    @property
    def context_signal_index(self) -> int:
        """`context_signal_level` on the grid of K_max, at most K_max - 1: the embedding of clean latents is never trained."""
        level = round(self.context_signal_level * self.max_sampling_steps)
        return min(level, self.max_sampling_steps - 1)

    def transformer(self) -> TransformerConfig:
        """The transformer's sizes."""
        return TransformerConfig(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            time_every=self.time_every,
            context_length=self.context_length,
            softcap=self.softcap,
            backend=self.backend,
        )


def clean_from_velocity(velocity: Tensor, z_tilde: Tensor, tau: Tensor | float) -> Tensor:
    """z = z_tilde + (1 - tau) v of v = z - z0 and z_tilde = (1 - tau) z0 + tau z. (B, T, N_z, D_z); tau (B, T) or a number."""
    left = 1 - (tau[..., None, None] if isinstance(tau, Tensor) else tau)
    return z_tilde + left * velocity


class ActionEmbedding(nn.Module):
    """Actions of any space to S_a tokens: the sum of the components' encodings and a learned embedding.

    Where the action is unknown only the learned embedding remains, so labelled and unlabelled video mix per frame.
    """

    def __init__(self, space: ActionSpace, num_tokens: int, width: int):
        super().__init__()
        self.space, self.num_tokens = space, num_tokens
        self.no_action_embedding = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        # A list, not a ParameterDict: components may be called `keys` or `values`.
        self.tables = nn.ParameterList(
            torch.randn(_table_rows(c), num_tokens * width) * EMBEDDING_STD for c in space.components.values()
        )

    def forward(self, actions: Mapping[str, Tensor], action_mask: Tensor) -> Tensor:
        """Component -> (B, T, ...) and mask (B, T) bool -> (B, T, S_a, D)."""
        total: Tensor = repeat(
            self.no_action_embedding, "n d -> b t n d", b=action_mask.shape[0], t=action_mask.shape[1]
        )
        for table, (name, component) in zip(self.tables, self.space.components.items(), strict=True):
            with in_float32(table.device):
                code = _encode(component, table, actions[name])
            known = rearrange(code, "b t (n d) -> b t n d", n=self.num_tokens)
            # where, not multiplication: an unknown action must neither contribute nor receive gradient.
            total = total + torch.where(action_mask[..., None, None], known, 0.0)
        return total


def _table_rows(component: Component) -> int:
    return 2 * component.n if isinstance(component, Binary) else component.n


def _encode(component: Component, table: Tensor, action: Tensor) -> Tensor:
    if isinstance(component, Categorical):
        return nn.functional.embedding(action, table)
    if isinstance(component, Continuous):
        return scale_continuous(action, component).clamp(-1, 1) @ table
    assert isinstance(component, Binary)
    up, down = table.chunk(2)  # one embedding per key and state
    return up.sum(0) + action.to(table.dtype) @ (down - up)


class Dynamics(nn.Module):
    """x-prediction network f(z_tilde, tau, d, a) over whole sequences, or frame by frame with a cache."""

    def __init__(self, config: DynamicsConfig, action_space: ActionSpace):
        super().__init__()
        self.config, self.action_space = config, action_space
        num_latents, channels = config.latent_shape
        self.transformer = BlockCausalTransformer(config.transformer())
        self.action_embedding = ActionEmbedding(action_space, config.num_action_tokens, config.width)
        self.signal_embedding = nn.Parameter(
            torch.randn(config.max_sampling_steps + 1, config.width // 2) * EMBEDDING_STD
        )
        self.step_embedding = nn.Parameter(
            torch.randn(config.num_step_sizes, config.width // 2) * EMBEDDING_STD
        )
        self.latent_in = Float32Linear(channels, config.width, bias=False)
        self.latent_out = Float32Linear(config.width, channels, bias=False)
        init_linear(self.latent_in)
        init_linear(self.latent_out)
        self.spatial_positions = nn.Parameter(torch.randn(num_latents, config.width) * 0.5)
        self.registers = nn.Parameter(torch.randn(config.num_registers, config.width) * 0.02)

    def forward(
        self,
        noisy_latents: Tensor,
        signal_index: Tensor,
        step_index: Tensor,
        actions: Mapping[str, Tensor],
        action_mask: Tensor,
        *,
        segment: Tensor | None = None,
        cache: RingCache | Past | None = None,
        agent_tokens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Predicts clean latents.

        Args:
          noisy_latents: (B, T, N_z, D_z) z_tilde.
          signal_index: (B, T) int64, tau = index / K_max.
          step_index: (B, T) int64, d = 2^-index.
          actions, action_mask: the action that led to each frame, see `Batch`.
          segment: (B, T) int64, see `Batch`.
          cache: past frames, see `BlockCausalTransformer.forward`; not advanced here.
          agent_tokens: (B, T, A, D) inputs of the agent tokens, or None.

        Returns:
          z_hat (B, T, N_z, D_z) float32 and the agent tokens' outputs (B, T, A, D), or None.
        """
        return self.predict(
            noisy_latents,
            self.action_embedding(actions, action_mask),
            self.shortcut_tokens(signal_index, step_index),
            signal_level=signal_index / self.config.max_sampling_steps,
            segment=segment,
            cache=cache,
            agent_tokens=agent_tokens,
        )

    def shortcut_tokens(self, signal_index: Tensor, step_index: Tensor) -> Tensor:
        """The tokens for (tau, d): (...) int64 each -> (..., 1, D)."""
        return torch.cat([self.signal_embedding[signal_index], self.step_embedding[step_index]], -1)[
            ..., None, :
        ]

    def predict(
        self,
        noisy_latents: Tensor,
        action_tokens: Tensor,
        shortcut_tokens: Tensor,
        *,
        signal_level: Tensor | float = 0.0,
        segment: Tensor | None = None,
        cache: RingCache | Past | None = None,
        agent_tokens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`forward` for actions and signal levels that are embedded already: (B, T, S_a, D) and (B, T, 1, D).

        `signal_level` tau, (B, T) or one for all, is read where the network predicts velocities and z_hat is.
        """
        # What is predicted, and what agents say; the other positions matter to these alone.
        first = self.config.num_action_tokens + 1
        num_latents = self.config.latent_shape[0]
        read = slice(first, first + num_latents if agent_tokens is None else None)
        tokens = self._tokens(noisy_latents, action_tokens, shortcut_tokens, agent_tokens)
        out = self.transformer(tokens, self._groups(agent_tokens), segment=segment, cache=cache, read=read)
        z_hat = self._clean(self.latent_out(out[:, :, :num_latents]), noisy_latents, signal_level)
        if agent_tokens is None:
            return z_hat, None
        return z_hat, out[:, :, self.config.num_world_tokens - first :]

    def _clean(self, predicted: Tensor, noisy_latents: Tensor, signal_level: Tensor | float) -> Tensor:
        """z_hat of what the network says: itself, or z_tilde + (1 - tau) v."""
        if self.config.prediction == "x":
            return predicted
        return clean_from_velocity(predicted, noisy_latents, signal_level)

    def agent_states(
        self,
        noisy_latents: Tensor,
        signal_index: Tensor,
        step_index: Tensor,
        actions: Mapping[str, Tensor],
        action_mask: Tensor,
        agent_tokens: Tensor,
        segment: Tensor | None = None,
    ) -> Tensor:
        """The agent tokens' outputs (B, T, A, D) alone, up to rounding as `forward` has them.

        Since no latents are predicted, the last layers compute no other positions. Arguments as of `forward`.
        """
        embedded = self.action_embedding(actions, action_mask), self.shortcut_tokens(signal_index, step_index)
        tokens = self._tokens(noisy_latents, *embedded, agent_tokens)
        read = slice(self.config.num_world_tokens, None)
        return self.transformer(tokens, self._groups(agent_tokens), segment=segment, read=read)

    def _tokens(
        self,
        noisy_latents: Tensor,
        action_tokens: Tensor,
        shortcut_tokens: Tensor,
        agent_tokens: Tensor | None,
    ) -> Tensor:
        """All tokens of each frame, (B, T, S, D)."""
        b, t = noisy_latents.shape[:2]
        parts = [
            action_tokens,
            shortcut_tokens.expand(b, t, -1, -1),
            self.latent_in(noisy_latents) + self.spatial_positions,
            self.registers.expand(b, t, -1, -1),
        ]
        return torch.cat(parts if agent_tokens is None else [*parts, agent_tokens], dim=2)

    def new_cache(self, batch_size: int) -> RingCache:
        """An empty cache for `batch_size` rollouts."""
        return self.transformer.new_cache(batch_size, self.registers.device)

    def _groups(self, agent_tokens: Tensor | None) -> list[Group]:
        world = slice(0, self.config.num_world_tokens)
        groups = [(world, world)]
        if agent_tokens is not None:
            groups.append((slice(self.config.num_world_tokens, None), slice(None)))
        return groups
