"""`precision: auto` takes bfloat16 where the processor has it and float32 where it would only be emulated."""

import pytest
import torch
from torch import nn

from reverie.nn import precision as precision_module
from reverie.nn.precision import has_fast_bfloat16
from reverie.pipelines.training import loop as training
from tests.batches import latent_batch

CPU = torch.device("cpu")


class Arithmetic(nn.Module):
    """Says in which type a product is computed."""

    def forward(self, batch):
        return torch.ones(2, 2) @ torch.ones(2, 2), {}


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
@pytest.mark.parametrize("there", [True, False])
def test_the_processors_flags_decide(monkeypatch, flag, there):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, flag: there}, raising=False)
    has_fast_bfloat16.cache_clear()
    try:
        assert has_fast_bfloat16(CPU) == there
    finally:
        has_fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("precision", "fast", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16-mixed", False, torch.bfloat16),
        ("32-true", True, torch.float32),
    ],
)
def test_the_forward_pass_follows(monkeypatch, precision, fast, expected):
    monkeypatch.setattr(precision_module, "has_fast_bfloat16", lambda device: fast)
    out, _ = training.forward(Arithmetic(), latent_batch(), CPU, precision)
    assert out.dtype == expected
