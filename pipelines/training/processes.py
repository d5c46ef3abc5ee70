"""The processes of a run: who this one is, how they agree, and how they end together instead of waiting for each other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of a run; alone by default."""

    rank: int = 0
    world_size: int = 1
    vote: Callable[[bool, bool], bool] = lambda value, now: value
    """Whether any process says True, see `Vote`."""

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def end_together(self, problem: str | None) -> None:
        """Ends every process if any of them has a problem; every process must call this.

        The first one raises the first `UserError`; the others leave in silence, and with code 0: launchers kill the first process
        as soon as another one fails, and then nobody would say why.
        """
        problems = [found for found in self._gather(problem) if found is not None]
        if problems and self.main:
            raise UserError(problems[0])
        if problems:
            raise SystemExit(0)

    def by_main(self, action: Callable[[], T]) -> T | None:
        """What `action` returns in the process that writes, None in the others, which wait; its `UserError` ends all."""
        result, problem = None, None
        if self.main:
            try:
                result = action()
            except UserError as error:
                problem = str(error)
        self.end_together(problem)
        return result

    def by_all(self, action: Callable[[], T]) -> list[T]:
        """What `action` returns in each process, in the order of ranks; a `UserError` of one ends all."""
        result, problem = None, None
        try:
            result = action()
        except UserError as error:
            problem = str(error)
        self.end_together(problem)
        return cast(list[T], self._gather(result))

    def _gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values


class Vote:
    """Agreement of all processes without waiting: what a call asks, the next one answers, the same in every process.

    It goes over the hosts (gloo): a device is not asked to finish what it computes.
    """

    def __init__(self) -> None:
        self._group = torch.distributed.new_group(backend="gloo")
        self._asked: tuple[torch.Tensor, Any] | None = None

    def __call__(self, value: bool, now: bool) -> bool:
        """Whether any process said True in the call before this one, or in this one too if all want it `now`."""
        before = self._answer()
        flag = torch.tensor(float(value))
        work = torch.distributed.all_reduce(
            flag, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._asked = flag, work
        # Who knows that this is the end leaves nothing behind that others would wait for.
        return bool(self._answer() | before) if now or before else before

    def _answer(self) -> bool:
        asked, self._asked = self._asked, None
        if asked is None:
            return False
        asked[1].wait()
        return bool(asked[0])


@contextmanager
def sole_run(folder: Path, processes: Processes) -> Iterator[None]:
    """`sole_writer` of one run's processes, of which the first one writes; all end if another run has the folder."""
    with ExitStack() as alone:
        processes.by_main(lambda: alone.enter_context(sole_writer(folder)))
        yield
