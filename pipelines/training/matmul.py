"""The matrix products a second that this device reaches at its best: what MFU is measured against.

A short loop over a few well-sized products, the best of which counts. Remembered for each device, torch and number of threads in
the user's cache folder, since a busy moment would make every later figure look better: a higher rate replaces a lower one.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from reverie.data.files.documents import read_bounded
from reverie.data.files.durable import cache_folder
from reverie.pipelines.runs.atomic import write_text

CPU_SIZES, GPU_SIZES = (256, 512, 1024), (4096, 8192, 16384)
"""Sides of square products; the largest takes about 20 ms on a core and 10 ms on a large GPU."""
_SECONDS = 0.05
"""How long each size is repeated."""
_MOST_BYTES = 1 << 16


def matmul_rate(device: torch.device, dtype: torch.dtype, *, anew: bool = False) -> float:
    """FLOP/s of products in float32 or bfloat16, measured once for each machine and number of threads.

    With `anew` it is measured again, and the higher of both holds from now on.
    """
    name = f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, {dtype}"
    known = _remembered()
    if anew or name not in known:
        known[name] = max(known.get(name, 0.0), measure_matmul_rate(device, dtype))
        _remember(known)
    return known[name]


def measure_matmul_rate(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = ()) -> float:
    """FLOP/s of the best of several square products, measured now; float32 without rounding to fewer bits."""
    sizes = sizes or (CPU_SIZES if device.type == "cpu" else GPU_SIZES)
    return max(_rate_of(n, device, dtype, how) for n in sizes for how in _ways(device, dtype))


def device_name(device: torch.device) -> str:
    """The device's name as its maker has it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    for line in _cpu_lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return device.type


def _rate_of(n: int, device: torch.device, dtype: torch.dtype, how: str) -> float:
    own = torch.Generator(device).manual_seed(0)  # a training's random numbers stay what they are
    a, b = (torch.randn(n, n, device=device, generator=own).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _precision(how):
        return max(_rates(lambda: torch.mm(a, b, out=out), 2 * n**3, device))


def _rates(product: Callable[[], object], flops: int, device: torch.device) -> Iterator[float]:
    product()
    end = time.perf_counter() + _SECONDS
    repeats = 10 if device.type != "cpu" else 1  # a launch takes longer than its clock resolves
    while time.perf_counter() < end:
        begun = _clock(device)
        for _ in range(repeats):
            product()
        yield repeats * flops / (_clock(device) - begun)


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU those that its threads worked, since others may want it meanwhile."""
    synchronize(device)
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _ways(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Settings of `torch.set_float32_matmul_precision` to try; some CPUs have a faster library behind one that may round."""
    if device.type != "cpu" or dtype != torch.float32 or _rounds():
        return ("highest",)
    return ("highest", "medium")


@cache
def _rounds() -> bool:
    """Whether this CPU's `medium` multiplies fewer than float32's bits."""
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    with _precision("medium"):
        product = a @ a
    return bool((product - a.double() @ a.double()).abs().max() > 1e-3)


@contextmanager
def _precision(how: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(how)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _file() -> Path:
    return cache_folder() / "matmul.json"


def _remembered() -> dict[str, float]:
    try:
        found = json.loads(read_bounded(_file(), _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: float(x) for name, x in found.items() if isinstance(x, int | float) and 0 < x < 1e18}


def _remember(rates: dict[str, float]) -> None:
    with suppress(OSError):  # a cache folder that cannot be written costs a moment each time
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_text(_file(), json.dumps(rates, indent=1))
