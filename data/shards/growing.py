"""Shards that grow: finished ones and others beside them under one index, which is replaced at once.

No byte of a shard that is there changes. In another folder than before, files are shared (hard links), or copied where the file
system has none.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, canonical_json, explain_full_disk, sync_folder, write_atomic
from reverie.data.shards.index import INDEX, ShardIndex

APPENDED = "appended"
"""Field of an index: what was added to the shards that `identity` tells of, one entry a time."""
_ALIKE = ("action_space", "tasks", "fps", "frame_size", "quality", "latent_shape", "tokenizer_sha256")


def join_shards(base: ShardIndex, added: ShardIndex, out: Path, entry: Mapping[str, Any]) -> ShardIndex:
    """`base` and `added` as one folder `out`, which may be that of `base`; call it as its sole writer.

    Args:
      base: finished shards; keeps its identity, its order, and its bytes.
      added: others of the same form; their tars get the next numbers.
      entry: is noted in the index as what was added.

    Raises:
      UserError: they differ in form, or hold clips of the same name.
    """
    assert isinstance(base.folder, Path) and isinstance(added.folder, Path)
    _require_alike(base, added)
    names = next_names(base, added)
    with explain_full_disk(out):
        for record in base.content["shards"]:
            _share(base.folder / record["name"], out / record["name"])
        for old, new in names.items():
            _share(added.folder / old, out / new)
        sync_folder(out)
        # Until here nothing has changed for readers of `out`; from here on they see all of it.
        write_atomic(out / INDEX, canonical_json(_joined(base.content, added.content, names, entry)))
    return ShardIndex.load(out)


def next_names(base: ShardIndex, added: ShardIndex) -> dict[str, str]:
    """Name of each shard of `added` -> its name behind those of `base`."""
    counts = Counter(_split(record["name"]) for record in base.content["shards"])
    names = {}
    for record in added.content["shards"]:
        split = _split(record["name"])
        names[record["name"]] = f"{split}-{counts[split]:06d}.tar"
        counts[split] += 1
    return names


def _joined(
    base: Mapping[str, Any], added: Mapping[str, Any], names: Mapping[str, str], entry: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of the new index."""
    shards = [{**record, "name": names[record["name"]]} for record in added["shards"]]
    samples = [{**sample, "shard": names[sample["shard"]]} for sample in added["samples"]]
    lists = {
        name: [*base.get(name, []), *added.get(name, [])]
        for name in ("sources", "skipped", "notes")
        if name in base or name in added
    }
    return {
        **base,
        **lists,
        "splits": sorted({*base["splits"], *added["splits"]}),
        "shards": [*base["shards"], *shards],
        "samples": [*base["samples"], *samples],
        "storage_mse": _mean_squared_error(base, added),
        APPENDED: [*base.get(APPENDED, []), dict(entry)],
    }


def _mean_squared_error(*contents: Mapping[str, Any]) -> float:
    """Of all frames."""
    frames = [sum(sample["n"] for sample in content["samples"]) for content in contents]
    errors = [content["storage_mse"] * n for content, n in zip(contents, frames, strict=True)]
    return float(sum(errors) / max(sum(frames), 1))


def _require_alike(base: ShardIndex, added: ShardIndex) -> None:
    for name in _ALIKE:
        old, new = base.content.get(name), added.content.get(name)
        if old != new:
            raise UserError(
                f"{base.folder}: has {name} {old}, but what is to be added has {new}; prepare it into a folder of its own."
            )
    keys = {sample["key"] for sample in base.content["samples"]}
    if double := next((s["key"] for s in added.content["samples"] if s["key"] in keys), None):
        raise UserError(
            f"{base.folder}: holds a clip {double} already; prepare the others into a folder of their own."
        )


def _split(shard: str) -> str:
    return shard.rpartition("-")[0]


def _share(file: Path, place: Path) -> None:
    """`place` is the same file, or a copy; another one that an interrupted call has left there goes."""
    if place.exists() and place.samefile(file):
        return
    partial = place.with_name(PARTIAL + place.name)
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:
        shutil.copyfile(file, partial)
    partial.replace(place)
