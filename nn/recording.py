"""Work of a GPU recorded once and then repeated as a whole: one CUDA graph for what happens at every frame of a video.

A frame takes thousands of kernels, and for few videos a processor needs longer to start them than the GPU to run them. A
recording starts them all at once. It repeats the same work on the same memory: inputs are copied to where the recorded ones
lay, outputs are copied away, and everything else (the weights, the buffers and the position of a cache) is read and written in
place. So a recording belongs to one cache, and lives as long as it does.

Not yet run on a GPU. `REVERIE_CUDA_GRAPHS=0` does without.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass, tree_flatten, tree_map, tree_unflatten

from reverie.nn.cache import RingCache

R = TypeVar("R")

CALLS_BEFORE = 32
"""Calls that run as they are before one is recorded. They compile what has to be compiled, which nothing may do while recording,
and recording empties the device's memory caches, which short rollouts, as those of imagination, would pay again and again."""

Record = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]
"""Runs a function once and returns what repeats it, and its outputs, which are those of the last repetition."""


def recorded(
    cache: RingCache, function: Callable[..., R], constants: tuple[Any, ...], inputs: tuple[Any, ...]
) -> R:
    """`function(cache, *constants, *inputs)`; on a GPU it is recorded on `cache` and repeated from there.

    Args:
      function: asks the device nothing, draws nothing, and writes the same when it runs twice on the same cache.
      constants: what is the same object in every call.
      inputs: tensors on the cache's device, in registered dataclasses, dicts or tuples, or None.
    """
    record = recorder(cache.now.device)
    if record is None:
        return function(cache, *constants, *inputs)
    leaves, structure = tree_flatten(inputs)
    shapes = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves)
    key = (function, *constants, structure, shapes, *_modes(cache.now.device))
    recording = cache.recordings.setdefault(key, Recording(record))
    result: R = recording(lambda *x: function(cache, *constants, *tree_unflatten(x, structure)), leaves)
    return result


class Recording:
    """One function on one set of shapes. It keeps neither the function nor what that holds, or a cache would never be freed."""

    def __init__(self, record: Record):
        self._record, self._calls, self._failed = record, 0, False
        self._inputs: list[Any] = []
        self._outputs: Any = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, function: Callable[..., Any], inputs: list[Any]) -> Any:
        """`function(*inputs)`, in new memory."""
        self._calls += 1
        if self._replay is None and self._calls > CALLS_BEFORE and not self._failed:
            self._begin(function, inputs)
        if self._replay is None:
            return function(*inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            if isinstance(kept, Tensor):
                kept.copy_(given)
        self._replay()
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self._outputs)

    def _begin(self, function: Callable[..., Any], inputs: list[Any]) -> None:
        with torch.inference_mode(False):  # or nobody could write them outside of it
            self._inputs = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
        try:
            with _no_autocast_cache():
                self._replay, self._outputs = self._record(lambda: function(*self._inputs))
        except RuntimeError as error:
            self._failed, self._inputs = True, []
            reason = " ".join(str(error).split())[:200]
            print(f"frames are not recorded as a CUDA graph: {reason}", file=sys.stderr, flush=True)


def recorder(device: torch.device) -> Record | None:
    """What records on `device`; None where nothing does."""
    if device.type != "cuda" or os.environ.get("REVERIE_CUDA_GRAPHS") == "0":
        return None
    return _cuda_graph


def takes_part(kind: type) -> type:
    """Class decorator: instances of the dataclass may be inputs of `recorded`."""
    register_dataclass(kind)
    return kind


def _cuda_graph(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    graph = torch.cuda.CUDAGraph()
    # Other threads (a server, a loader that pins memory) may go on asking the device.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()
    return graph.replay, outputs


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Weights that autocast has rounded before must not be read: they are freed with its cache, the recording is not."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _modes(device: torch.device) -> tuple[object, ...]:
    """What else decides which kernels run."""
    autocast = torch.is_autocast_enabled(device.type)
    return (
        autocast and torch.get_autocast_dtype(device.type),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.backends.cuda.matmul.allow_tf32,
    )
