"""Block-causal transformer: causality, window, segments, cache equals no cache."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reverie.nn.attention import rope_angles, rope_table
from reverie.nn.transformer import BlockCausalTransformer, TransformerConfig

ALL = [(slice(None), slice(None))]


def make(context=4, depth=8, **kwargs):
    torch.manual_seed(0)
    config = TransformerConfig(
        width=32, depth=depth, num_heads=4, num_kv_heads=2, context_length=context, **kwargs
    )
    return BlockCausalTransformer(config).eval()


@torch.no_grad()
def test_future_frames_change_nothing_bit_for_bit():
    model, x = make(), torch.randn(2, 9, 5, 32)
    changed = x.clone()
    changed[:, 6] += 1
    a, b = model(x, ALL), model(changed, ALL)
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.equal(a[:, 6], b[:, 6])


@torch.no_grad()
def test_window_limits_what_is_seen():
    """Two time layers with a window of 3 reach (3 - 1) * 2 = 4 frames back and no further."""
    model, x = make(context=3), torch.randn(1, 10, 5, 32)
    changed = x.clone()
    changed[:, 2] += 1
    a, b = model(x, ALL), model(changed, ALL)
    differs = [not torch.equal(a[:, t], b[:, t]) for t in range(10)]
    assert differs == [t in range(2, 7) for t in range(10)]


@torch.no_grad()
def test_segments_equal_separate_videos():
    model, x = make(context=20), torch.randn(2, 9, 5, 32)
    segment = torch.tensor([[0] * 4 + [1] * 5, [0] * 9])
    whole = model(x, ALL, segment=segment)
    torch.testing.assert_close(whole[:1, 4:], model(x[:1, 4:], ALL), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[1:], model(x[1:], ALL), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("prefill", [0, 1, 3, 6, 11])
def test_cache_equals_no_cache_beyond_several_windows(prefill):
    model, x = make(context=4), torch.randn(2, 19, 5, 32)
    expected, cache, parts = model(x, ALL), model.new_cache(2), []
    if prefill:
        parts.append(model(x[:, :prefill], ALL, cache=cache))
        cache.advance(prefill)
    for t in range(prefill, 19):
        model(torch.randn(2, 1, 5, 32), ALL, cache=cache)  # a pass that is not committed leaves no trace
        parts.append(model(x[:, t : t + 1], ALL, cache=cache))
        cache.advance()
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_cache_rows_restart_independently():
    model, x = make(context=6), torch.randn(2, 12, 5, 32)
    cache, parts = model.new_cache(2), []
    for t in range(12):
        cache.reset(torch.tensor([t == 5, False]))
        parts.append(model(x[:, t : t + 1], ALL, cache=cache))
        cache.advance()
    out = torch.cat(parts, 1)
    torch.testing.assert_close(out[:1, 5:], model(x[:1, 5:], ALL), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(out[1:], model(x[1:], ALL), atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_prefill_with_segments_continues_the_last_one():
    model, x = make(context=8), torch.randn(1, 9, 5, 32)
    cache = model.new_cache(1)
    model(x[:, :6], ALL, segment=torch.tensor([[0, 0, 0, 1, 1, 1]]), cache=cache)
    cache.advance(6)
    following = model(x[:, 6:7], ALL, cache=cache)
    torch.testing.assert_close(following, model(x[:, 3:7], ALL)[:, -1:], atol=2e-5, rtol=2e-5)


def test_two_frames_in_one_pass_equal_one_after_the_other():
    """The first becomes past, the second does not; one row restarts in between."""
    model, x = make(), torch.randn(2, 12, 5, 32)
    one, two = model.new_cache(2), model.new_cache(2)
    with torch.no_grad():
        for cache in (one, two):
            model(x[:, :1], ALL, cache=cache)
            cache.advance()
        for t in range(1, 11):
            restarts = torch.tensor([t == 6, False])
            one.reset(restarts)
            two.reset(restarts)
            first = model(x[:, t : t + 1], ALL, cache=one)
            one.advance()
            second = model(x[:, t + 1 : t + 2], ALL, cache=one)
            both = model(x[:, t : t + 2], ALL, cache=two)
            two.advance()
            torch.testing.assert_close(both, torch.cat([first, second], 1), atol=1e-5, rtol=1e-4)
        model(x[:, :2], ALL, cache=two)
        with pytest.raises(ValueError, match="one by one"):
            two.advance(2)


def test_several_frames_after_a_filled_cache_are_refused():
    model, x = make(), torch.randn(1, 3, 5, 32)
    cache = model.new_cache(1)
    with torch.no_grad():
        model(x, ALL, cache=cache)
        cache.advance(3)
        with pytest.raises(ValueError, match="two new frames at a time"):
            model(x, ALL, cache=cache)


def test_impossible_sizes_are_named():
    with pytest.raises(ValueError, match="num_kv_heads 3"):
        TransformerConfig(width=32, depth=4, num_heads=4, num_kv_heads=3, context_length=4)
    with pytest.raises(ValueError, match="no time layer"):
        TransformerConfig(width=32, depth=3, num_heads=4, num_kv_heads=4, context_length=4)


GROUPS = [(slice(0, 3), slice(0, 3)), (slice(3, None), slice(None))]


@pytest.mark.parametrize("read", [slice(0, 2), slice(1, 4), slice(3, None), slice(4, 5), slice(None)])
@pytest.mark.parametrize(("depth", "time_every"), [(8, 4), (9, 4), (2, 1), (4, 2)])
def test_reading_some_positions_equals_reading_all(depth, time_every, read):
    """Outputs and gradients, whether the last layer runs over time or space, or all do."""
    model, x = make(depth=depth, time_every=time_every), torch.randn(2, 6, 5, 32, requires_grad=True)
    rope = rope_table(rope_angles(torch.arange(5), 8))
    weight, results = torch.randn(2, 6, 5, 32)[:, :, read], []
    for out in (model(x, GROUPS, space_rope=rope, read=read), model(x, GROUPS, space_rope=rope)[:, :, read]):
        gradients = torch.autograd.grad((out * weight).sum(), [x, *model.parameters()])
        results.append((out.detach(), *gradients))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_positions_that_are_not_read_cost_less():
    """All but keys and values of the last space layer, and all of the time layer after it."""
    model, x = make(depth=4), torch.randn(2, 6, 20, 32)
    with FlopCounterMode(display=False) as whole:
        model(x, ALL)
    with FlopCounterMode(display=False) as part:
        model(x, ALL, read=slice(0, 1))
    assert part.get_total_flops() < 0.66 * whole.get_total_flops()


@torch.no_grad()
def test_reading_some_positions_with_a_cache():
    """As many as the first pass read or fewer, from the same position on."""
    model, x = make(context=4), torch.randn(2, 9, 5, 32)
    expected, cache = model(x, GROUPS), model.new_cache(2)
    out = model(x[:, :3], GROUPS, cache=cache, read=slice(1, 5))
    torch.testing.assert_close(out, expected[:, :3, 1:5], atol=2e-5, rtol=2e-5)
    cache.advance(3)
    for t in range(3, 9):
        out = model(x[:, t : t + 1], GROUPS, cache=cache, read=slice(1, 5 if t < 7 else 3))
        torch.testing.assert_close(out, expected[:, t : t + 1, 1 : 5 if t < 7 else 3], atol=2e-5, rtol=2e-5)
        cache.advance()
