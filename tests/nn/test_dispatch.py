"""Which kernel a call gets on which machine; the machines are plain values, as none of them need be here."""

import logging
from itertools import product
from typing import get_args

import pytest
import torch

from reverie.data.errors import UserError
from reverie.dynamics.model import DynamicsConfig
from reverie.nn.dispatch import (
    KERNELS,
    Backend,
    Call,
    Machine,
    cannot,
    choose,
    kernel_of,
    require_possible,
    this_machine,
    told_choice,
)
from reverie.nn.transformer import TransformerConfig
from reverie.nn.visibility import Kind
from reverie.tokenizer.model import TokenizerConfig

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64

LAPTOP = Machine("cpu")
MAC = Machine("mps")
H100 = Machine("cuda", (9, 0), compiler=True)
H100_FLASH = Machine("cuda", (9, 0), compiler=True, flash2=True)
H100_FLASH4 = Machine("cuda", (9, 0), compiler=True, flash4=True)
H100_BARE = Machine("cuda", (9, 0))
BLACKWELL = Machine("cuda", (10, 0), compiler=True, flash4=True)
RTX_5090 = Machine("cuda", (12, 0), compiler=False, flash4=True)
A100_FLASH4 = Machine("cuda", (8, 0), compiler=False, flash4=True)
V100_FLASH = Machine("cuda", (7, 0), compiler=True, flash2=True)
MACHINES = (
    LAPTOP, MAC, H100, H100_FLASH, H100_FLASH4, H100_BARE, BLACKWELL, RTX_5090, A100_FLASH4, V100_FLASH
)  # fmt: skip


def call(kind: Kind = "full", dtype=BF16, *, head_dim=64, softcap=True, gradient=True, long=True) -> Call:
    return Call(kind, dtype, head_dim, softcap, gradient, long)


@pytest.mark.parametrize(
    ("machine", "asked", "kernel"),
    [
        (LAPTOP, call(dtype=F32), "math"),
        (LAPTOP, call(dtype=F32, softcap=False), "sdpa"),
        (LAPTOP, call(dtype=F32, softcap=False, long=False), "math"),
        (LAPTOP, call("segments", F32, softcap=False), "sdpa"),
        (LAPTOP, call("segments", F32, softcap=False, long=False), "math"),
        (LAPTOP, call("query", F32, softcap=False, gradient=False, long=False), "math"),
        (MAC, call(dtype=F32), "math"),
        (MAC, call("segments", F32, softcap=False), "sdpa"),
        # Space: nothing hidden.
        (H100, call(), "flex"),
        (H100, call(softcap=False), "sdpa"),
        (H100_FLASH, call(), "flash2"),
        (H100_FLASH, call(softcap=False), "sdpa"),
        (H100_FLASH4, call(), "flex"),
        (H100_BARE, call(), "math"),
        (H100_BARE, call(softcap=False), "sdpa"),
        # Time: a window, which torch's own kernel takes as a dense mask only.
        (H100, call("causal", softcap=False), "sdpa"),
        (H100, call("window", softcap=False), "sdpa"),
        (H100_FLASH, call("window", softcap=False), "flash2"),
        (H100_FLASH, call("window"), "flash2"),
        (H100, call("window"), "flex"),
        # Segments: flash-attn would wait for the device to know where they begin.
        (H100_FLASH, call("segments"), "flex"),
        (Machine("cuda", (9, 0), compiler=False, flash2=True), call("segments"), "flash2"),
        (H100_FLASH, call("segments", softcap=False), "sdpa"),
        # Generation: the keys of a cache, of which a mask says which count.
        (H100_FLASH, call("mask", gradient=False), "math"),
        (H100_FLASH, call("mask", softcap=False, gradient=False), "sdpa"),
        (H100_FLASH, call("query", gradient=False), "flash2"),
        (H100, call("query", gradient=False), "math"),
        (H100, call("query", softcap=False, gradient=False), "sdpa"),
        # What flash-attn cannot.
        (H100_FLASH, call(dtype=F32), "flex"),
        (H100_FLASH, call(dtype=F64), "math"),
        (H100_FLASH, call(head_dim=288), "flex"),
        (V100_FLASH, call(), "flex"),
        (H100_FLASH, call(head_dim=8), "flash2"),
        (H100, call(head_dim=8), "math"),
        # flash-attn-4: after FlexAttention, which can be compiled into a layer.
        (BLACKWELL, call(), "flex"),
        (RTX_5090, call(gradient=False), "flash4"),
        (RTX_5090, call(), "math"),
        (A100_FLASH4, call(), "math"),
    ],
)  # fmt: skip
def test_auto_takes_the_best_that_can(machine, asked, kernel):
    choice = choose("auto", asked, machine)
    assert choice.kernel == kernel
    assert choice.reason


@pytest.mark.parametrize("machine", MACHINES)
def test_auto_always_finds_one_that_can(machine):
    for kind, dtype, width, softcap, gradient in product(
        get_args(Kind), (BF16, torch.float16, F32, F64), (4, 24, 64, 100, 512), (True, False), (True, False)
    ):
        asked = call(kind, dtype, head_dim=width, softcap=softcap, gradient=gradient)
        assert cannot(choose("auto", asked, machine).kernel, asked, machine) is None


@pytest.mark.parametrize(
    ("backend", "machine", "asked", "reason"),
    [
        ("sdpa", H100, call(), "it has no soft cap"),
        ("flex", LAPTOP, call(dtype=F32), "no backward pass on a CPU"),
        ("flex", H100_BARE, call(), "there is no Triton"),
        ("flex", H100, call(dtype=F64), "float64"),
        ("flex", MAC, call(dtype=F32), "not used on mps"),
        ("flex", H100, call(head_dim=8), "heads of at least 16"),
        ("flash", LAPTOP, call(), "flash-attn runs on CUDA devices only"),
        ("flash", H100, call(), "flash-attn is not installed \\(extra `flash`"),
        ("flash", H100, call(), "flash-attn-4 is not installed \\(extra `flash4`"),
        ("flash", H100_FLASH, call(dtype=F32), "bfloat16 and float16 only"),
        ("flash", H100_FLASH, call("mask"), "no dense mask"),
        ("flash", H100_FLASH, call(head_dim=264), "at most 256"),
        ("flash", V100_FLASH, call(), "compute capability 8.0"),
        ("flash", A100_FLASH4, call(), "compute capability 9.0"),
        ("flash", RTX_5090, call(), "no gradient through the soft cap"),
        ("flash", BLACKWELL, call(head_dim=192), "8, 16, ... 128"),
        ("flash", H100_FLASH4, call(head_dim=20), "8, 16, ... 256"),
    ],
)
def test_a_forced_one_that_cannot_is_refused_in_a_sentence(backend, machine, asked, reason):
    with pytest.raises(UserError, match=reason) as refused:
        choose(backend, asked, machine)
    sentence = str(refused.value)
    assert "\n" not in sentence and f"--model.backend {backend}" in sentence


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("backend", KERNELS)
def test_a_forced_one_is_never_replaced(backend, machine):
    for kind, dtype, softcap in product(get_args(Kind), (BF16, F32), (True, False)):
        asked = call(kind, dtype, softcap=softcap)
        try:
            kernel = choose(backend, asked, machine).kernel
        except UserError:
            assert all(cannot(kernel, asked, machine) for kernel in KERNELS[backend])
        else:
            assert kernel in KERNELS[backend] and cannot(kernel, asked, machine) is None


def test_the_reason_names_what_would_have_been_better():
    assert choose("auto", call(), H100_BARE).reason.startswith("flash2: flash-attn is not installed")
    assert choose("auto", call(), H100_FLASH).reason == "first choice"
    assert choose("math", call(), H100_FLASH).reason == "forced"


def test_each_kind_of_call_is_told_once(caplog):
    caplog.set_level(logging.DEBUG, "reverie.nn.dispatch")
    told_choice.cache_clear()
    asked = (torch.device("cpu"), F32, 24, True, True)
    for _ in range(3):
        assert kernel_of("auto", "segments", *asked) == "math"
        assert kernel_of("math", "full", *asked) == "math"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "DEBUG",
            "attention (window and segments, float32, heads of 24, with soft cap, training): "
            "math on cpu (first choice)",
        ),
        (
            "INFO",
            "attention (all visible, float32, heads of 24, with soft cap, training): math on cpu (forced)",
        ),
    ]


def test_this_machine_is_described_without_importing_packages():
    import sys

    machine = this_machine(torch.device("cpu"))
    assert machine.device == "cpu" and not machine.flash2
    assert "flash_attn" not in sys.modules


@pytest.mark.parametrize("config", [TransformerConfig, DynamicsConfig, TokenizerConfig])
def test_what_no_machine_can_is_refused_at_construction(config):
    sizes = {"width": 32, "depth": 4, "num_heads": 4, "num_kv_heads": 4, "context_length": 4}
    if config is TokenizerConfig:
        sizes = {}
    with pytest.raises(ValueError, match="backend sdpa has no soft cap"):
        config(**sizes, backend="sdpa", softcap=50.0)
    for backend in set(get_args(Backend)) - {"flash"}:
        config(**sizes, backend=backend, softcap=None)


def test_flash_is_refused_where_a_part_needs_float32():
    with pytest.raises(ValueError, match="needs float32"):
        TokenizerConfig(backend="flash")
    require_possible("flash", 50.0)
