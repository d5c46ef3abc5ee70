"""What the memory plan has counted, kept in the user's cache folder: counting takes a minute, reading it no time.

CACHE/plans/<digest>.json    a `Counted`; the digest is of the stage's settings, of the code that is counted and of torch's
                             version
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from reverie import agent, dynamics, nn, tokenizer
from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder
from reverie.pipelines import memory_plan, training
from reverie.pipelines.memory_plan import Activations, Counted, Stage, count_stage
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.training.memory import StateMemory

_ROOMS = (nn, tokenizer, dynamics, agent, training)
"""What is counted lies here, and what counts it."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A `Counted` in a file; its activations as [checkpointing, softcap, numbers]."""

    state: StateMemory
    gathered: float
    length: int
    activations: list[tuple[bool, bool, Activations]]


def counted(stage: Stage) -> Counted:
    """`count_stage`, or what it gave for this stage before."""
    file = cache_folder() / "plans" / f"{digest(stage)}.json"
    try:
        kept = read_json(file, _Kept, "it is counted anew")
        activations = {(checkpointing, softcap): x for checkpointing, softcap, x in kept.activations}
        return Counted(kept.state, kept.gathered, kept.length, activations)
    except UserError:  # none, or none that can be read
        return _keep(file, count_stage(stage))


def _keep(file: Path, found: Counted) -> Counted:
    activations = [(*kind, numbers) for kind, numbers in found.activations.items()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = _Kept(state=found.state, gathered=found.gathered, length=found.length, activations=activations)
        write_json(file, to_plain(kept))
    except OSError:
        pass  # it is only slower the next time
    return found


def digest(stage: Stage) -> str:
    """Names what the counts of a stage depend on."""
    return hashlib.sha256(f"{stage.settings!r} {torch.__version__} {_code()}".encode()).hexdigest()[:32]


@cache
def _code() -> str:
    """Digest of the source that is counted."""
    folders = [Path(place) for room in _ROOMS for place in room.__path__]
    files = [*sorted(f for folder in folders for f in folder.rglob("*.py")), Path(memory_plan.__file__)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
