"""Which kernel computes an attention call: by what the call needs and what the machine has.

Pure functions of two small records, so that the table can be read and tested without the machines it speaks of. Grouped-query
attention, odd lengths and any scale are no question: every kernel has them.
"""

import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

import torch

from reverie.data.errors import UserError
from reverie.nn.compilation import cannot_compile
from reverie.nn.visibility import Kind

Backend = Literal["auto", "math", "sdpa", "flex", "flash"]
"""What a user may choose; `flash` is flash-attn 2 if it is installed, else flash-attn-4."""
Kernel = Literal["math", "sdpa", "flex", "flash2", "flash4"]

KERNELS: dict[Backend, tuple[Kernel, ...]] = {
    "math": ("math",),
    "sdpa": ("sdpa",),
    "flex": ("flex",),
    "flash": ("flash2", "flash4"),
}
LONG = 64
"""Queries from which torch's fused function beats matrix products on a CPU, forward and backward (docs/attention.md)."""
HALF = (torch.bfloat16, torch.float16)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """What one kind of attention call needs."""

    kind: Kind
    dtype: torch.dtype
    head_dim: int
    softcap: bool
    gradient: bool
    long: bool = True
    """At least `LONG` queries."""

    def __str__(self) -> str:
        cap = "with" if self.softcap else "no"
        use = "training" if self.gradient else "no gradient"
        number = str(self.dtype).removeprefix("torch.")
        length = "" if self.long else f", under {LONG} queries"
        return f"{_WORDS[self.kind]}, {number}, heads of {self.head_dim}, {cap} soft cap, {use}{length}"


_WORDS: dict[Kind, str] = {
    "full": "all visible",
    "query": "one query",
    "causal": "causal",
    "window": "sliding window",
    "segments": "window and segments",
    "mask": "dense mask",
}


@dataclass(frozen=True)
class Machine:
    """What one device and its software have."""

    device: str
    """Its type: cpu, cuda, mps."""
    capability: tuple[int, int] = (0, 0)
    """Compute capability of a CUDA device."""
    compiler: bool = False
    """torch.compile can make code for a CUDA device."""
    flash2: bool = False
    """flash-attn 2.8 or later is installed."""
    flash4: bool = False
    """flash-attn-4 is installed."""


@dataclass(frozen=True)
class Choice:
    """The kernel of a call, and why that one."""

    kernel: Kernel
    reason: str


def choose(backend: Backend, call: Call, machine: Machine) -> Choice:
    """The kernel of `call`. Raises `UserError` where `backend` is forced and cannot do it."""
    wanted = preferred(call, machine) if backend == "auto" else KERNELS[backend]
    against: list[str] = []
    for kernel in wanted:
        obstacle = cannot(kernel, call, machine)
        if obstacle is None:
            return Choice(kernel, "; ".join(against) or ("first choice" if backend == "auto" else "forced"))
        against.append(f"{kernel}: {obstacle}")
    raise UserError(
        f"--model.backend {backend} cannot compute attention ({call}) on {machine.device}: {'; '.join(against)}. "
        f"Give --model.backend auto."
    )


def preferred(call: Call, machine: Machine) -> tuple[Kernel, ...]:
    """Kernels from best to last resort, as docs/attention.md has them; `cannot` strikes out the impossible ones."""
    if call.dtype == torch.float64:
        return ("math",)
    if machine.device == "cpu":
        return _preferred_on_cpu(call)
    if machine.device != "cuda":
        return ("sdpa", "math")
    if not call.softcap:
        return ("flash2", "sdpa", "math") if call.kind == "window" else ("sdpa", "math")
    if call.kind == "mask":  # one or two queries: their logits are few
        return ("math",)
    if call.kind == "query":  # as many keys as a cache holds: not new code for each number
        return ("flash2", "math")
    if call.kind == "segments":  # packing pieces for flash-attn waits for the device once a pass
        return ("flex", "flash2", "flash4", "math")
    return ("flash2", "flex", "flash4", "math")


def _preferred_on_cpu(call: Call) -> tuple[Kernel, ...]:
    return ("sdpa", "math") if call.long and not call.softcap else ("math",)


def cannot(kernel: Kernel, call: Call, machine: Machine) -> str | None:
    """Why `kernel` cannot compute `call` on `machine`, in words; None if it can."""
    if kernel == "math":
        return None
    if kernel == "sdpa":
        return "it has no soft cap (--model.softcap null leaves that out)" if call.softcap else None
    if kernel == "flex":
        return _flex_cannot(call, machine)
    return _flash_cannot(kernel, call, machine)


def _flex_cannot(call: Call, machine: Machine) -> str | None:
    if machine.device == "cpu":
        return "FlexAttention has no backward pass on a CPU" if call.gradient else None
    if machine.device != "cuda":
        return f"FlexAttention is not used on {machine.device}"
    if not machine.compiler:
        return "FlexAttention needs a compiler, and there is no Triton for this GPU"
    if call.dtype == torch.float64:
        return "FlexAttention does not multiply float64 on a GPU"
    return "FlexAttention needs heads of at least 16 on a GPU" if call.head_dim < 16 else None


def _flash_cannot(kernel: Kernel, call: Call, machine: Machine) -> str | None:
    package, extra = ("flash-attn", "flash") if kernel == "flash2" else ("flash-attn-4", "flash4")
    if machine.device != "cuda":
        return f"{package} runs on CUDA devices only"
    if not (machine.flash2 if kernel == "flash2" else machine.flash4):
        return f"{package} is not installed (extra `{extra}`, docs/attention.md)"
    if call.dtype not in HALF:
        return f"{package} multiplies bfloat16 and float16 only (--fabric.precision bf16-mixed)"
    if call.kind == "mask":
        return f"{package} takes no dense mask"
    return _flash2_cannot(call, machine) if kernel == "flash2" else _flash4_cannot(call, machine)


def _flash2_cannot(call: Call, machine: Machine) -> str | None:
    if machine.capability < (8, 0):
        return "flash-attn needs compute capability 8.0 or more"
    return "flash-attn has heads of at most 256" if call.head_dim > 256 else None


def _flash4_cannot(call: Call, machine: Machine) -> str | None:
    generation = machine.capability[0]
    if generation not in (9, 10, 11, 12):
        return "flash-attn-4 needs compute capability 9.0 to 12"
    if generation == 12 and call.softcap and call.gradient:
        return "flash-attn-4 has no gradient through the soft cap on compute capability 12"
    widest = 256 if generation == 9 else 128
    if call.head_dim % 8 or not 8 <= call.head_dim <= widest:
        return f"flash-attn-4 has heads of 8, 16, ... {widest} on compute capability {generation}"
    return None


def require_possible(backend: Backend, softcap: float | None, needs_float32: bool = False) -> None:
    """Refuses what no machine can do. Raises `ValueError`.

    Args:
      needs_float32: some of the model's attention is computed in float32 whatever the precision.
    """
    if backend == "sdpa" and softcap is not None:
        raise ValueError("backend sdpa has no soft cap; set softcap to null, or backend to auto")
    if backend == "flash" and needs_float32:
        raise ValueError(
            "backend flash multiplies bfloat16 only, and a part of this model needs float32; set backend to auto, "
            "which takes flash-attn where it can"
        )


@cache
def this_machine(device: torch.device) -> Machine:
    """What `device` and the installed software have. Imports none of the optional packages."""
    if device.type != "cuda":  # where no kernel needs a compiler
        return Machine(device.type)
    return Machine(
        "cuda",
        torch.cuda.get_device_capability(device),
        compiler=cannot_compile(device) is None,
        flash2=_installed("flash-attn", (2, 8)),
        flash4=_installed("flash-attn-4", (4,)),
    )


def _installed(package: str, least: tuple[int, ...]) -> bool:
    try:
        numbers = version(package).split(".")[: len(least)]
    except PackageNotFoundError:
        return False
    return all(x.isdigit() for x in numbers) and tuple(map(int, numbers)) >= least


# Constant under torch.compile: it depends on nothing but its arguments, and dynamo cannot trace questions to the machine.
@torch.compiler.assume_constant_result
def kernel_of(
    backend: Backend,
    kind: Kind,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    softcap: bool,
    gradient: bool,
    long: bool = True,
) -> Kernel:
    """The kernel of a kind of call on `device`; tells it in one line of the log, once. Raises as `choose`."""
    long = long or device.type != "cpu"  # nobody else asks, and one kind of call should be told as one
    return told_choice(backend, Call(kind, dtype, head_dim, softcap, gradient, long), device).kernel


@cache
def told_choice(backend: Backend, call: Call, device: torch.device) -> Choice:
    """`choose` for this machine, and the line of the log."""
    choice = choose(backend, call, this_machine(device))
    # On a CPU nothing is left to wonder about, unless it was asked for.
    level = logging.INFO if device.type == "cuda" or backend != "auto" else logging.DEBUG
    log.log(level, "attention (%s): %s on %s (%s)", call, choice.kernel, device, choice.reason)
    return choice


assert set(get_args(Backend)) == {"auto", *KERNELS}
