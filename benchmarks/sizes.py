"""Sizes that every contestant takes. Nothing of the project is imported here, so that any Python can read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of one comparison.

    frame_size 64 x 64 in patches of 8 x 8, 16 latents of 32 channels, one action of 17 classes.
    """

    width: int = 128
    num_heads: int = 4
    num_kv_heads: int = 2
    """Of the dynamics; the tokenizer has as many as query heads."""
    tokenizer_depth: int = 4
    """Of encoder and decoder each."""
    dynamics_depth: int = 8
    num_registers: int = 4
    frame_size: int = 64
    patch_size: int = 8
    latents: int = 16
    channels: int = 32
    actions: int = 17
    batch: int = 4
    length: int = 16
    context: int = 16
    sampling_steps: int = 4


SIZES = Sizes()
TINY = Sizes(
    width=32,
    num_heads=2,
    num_kv_heads=1,
    dynamics_depth=4,
    num_registers=1,
    frame_size=16,
    latents=4,
    channels=8,
    batch=2,
    length=4,
    context=4,
)
"""For tests."""


@dataclass(frozen=True)
class Row:
    """One thing that is measured, as all contestants call it.

    kind: tokenizer, dynamics, generation, imagination or rssm. context and videos: of generation. preset: of rssm.
    """

    name: str
    kind: str
    calls: int = 1
    """Calls in one measurement."""
    context: int = 0
    videos: int = 1
    preset: str = ""
    slow: bool = False
    """Left out by --quick."""


ROWS = (
    Row("tokenizer step", "tokenizer", 2),
    Row("dynamics step, bootstrap on all rows", "dynamics", 2),
    Row("frame, context 16, 1 video", "generation", 10, context=16),
    Row("frame, context 16, 16 videos", "generation", 3, context=16, videos=16),
    Row("frame, context 192, 1 video", "generation", 10, context=192),
    Row("frame, context 192, 16 videos", "generation", 3, context=192, videos=16, slow=True),
    Row("imagination, 16 contexts, horizon 8", "imagination", 1),
    Row("V1 step, 4 x 16", "rssm", 1, preset="v1", slow=True),
    Row("V2 step, 4 x 16", "rssm", 1, preset="v2-dmc", slow=True),
    Row("V3 1M step, 4 x 16", "rssm", 1, preset="v3-1m"),
    Row("V3 12M step, 4 x 16", "rssm", 1, preset="v3-12m", slow=True),
)
