"""Run folders: what was asked (config.yaml), where it came from (provenance.json), and refusal of a wrong one.

A run is identified by its kind, its model and the hashes of its inputs. The same command again continues it; a command
whose data, parents or model differ is refused. Everything else (steps, learning rate, intervals) may change.
"""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import yaml

from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, explain_full_disk
from reverie.data.files.lock import LOCK
from reverie.pipelines.runs.atomic import write_json, write_text
from reverie.pipelines.runs.configs import differences, to_plain
from reverie.pipelines.runs.reading import read_json

FORMER_SOFTCAP = 50.0
"""Soft cap of attention logits that every run had which named none."""

ModelT = TypeVar("ModelT", bound=Any)
"""A model's configuration dataclass with a field `softcap`."""

_PACKAGES = ("reverie", "torch", "lightning", "accelerate", "numpy", "webdataset", "decord", "av", "lpips")


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """One folder per kept step, and the file `latest`."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """JSON lines, one per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def provenance(self) -> Path:
        """Command, versions, commit, seed and identity."""
        return self.path / "provenance.json"


def open_run(
    path: Path,
    *,
    kind: str,
    config: Any,
    model: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> RunFolder:
    """Makes the run folder `path`, or continues it if it is the same run; call it as the folder's sole writer.

    Args:
      kind: the stage.
      config: its resolved configuration dataclass, written to config.yaml.
      model: the model's configuration as plain values.
      inputs: what the run learns from, name -> hash (data index, parent weights).

    Raises:
      UserError: the folder belongs to a run of another kind, model or input, or is no run folder.
    """
    run = RunFolder(path)
    identity = to_plain({"kind": kind, "inputs": inputs, "model": model})
    if run.provenance.exists():
        known = read_provenance(run.provenance)
        _refuse_other(path, known["identity"], identity)
    elif _is_taken(path):
        raise UserError(f"{path}: exists and is not a run folder; give --out a new or empty folder.")
    else:
        known = {"identity": identity, "seed": _seed(config), "launches": []}
    with explain_full_disk(path):
        path.mkdir(parents=True, exist_ok=True)
        _write(run, known, config)
    return run


def keep_softcap(path: Path, model: ModelT) -> ModelT:
    """`model` with the soft cap of the run in `path`, if that began with the one that was the default in 0.1.0.

    For a run that goes on under a version or preset that leaves the cap out; told in a line, since it may have been asked for.

    Raises:
      UserError: what else was asked for cannot be done with a soft cap.
    """
    run = RunFolder(path)
    if model.softcap is not None or not run.provenance.exists():
        return model
    known = read_provenance(run.provenance)["identity"]["model"]
    if known.get("model", {}).get("softcap") != FORMER_SOFTCAP:
        return model
    try:
        kept = replace(model, softcap=FORMER_SOFTCAP)
    except ValueError as error:
        raise UserError(
            f"{path}: this run began with a soft cap of {FORMER_SOFTCAP:g} ({error}); give another --out, or flags that fit."
        ) from None
    print(f"{path}: goes on with its soft cap of {FORMER_SOFTCAP:g}; another --out takes none.", flush=True)
    return kept


def _write(run: RunFolder, known: dict[str, Any], config: Any) -> None:
    # First what makes it a run folder, so that dying in between does not lead to a refusal.
    write_json(run.provenance, known | {"launches": [*known["launches"], _launch()]})
    write_text(run.path / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False))


@dataclass(frozen=True)
class _Identity:
    kind: str
    inputs: dict[str, str]
    model: dict[str, Any]


@dataclass(frozen=True)
class _Provenance:
    """provenance.json."""

    identity: _Identity
    seed: int | None
    launches: list[dict[str, Any]]


def read_provenance(file: Path) -> dict[str, Any]:
    """The content of a provenance.json. Raises `UserError` for a damaged one."""
    remedy = "put back an undamaged copy, or give another --out"
    return dict(to_plain(read_json(file, _Provenance, remedy)))


def _is_taken(path: Path) -> bool:
    """Whether `path` is a file, or a folder with anything but its lock and leftovers of an interrupted write."""
    if not path.is_dir():
        return path.exists()
    return any(item.name != LOCK and not item.name.startswith(PARTIAL) for item in path.iterdir())


def _refuse_other(path: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    if known["kind"] != asked["kind"]:
        raise UserError(
            f"{path}: holds a run of `{known['kind']}`, expected one of `{asked['kind']}`; give another --out."
        )
    different = differences(_shortened(known), _shortened(asked))
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"{path}: this run was made differently ({'; '.join(different[:3])}{more}); "
            f"give the same inputs and model again, or another --out."
        )


def _shortened(identity: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` with hashes of readable length, and without what only says how the model is computed."""
    inputs = {name: digest[:12] for name, digest in identity["inputs"].items()}
    return {**identity, "inputs": inputs, "model": _essential(identity["model"])}


_LATER = {"prediction": "x", "shortcut": True}
"""What later versions added, at the value that earlier runs had without naming it."""


def _essential(model: Any) -> Any:
    """Plain values without what is `_LATER` and any `backend`: the machine that continues may have other kernels."""
    if not isinstance(model, Mapping):
        return model
    said = {name: value for name, value in model.items() if name != "backend"}
    return {n: _essential(value) for n, value in said.items() if n not in _LATER or value != _LATER[n]}


def _seed(config: Any) -> int | None:
    training = getattr(config, "training", config)
    return getattr(training, "seed", None)


def _launch() -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree, with `+changes` if files differ; None outside a checkout of this project."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{_git(here.parent, 'rev-parse', 'HEAD')}{'+changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
