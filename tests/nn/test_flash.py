"""What flash-attn is asked for, against a reference of what its documentation says its functions compute."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from reverie.nn.flash import Library, Pieces, arguments, boundaries, flash_attention, flash_window
from reverie.nn.visibility import CausalWindow
from tests.nn.attention_cases import CASES, with_gradients, written_out


def documented(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple = (-1, -1),
    softcap: float = 0.0,
) -> Tensor:
    """`flash_attn_func` of flash-attn 2.8 as documented.

    (batch, length, heads, width); query head n reads key head n // (heads / key heads); a causal mask is aligned to the bottom
    right; the query at i attends to keys in [i + K - Q - left, i + K - Q + right], where -1 (None in flash-attn-4) has no end;
    a soft cap above 0 is active.
    """
    assert q.dim() == k.dim() == v.dim() == 4 and dropout_p == 0.0
    repeats = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    logits = torch.einsum("bqnh,bknh->bnqk", q, k) * scale
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    left, right = (math.inf if x in (-1, None) else x for x in window_size)
    if causal:
        right = 0
    distance = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1] - torch.arange(k.shape[1])
    hidden = (distance > left) | (-distance > right)
    weights = logits.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("bnqk,bknh->bqnh", weights, v)


def documented_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    **options,
) -> Tensor:
    """`flash_attn_varlen_func`: (total, heads, width), one piece after another, each as above."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert cu_seqlens_q[0] == 0 and cu_seqlens_q[-1] == len(q) and bool((cu_seqlens_q.diff() > 0).all())
    assert int(cu_seqlens_q.diff().max()) <= max_seqlen_q and max_seqlen_k == max_seqlen_q
    sizes_q, sizes_k = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    pieces = zip(q.split(sizes_q), k.split(sizes_k), v.split(sizes_k), strict=True)
    return torch.cat([documented(*(x[None] for x in piece), **options)[0] for piece in pieces])


def with_statistics(function):
    """As flash-attn-4 returns them: the output first, then the logarithm of the softmax's sum."""
    return lambda *args, **options: (function(*args, **options), None)


LIBRARIES = {
    "flash2": Library(documented, documented_packed, -1),
    "flash4": Library(with_statistics(documented), with_statistics(documented_packed), None),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("softcap", [2.0, None])
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_what_is_asked_for_is_the_formula(case, softcap, library):
    window = case.visible()
    visible = None if window is None else flash_window(window)
    inputs = case.tensors(torch.float64)
    run = partial(flash_attention, visible=visible, softcap=softcap, library=library)
    exact = with_gradients(lambda q, k, v: written_out(case, q, k, v, softcap), *inputs)
    for actual, expected in zip(with_gradients(run, *inputs), exact, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-11, rtol=1e-11)


def test_arguments_by_hand():
    """A window of 4 frames, a frame included, reaches 3 back; one as long as the frames needs no end."""
    flash2, flash4 = LIBRARIES["flash2"], LIBRARIES["flash4"]
    device = torch.device("cpu")
    four = flash_window(CausalWindow(9, 4, None, device))
    whole = flash_window(CausalWindow(9, 9, None, device))
    assert arguments(None, 64, None, flash2) == {
        "softmax_scale": 0.125, "softcap": 0.0, "causal": False, "window_size": (-1, -1)
    }  # fmt: skip
    assert arguments(four, 64, 50.0, flash2) == {
        "softmax_scale": 0.125, "softcap": 50.0, "causal": True, "window_size": (3, 0)
    }  # fmt: skip
    assert arguments(whole, 64, None, flash2)["window_size"] == (-1, -1)
    assert arguments(four, 64, None, flash4)["window_size"] == (3, 0)
    assert arguments(whole, 64, None, flash4)["window_size"] == (None, None)
    one = flash_window(CausalWindow(9, 1, None, device))
    assert arguments(one, 64, None, flash2)["window_size"] == (0, 0)


def test_boundaries_by_hand():
    """Two rows of three positions and four frames; the second row has a second piece from its third frame on."""
    pieces = Pieces(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 2]))
    expected = [0, 4, 8, 12, 14, 16, 18, 20, 22, 24]
    assert boundaries(pieces, torch.Size([2, 3]), 4).tolist() == expected


def test_projections_enter_without_a_copy():
    """Queries as a layer makes them lie in memory as flash-attn reads them."""
    projected = torch.randn(2, 3, 5, 8, 16)  # (B, S, T, N + 2 G, H)
    q, k, v = projected.transpose(-2, -3).split([4, 2, 2], -3)
    seen = []

    def look(q, k, v, **options):
        seen.extend((q, k, v))
        return documented(q, k, v, **options)

    flash_attention(q, k, v, None, None, Library(look, documented_packed, -1))
    assert [x.untyped_storage().data_ptr() for x in seen] == [projected.untyped_storage().data_ptr()] * 3
