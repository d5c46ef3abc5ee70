"""Attention by matrix products (`math`, the reference of the other kernels) and by torch's fused function (`sdpa`).

Shapes as in `reverie.nn.attention`. Masks are bool (True = visible) or added to the logits, and broadcast to
(*X, G, N/G, Q, K).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from reverie.nn.precision import at_least_float32
from reverie.nn.visibility import per_row


def math_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """softmax(cap(q k^T / sqrt(H))) v in two matrix products, logits and softmax in float32 or wider."""
    leading, q, k, v = alike(q, k, v)
    groups, queries, keys = k.shape[-3], q.shape[-2], k.shape[-2]
    repeats = q.shape[-3] // groups
    # All query heads of one key head in one product: keys and values are never repeated in memory.
    rows = q.reshape(-1, repeats * queries, q.shape[-1])
    columns, values = k.reshape(-1, keys, k.shape[-1]), v.reshape(-1, keys, v.shape[-1])
    scale = q.shape[-1] ** -0.5 / (softcap or 1.0)
    logits = _capped(at_least_float32(_scaled_product(rows, columns.transpose(1, 2), scale)), softcap)
    if mask is not None:
        logits = _hidden(logits.view(*leading, groups, repeats, queries, keys), mask).view(logits.shape)
    out = torch.bmm(logits.softmax(-1).to(v.dtype), values)
    return out.view(*leading, groups * repeats, queries, v.shape[-1])


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """`scale` a b."""
    # Which of two bfloat16 roundings is luck, but gradients of a trained tokenizer lay up to three times nearer to float32's.
    if a.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(a * scale, b)
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)


def _capped(scaled: Tensor, softcap: float | None) -> Tensor:
    """c tanh(x), in place where nothing needs what is overwritten: tanh keeps its result, a product by a number nothing."""
    if softcap is None:
        return scaled
    capped = scaled.tanh_()
    return capped * softcap if capped.requires_grad else capped.mul_(softcap)


def _hidden(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else logits.add_(mask)


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """The same without a soft cap by `scaled_dot_product_attention`; `causal` hides the future of as many keys as queries."""
    leading, q, k, v = alike(q, k, v)
    by_row = False
    if mask is not None:
        rows = per_row(mask, len(leading))
        by_row = rows is not None and rows.shape[0] > 1
        mask = _per_head(mask, leading, q, k) if rows is None else rows[:, None]
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    q, k, v = (fold(x, by_row) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.is_cuda:
        # The kernel that takes masks has no grouped queries; without it all logits would lie in memory.
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        grouped = False
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return out.reshape(*leading, -1, *out.shape[-2:])


def alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[torch.Size, Tensor, Tensor, Tensor]:
    """The leading dimensions of all three together, and the three with these."""
    if q.shape[:-3] == k.shape[:-3]:  # nearly always, and the rest costs more than a small product
        return q.shape[:-3], q, k, v
    leading = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3])
    q, k, v = (x.expand(*leading, *x.shape[-3:]) for x in (q, k, v))
    return leading, q, k, v


def fold(x: Tensor, by_row: bool) -> Tensor:
    """(*X, N, L, H) in four dimensions: X before the heads, or (`by_row`) all of X but the first among the heads.

    Among the heads a mask that is the same for all of a row need not be copied for each; before them nothing is ever copied.
    """
    if by_row:
        return x.flatten(1, -3)
    return x.flatten(0, -4) if x.dim() > 3 else x[None]


def _per_head(mask: Tensor, leading: torch.Size, q: Tensor, k: Tensor) -> Tensor:
    heads = mask.expand(*leading, k.shape[-3], q.shape[-3] // k.shape[-3], *mask.shape[-2:])
    return fold(rearrange(heads, "... g r q k -> ... (g r) q k"), by_row=False)
