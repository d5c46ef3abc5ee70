"""Compiled functions: torch.compile without graph breaks and with fixed shapes, kept in the user's cache folder.

Functions and methods are compiled, never modules: names in a state dict stay as they are. Equal layers that enter one compiled
function share its code. What compiles is told in one line, since it takes seconds to minutes the first time.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder

Compile = Literal["auto", "on", "off"]
"""auto compiles where that can be done and pays; on insists, and says in a sentence what is missing; off never does."""

P = ParamSpec("P")
R = TypeVar("R")

MOST_SHAPES = 64
"""Of one function, over the life of a process: short and long batches, training and evaluation, each kind of layer."""
_HEADERS = "#include <Python.h>\n#include <omp.h>\n"
_CHECK_SECONDS = 60


def use_compile(
    choice: Compile, device: torch.device, *, pays: bool, flag: str = "--training.compile"
) -> bool:
    """Whether to compile for `device`.

    Args:
      pays: what auto decides by, where the machine can.
      flag: how the choice was made, for the error.

    Raises:
      UserError: `choice` is on, and this machine cannot.
    """
    if choice == "off" or (choice == "auto" and not pays):
        return False
    reason = cannot_compile(device)
    if reason is not None and choice == "on":
        raise UserError(f"{flag} on: {reason}; mend that, or give {flag} off.")
    return reason is None


@cache
def cannot_compile(device: torch.device) -> str | None:
    """Why nothing can be compiled for `device` on this machine, in words; None if it can."""
    from torch._dynamo import is_dynamo_supported

    if not is_dynamo_supported():
        return f"torch {torch.__version__} does not compile under Python {sys.version.split()[0]} on {sys.platform}"
    if device.type == "cpu":
        return _no_cpp()
    if device.type == "cuda":
        return _no_triton()
    return f"torch.compile is not used on {device.type}"


def compiled(
    function: Callable[P, R],
    name: str,
    *,
    required: bool = False,
    backend: str = "inductor",
    draws: bool = False,
) -> Callable[P, R]:
    """`function`, compiled as one graph when it is first called, and again for every new set of shapes.

    Args:
      name: what it is, for people.
      required: a failure to compile is a `UserError`; else it is told in one line and `function` runs as it is.
      backend: of torch.compile; `eager` and `aot_eager` make graphs but no code.
      draws: it draws random numbers, which shall be those that it draws when it runs as it is.
    """
    _prepare()
    options: dict[str, Any] | None = {"fallback_random": True} if draws and backend == "inductor" else None
    fast = torch.compile(function, fullgraph=True, dynamic=False, backend=backend, options=options)
    failed = False

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal failed
        if failed or _get_current_dispatch_mode() is not None:  # what watches single operations must see them
            return function(*args, **kwargs)
        try:
            with _telling(name):
                return fast(*args, **kwargs)
        except _failures() as error:
            if required:
                raise UserError(
                    f"{name} cannot be compiled ({_first_line(error)}); compile off works."
                ) from error
            print(f"{name} is not compiled: {_first_line(error)}", file=sys.stderr, flush=True)
            failed = True
        return function(*args, **kwargs)

    return run


class _telling:
    """While a function runs: prints one line for each of its compilations, when that ends."""

    inside = ""
    """The function that ran last. Its backward pass may compile after it has returned."""
    began = 0.0

    def __init__(self, name: str) -> None:
        _telling.inside = name

    def __enter__(self) -> None:
        from torch._dynamo.callback import callback_handler

        if _compilation_starts not in callback_handler.start_callbacks:  # torch._dynamo.reset forgets them
            callback_handler.register_start_callback(_compilation_starts)
            callback_handler.register_end_callback(_compilation_ends)

    def __exit__(self, *error: object) -> None:
        pass


def _compilation_starts(_: object) -> None:
    _telling.began = time.monotonic()
    if _is_main():
        print(f"compiling {_telling.inside} ... ", end="", file=sys.stderr, flush=True)


def _compilation_ends(_: object) -> None:
    if _is_main():
        print(f"{time.monotonic() - _telling.began:.1f} s", file=sys.stderr, flush=True)


def _is_main() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0


@cache
def _prepare() -> None:
    """Puts torch's cache of compiled code beside what else is cached for this user, unless they chose a place."""
    import torch._dynamo.config as config

    config.recompile_limit = max(config.recompile_limit, MOST_SHAPES)
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # then torch takes a temporary one
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


@cache
def _failures() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return TorchDynamoException, FailOnRecompileLimitHit


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _no_cpp() -> str | None:
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if sys.platform == "win32":
        return None if shutil.which(os.environ.get("CXX", "cl")) else "there is no C++ compiler (cl)"
    command = shlex.split(compiler)
    if not command or shutil.which(command[0]) is None:
        return f"there is no C++ compiler ({compiler})"
    return _no_headers(command)


def _no_headers(command: list[str]) -> str | None:
    """What compiled code includes must be found: Python's own headers are a package of their own on many systems."""
    include = sysconfig.get_path("include")
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # there torch brings its own
    headers = _HEADERS if openmp else _HEADERS.splitlines()[0] + "\n"
    check = [*command, *openmp, "-I", include, "-fsyntax-only", "-x", "c++", "-"]
    try:
        done = subprocess.run(check, input=headers, capture_output=True, text=True, timeout=_CHECK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the C++ compiler {command[0]} does not run ({error})"
    if done.returncode < 0:
        return f"the C++ compiler {command[0]} does not run (signal {-done.returncode})"
    if done.returncode:
        name = "Python.h" if not Path(include, "Python.h").is_file() else "omp.h"
        return f"the C++ compiler {command[0]} does not find {name}"
    return None


def _no_triton() -> str | None:
    from torch.utils._triton import has_triton

    return None if has_triton() else "there is no Triton for this GPU"
