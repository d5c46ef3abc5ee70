"""Attention by flash-attn 2 (CUDA) or flash-attn-4 (CuTe): soft cap, window, grouped heads; nothing is imported unless chosen.

Not yet run on a GPU by this project; tests hold the arguments against a reference of what the packages document.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from reverie.nn.dense_attention import alike
from reverie.nn.visibility import CausalWindow


@dataclass(frozen=True)
class Library:
    """Two functions of a package, and how it spells a window without end."""

    dense: Callable[..., Any]
    """(B, L, N, H) queries, (B, K, G, H) keys and values -> (B, L, N, H), or that first in a tuple."""
    packed: Callable[..., Any]
    """The same for pieces of any length one after another, (total, N, H)."""
    unlimited: int | None


@dataclass(frozen=True, eq=False)
class Pieces:
    """Where the segments of a batch begin: `row` and `frame`, each (M,) int64."""

    row: Tensor
    frame: Tensor


@dataclass(frozen=True, eq=False)
class FlashWindow:
    """A causal window as flash-attn takes it; `pieces` are None for one segment."""

    steps: int
    window: int
    pieces: Pieces | None


def flash_window(window: CausalWindow) -> FlashWindow:
    """Looks once for the beginnings of segments. How many there are decides shapes, so a GPU is waited for."""
    if window.segment is None:
        return FlashWindow(window.steps, window.window, None)
    begins = torch.ones_like(window.segment, dtype=torch.bool)
    begins[:, 1:] = window.segment[:, 1:] != window.segment[:, :-1]
    row, frame = begins.nonzero(as_tuple=True)
    return FlashWindow(window.steps, window.window, Pieces(row, frame))


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: FlashWindow | None, softcap: float | None, library: Library
) -> Tensor:
    """As `math_attention`; None hides nothing."""
    leading, q, k, v = alike(q, k, v)
    # The order in memory that projections leave behind, so that this only renames dimensions.
    q, k, v = (rearrange(x, "... n l h -> ... l n h") for x in (q, k, v))
    options = arguments(visible, q.shape[-1], softcap, library)
    if visible is None or visible.pieces is None:
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
        out = _first(library.dense(q, k, v, **options))
    else:
        starts = boundaries(visible.pieces, leading, visible.steps)
        lengths = {"cu_seqlens_q": starts, "cu_seqlens_k": starts}
        most = {"max_seqlen_q": visible.steps, "max_seqlen_k": visible.steps}
        q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))
        out = _first(library.packed(q, k, v, **lengths, **most, **options))
        out = out.unflatten(0, (-1, visible.steps))
    return rearrange(out.reshape(*leading, *out.shape[-3:]), "... l n h -> ... n l h")


def arguments(
    visible: FlashWindow | None, head_dim: int, softcap: float | None, library: Library
) -> dict[str, Any]:
    """Scale, soft cap (0 for none), causality and (left, right) of the window: frames before a frame, without itself."""
    left = library.unlimited
    if visible is not None and visible.window < visible.steps:
        left = visible.window - 1
    right = 0 if left != library.unlimited else library.unlimited
    return {
        "softmax_scale": head_dim**-0.5,
        "softcap": softcap or 0.0,
        "causal": visible is not None,
        "window_size": (left, right),
    }


def boundaries(pieces: Pieces, leading: torch.Size, steps: int) -> Tensor:
    """(M S + 1,) int32: where pieces begin when (B, S, T) frames lie one after another, and where the last one ends."""
    within = torch.arange(leading[1:].numel(), device=pieces.row.device)
    begins = (pieces.row[:, None] * within.numel() + within) * steps + pieces.frame[:, None]
    end = begins.new_full((1,), leading.numel() * steps)
    return torch.cat([begins.flatten().sort().values, end]).to(torch.int32)


def _first(result: Any) -> Tensor:
    out = result[0] if isinstance(result, tuple) else result
    assert isinstance(out, Tensor)
    return out


@cache
def flash2() -> Library:
    """flash-attn 2.8 or later."""
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    return Library(flash_attn_func, flash_attn_varlen_func, -1)


@cache
def flash4() -> Library:
    """flash-attn-4, which torch.compile cannot trace."""
    from flash_attn.cute import flash_attn_func, flash_attn_varlen_func

    apart = torch.compiler.disable
    return Library(apart(flash_attn_func), apart(flash_attn_varlen_func), None)
