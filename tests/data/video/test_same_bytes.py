"""The same frames are the same bytes, whatever was in a process's memory before."""

import os
import subprocess
import sys

import pytest

_SIZES = ((134, 192), (200, 320), (336, 448), (360, 640), (40, 40), (250, 72))
"""Widths that are, and are not, multiples of 128: the macroblock tree went wrong at the latter."""
_ENCODE = """
import hashlib, io, sys
import numpy as np
from reverie.data.video.codec import encode_video

for size in eval(sys.argv[1]):
    rng, digests = np.random.default_rng(0), []
    world = np.kron(rng.integers(0, 256, (size[0] // 8 + 8, size[1] // 8 + 8, 3)), np.ones((8, 8, 1), int))
    frames = [world[t : t + size[0], 2 * t : 2 * t + size[1]].astype(np.uint8) for t in range(24)]
    for quality, gop in (("lossless", 16), ("high", 16), ("standard", 100)):
        target = io.BytesIO()
        encode_video(target, frames, 20, quality=quality, gop=gop, multiple=(2, int(sys.argv[2])))
        digests.append(hashlib.sha256(target.getvalue()).hexdigest())
    print(size, digests)
"""


def _digests(garbage: int, sizes: object, multiple: int = 64) -> str:
    """What a fresh process encodes whose memory holds `garbage` in place of zeros."""
    environment = os.environ | {"MALLOC_PERTURB_": str(garbage)}
    command = [sys.executable, "-c", _ENCODE, repr(sizes), str(multiple)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_fresh_processes_with_other_memory_encode_the_same_bytes() -> None:
    first, second = _digests(1, _SIZES[:3]), _digests(200, _SIZES[:3])
    assert first.count("(") == 3 and first == second


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [2, 64])
def test_no_size_depends_on_memory(multiple: int) -> None:
    sizes = (
        *_SIZES,
        *((2 * h, w) for h in (70, 101, 128) for w in range(64, 704, 64 if multiple == 64 else 38)),
    )
    assert len({_digests(garbage, sizes, multiple) for garbage in (0, 1, 2, 77, 200, 255)}) == 1
