"""What a finished command leaves: where it is, how far it got, and the command that comes next."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError

NEXT = {
    "record": "reverie prepare --source {out} --out ...",
    "prepare": "reverie tokenizer --preset nano --data {out} --out ...",
    "tokenizer": "reverie encode --data {data} --tokenizer {out} --out ...",
    "encode": "reverie dynamics --preset nano --data {out} --out ...",
    "dynamics": "reverie clone --preset nano --data {data} --dynamics {out} --out ...",
    "clone": "reverie imagine --preset nano --data {data} --agent {out} --out ...",
    "imagine": "reverie evaluate --data VIDEO-SHARDS --tokenizer ... --agent {out} --env GAME --out ...",
    "baseline": "reverie evaluate --data VIDEO-SHARDS --baseline {out} --env GAME --out ...",
}
"""Command -> the one that goes on from its folder."""
TRAINED = ("tokenizer", "dynamics", "clone", "imagine", "baseline")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def ending(command: str, config: Any) -> Iterator[str]:
    """The last lines of a command that ended well; none in the other processes of a run."""
    if command not in NEXT or any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    out = config.out
    yield f"{command}: {out}{_reached(out) if command in TRAINED else ' is complete'}"
    yield f"next: {NEXT[command].format(out=out, data=getattr(config, 'data', None) or '...')}"


def _reached(out: Path) -> str:
    from reverie.pipelines.training.integrity import newest_whole

    try:
        found = newest_whole(out / "checkpoints")
    except UserError:
        found = None
    return "" if found is None else f" holds step {int(found.name)}"
