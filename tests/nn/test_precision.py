"""The precision policy under bfloat16 autocast: what stays in float32, to the bit, and what is rounded."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reverie.nn.heads import Head
from reverie.nn.precision import Float32Linear, bfloat16, in_bfloat16, prefers_bfloat16, tf32
from reverie.nn.transformer import BlockCausalTransformer, TransformerConfig

CPU = torch.device("cpu")
CONFIG = TransformerConfig(width=16, depth=4, num_heads=2, num_kv_heads=1, context_length=4)


def test_the_residual_stream_stays_in_float32_and_its_branches_do_not():
    model, stream, branches = BlockCausalTransformer(CONFIG), set(), set()
    for layer in model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: stream.add(inputs[0].dtype))
        layer.attention.out.register_forward_hook(lambda *seen: branches.add(seen[-1].dtype))
        layer.mlp.register_forward_hook(lambda *seen: branches.add(seen[-1].dtype))
    with bfloat16(CPU):
        out = model(torch.randn(2, 3, 5, 16).bfloat16(), [(slice(None), slice(None))])
    assert stream == {torch.float32} and branches == {torch.bfloat16} and out.dtype == torch.float32


def test_a_small_update_survives_a_large_stream():
    """1000 + 1 is 1000 in bfloat16."""
    model, seen = BlockCausalTransformer(CONFIG), []
    for layer in model.layers:
        nn.init.zeros_(layer.attention.out.weight)
        layer.mlp.register_forward_hook(lambda _, inputs, out: torch.ones_like(out))
    original = model.layers[0].space
    model.layers[0].space = lambda *inputs: seen.append(original(*inputs)) or seen[0]
    x = torch.full((1, 1, 2, 16), 1000.0)
    with bfloat16(CPU):
        model(x.bfloat16(), [(slice(None), slice(None))])
    assert torch.equal(seen[0], x + 1)


def test_a_projection_in_float32_equals_itself_without_autocast():
    torch.manual_seed(0)
    layer, x = Float32Linear(32, 8), torch.randn(4, 32)
    with bfloat16(CPU):
        inside = layer(x)
        from_half = layer(x.bfloat16())
    inside.square().sum().backward()
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    F.linear(x, layer.weight, layer.bias).square().sum().backward()
    assert torch.equal(inside, layer(x)) and torch.equal(gradient, layer.weight.grad)
    assert from_half.dtype == torch.float32
    assert layer.double()(x.double()).dtype == torch.float64


def test_logits_of_heads_are_not_rounded():
    torch.manual_seed(0)
    head = Head(16, 32, 255)
    hidden = []
    head.out.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    with bfloat16(CPU):
        logits = head(torch.randn(2, 3, 16))[..., 0, :]
    assert torch.equal(logits, F.linear(hidden[0].float(), head.out.weight, head.out.bias))


@pytest.mark.parametrize(
    ("precision", "preferred", "expected"),
    [("auto", True, True), ("auto", False, False), ("bf16-mixed", False, True), ("32-true", True, False)],
)
def test_what_auto_means(monkeypatch, precision, preferred, expected):
    monkeypatch.setattr("reverie.nn.precision.prefers_bfloat16", lambda device: preferred)
    assert in_bfloat16(precision, CPU) == expected


def test_all_processors_compute_alike(monkeypatch):
    """Whatever a CPU can do: a run learns the same on both kinds."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    prefers_bfloat16.cache_clear()
    assert not prefers_bfloat16(CPU)


@pytest.mark.parametrize("before", [False, True])
def test_tf32_lasts_as_long_as_its_context_and_on_gpus_only(before):
    matmul = torch.backends.cuda.matmul
    found, matmul.allow_tf32 = matmul.allow_tf32, before
    try:
        with tf32(torch.device("cuda")):
            assert matmul.allow_tf32
        with tf32(CPU):
            assert matmul.allow_tf32 == before
        with tf32(torch.device("cuda"), enabled=False):
            assert matmul.allow_tf32 == before
        assert matmul.allow_tf32 == before
    finally:
        matmul.allow_tf32 = found
