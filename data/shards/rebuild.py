"""index.json made anew from the shards themselves.

Samples, byte ranges and checksums come from the tars. What tars cannot tell (names and ranges of actions, names of
tasks, how frames were stored) comes from the old index or its copy, or is declared by the user.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reverie.data.actions import ActionSpace
from reverie.data.errors import UserError
from reverie.data.files.documents import parse_json, printable, read_json
from reverie.data.files.durable import canonical_json, explain_full_disk, file_sha256, write_atomic
from reverie.data.shards.checking import Problem, foreign_members
from reverie.data.shards.index import FORMAT, INDEX, JOURNAL, MOST_BYTES, Sample, ShardIndex
from reverie.data.shards.members import list_members, split_of
from reverie.data.shards.npz import MOST_BYTES as NPZ_BYTES
from reverie.data.shards.schema import MOST_META_BYTES, check_header, check_meta
from reverie.data.shards.steps import Steps

BACKUP = f"{INDEX}.bak"
_FROM_TARS = ("splits", "shards", "samples", "format")
_CONTENTS = ("clip.mp4", "latents.npy")


def gather(folder: Path, problems: list[Problem]) -> ShardIndex:
    """An index of all clips whose members are whole and whose meta.json can be read; the others go to `problems`.

    Its header holds only what the clips tell: fps, frame_size, sources. Raises `UserError` when there are none.
    """
    if (folder / JOURNAL).is_dir():
        raise UserError(f"{folder}: its shards are unfinished; run the command that makes them again.")
    names = sorted(path.name for path in folder.glob("*.tar") if split_of(path.name))
    found = [item for name in names for item in _clips(folder, name, problems)]
    if not found:
        raise UserError(f"{folder}: holds no whole clip in any shard; prepare the data again.")
    header = _common(folder, [meta for _, meta in found])
    samples = [sample.to_json() for sample, _ in found]
    shards = [{"name": name, "frames": 0} for name in names]
    return ShardIndex(folder, {**header, "format": FORMAT, "shards": shards, "samples": samples})


def old_header(folder: Path) -> dict[str, Any] | None:
    """Everything but the samples of index.json, or of its copy where that cannot be read; None without either."""
    for name in (INDEX, BACKUP):
        content = _load(folder / name)
        if content is not None:
            return {key: value for key, value in content.items() if key not in _FROM_TARS}
    return None


def declared_header(folder: Path, gathered: ShardIndex, declaration: Path | None) -> dict[str, Any]:
    """A header from the clips and from a declaration of actions and tasks: actions.json or recording.json.

    Raises `UserError` saying what is missing.
    """
    sample = Sample.from_json(gathered.content["samples"][0])
    if "latents.npy" in sample.members:
        raise UserError(
            f"{folder}: tokenizer_sha256 and source_hash of latents stand in {INDEX} and {BACKUP} only, and "
            f"both are gone; run `reverie encode` again."
        )
    steps = _read_steps(folder, sample)
    if declaration is None and (steps.actions or steps.events.shape[1]):
        raise UserError(
            f"{folder}: sizes and names of the actions ({', '.join(steps.actions) or 'none'}) and tasks stand "
            f"in {INDEX} and {BACKUP} only, and both are gone; give the source's actions.json or recording.json as --actions."
        )
    declared = {} if declaration is None else _load_declaration(declaration)
    space = ActionSpace.from_json(declared.get("action_space", {}), str(declaration))
    return {
        **{name: gathered.content[name] for name in ("fps", "frame_size", "sources")},
        "action_space": space.to_json(),
        "tasks": list(declared.get("tasks", [])),
        "skipped": [],
        "identity": {},
    }


def completed(folder: Path, header: Mapping[str, Any], samples: list[Sample]) -> ShardIndex:
    """The index of these samples, in order, with sizes and checksums of their shards."""
    frames: dict[str, int] = {}
    for sample in samples:
        frames[sample.shard] = frames.get(sample.shard, 0) + sample.n
    shards = [
        {
            "name": name,
            "bytes": (folder / name).stat().st_size,
            "sha256": file_sha256(folder / name),
            "frames": n,
        }
        for name, n in frames.items()
    ]
    splits = sorted({sample.split for sample in samples})
    entries = [sample.to_json() for sample in samples]
    content = {**header, "format": FORMAT, "splits": splits, "shards": shards, "samples": entries}
    return ShardIndex(folder, json.loads(canonical_json(content)))


def replace_index(folder: Path, index: ShardIndex) -> bool:
    """Writes index.json, the old one kept as index.json.bak; returns False when it says the same already."""
    path, content = folder / INDEX, canonical_json(index.content)
    if path.is_file() and path.read_bytes() == content:
        return False
    with explain_full_disk(folder):
        if _load(path) is not None:  # an unreadable index must not replace a good copy
            write_atomic(folder / BACKUP, path.read_bytes())
        write_atomic(path, content)
    return True


def _clips(folder: Path, shard: str, problems: list[Problem]) -> Iterator[tuple[Sample, dict[str, Any]]]:
    listing = list_members(folder / shard)
    problems += foreign_members(shard, listing)
    groups: dict[str, dict[str, tuple[int, int]]] = {member.key: {} for member in listing.members}
    for name, place in listing.places().items():
        key, _, extension = name.partition(".")
        groups[key][extension] = place
    if not groups:
        problems.append(Problem(shard, "holds no clip that can be found"))
    for key, members in groups.items():
        try:
            yield _sample(folder, shard, key, members)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(Problem(f"{shard}: {key}", f"is not whole ({' '.join(str(error).split())})"))


def _sample(
    folder: Path, shard: str, key: str, members: dict[str, tuple[int, int]]
) -> tuple[Sample, dict[str, Any]]:
    missing = [name for name in ("steps.npz", "meta.json") if name not in members]
    if missing or not any(name in members for name in _CONTENTS):
        raise UserError(f"{(missing or ['its video'])[0]} is missing or cut off")
    if members["meta.json"][1] > MOST_META_BYTES or members["steps.npz"][1] > NPZ_BYTES:
        raise UserError("its meta.json or steps.npz is too large")
    meta = check_meta(parse_json(_read(folder / shard, members["meta.json"])))
    meta["size"] = list(meta["size"])
    entry = {name: value for name, value in meta.items() if name not in ("fps", "size")}
    where = {"split": split_of(shard), "shard": shard, "key": key, "members": members}
    return Sample.from_json({**entry, **where}), meta


def _common(folder: Path, metas: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {(meta["fps"], *meta["size"]) for meta in metas}
    if len(kinds) > 1:
        raise UserError(f"{folder}: its clips differ in rate and size ({sorted(kinds)[:2]}); keep one kind.")
    fps, height, width = kinds.pop()
    sources = sorted({meta["source"] for meta in metas})
    return {"fps": fps, "frame_size": [height, width], "sources": sources}


def _read(path: Path, place: tuple[int, int]) -> bytes:
    with path.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def _read_steps(folder: Path, sample: Sample) -> Steps:
    return Steps.from_npz(_read(folder / sample.shard, sample.members["steps.npz"]))


def _load(path: Path) -> dict[str, Any] | None:
    """The content of an index whose header is sound; None without one."""
    try:
        content = read_json(path, "", MOST_BYTES)
        check_header(content)
        ActionSpace.from_json(content["action_space"])
    except (OSError, ValueError):
        return None
    return content if printable(content) and content.get("format") == FORMAT else None


def _load_declaration(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, "give actions.json or recording.json")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give actions.json or recording.json.") from None
    tasks = content.get("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise UserError(f"{path}: tasks should be a list of names; give actions.json or recording.json.")
    if "action_space" not in content:
        raise UserError(f"{path}: holds no action_space; give actions.json or recording.json.")
    return content
