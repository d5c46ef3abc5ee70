"""Where the sources of `prepare` are worked on: by threads of this machine, or on the machines of a Ray cluster."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from reverie.data.errors import UserError

_RETRIES = 5
_ANSWER_SECONDS = 10.0
_AHEAD = 1000
"""Tasks handed to the cluster at a time; one long video does not hold up the others."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result | UserError | OSError]
"""Gives errors back instead of raising them, so that they come through from another machine as they are."""


def map_on_threads(
    work: Work[Item, Result], items: Sequence[Item], workers: int
) -> Iterator[Result | UserError]:
    """Results in the order of `items`. Raises the `OSError` that a work gave back."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from map(_raise_system_error, pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption or on a full disk, begin no other item


def map_on_ray(work: Work[Item, Result], items: Sequence[Item], address: str) -> Iterator[Result | UserError]:
    """`map_on_threads` with a task of one core for each item; a task whose machine is lost is done again.

    Args:
      work: must be picklable; the files that it names must be the same ones on all machines.
      address: what `ray.init` takes: auto, local, or HOST:PORT.

    Raises:
      UserError: Ray is missing, or no cluster answers at `address`.
    """
    ray = connect_ray(address)
    shared, pending = ray.put(work), deque[Any]()
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
    try:
        for item in items:
            pending.append(task.remote(shared, item, os.getcwd()))
            if len(pending) > _AHEAD:
                yield _result(ray, pending.popleft())
        while pending:
            yield _result(ray, pending.popleft())
    finally:
        for reference in pending:
            ray.cancel(reference)


def _run(work: Work[Item, Result], item: Item, folder: str) -> Result | UserError | OSError:
    os.chdir(folder)  # relative paths mean what they mean to the command
    return work(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return _raise_system_error(ray.get(reference))
    except ray.exceptions.RayTaskError:
        raise  # a fault in the work itself
    except ray.exceptions.RayError as error:
        raise UserError(
            f"--ray: a task was lost {_RETRIES + 1} times ({type(error).__name__}); look into Ray's logs, and run the same "
            f"command again, it continues."
        ) from None


def _raise_system_error(result: Any) -> Any:
    if isinstance(result, OSError):
        raise result
    return result


def connect_ray(address: str) -> Any:
    """The package ray, connected to the cluster at `address`. Raises `UserError` where either is missing."""
    try:
        import ray
    except ImportError:
        raise UserError("--ray: needs the package ray; run `pip install 'reverie[ray]'`.") from None
    _require_answer(address)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from None
    return ray


def _require_answer(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    return UserError(
        f"--ray {address}: no cluster answers there ({_first_line(error)}); start one with `ray start --head`, or give local."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
