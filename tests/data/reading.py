"""What a process does that reads batches: it tells what it saw."""

import json
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from reverie.data.batch import Batch
from reverie.data.files.durable import canonical_json, write_atomic
from reverie.data.loading.corpora import Corpora
from reverie.data.loading.loader import Loader, LoaderConfig


def digests(batch: Batch) -> list[list[str]]:
    """Per row its key and the sha256 of all its bytes."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    tensors |= {f"action/{name}": value for name, value in batch.actions.items()}
    rows = []
    for i, key in enumerate(batch.key):
        digest = sha256()
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name][i].numpy().tobytes())
        rows.append([key, digest.hexdigest()])
    return rows


def read(
    place: Path,
    config: LoaderConfig,
    rank: int,
    world_size: int,
    state: Mapping[str, Any] | None,
    count: int,
    out: Path,
) -> None:
    """Reads `count` batches from `state` on, and writes the digests of each and the state after the last."""
    torch.set_num_threads(1)
    loader = Loader(Corpora.load(place), config, rank=rank, world_size=world_size)
    if state is not None:
        loader.load_state_dict(dict(state))
    seen = [digests(batch) for batch in islice(loader, count)]
    out.write_text(json.dumps({"batches": seen, "state": loader.state_dict()}))


def read_on(place: Path, config: LoaderConfig, until: int, log: Path) -> None:
    """Reads to batch number `until`; after each batch `log` holds the digests of all and the state, in one write.

    Continues where `log` ends.
    """
    torch.set_num_threads(1)
    loader = Loader(Corpora.load(place), config)
    seen: list[list[list[str]]] = []
    if log.exists():
        content = json.loads(log.read_text())
        seen = content["batches"]
        loader.load_state_dict(content["state"])
    for batch in islice(loader, until - len(seen)):
        seen.append(digests(batch))
        write_atomic(log, canonical_json({"batches": seen, "state": loader.state_dict()}))
