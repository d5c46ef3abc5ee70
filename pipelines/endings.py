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
_WITHOUT_ACTIONS = "reverie evaluate --data VIDEO-SHARDS --tokenizer ... --dynamics {out} --out ..."
"""After `dynamics` on plain video, from which no agent can be cloned."""
TRAINED = ("tokenizer", "dynamics", "clone", "imagine", "baseline")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def ending(command: str, config: Any) -> Iterator[str]:
    """The last lines of a command that ended well; none in the other processes of a run."""
    if command not in NEXT or any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    out = config.out
    yield f"{command}: {out}{_reached(out) if command in TRAINED else ' is complete'}"
    following = _WITHOUT_ACTIONS if command == "dynamics" and not _knows_actions(out) else NEXT[command]
    yield f"next: {following.format(out=out, data=getattr(config, 'data', None) or '...')}"


def _knows_actions(run: Path) -> bool:
    from reverie.pipelines.training.checkpoints import read_card

    try:
        return bool(read_card(run).action_space)
    except UserError:
        return True


def _reached(out: Path) -> str:
    from reverie.pipelines.training.integrity import newest_whole

    try:
        found = newest_whole(out / "checkpoints")
    except UserError:
        found = None
    return "" if found is None else f" holds step {int(found.name)}"
