"""The block-causal transformer shared by tokenizer and dynamics (Dreamer 4, sections 3.1 and 3.2).

Tokens are (B, T, S, D): B batch, T frames, S tokens a frame, D width. A layer attends either over space (within a frame) or over
time (one token position across frames, causal, within a sliding window); every `time_every`-th layer is a time layer. Which
tokens see which inside a frame is a list of groups (queries, keys), each one unmasked attention call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from reverie.nn.attention import Attention, Visible, init_linear, rope_angles, rope_table
from reverie.nn.cache import Past, RingCache
from reverie.nn.dispatch import Backend, require_possible
from reverie.nn.norm import rms_norm
from reverie.nn.precision import at_least_float32
from reverie.nn.visibility import causal_window

Group = tuple[slice, slice]
Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of one block-causal transformer."""

    width: int
    """Model width D."""
    depth: int
    """Number of layers; every `time_every`-th is a time layer."""
    num_heads: int
    """Query heads; must divide `width`."""
    num_kv_heads: int
    """Key and value heads (grouped-query attention); must divide `num_heads`."""
    context_length: int
    """Frames C that a frame sees in time layers, itself included."""
    time_every: int = 4
    """Every how many layers one attends over time."""
    mlp_ratio: float = 8 / 3
    """Hidden width of the SwiGLU MLP over `width`, rounded up to a multiple of 8."""
    softcap: float | None = 50.0
    """Attention logits are capped to +-softcap by tanh; null for none."""
    backend: Backend = "auto"
    """Attention backend: auto, math, sdpa, flex or flash; see `reverie.nn.dispatch`."""

    def __post_init__(self) -> None:
        require_possible(self.backend, self.softcap)
        if self.width % self.num_heads or (self.width // self.num_heads) % 4:
            raise ValueError(
                f"width {self.width} must be num_heads {self.num_heads} times a multiple of 4; change width or num_heads"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {self.num_kv_heads} must divide num_heads {self.num_heads}")
        if self.depth < self.time_every:
            raise ValueError(
                f"depth {self.depth} leaves no time layer; use at least time_every = {self.time_every}"
            )

    @property
    def num_time_layers(self) -> int:
        """How many of the layers attend over time."""
        return self.depth // self.time_every

    @property
    def last_space_layer(self) -> int | None:
        """Number of the last layer that attends over space; None if there is none."""
        last = self.depth - 1 if self.depth % self.time_every else self.depth - 2
        return last if self.time_every > 1 else None

    @property
    def reach(self) -> int:
        """Frames that can have an influence on a frame, itself included: each time layer looks back once more."""
        return self.num_time_layers * (self.context_length - 1) + 1


class SwiGLU(nn.Module):
    """Gated MLP without biases: out(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, ratio: float, out_scale: float):
        super().__init__()
        hidden = -(-int(width * ratio) // 8) * 8
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)
        init_linear(self.gate_up)
        init_linear(self.out, out_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


class Layer(nn.Module):
    """Pre-norm attention (over space or time) and pre-norm MLP, both residual."""

    def __init__(self, config: TransformerConfig, *, over_time: bool):
        super().__init__()
        scale = (2 * config.depth) ** -0.5  # keeps the residual stream's variance independent of depth
        self.over_time = over_time
        self.attention = Attention(
            config.width,
            config.num_heads,
            config.num_kv_heads,
            softcap=config.softcap,
            backend=config.backend,
            out_scale=scale,
        )
        self.mlp = SwiGLU(config.width, config.mlp_ratio, scale)

    def space(
        self, x: Tensor, groups: Sequence[Group], rope: Rope | None, read: slice = slice(None)
    ) -> Tensor:
        """Attention within each frame, (B, T, S, D) -> (B, T, number read, D).

        `groups` cover the S tokens in order. All of them are keys, those that `read` chooses are computed.
        """
        size = x.shape[-2]
        q, k, v = self.attention.project(rms_norm(x), rope, read)
        parts = [
            self.attention.read(q[..., i, :], k[..., j, :], v[..., j, :], None)
            for i, j in _groups_read(groups, read, size)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
        x = x[..., read, :] + self.attention.out(out)
        return x + self.mlp(rms_norm(x))

    def time(self, x: Tensor, visible: Visible, rope: Rope, past: Past | None, index: int) -> Tensor:
        """Attention of each token position over frames; `index` numbers the time layers. (B, T, S, D) -> same."""
        tokens = rearrange(rms_norm(x), "b t s d -> b s t d")
        q, k, v = self.attention.project(tokens, rope)
        if past is not None:
            k, v = past.write(index, k, v)
        out = self.attention.out(self.attention.read(q, k, v, visible))
        x = x + rearrange(out, "b s t d -> b t s d")
        return x + self.mlp(rms_norm(x))


class BlockCausalTransformer(nn.Module):
    """Alternating space and time layers with a final RMSNorm."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            Layer(config, over_time=(i + 1) % config.time_every == 0) for i in range(config.depth)
        )

    def forward(
        self,
        x: Tensor,
        groups: Sequence[Group],
        *,
        space_rope: Rope | None = None,
        segment: Tensor | None = None,
        cache: RingCache | Past | None = None,
        read: slice = slice(None),
    ) -> Tensor:
        """Runs all layers.

        Args:
          x: (B, T, S, D) tokens.
          groups: (query slice, key slice) pairs covering the S positions in order.
          space_rope: (cos, sin), each (S, head_dim / 2), or None.
          segment: (B, T) int64; time attention never crosses a change of it. None: one segment.
          cache: past keys and values. Either empty (then T frames are a prefill), or T is 1, or 2: a finished frame and one
            that follows it. The caller decides with `cache.advance` how many of these frames become past. For passes that
            repeat, `RingCache.past` of it.
          read: which of the S positions are wanted. The last layer over space computes these alone, of keys and values of all,
            and so do the layers over time after it, since they mix no positions. With a cache, every pass must read from the
            same first position on, the first pass most.

        Returns:
          (B, T, number read, D) normalised tokens, float32 whatever autocast multiplies in.
        """
        past = cache.past(x.shape[1], segment) if isinstance(cache, RingCache) else cache
        x = at_least_float32(x)  # the residual stream; branches may be rounded, what they are added to is not
        time_rope, visible = self._over_time(x, segment, past)
        last_space = self.config.last_space_layer
        if last_space is None:
            x = x[:, :, read]
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if layer.over_time:
                x = layer.time(x, visible, time_rope, past, i // self.config.time_every)
            else:
                x = layer.space(x, groups, space_rope, read if i == last_space else slice(None))
        return rms_norm(x)

    def new_cache(self, batch_size: int, device: torch.device | str = "cpu") -> RingCache:
        """An empty cache for `batch_size` rows, `context_length` frames deep."""
        config = self.config
        return RingCache(
            config.num_time_layers,
            batch_size,
            config.context_length,
            config.width // config.num_heads,
            device,
        )

    def _over_time(self, x: Tensor, segment: Tensor | None, past: Past | None) -> tuple[Rope, Visible]:
        """Rotary tables and what frames see of frames, once for all time layers."""
        if past is not None and past.rope is not None:
            return past.rope, past.mask
        steps = x.shape[1]
        first = self.layers[self.config.time_every - 1]
        assert isinstance(first, Layer)
        angles = rope_angles(torch.arange(steps, device=x.device), first.attention.head_dim)
        window = causal_window(steps, self.config.context_length, segment, x.device)
        return rope_table(angles), first.attention.prepare(window, x)


def _groups_read(groups: Sequence[Group], read: slice, size: int) -> list[Group]:
    """`groups` of `size` positions, without the queries that `read` leaves out; slices of queries count those read."""
    first, stop, _ = read.indices(size)
    kept = []
    for queries, keys in groups:
        begin, end, _ = queries.indices(size)
        begin, end = max(begin, first), min(end, stop)
        if begin < end:
            kept.append((slice(begin - first, end - first), keys))
    return kept
