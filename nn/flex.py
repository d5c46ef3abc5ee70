"""Attention by FlexAttention: soft cap, window and segments inside one generated kernel.

Its functions of scores and masks are made once for each soft cap and window, since new ones would be compiled anew; segments
enter them as a tensor. On a GPU it is compiled; on a CPU it runs as it is (all logits in memory), without a backward pass.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from reverie.nn.compilation import compiled
from reverie.nn.dense_attention import alike, fold
from reverie.nn.visibility import CausalWindow, per_row

BLOCK = 128
"""Queries, and keys, of a block that is skipped or computed as a whole."""

Visible = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def flex_attention(q: Tensor, k: Tensor, v: Tensor, blocks: Any, softcap: float | None) -> Tensor:
    """As `math_attention`; `blocks` come from `window_blocks` or `mask_blocks`, None hides nothing."""
    leading, q, k, v = alike(q, k, v)
    by_row = blocks is not None and len(leading) > 1
    q, k, v = (fold(x, by_row) for x in (q, k, v))
    run = _run if torch.compiler.is_compiling() or not q.is_cuda else compiled_flex()
    out = run(q, k, v, capped(softcap), blocks, q.shape[1] != k.shape[1])
    return out.reshape(*leading, -1, *out.shape[-2:])


def _run(q: Tensor, k: Tensor, v: Tensor, score: Score | None, blocks: Any, grouped: bool) -> Tensor:
    from torch.nn.attention import flex_attention as flex  # takes a while to import, and few choose it

    out = flex.flex_attention(q, k, v, score_mod=score, block_mask=blocks, enable_gqa=grouped)
    assert isinstance(out, Tensor)
    return out


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention as code: made once for each device, type, head width, soft cap, window and shape."""
    return compiled(_run, "FlexAttention")


@cache
def capped(softcap: float | None) -> Score | None:
    """The cap as a function of one score, always the same one."""
    if softcap is None:
        return None

    def score(logit: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return torch.tanh(logit / softcap) * softcap

    return score


def window_blocks(window: CausalWindow) -> Any:
    """The `BlockMask` of a causal window, for any number of rows and heads; with segments for B rows."""
    blocks = _window_blocks(window.steps, window.window, window.device)
    if window.segment is None:
        return blocks
    blocks = copy.copy(blocks)  # the same blocks: which are computed does not depend on segments
    blocks.mask_mod = _same_segment(window.window, window.segment.to(torch.int32))
    return blocks


@cache
def _window_blocks(steps: int, window: int, device: torch.device) -> Any:
    count, indices = block_layout(steps, window)
    return _block_mask(count, indices, (steps, steps), _in_window(window), device)


def block_layout(steps: int, window: int) -> tuple[list[int], list[list[int]]]:
    """For each block of queries how many blocks of keys hold a visible one, and their numbers, padded by the others."""
    number = -(-steps // BLOCK)
    first = [max(0, i * BLOCK - window + 1) // BLOCK for i in range(number)]
    seen = [list(range(first[i], i + 1)) for i in range(number)]
    padded = [row + [j for j in range(number) if j not in row] for row in seen]
    return [len(row) for row in seen], padded


@cache
def _in_window(window: int) -> Visible:
    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (i - j < window)

    return visible


def _same_segment(window: int, segment: Tensor) -> Visible:
    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (i - j < window) & (segment[b, i] == segment[b, j])

    return visible


def mask_blocks(mask: Tensor, q: Tensor, k: Tensor) -> Any:
    """The `BlockMask` of a dense bool mask, as in `math_attention`: every block is computed."""
    leading = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3])
    rows = per_row(mask, len(leading))
    queries, keys = q.shape[-2], k.shape[-2]
    assert rows is not None, "a mask that differs between the heads of a row"
    blocks = -(-queries // BLOCK), -(-keys // BLOCK)
    count, indices = [blocks[1]] * blocks[0], [list(range(blocks[1]))] * blocks[0]
    rows = rows.expand(leading[0] if leading else 1, queries, keys)
    return _block_mask(count, indices, (queries, keys), _as_mask(rows), q.device)


def _as_mask(mask: Tensor) -> Visible:
    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask[b, i, j]

    return visible


def _block_mask(
    count: list[int],
    indices: list[list[int]],
    lengths: tuple[int, int],
    visible: Visible,
    device: torch.device,
) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    number = torch.tensor([[count]], dtype=torch.int32, device=device)
    order = torch.tensor([[indices]], dtype=torch.int32, device=device)
    return BlockMask.from_kv_blocks(number, order, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=lengths)
