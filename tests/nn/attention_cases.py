"""Attention written out one query at a time in float64, and calls to compare kernels on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.nn.visibility import CausalWindow


@dataclass(frozen=True)
class Case:
    """A call over `rows` x `positions` of `queries` x `keys`; `window` 0 hides nothing."""

    name: str
    queries: int
    keys: int
    window: int = 0
    segments: tuple[tuple[int, ...], ...] = ()
    rows: int = 2
    positions: int = 3
    heads: int = 4
    groups: int = 2
    head_dim: int = 8

    def tensors(self, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v; the logits reach far beyond a soft cap of 2."""
        torch.manual_seed(0)
        x = (self.rows, self.positions)
        q = torch.randn(*x, self.heads, self.queries, self.head_dim, dtype=torch.float64) * 3
        k, v = (torch.randn(*x, self.groups, self.keys, self.head_dim, dtype=torch.float64) for _ in range(2))
        return tuple(x.to(device, dtype) for x in (q, k, v))  # type: ignore[return-value]

    def visible(self, device: str = "cpu") -> CausalWindow | None:
        """As `attend` takes it."""
        if not self.window:
            return None
        segment = torch.tensor(self.segments, device=device) if self.segments else None
        return CausalWindow(self.queries, self.window, segment, torch.device(device))

    def sees(self, row: int, i: int, j: int) -> bool:
        """The definition, for one query and one key."""
        if not self.window:
            return True
        same = not self.segments or self.segments[row][i] == self.segments[row][j]
        return j <= i and i - j < self.window and same


CASES = [
    Case("space", 5, 5),
    Case("agents of a frame", 2, 7),
    Case("one query", 1, 6),
    Case("one query and key", 1, 1),
    Case("one head a group", 6, 6, heads=4, groups=4),
    Case("one group", 6, 6, window=9, heads=4, groups=1),
    Case("causal", 7, 7, window=7),
    Case("window", 9, 9, window=4),
    Case("window of one", 5, 5, window=1),
    Case("segments", 9, 9, window=4, segments=((0, 0, 0, 1, 1, 1, 1, 1, 1), (0, 1, 1, 1, 1, 1, 2, 2, 3))),
    Case("segments, wide window", 6, 6, window=20, segments=((0, 0, 0, 0, 0, 0), (0, 0, 0, 1, 1, 1))),
    Case("segments of one row", 4, 4, window=3, segments=((0, 0, 1, 1),), rows=1, positions=5),
    Case("several blocks", 131, 131, window=70, rows=1, positions=1, heads=2, groups=1),
]


def written_out(case: Case, q: Tensor, k: Tensor, v: Tensor, softcap: float | None) -> Tensor:
    """softmax(cap(q k^T / sqrt(H))) v, one query of one head at a time."""
    q, k, v = q.double(), k.double(), v.double()
    outputs = []
    for row, position, head, i in _indices(q):
        group = head // (case.heads // case.groups)
        seen = [j for j in range(case.keys) if case.sees(row, i, j)]
        logits = k[row, position, group, seen] @ q[row, position, head, i] / math.sqrt(case.head_dim)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        outputs.append(torch.softmax(logits, 0) @ v[row, position, group, seen])
    return torch.stack(outputs).view(*q.shape[:-1], -1)


def _indices(q: Tensor) -> Iterator[tuple[int, ...]]:
    return iter(torch.cartesian_prod(*map(torch.arange, q.shape[:-1])).tolist())


def with_gradients(run, *inputs: Tensor) -> list[Tensor]:
    """The output of `run(*inputs)` and the gradients of a fixed weighted sum of it."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = run(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view(out.shape)
    (out.double() * weights).sum().backward()
    return [out.detach(), *(x.grad for x in leaves)]
