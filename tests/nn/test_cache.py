"""The ring cache by itself: which frames a frame finds in it, of fixed shapes or not, and the angles of its keys."""

import math

import pytest
import torch

from reverie.nn.cache import RingCache

ROWS, HEAD_DIM = 2, 4


def numbered(frames):
    """Keys (B, 1, 1, T, H) that say which frame they are of."""
    return torch.tensor(frames, dtype=torch.float64).reshape(1, 1, 1, -1, 1).expand(ROWS, 1, 1, -1, HEAD_DIM)


def found(past, frames):
    """The frames that each row's new `frames` see: rows x queries -> sorted list."""
    keys, values = past.write(0, numbered(frames), numbered(frames))
    assert torch.equal(keys, values)
    shape = (ROWS, 1, 1, 1, len(frames), keys.shape[-2])
    mask = torch.ones(shape, dtype=torch.bool) if past.mask is None else past.mask.expand(shape)
    numbers = keys[:, 0, 0, :, 0]
    return [
        [sorted(numbers[row, mask[row, 0, 0, 0, i]].tolist()) for i in range(len(frames))]
        for row in range(ROWS)
    ]


def seen(frame, window, start):
    return [float(x) for x in range(max(start, frame - window + 1), frame + 1)]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("prefill", [0, 1, 3, 9])
def test_each_frame_finds_its_window(fixed, window, prefill):
    """One frame or two in a pass, over three turns of the ring; the second row restarts twice."""
    cache, starts = RingCache(1, ROWS, window, HEAD_DIM, "cpu"), [0, 0]
    if prefill:
        cache.past(prefill).write(0, numbered(range(prefill)), numbered(range(prefill)))
        cache.advance(prefill)
    for frame in range(prefill, prefill + 3 * window + 2):
        if frame in (prefill + 2, prefill + window + 1):
            cache.reset(torch.tensor([False, True]))
            starts[1] = frame
        if frame > 0 or fixed:
            both = found(cache.past(2, fixed=fixed), [frame, frame + 1])
            assert both == [[seen(f, window, start) for f in (frame, frame + 1)] for start in starts]
        alone = found(cache.past(1, fixed=fixed), [frame])
        assert alone == [[seen(frame, window, start)] for start in starts]
        if frame > 0 or fixed:
            cache.past(2, fixed=fixed).write(0, numbered([frame, frame + 1]), numbered([frame, frame + 1]))
        ahead = cache.past(1, ahead=1, fixed=fixed)
        cache.advance()
        if frame > 0 or fixed:
            assert found(ahead, [frame + 1]) == [[seen(frame + 1, window, start)] for start in starts]


@pytest.mark.parametrize("position", [1, 191, 72_000])
def test_angles_are_those_of_the_frame_number(position):
    """To float32's last digit, by Python's own sine and cosine of float64."""
    cache = RingCache(1, 1, 192, 64, "cpu")
    cache.advance(position)
    cos, sin = cache.past(2).rope
    for i in (0, 1):
        angles = [(position + i) * 10_000.0 ** -(2 * j / 64) for j in range(32)]
        expected = torch.tensor([[f(x) for x in angles] for f in (math.cos, math.sin)], dtype=torch.float64)
        torch.testing.assert_close(torch.stack([cos[i], sin[i]]).double(), expected, atol=1e-7, rtol=0)


def test_masks_of_fixed_passes_have_one_shape_and_others_only_what_is_filled():
    cache, shapes, filled = RingCache(1, ROWS, 4, HEAD_DIM, "cpu"), set(), []
    for _ in range(10):
        shapes.add(tuple(cache.past(1, fixed=True).mask.shape) + tuple(cache.past(2, fixed=True).mask.shape))
        filled.append(cache.past(1).keys)
        assert cache.past(1).mask is None
        cache.advance()
    assert shapes == {(ROWS, 1, 1, 1, 1, 4, ROWS, 1, 1, 1, 2, 5)}
    assert filled == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]


def test_a_cache_filled_in_inference_mode_may_be_written_outside_of_it():
    cache = RingCache(1, ROWS, 4, HEAD_DIM, "cpu")
    with torch.inference_mode():
        found(cache.past(1), [0])
        cache.advance()
    with torch.no_grad():
        assert found(cache.past(1), [1]) == [[[0.0, 1.0]]] * ROWS
