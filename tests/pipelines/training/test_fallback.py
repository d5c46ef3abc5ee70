"""A lost `latest` or a damaged checkpoint costs the steps since the one before, and is said; nothing begins anew in silence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reverie.data.errors import UserError
from reverie.pipelines.info import describe_folder
from reverie.pipelines.training import integrity
from reverie.pipelines.training.checkpoints import load_tokenizer, weights_sha256
from reverie.pipelines.training.integrity import (
    CARD,
    CHECKSUMS,
    LATEST,
    OBJECTIVE,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    all_files,
    newest_whole,
)
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.snapshots import save_checkpoint
from tests.pipelines.training.test_checkpoints import snapshot
from tests.pipelines.training.test_finite import run, toy_session

ALL_FILES = (CARD, WEIGHTS, STATE, OPTIMIZER, OBJECTIVE)


def trained(out: Path, **training: int) -> Path:
    """A run of four steps with checkpoints at 2 and 4, and a row a step."""
    integrity._say.cache_clear()
    run(toy_session(out, 1.0, Processes(), log_every=1, **training))
    return out / "checkpoints"


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("content", [None, b"", b"000000099", b"../../etc", b"\xff"])
def test_without_a_usable_pointer_the_newest_is_found(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = trained(tmp_path)
    (checkpoints / LATEST).unlink()
    if content is not None:
        (checkpoints / LATEST).write_bytes(content)
    assert toy_session(tmp_path, 1.0, Processes()).step == 4
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith("Step 4 is the newest whole checkpoint and is taken.")
    assert (checkpoints / LATEST).read_text() == "000000004\n"


@pytest.mark.parametrize("file", ALL_FILES)
def test_a_damaged_newest_checkpoint_is_passed_over_set_aside_and_said(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = trained(tmp_path)
    undisturbed = {name: (checkpoints / "000000004" / name).read_bytes() for name in ALL_FILES}
    rows = read_metrics(tmp_path / "metrics.jsonl")
    flip(checkpoints / "000000004" / file)
    session = toy_session(tmp_path, 1.0, Processes(), log_every=1)
    assert session.step == 2
    said = capsys.readouterr().err
    assert f"000000004/{file}: is damaged" in said and "Step 2 is the newest whole checkpoint" in said
    assert (checkpoints / "damaged-000000004").is_dir()
    run(session)
    assert {name: (checkpoints / "000000004" / name).read_bytes() for name in ALL_FILES} == undisturbed
    again = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in again] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["train/loss"] for row in again] == [row["train/loss"] for row in rows]


def test_where_none_is_whole_nothing_begins_anew(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path)
    for folder in checkpoints.glob("0*"):
        (folder / OPTIMIZER).unlink()
    with pytest.raises(UserError, match="000000004/.*optimizer.safetensors: is missing"):
        toy_session(tmp_path, 1.0, Processes())
    assert len(list(checkpoints.glob("0*"))) == 2


def test_leftovers_of_killed_deletions_are_swept(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path)
    for name in (".partial-old-000000001", ".partial-000000006"):
        (checkpoints / name / "training_state").mkdir(parents=True)
        (checkpoints / name / WEIGHTS).write_bytes(b"half")
    (checkpoints / ".partial-latest").write_text("0000")
    toy_session(tmp_path, 1.0, Processes())
    assert not list(checkpoints.glob(".partial-*"))


def test_a_stage_takes_the_newest_whole_parent_and_refuses_a_damaged_one_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    integrity._say.cache_clear()
    older, newer = [save_checkpoint(tmp_path / "checkpoints", snapshot(step), keep=2) for step in (1, 2)]
    assert weights_sha256(tmp_path) == weights_sha256(newer)
    flip(newer / WEIGHTS)
    assert torch.equal(load_tokenizer(tmp_path).mask_token, snapshot(1).weights["mask_token"])
    assert weights_sha256(tmp_path) == weights_sha256(older)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model.safetensors: is damaged" in said and "Step 1" in said
    with pytest.raises(UserError, match="000000002/model.safetensors: is damaged"):
        load_tokenizer(newer)


def test_every_file_has_its_checksum_and_folders_without_any_are_taken(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoints", snapshot(1), keep=1)
    assert json.loads((folder / CHECKSUMS).read_text()).keys() == set(ALL_FILES)
    (folder / CHECKSUMS).unlink()
    assert newest_whole(tmp_path / "checkpoints", all_files) == folder
    assert load_tokenizer(tmp_path) is not None


def test_another_optimiser_than_the_saved_one_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    session = toy_session(tmp_path, 1.0, Processes())
    other = torch.optim.SGD(session.objective.parameters(), 0.1)
    session.state = replace(session.state, optimizer=other)
    with pytest.raises(UserError, match="was begun with the optimiser AdamW, not SGD; give that optimiser"):
        session._resume()


def test_a_checkpoint_folder_of_any_name_is_described(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoints", snapshot(1), keep=1)
    best = folder.rename(tmp_path / "best")
    assert describe_folder(best)[0].startswith("tokenizer, best")
    (best / CARD).write_text("{}")
    with pytest.raises(UserError, match="best/config.json: is damaged"):
        describe_folder(best)
