"""200 damages to every kind of file that a run keeps: each is repaired, passed over with a note, or one sentence."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.loading.replay import read_episode
from reverie.data.sources.episodes import Recording, complete_episodes
from reverie.evaluation.milestones import QuestEpisode
from reverie.pipelines.cli import parse
from reverie.pipelines.interactive.checklist import FILE as CHECKLIST
from reverie.pipelines.interactive.checklist import Checklist, ChecklistTask, Mark
from reverie.pipelines.runs.atomic import write_json
from reverie.pipelines.runs.run import RunFolder, open_run
from reverie.pipelines.scoring.fvd import read_features
from reverie.pipelines.stages.tokenizer import TokenizerStage
from reverie.pipelines.training.checkpoints import load_tokenizer
from reverie.pipelines.training.integrity import (
    CARD,
    CHECKSUMS,
    LATEST,
    OBJECTIVE,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    newest_whole,
)
from reverie.pipelines.training.metrics import _truncate, read_metrics
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.snapshots import read_snapshot, save_checkpoint
from tests.damage import damage, restore
from tests.pipelines.small_stages import Corpus
from tests.pipelines.training.test_checkpoints import snapshot
from tests.pipelines.training.test_finite import run, toy_session

DAMAGES = 200


@dataclass(frozen=True)
class Kept:
    """A file, what reads it, and what comes of it undamaged."""

    file: Path
    read: Callable[[], Any]
    trusts_checksums: bool = True


def _model(folder: Path, name: str) -> Kept:
    checkpoint = save_checkpoint(folder / "checkpoints", snapshot(2), keep=2)
    return Kept(checkpoint / name, lambda: load_tokenizer(folder))


def _training(folder: Path, name: str) -> Kept:
    session = toy_session(folder, 1.0, Processes())
    run(session)
    checkpoint = newest_whole(folder / "checkpoints")
    assert checkpoint is not None and checkpoint.name == "000000004"

    def resume() -> int:
        kept = folder.with_name("copy")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        step = toy_session(kept, 1.0, Processes()).step
        assert step in (2, 4)
        return step

    return Kept(checkpoint / name, resume)


def _latest(folder: Path, name: str) -> Kept:
    for step in (1, 2):
        save_checkpoint(folder / "checkpoints", snapshot(step), keep=2)
    return Kept(folder / "checkpoints" / LATEST, lambda: read_snapshot(folder).step)


def _run_file(folder: Path, name: str) -> Kept:
    config = TokenizerStage(data=Path("d"), out=folder)

    def open_it() -> Any:
        return open_run(
            folder, kind="tokenizer", config=config, model={"width": 4}, inputs={"data": "a" * 64}
        )

    open_it()
    if name == "config.yaml":
        return Kept(folder / name, lambda: parse("tokenizer", ["--config", str(folder / name)]))
    return Kept(folder / name, open_it)


def _metrics(folder: Path, name: str) -> Kept:
    file = RunFolder(folder).metrics
    rows = [{"step": step, "train/loss": 1 / step, "train/psnr": 20.0} for step in range(1, 9)]
    file.write_text("".join(f"{row}\n".replace("'", '"') for row in rows))

    def cut_back() -> None:
        _truncate(file, 6)
        kept = read_metrics(file)
        assert all(row["step"] <= 6 for row in kept)

    return Kept(file, cut_back)


def _features(folder: Path, name: str) -> Kept:
    file = folder / "generated-000000-2.npy"
    np.save(file, np.random.default_rng(0).normal(size=(2, 3, 400)).astype(np.float32))

    def read() -> Any:
        found = read_features(file, (2, 3, 400))
        assert found is None or np.isfinite(found).all()
        return found

    return Kept(file, read)


def _quest(folder: Path, name: str) -> Kept:
    episode = QuestEpisode(
        number=3,
        seed=7,
        steps=90,
        end="limit",
        episode_return=1.5,
        milestones={"log": 12},
        events={"mine_log": 12},
        prompts=1,
        crashes=0,
    )
    write_json(folder / "000003.json", episode.to_json())
    return Kept(folder / "000003.json", lambda: QuestEpisode.load(folder / "000003.json").to_json())


def _checklist(folder: Path, name: str) -> Kept:
    tasks = [ChecklistTask(name=name, do="it") for name in ("a", "b")]
    mark = Mark(success=True, note="", episode="1", frames=3, attempt=1, context="x", time="now")
    Checklist(tasks, folder).mark(mark)
    return Kept(folder / CHECKLIST, lambda: Checklist(tasks, folder).table())


MAKING: dict[str, Callable[[Path, str], Kept]] = {
    LATEST: _latest,
    CARD: _model,
    WEIGHTS: _model,
    CHECKSUMS: _model,
    STATE: _training,
    OPTIMIZER: _training,
    OBJECTIVE: _training,
    "provenance.json": _run_file,
    "config.yaml": _run_file,
    "metrics.jsonl": _metrics,
    "features of fvd": _features,
    "episode of a quest": _quest,
    CHECKLIST: _checklist,
}


@pytest.mark.parametrize("name", MAKING)
def test_damage_never_ends_in_a_traceback(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    kept = MAKING[name](folder, name)
    kept.read()
    content = kept.file.read_bytes()
    checksums = kept.file.parents[1] / CHECKSUMS if "/" in name else kept.file.with_name(CHECKSUMS)
    known = checksums.read_bytes() if checksums.is_file() else None
    refused = 0
    for seed in range(DAMAGES):
        what = damage(kept.file, seed)
        if (
            known is not None and name != CHECKSUMS and seed % 4
        ):  # as if it had been saved so, so that types are looked at
            checksums.unlink()
        refused += _refused(kept.read, what, kept.file)
        restore(kept.file, content)
        if known is not None:
            checksums.write_bytes(known)
    assert refused or name in (LATEST, STATE, "metrics.jsonl", "features of fvd"), "damage is noticed"
    kept.read()
    assert "Traceback" not in capsys.readouterr().err


def test_damaged_played_episodes_are_one_sentence(corpus: Corpus, tmp_path: Path) -> None:
    played = tmp_path / "played"
    shutil.copytree(corpus.root / "episodes", played)
    recording, name = Recording.load(played), complete_episodes(played)[0]
    files = [played / "recording.json", *(played / "episodes" / f"{name}{end}" for end in (".npz", ".mp4"))]
    for file in files:
        content = file.read_bytes()
        for seed in range(DAMAGES // 4 if file.suffix == ".mp4" else DAMAGES):
            what = damage(file, seed)
            _refused(lambda: Recording.load(played) and read_episode(played, name, recording), what, file)
            restore(file, content)


def _refused(read: Callable[[], Any], what: str, file: Path) -> bool:
    """Whether reading ends in a `UserError`, which must be one line; nothing else may be raised."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and str(error).endswith("."), (what, error)
        return True
    except BaseException as error:
        raise AssertionError(f"{file.name}, {what}: {type(error).__name__}: {error}") from error
    return False
