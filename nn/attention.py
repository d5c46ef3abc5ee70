"""Grouped-query attention with QK-norm, rotary embedding and logit soft-capping (Dreamer 4, section 3.1).

Legend: X leading dimensions, N query heads, G key/value heads (N % G == 0), Q and K numbers of queries and keys, H head width,
D model width. A mask is True where a query may see a key and broadcasts to (*X, G, N/G, Q, K).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.nn.norm import rms_norm
from reverie.nn.precision import at_least_float32

Backend = Literal["auto", "math", "sdpa", "flex"]

QK_GAIN = 2.0
"""Initial gain of normalised queries and keys. With 1, logits start at unit variance and attention near uniform; a small
tokenizer on MiniGrid DoorKey was at 22.4 dB held-out after 150 steps instead of 24.2."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, softcap: float | None, backend: Backend
) -> Tensor:
    """softmax(cap(q k^T / sqrt(H))) v with cap(x) = c tanh(x / c).

    Args:
      q: (*X, N, Q, H). k, v: (*X, G, K, H). mask: True = visible, or None for full attention.
      softcap: c, or None for no cap.
      backend: `math` runs anywhere; `sdpa` needs softcap None; `flex` (FlexAttention, no backward on CPU) does all on a GPU
        when compiled; `auto` takes `sdpa` without a cap, else `math`.

    Returns:
      (*X, N, Q, H) in v's dtype.

    Raises:
      ValueError: a forced backend cannot do what is asked.
    """
    if backend == "auto":
        backend = "sdpa" if softcap is None else "math"
    if backend == "math":
        return _math_attention(q, k, v, mask, softcap)
    if backend == "sdpa":
        if softcap is not None:
            raise ValueError(
                "attention.backend=sdpa has no soft cap; set softcap to null or use backend math or flex"
            )
        return _sdpa_attention(q, k, v, mask)
    return _flex_attention(q, k, v, mask, softcap)


def _math_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    groups, repeats = k.shape[-3], q.shape[-3] // k.shape[-3]
    # All query heads of one key head in one matmul: keys and values are never repeated in memory.
    scale = q.shape[-1] ** -0.5 / (softcap or 1.0)
    q = rearrange(q * scale, "... (g r) q h -> ... g (r q) h", g=groups)
    logits = at_least_float32(rearrange(q @ k.transpose(-1, -2), "... (r q) k -> ... r q k", r=repeats))
    if softcap is not None:
        logits = torch.tanh(logits) * softcap
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    weights = rearrange(logits.softmax(-1).to(v.dtype), "... r q k -> ... (r q) k")
    return rearrange(weights @ v, "... g (r q) h -> ... (g r) q h", r=repeats)


def _sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    leading = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3])
    flat = [x.expand(*leading, *x.shape[-3:]).flatten(0, -4) for x in (q, k, v)]
    if mask is not None:
        heads = mask.expand(*leading, k.shape[-3], q.shape[-3] // k.shape[-3], *mask.shape[-2:])
        mask = rearrange(heads, "... g r q k -> ... (g r) q k").flatten(0, -4)
    grouped = q.shape[-3] != k.shape[-3]
    out = F.scaled_dot_product_attention(flat[0], flat[1], flat[2], attn_mask=mask, enable_gqa=grouped)
    return out.unflatten(0, leading)


def _flex_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    leading = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3])
    flat = [x.expand(*leading, *x.shape[-3:]).flatten(0, -4).contiguous() for x in (q, k, v)]
    repeats = q.shape[-3] // k.shape[-3]
    visible = None
    if mask is not None:
        visible = mask.expand(*leading, k.shape[-3], repeats, q.shape[-2], k.shape[-2]).flatten(0, -5)

    def score(logit: Tensor, b: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if softcap is not None:
            logit = torch.tanh(logit / softcap) * softcap
        if visible is not None:
            logit = torch.where(visible[b, head // repeats, head % repeats, i, j], logit, -torch.inf)
        return logit

    run = torch.compile(flex_attention) if q.is_cuda else flex_attention
    out = run(flat[0], flat[1], flat[2], score_mod=score, enable_gqa=repeats > 1)
    assert isinstance(out, Tensor)
    return out.unflatten(0, leading)


class Attention(nn.Module):
    """Projections around `attend`: fused query/key/value without biases, RMSNorm with a learned gain on queries and keys."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        *,
        softcap: float | None,
        backend: Backend,
        out_scale: float,
    ):
        super().__init__()
        head_dim = width // num_heads
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.softcap, self.backend = softcap, backend
        self.qkv = nn.Linear(width, (num_heads + 2 * num_kv_heads) * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, width, bias=False)
        self.q_gain = nn.Parameter(torch.full((head_dim,), QK_GAIN))
        self.k_gain = nn.Parameter(torch.full((head_dim,), QK_GAIN))
        init_linear(self.qkv)
        init_linear(self.out, out_scale)

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """X (*X, L, D) -> q (*X, N, L, H), k and v (*X, G, L, H); `rope` is (cos, sin), each (L, H/2)."""
        heads = rearrange(self.qkv(x), "... l (n h) -> ... n l h", h=self.head_dim)
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=-3)
        q, k = rms_norm(q, self.q_gain), rms_norm(k, self.k_gain)
        if rope is not None:
            q, k = rotate(q, *rope).to(v.dtype), rotate(k, *rope).to(v.dtype)
        return q, k, v

    def read(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention output before the output projection, (*X, Q, N H)."""
        out = attend(q, k, v, mask=mask, softcap=self.softcap, backend=self.backend)
        return rearrange(out, "... n q h -> ... q (n h)")


def init_linear(linear: nn.Linear, scale: float = 1.0) -> None:
    """Truncated normal with standard deviation scale / sqrt(fan_in)."""
    std = scale / math.sqrt(linear.in_features)
    nn.init.trunc_normal_(linear.weight, std=std, a=-3 * std, b=3 * std)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding on pairs (i, i + H/2). x (..., L, H); cos and sin (L, H/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rope_angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Tensor:
    """(L,) positions -> (L, head_dim / 2) float64 angles. Float64: at frame 72,000 float32 angles are off by 4e-3."""
    return positions.double()[:, None] * rope_frequencies(head_dim, positions.device, base)


def rope_frequencies(head_dim: int, device: torch.device | str, base: float = 10_000.0) -> Tensor:
    """(head_dim / 2,) float64 radians a position."""
    return base ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)


def rope_table(angles: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the angles as float32."""
    return angles.cos().float(), angles.sin().float()


def axial_angles(height: int, width: int, head_dim: int, base: float = 100.0) -> Tensor:
    """2-D axial rotary angles of a grid, row-major: (height * width, head_dim / 2); half the pairs turn with y, half with x."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    quarter = head_dim // 2
    return torch.cat(
        [rope_angles(y.flatten(), quarter, base), rope_angles(x.flatten(), quarter, base)], dim=-1
    )
