"""Float32 matrix products on CPUs by oneDNN instead of MKL, where that is quicker and just as exact.

Torch takes oneDNN for products of float32 only where it may use bfloat16 inside, after `set_float32_matmul_precision("medium")`.
Whether it then does depends on the machine: with AMX it rounds, with AVX-512 alone it multiplies in float32. So a probe compares
with float64 before it is used. MKL is slow on AMD's processors: a training step took 0.65 to 0.96 (by model) of its CPU time
with oneDNN. Single frames take more (each product is set up anew), so it is for training steps alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from reverie.nn.attention import Attention

EXACT = 1e-5
"""Largest error of a product over its largest value; float32 is at 1e-6 to 1e-7, bfloat16 at 1e-3."""
MIN_WIDTH = 128
"""Width of a model from which oneDNN gains: 0.87 of the tokenizer's step there, 1.04 and 1.05 in `nano`, of width 96 and 64."""
_SHAPES = ((1, 128, 384), (64, 128, 344), (640, 344, 128), (512, 1024, 64))


@contextmanager
def onednn_products(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Float32 products in the block go through oneDNN, if `model` is a transformer that gains by it on this machine.

    Compiled code keeps what it was compiled with. The former setting is restored at the end, also after an error.
    """
    if device.type != "cpu" or not _gains(model) or not onednn_is_exact():
        yield
        return
    with _medium():
        yield


def _gains(model: nn.Module) -> bool:
    """Few, large products, on a machine where MKL is slow; fused attention would set up oneDNN for each of its small blocks."""
    attention = [module for module in model.modules() if isinstance(module, Attention)]
    fused = any(a.backend not in ("auto", "math") or a.softcap is None for a in attention)
    wide = all(a.qkv.in_features >= MIN_WIDTH for a in attention)
    return bool(attention) and wide and not fused and mkl_is_slow()


@cache
def mkl_is_slow() -> bool:
    """Whether this is a processor of AMD with AVX-512, where oneDNN was measured to be quicker."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


@cache
def onednn_is_exact() -> bool:
    """Whether products through oneDNN are those of float32 on this machine: forward, and as in a backward pass."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    with _medium():
        return all(_is_exact(*shape, generator) for shape in _SHAPES)


def _is_exact(rows: int, inner: int, columns: int, generator: torch.Generator) -> bool:
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(columns, inner, generator=generator)
    c = torch.randn(rows, columns, generator=generator)
    pairs = [(a, b.T), (c, b), (c.T, a), (a.expand(3, -1, -1), b.T.expand(3, -1, -1))]
    return all(_error(x, y) < EXACT for x, y in pairs)


def _error(x: Tensor, y: Tensor) -> float:
    exact = x.double() @ y.double()
    return float(((x @ y).double() - exact).abs().max() / exact.abs().max())


@contextmanager
def _medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
