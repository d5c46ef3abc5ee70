"""Attention backends against an independent float64 formula and against each other."""

import math

import pytest
import torch

from reverie.nn.attention import attend, axial_angles, rope_angles, rope_table, rotate


def reference(q, k, v, mask, softcap):
    """One head and one query at a time, in float64."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
    repeats = q.shape[1] // k.shape[1]
    for x in range(q.shape[0]):
        for n in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys, values = k[x, n // repeats].double(), v[x, n // repeats].double()
                logits = keys @ q[x, n, i].double() / math.sqrt(q.shape[-1])
                if softcap is not None:
                    logits = softcap * torch.tanh(logits / softcap)
                if mask is not None:
                    logits = torch.where(mask[i], logits, torch.tensor(-math.inf, dtype=torch.float64))
                out[x, n, i] = torch.softmax(logits, 0) @ values
    return out


@pytest.mark.parametrize("heads,kv_heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend,softcap", [("math", 5.0), ("math", None), ("sdpa", None), ("flex", 5.0)])
def test_backends_match_the_formula(heads, kv_heads, masked, backend, softcap):
    torch.manual_seed(0)
    q = torch.randn(3, heads, 6, 8) * 4
    k, v = torch.randn(3, kv_heads, 6, 8), torch.randn(3, kv_heads, 6, 8)
    mask = torch.ones(6, 6, dtype=torch.bool).tril() if masked else None
    with torch.no_grad():
        out = attend(q, k, v, mask=mask, softcap=softcap, backend=backend)
    torch.testing.assert_close(out.double(), reference(q, k, v, mask, softcap), atol=1e-5, rtol=1e-5)


def test_a_backend_that_cannot_do_it_refuses():
    x = torch.randn(1, 1, 2, 4)
    with pytest.raises(ValueError, match="softcap"):
        attend(x, x, x, mask=None, softcap=50.0, backend="sdpa")


def test_rotation_depends_on_differences_only_even_far_out():
    torch.manual_seed(0)
    q, k = torch.randn(1, 16), torch.randn(1, 16)

    def score(i, j):
        a = rotate(q, *rope_table(rope_angles(torch.tensor([i]), 16)))
        b = rotate(k, *rope_table(rope_angles(torch.tensor([j]), 16)))
        return (a * b).sum()

    torch.testing.assert_close(score(7, 3), score(72_007, 72_003), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(score(7, 3), score(12, 3), atol=1e-3)


def test_axial_angles_turn_half_with_rows_and_half_with_columns():
    angles = axial_angles(3, 5, 16).reshape(3, 5, 8)
    assert torch.equal(angles[:, 0, :4], angles[:, 4, :4])
    assert torch.equal(angles[0, :, 4:], angles[2, :, 4:])
    assert not torch.equal(angles[0, 0], angles[1, 0])
