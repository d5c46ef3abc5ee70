"""Which checkpoint of a run is meant: the newest one that is whole, byte for byte as it was saved.

CHECKPOINTS/latest                      names the newest folder
CHECKPOINTS/000050000/checksums.json    file -> sha256; folders of older versions have none and are taken as they are
CHECKPOINTS/damaged-000050000           what was found damaged when the run continued, for people to look at
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.documents import read_bounded
from reverie.data.files.durable import PARTIAL, file_sha256
from reverie.pipelines.runs.atomic import remove_folder, write_json, write_text
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.training.stored import files_of, index_file

LATEST = "latest"
CHECKSUMS = "checksums.json"
WEIGHTS = "model.safetensors"
CARD = "config.json"
STATE = "training_state/state.json"
OPTIMIZER = "training_state/optimizer.safetensors"
OBJECTIVE = "training_state/objective.safetensors"
RAW = "training_state/weights.safetensors"
"""The trained weights, where those of the model are their average (training.ema)."""
Files = Callable[[Path], tuple[str, ...]]
"""Which files of a checkpoint folder are needed: `model_files` or `all_files`."""
_DAMAGED = "damaged-"
_LONGEST_NAME = 100
_NAME = re.compile(r"\d{9,}")
_REMEDY = "use an undamaged checkpoint"


def write_checksums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Notes what the files of a checkpoint folder hold; `known` are those by name that were read already."""
    files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file() and f.name != CHECKSUMS}
    found = {name: file_sha256(file) for name, file in files.items() if name not in (known or {})}
    write_json(folder / CHECKSUMS, dict(sorted({**found, **(known or {})}.items())))


def model_files(folder: Path) -> tuple[str, ...]:
    """What a model is loaded from."""
    return (CARD, *tensor_files(folder, WEIGHTS))


def all_files(folder: Path) -> tuple[str, ...]:
    """What a run is continued from."""
    raw = (RAW,) if has_raw(folder) else ()
    tensors = (
        name for stored in (WEIGHTS, OPTIMIZER, OBJECTIVE, *raw) for name in tensor_files(folder, stored)
    )
    return (CARD, STATE, *tensors)


def tensor_files(folder: Path, stored: str) -> tuple[str, ...]:
    """The files of `stored`, such as `WEIGHTS`: itself, or its index and parts (see `stored`)."""
    return tuple(str(Path(stored).with_name(name)) for name in files_of(folder / stored))


def has_raw(folder: Path) -> bool:
    """Whether the weights of the model are an average, beside which the weights themselves lie."""
    names = (RAW, str(index_file(Path(RAW))))
    known = _checksums(folder)
    return any(name in known or (folder / name).is_file() for name in names)


def _checksums(folder: Path) -> dict[str, str]:
    """File -> sha256; empty where they were not noted."""
    if not (folder / CHECKSUMS).exists():
        return {}
    return read_json(folder / CHECKSUMS, dict[str, str], _REMEDY)


def require_whole(folder: Path, files: tuple[str, ...]) -> None:
    """Raises `UserError` naming the first of `files` in `folder` that is missing or not as it was saved."""
    known = _checksums(folder)
    for name in files:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; {_REMEDY}.")
        if known and sha256(folder / name) != known.get(name):
            raise UserError(
                f"{folder / name}: is damaged, its checksum is not the one in {CHECKSUMS}; {_REMEDY}."
            )


def newest_whole(checkpoints: Path, files: Files = model_files) -> Path | None:
    """The folder that `latest` names if it is whole, else the newest one that is, which is said on stderr; None if there is none.

    Raises `UserError` where there are checkpoints, but none is whole.
    """
    problems = []
    for folder in _candidates(checkpoints):
        try:
            require_whole(folder, files(folder))
        except UserError as error:
            problems.append(str(error))
            continue
        if folder.name != _named(checkpoints):
            why = problems[0] if problems else f"{checkpoints / LATEST}: names no checkpoint."
            _say(f"{why} Step {int(folder.name)} is the newest whole checkpoint and is taken.")
        return folder
    if problems:
        raise UserError(problems[0])
    return None


def clear_checkpoints(checkpoints: Path) -> Path | None:
    """`newest_whole` for a run that goes on: sets damaged folders aside and deletes what killed launches left half done."""
    for leftover in checkpoints.glob(f"{PARTIAL}*"):
        remove_folder(leftover) if leftover.is_dir() else leftover.unlink()
    found = newest_whole(checkpoints, all_files)
    if found is None or found.name == _named(checkpoints):
        return found
    for folder in _folders(checkpoints):
        try:
            require_whole(folder, all_files(folder))
        except UserError:
            aside = folder.with_name(_DAMAGED + folder.name)
            remove_folder(aside)
            folder.rename(aside)
    write_text(checkpoints / LATEST, found.name + "\n")
    return found


def prune(checkpoints: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep` folders up to `step`, which stays."""
    old = [folder for folder in reversed(_folders(checkpoints)) if int(folder.name) <= step]
    for folder in old[: -max(keep, 1)]:
        remove_folder(folder)


def sha256(file: Path) -> str:
    """Checksum of a file, computed once as long as nothing touches it. Raises `UserError` where it cannot be read."""
    try:
        status = file.stat()
        return _sha256(file, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {_REMEDY}.") from None


@lru_cache(maxsize=256)
def _sha256(file: Path, inode: int, size: int, changed: int) -> str:
    return file_sha256(file)


def _candidates(checkpoints: Path) -> Iterator[Path]:
    """The folder that `latest` names, then the others from the newest to the oldest."""
    folders = _folders(checkpoints)
    yield from (folder for folder in folders if folder.name == _named(checkpoints))
    yield from (folder for folder in folders if folder.name != _named(checkpoints))


def _folders(checkpoints: Path) -> list[Path]:
    """Newest first."""
    found = checkpoints.glob("[0-9]*") if checkpoints.is_dir() else []
    return sorted((f for f in found if _NAME.fullmatch(f.name) and f.is_dir()), key=lambda f: -int(f.name))


def _named(checkpoints: Path) -> str | None:
    """What `latest` says, None where it cannot be read."""
    try:
        return read_bounded(checkpoints / LATEST, _LONGEST_NAME).decode().strip()
    except (OSError, ValueError):
        return None


@cache
def _say(sentence: str) -> None:
    """Once, however often the checkpoint is asked for."""
    print(sentence, file=sys.stderr)
