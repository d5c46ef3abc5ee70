"""What a piece of work costs in FLOPs: every matrix product that it runs, counted while it runs.

Counted are products, attention and convolutions, forward and backward, as 2 FLOPs for a multiplication and an addition.
Not counted are element-wise work and what activation checkpointing computes a second time, since MFU is about the FLOPs
that the model asks for. Attention counts as if it had no mask; one that torch.compile writes itself (FlexAttention on a GPU)
is not seen.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

_BACKENDS = ("CPU", "CUDA", "MPS", "CompositeExplicitAutograd")


class FlopCounter(TorchDispatchMode):
    """`with FlopCounter() as counter: ...`, then `counter.total`. Compiled code is counted by the products that it calls.

    The formulas are those of `torch.utils.flop_counter`. Its own counter takes operations apart that have a kernel, silu's
    backward pass among them, and so changes the last bits of gradients: a step that is counted must be a step like any other.
    """

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions stay compiled in here: their bits are not those of the functions they are made of."""
        return True

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        """FLOPs so far."""
        self._formulas = {**flop_registry, **_further()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(func, HigherOrderOperator) and not _has_kernel(func.name()):
            self._count_parts(func, args, kwargs)
        formula = self._formulas.get(getattr(func, "_overloadpacket", func))
        if formula is not None and not _recomputing():
            self.total += int(formula(*args, **kwargs, out_val=result))
        return result

    def _count_parts(self, func: Any, args: Any, kwargs: Any) -> None:
        """Counts an operation that is made of others, which in inference mode comes whole: its parts run without data."""
        args, kwargs = tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), (args, kwargs))
        with suppress(RuntimeError, NotImplementedError), self:  # what needs data multiplies no matrices
            func.decompose(*args, **kwargs)


@cache
def _has_kernel(name: str) -> bool:
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in _BACKENDS)


def count_flops(work: Callable[[], Any]) -> int:
    """FLOPs of one call of `work`."""
    with FlopCounter() as counter:
        work()
    return counter.total


def attention_flops(q: Sequence[int], k: Sequence[int], products: int = 2) -> int:
    """(B, N, Q, H) and (B, G, K, H): q k^T and its product with v; the backward pass has 5 such `products`."""
    b, n, queries, width = q
    return products * 2 * b * n * queries * k[-2] * width


def _recomputing() -> bool:
    """Whether a backward pass is running forward operations anew: alone then gradients are on while it runs."""
    return torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()


def _further() -> dict[Any, Callable[..., int]]:
    """Operations for which torch has no formula: attention on a CPU, and that of flash-attn where it is installed."""

    def forward(q: Tensor, k: Tensor, *rest: Any, **named: Any) -> int:
        return attention_flops(q.shape, k.shape)

    def backward(gradient: Tensor, q: Tensor, k: Tensor, *rest: Any, **named: Any) -> int:
        return attention_flops(q.shape, k.shape, 5)

    def flash_forward(q: Tensor, k: Tensor, *rest: Any, **named: Any) -> int:
        return attention_flops(_heads_first(q), _heads_first(k))

    def flash_backward(gradient: Tensor, q: Tensor, k: Tensor, *rest: Any, **named: Any) -> int:
        return attention_flops(_heads_first(q), _heads_first(k), 5)

    aten, flash = torch.ops.aten, torch.ops.flash_attn
    found: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    for name, formula in (("_flash_attn_forward", flash_forward), ("_flash_attn_backward", flash_backward)):
        if hasattr(flash, name):
            found[getattr(flash, name)] = formula
    return found


def _heads_first(x: Tensor) -> tuple[int, int, int, int]:
    b, length, heads, width = x.shape
    return b, heads, length, width
