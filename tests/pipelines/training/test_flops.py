"""Counted FLOPs against closed forms; a step that is counted is a step like any other."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from reverie.nn.transformer import BlockCausalTransformer, Group, TransformerConfig
from reverie.pipelines.training.flops import FlopCounter, count_flops

B, T, S, D = 2, 6, 5, 32
CONFIG = TransformerConfig(width=D, depth=4, num_heads=4, num_kv_heads=2, context_length=3)
GROUPS: list[Group] = [(slice(0, 2), slice(None)), (slice(2, None), slice(2, None))]


def passes_flops() -> int:
    """One forward pass of `CONFIG` over (B, T, S, D), worked out on paper."""
    n, g = CONFIG.num_heads, CONFIG.num_kv_heads
    h, hidden, tokens = D // n, 88, B * T * S  # 88: 8/3 of 32, rounded up to a multiple of 8
    projections = 2 * tokens * D * ((n + 2 * g) * h) + 2 * tokens * n * h * D
    mlp = 2 * tokens * D * 2 * hidden + 2 * tokens * hidden * D
    space = 4 * B * T * n * h * (2 * S + 3 * 3)
    time = 4 * B * S * n * h * T * T
    return CONFIG.depth * (projections + mlp) + 3 * space + time


def test_a_forward_pass_costs_what_paper_says() -> None:
    model, x = BlockCausalTransformer(CONFIG), torch.randn(B, T, S, D)
    assert count_flops(lambda: model(x, GROUPS)) == passes_flops()


def test_the_backward_pass_costs_twice_the_forward_pass() -> None:
    model, x = BlockCausalTransformer(CONFIG), torch.randn(B, T, S, D, requires_grad=True)
    assert count_flops(lambda: model(x, GROUPS).sum().backward()) == 3 * passes_flops()


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_products_count_in_every_mode(grad: Callable[[], torch.no_grad]) -> None:
    def work() -> None:
        with grad():
            a, b = torch.ones(3, 4, 5), torch.ones(5, 6)
            F.linear(a @ b, torch.ones(7, 6))
            F.conv2d(torch.ones(1, 2, 9, 9), torch.ones(4, 2, 3, 3))

    assert count_flops(work) == 2 * 12 * (5 * 6 + 6 * 7) + 2 * 4 * 49 * 18


def test_attention_of_torch_counts_on_a_cpu() -> None:
    """Which `torch.utils.flop_counter` leaves out: two products forward, five backward."""
    q, k = torch.randn(2, 4, 7, 8, requires_grad=True), torch.randn(2, 2, 9, 8)
    one = 2 * 2 * 4 * 7 * 9 * 8
    attend = lambda: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)  # noqa: E731
    assert count_flops(attend) == 2 * one
    assert count_flops(lambda: attend().sum().backward()) == (2 + 5) * one


def test_what_checkpointing_computes_again_does_not_count() -> None:
    linear, x = nn.Linear(8, 8, bias=False), torch.randn(3, 8, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        return F.silu(linear(F.silu(linear(x))))

    plain = count_flops(lambda: run(x).sum().backward())
    again = count_flops(lambda: checkpoint(run, x, use_reentrant=False).sum().backward())
    assert plain == again == 6 * 2 * 3 * 8 * 8


def test_a_counted_step_has_the_bits_of_any_other() -> None:
    model, x = BlockCausalTransformer(CONFIG), torch.randn(B, T, S, D)
    counted = copy.deepcopy(model)
    model(x, GROUPS).square().sum().backward()
    with FlopCounter():
        counted(x, GROUPS).square().sum().backward()
    for mine, its in zip(model.parameters(), counted.parameters(), strict=True):
        assert mine.grad is not None and its.grad is not None and torch.equal(mine.grad, its.grad)


@pytest.mark.slow  # compiles for some seconds
def test_compiled_code_counts_and_keeps_its_bits() -> None:
    linear, x = nn.Linear(16, 16, bias=False), torch.randn(8, 16, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        z = linear(F.silu(linear(x))).view(1, 4, 8, 4)
        return F.scaled_dot_product_attention(z, z, z).square().sum()

    fast = torch.compile(run, fullgraph=True, dynamic=False)

    def gradient() -> Tensor:
        linear.weight.grad = None
        fast(x).backward()
        assert linear.weight.grad is not None
        return linear.weight.grad

    expected = count_flops(lambda: run(x).backward())
    with FlopCounter() as first:  # the call that compiles
        gradient()
    usual = gradient()
    with FlopCounter() as later:
        same = gradient()
    assert first.total == later.total == expected
    assert torch.equal(usual, same)
