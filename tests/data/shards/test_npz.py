"""The fast reader of logs: what numpy writes comes back, what numpy refuses is refused."""

import gc
import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from reverie.data.shards.npz import load_npz, read_npz

TYPES = st.sampled_from([np.bool_, np.uint8, np.int64, np.float32, np.float16])


def saved(*, compressed: bool = True, **content: np.ndarray) -> bytes:
    target = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(target, **content)  # type: ignore[arg-type]
    return target.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abc/_", min_size=1, max_size=8).filter(
            lambda name: name.strip("/") == name and "//" not in name
        ),
        arrays(TYPES, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7)),
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_what_numpy_writes_comes_back(content: dict[str, np.ndarray], compressed: bool, turn: bool) -> None:
    content = {name: np.asfortranarray(value) if turn else value for name, value in content.items()}
    found = load_npz(saved(compressed=compressed, **content))
    assert list(found) == list(content)
    for name, value in content.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_pickled_objects_and_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match="object"):
        load_npz(saved(a=np.array([{}], dtype=object)))
    for content in (b"", b"no archive at all, but long enough", saved(a=np.zeros(9))[:-1]):
        with pytest.raises((ValueError, struct.error)):
            load_npz(content)


@pytest.mark.parametrize("compressed", [True, False])
def test_damage_is_refused_or_harmless(compressed: bool) -> None:
    rng = np.random.default_rng(0)
    original = {"action/keys": rng.random((60, 3)) < 0.5, "reward": rng.random(60).astype(np.float32)}
    content = saved(compressed=compressed, **original)
    refused = 0
    for place in range(len(content)):
        damaged = content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        try:
            found = load_npz(damaged)
        except (ValueError, struct.error, zlib.error):
            refused += 1
            continue
        for name, value in found.items():
            assert name not in original or np.array_equal(value, original[name]), place
    assert refused > 0.8 * len(content)


@pytest.mark.slow
def test_threads_may_read_at_once(tmp_path: Path) -> None:
    """A collection of garbage while a header is parsed lets another thread run, as any object's end may."""
    path = tmp_path / "log.npz"
    np.savez(path, **{f"action_{n}": np.arange(20) for n in range(8)})

    def pause(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    before = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(3)
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: read_npz(path, lambda name: True), range(600)):
                assert len(found) == 8
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(pause)
