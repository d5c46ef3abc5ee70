"""Frames as graphs that run as they are: what torch.compile traces, without code for a processor, which takes minutes."""

import pytest
import torch
from torch._dynamo.utils import counters

from reverie.dynamics import fast_frame
from reverie.nn.compilation import compiled
from reverie.tokenizer import streaming


def trace_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on `fast` means this; a graph that breaks is an error."""
    for module, name, function in (
        (fast_frame, "frame_graph", fast_frame.one_frame),
        (fast_frame, "past_graph", fast_frame.one_becomes_past),
        (streaming, "encode_graph", streaming.encode_one),
        (streaming, "decode_graph", streaming.decode_one),
    ):
        run = compiled(function, name, required=True, backend="eager")
        monkeypatch.setattr(module, name, lambda run=run: run)
    torch._dynamo.reset()


def num_graphs() -> int:
    """How many have been traced."""
    return counters["stats"]["unique_graphs"]
