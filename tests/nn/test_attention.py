"""Attention kernels against an independent float64 formula: outputs, gradients, causality, what is visible."""

from functools import partial

import pytest
import torch

from reverie.data.errors import UserError
from reverie.nn.attention import (
    Attention,
    attend,
    axial_angles,
    rope_angles,
    rope_table,
    rotate,
)
from reverie.nn.dense_attention import fold
from reverie.nn.flex import BLOCK, block_layout, capped, compiled_flex, window_blocks
from reverie.nn.visibility import CausalWindow
from tests.nn.attention_cases import CASES, Case, with_gradients, written_out

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
CPU = torch.device("cpu")


def close(actual, expected, dtype):
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@by_name
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("backend", "softcap"), [("math", 2.0), ("math", None), ("sdpa", None), ("auto", None)]
)
def test_outputs_and_gradients_match_the_formula(case, backend, softcap, dtype):
    inputs = case.tensors(dtype)
    run = partial(attend, visible=case.visible(), softcap=softcap, backend=backend)
    exact = with_gradients(lambda q, k, v: written_out(case, q, k, v, softcap), *inputs)
    for actual, expected in zip(with_gradients(run, *inputs), exact, strict=True):
        assert actual.dtype == dtype
        close(actual, expected.double(), dtype)


@by_name
@torch.no_grad()
def test_what_overwrites_its_logits_without_gradients_matches_too(case):
    """The matrix products work in place there."""
    inputs = case.tensors(torch.float64)
    for softcap in (2.0, None):
        out = attend(*inputs, visible=case.visible(), softcap=softcap, backend="math")
        close(out, written_out(case, *inputs, softcap), torch.float64)


@pytest.mark.parametrize("name", ["space", "one query", "window", "segments", "several blocks"])
@pytest.mark.parametrize("softcap", [2.0, None])
@torch.no_grad()
def test_flex_matches_the_formula(name, softcap):
    torch._dynamo.reset()
    case = next(case for case in CASES if case.name == name)
    inputs = case.tensors(torch.float64)
    out = attend(*inputs, visible=case.visible(), softcap=softcap, backend="flex")
    close(out, written_out(case, *inputs, softcap), torch.float64)


@torch.no_grad()
def test_flex_makes_no_new_code_for_other_segments():
    torch._dynamo.reset()
    case = next(case for case in CASES if case.name == "segments")
    inputs = case.tensors(torch.float32)

    def run():
        segment = torch.randint(0, 2, (case.rows, case.queries)).cumsum(1)
        visible = CausalWindow(case.queries, case.window, segment, CPU)
        attend(*inputs, visible=visible, softcap=2.0, backend="flex")

    run()
    before = dict(torch._dynamo.utils.counters["stats"])
    for _ in range(3):
        run()
    assert before["unique_graphs"] > 0
    assert dict(torch._dynamo.utils.counters["stats"]) == before


@pytest.mark.parametrize("softcap", [2.0, None])
@pytest.mark.parametrize("backend", ["math", "sdpa", "flex", "auto"])
@torch.no_grad()
def test_a_dense_mask_means_the_same_in_every_form(backend, softcap):
    """Bool as the cache gives it, for each row another one; the keys are one longer than the queries."""
    if backend == "sdpa" and softcap is not None:
        return
    case = Case("cached", 2, 5)
    q, k, v = case.tensors(torch.float64)
    mask = torch.tensor([[[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]]).bool()
    out = attend(q, k, v, visible=mask[:, None, None, None], softcap=softcap, backend=backend)
    for row, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        seen = mask[row, i].nonzero()[:, 0]
        one = attend(
            q[row, :, :, i : i + 1], k[row][..., seen, :], v[row][..., seen, :],
            visible=None, softcap=softcap, backend="math",
        )  # fmt: skip
        torch.testing.assert_close(out[row, :, :, i : i + 1], one, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backend", ["math", "sdpa"])
def test_a_mask_of_each_head_and_position_is_kept_apart(backend):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, 8, dtype=torch.float64) for n in (4, 2, 2))
    mask = torch.rand(2, 3, 2, 2, 4, 4) < 0.5
    mask |= torch.eye(4, dtype=torch.bool)
    out = attend(q, k, v, visible=mask, softcap=None, backend=backend)
    for x, s, n in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        one = attend(
            q[x, s, n][None], k[x, s, n // 2][None], v[x, s, n // 2][None],
            visible=mask[x, s, n // 2, n % 2], softcap=None, backend="math",
        )  # fmt: skip
        torch.testing.assert_close(out[x, s, n][None], one, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
@pytest.mark.parametrize("backend", ["math", "sdpa", "flex"])
@torch.no_grad()
def test_any_number_of_leading_dimensions(backend, leading):
    q, k, v = (torch.randn(*leading, 2, 4, 8, dtype=torch.float64) for _ in range(3))
    visible = CausalWindow(4, 2, None, CPU)
    out = attend(q, k, v, visible=visible, softcap=None, backend=backend)
    flat = [x.reshape(-1, 1, 2, 4, 8) for x in (q, k, v)]
    expected = attend(*flat, visible=visible, softcap=None, backend="math")
    torch.testing.assert_close(out, expected.view(out.shape), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backend", ["math", "sdpa", "flex"])
@torch.no_grad()
def test_later_frames_other_segments_and_what_left_the_window_change_nothing(backend):
    """Not a bit of the output, whatever stands there, infinities and all."""
    case = next(case for case in CASES if case.name == "segments")
    q, k, v = case.tensors(torch.float32)
    run = partial(attend, visible=case.visible(), softcap=None, backend=backend)
    before = run(q, k, v)
    for j in range(case.keys):
        changed_k, changed_v = k.clone(), v.clone()
        changed_k[..., j, :] += 1e3
        changed_v[..., j, :] = 1e30
        after = run(q, changed_k, changed_v)
        for row in range(case.rows):
            for i in range(case.queries):
                same = torch.equal(before[row, ..., i, :], after[row, ..., i, :])
                assert same != case.sees(row, i, j), (row, i, j)


@pytest.mark.parametrize("backend", ["auto", "math", "sdpa", "flex"])
@pytest.mark.parametrize(("queries", "keys"), [(0, 4), (0, 0)])
@torch.no_grad()
def test_a_group_of_no_tokens_gives_none(backend, queries, keys):
    q, k = torch.randn(2, 3, 4, queries, 8), torch.randn(2, 3, 2, keys, 8)
    assert attend(q, k, k, visible=None, softcap=None, backend=backend).shape == q.shape


@torch.no_grad()
def test_bfloat16_is_as_close_as_its_digits():
    case = next(case for case in CASES if case.name == "segments")
    inputs = case.tensors(torch.bfloat16)
    for backend, softcap in (("math", 2.0), ("math", None), ("sdpa", None), ("flex", 2.0)):
        out = attend(*inputs, visible=case.visible(), softcap=softcap, backend=backend)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.double(), written_out(case, *inputs, softcap), atol=4e-2, rtol=4e-2)


@pytest.mark.parametrize("steps", [5, 128, 256, 257, 400])
def test_blocks_are_computed_where_a_key_is_visible_and_nowhere_else(steps):
    for window in (1, 2, 100, 127, 128, 129, 130, 255, 256, 257, 258, 1000):
        counts, order = block_layout(steps, window)
        mask = CausalWindow(steps, window, None, CPU).mask()
        for count, blocks, rows in zip(counts, order, mask.split(BLOCK), strict=True):
            visible = [j for j, block in enumerate(rows.split(BLOCK, 1)) if bool(block.any())]
            assert blocks[:count] == visible
            assert sorted(blocks) == list(range(len(order)))


def layer(backend, softcap=2.0):
    torch.manual_seed(0)
    return Attention(32, 4, 2, softcap=softcap, backend=backend, out_scale=1.0)


def test_a_forced_backend_is_refused_at_its_first_call():
    x = torch.randn(1, 1, 2, 4, requires_grad=True)
    with pytest.raises(UserError, match="sdpa: it has no soft cap"):
        attend(x, x, x, visible=None, softcap=50.0, backend="sdpa")
    with pytest.raises(UserError, match="flex: FlexAttention has no backward"):
        attend(x, x, x, visible=None, softcap=50.0, backend="flex")


@pytest.mark.parametrize("softcap", [2.0, None])
@pytest.mark.parametrize("enabled", [False, True])
def test_what_is_prepared_for_all_layers_is_what_each_would_take(softcap, enabled):
    """In float32 and under autocast, where queries are bfloat16."""
    attention, x = layer("auto", softcap), torch.randn(2, 3, 6, 32)
    segment = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 2]])
    window = CausalWindow(6, 3, segment, CPU)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        qkv = attention.project(x, rope_table(rope_angles(torch.arange(6), 8)))
        once = attention.read(*qkv, attention.prepare(window, x))
        each = attention.read(*qkv, window)
    assert qkv[0].dtype == once.dtype == (torch.bfloat16 if enabled else torch.float32)
    assert torch.equal(once, each)


@pytest.mark.parametrize("softcap", [2.0, None])
def test_dispatch_leaves_one_graph_which_serves_other_segments(softcap):
    """Space and time in one compiled function: nothing breaks the graph, and new segments make no new one."""
    torch._dynamo.reset()
    attention = layer("auto", softcap)

    def both(x, visible):
        qkv = attention.project(x, None)
        return attention.read(*qkv, None) + attention.read(*qkv, visible)

    graphs = []
    run = torch.compile(
        both, fullgraph=True, dynamic=False, backend=lambda graph, _: graphs.append(graph) or graph
    )
    for seed in range(3):
        torch.manual_seed(seed)
        x, segment = torch.randn(2, 3, 6, 32), torch.randint(0, 2, (2, 6)).cumsum(1)
        visible = attention.prepare(CausalWindow(6, 3, segment, CPU), x)
        torch.testing.assert_close(run(x, visible), both(x, visible))
    assert len(graphs) == 1


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_matches_and_is_compiled_once():
    """Code for this CPU, as it is made for a GPU."""
    torch._dynamo.reset()
    case = next(case for case in CASES if case.name == "segments")
    window = case.visible()

    def run(segment):
        visible = CausalWindow(window.steps, window.window, segment, CPU)
        blocks = window_blocks(visible)
        q, k, v = (fold(x, by_row=True) for x in case.tensors(torch.float32))
        out = compiled_flex()(q, k, v, capped(2.0), blocks, True)
        return out.unflatten(1, (case.positions, -1)), visible

    out, _ = run(window.segment)
    close(out, written_out(case, *case.tensors(torch.float32), 2.0), torch.float32)
    before = dict(torch._dynamo.utils.counters["stats"])
    out, visible = run(torch.zeros_like(window.segment))
    exact = attend(*case.tensors(torch.float32), visible=visible, softcap=2.0, backend="math")
    torch.testing.assert_close(out, exact, atol=2e-5, rtol=2e-5)
    assert dict(torch._dynamo.utils.counters["stats"]) == before


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
