"""Grouped-query attention with QK-norm, rotary embedding and logit soft-capping (Dreamer 4, section 3.1).

Legend: X leading dimensions, N query heads, G key/value heads (N % G == 0), Q and K numbers of queries and keys, H head width,
D model width. A mask is True where a query may see a key and broadcasts to (*X, G, N/G, Q, K).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.nn.dense_attention import math_attention, sdpa_attention
from reverie.nn.dispatch import LONG, Backend, Kernel, kernel_of
from reverie.nn.norm import rms_norm
from reverie.nn.visibility import CausalWindow, Kind

QK_GAIN = 2.0
"""Initial gain of normalised queries and keys. With 1, logits start at unit variance and attention near uniform; a small
tokenizer on MiniGrid DoorKey was at 22.4 dB held-out after 150 steps instead of 24.2."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is visible in the form that one kernel reads, made once for all layers; see `prepare`."""

    kernel: Kernel
    visible: Any


Visible = Tensor | CausalWindow | Prepared | None
"""What queries may see of keys: a dense bool mask, frames of a window, either of them prepared, or all."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Visible, softcap: float | None, backend: Backend
) -> Tensor:
    """softmax(cap(q k^T / sqrt(H))) v with cap(x) = c tanh(x / c).

    Args:
      q: (*X, N, Q, H). k, v: (*X, G, K, H).
      visible: see `Visible`.
      softcap: c, or None for no cap.
      backend: which kernel, see `reverie.nn.dispatch`; for a prepared `visible` that is decided.

    Returns:
      (*X, N, Q, H) in v's dtype.

    Raises:
      UserError: a forced backend cannot do what is asked.
    """
    if not isinstance(visible, Prepared):
        needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        kind, capped, long = _kind(visible, q), softcap is not None, q.shape[-2] >= LONG
        kernel = kernel_of(backend, kind, q.device, q.dtype, q.shape[-1], capped, needs_gradient, long)
        visible = _as_read_by(kernel, visible, q, k)
    if q.numel() == 0 or k.numel() == 0:  # which not every kernel takes
        return q.new_zeros(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    return _run(visible, q, k, v, softcap)


def _kind(visible: Tensor | CausalWindow | None, q: Tensor) -> Kind:
    if visible is None:
        return "query" if q.shape[-2] == 1 else "full"
    return visible.kind if isinstance(visible, CausalWindow) else "mask"


def _as_read_by(kernel: Kernel, visible: Tensor | CausalWindow | None, q: Tensor, k: Tensor) -> Prepared:
    if isinstance(visible, CausalWindow):
        return prepare(visible, kernel, q.dtype)
    if kernel == "flex" and visible is not None:
        from reverie.nn.flex import mask_blocks

        return Prepared(kernel, mask_blocks(visible, q, k))
    return Prepared(kernel, visible)


def prepare(window: CausalWindow, kernel: Kernel, dtype: torch.dtype) -> Prepared:
    """`window` as `kernel` reads it, for queries of `dtype`, any number of leading dimensions after the first and any heads."""
    if kernel == "math":
        return Prepared(kernel, window.bias(torch.promote_types(dtype, torch.float32)))
    if kernel == "sdpa":
        return Prepared(kernel, window if window.kind == "causal" else window.bias(dtype))
    if kernel == "flex":
        from reverie.nn.flex import window_blocks

        return Prepared(kernel, window_blocks(window))
    from reverie.nn.flash import flash_window

    return Prepared(kernel, flash_window(window))


def _run(prepared: Prepared, q: Tensor, k: Tensor, v: Tensor, softcap: float | None) -> Tensor:
    kernel, visible = prepared.kernel, prepared.visible
    if kernel == "math":
        return math_attention(q, k, v, visible, softcap)
    if kernel == "sdpa":
        causal = isinstance(visible, CausalWindow)
        return sdpa_attention(q, k, v, None if causal else visible, causal)
    if kernel == "flex":
        from reverie.nn.flex import flex_attention

        return flex_attention(q, k, v, visible, softcap)
    from reverie.nn.flash import flash2, flash4, flash_attention

    return flash_attention(q, k, v, visible, softcap, flash2() if kernel == "flash2" else flash4())


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

    def project(
        self, x: Tensor, rope: tuple[Tensor, Tensor] | None, read: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X (*X, L, D) -> q (*X, N, number read, H), k and v (*X, G, L, H).

        `rope` is (cos, sin), each (L, H/2); queries are those of the positions that `read` chooses.
        """
        q, k, v = self._heads(x) if _is_all(read, x.shape[-2]) else self._heads_read(x, read)
        q, k = rms_norm(q, self.q_gain), rms_norm(k, self.k_gain)
        if rope is not None:
            q, k = rotate(q, *(table[read] for table in rope)).to(v.dtype), rotate(k, *rope).to(v.dtype)
        return q, k, v

    def _heads(self, x: Tensor) -> Sequence[Tensor]:
        heads = rearrange(self.qkv(x), "... l (n h) -> ... n l h", h=self.head_dim)
        return heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=-3)

    def _heads_read(self, x: Tensor, read: slice) -> Sequence[Tensor]:
        queries = self.num_heads * self.head_dim
        parts = (x[..., read, :], self.qkv.weight[:queries]), (x, self.qkv.weight[queries:])
        q, kv = (rearrange(F.linear(y, w), "... l (n h) -> ... n l h", h=self.head_dim) for y, w in parts)
        return q, *kv.split(self.num_kv_heads, dim=-3)

    def prepare(self, window: CausalWindow | None, x: Tensor) -> Prepared | None:
        """`window` for this layer and its like, which read x (*X, L, D)."""
        if window is None:
            return None
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.qkv.weight.dtype
        needs_gradient = torch.is_grad_enabled() and (x.requires_grad or self.qkv.weight.requires_grad)
        capped, long = self.softcap is not None, window.steps >= LONG
        kernel = kernel_of(
            self.backend, window.kind, x.device, dtype, self.head_dim, capped, needs_gradient, long
        )
        return prepare(window, kernel, dtype)

    def read(self, q: Tensor, k: Tensor, v: Tensor, visible: Visible) -> Tensor:
        """Attention output before the output projection, (*X, Q, N H)."""
        out = attend(q, k, v, visible=visible, softcap=self.softcap, backend=self.backend)
        return rearrange(out, "... n q h -> ... q (n h)")


def _is_all(read: slice, size: int) -> bool:
    return read.indices(size) == (0, size, 1)


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
