"""Checkpoints are complete or absent, whatever dies when, and say what is wrong with them."""

import json
from pathlib import Path

import pytest
import torch

from reverie.data.errors import UserError
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training import snapshots, stored
from reverie.pipelines.training.checkpoints import Card, latest_checkpoint, load_tokenizer
from reverie.pipelines.training.integrity import write_checksums
from reverie.pipelines.training.snapshots import Snapshot, read_snapshot, save_checkpoint
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

CONFIG = TokenizerConfig(width=16, num_heads=2, num_kv_heads=2, bottleneck_tokens=2, bottleneck_channels=4)


class Killed(BaseException):
    """Stands for the death of the process at a chosen moment."""


def snapshot(step: int) -> Snapshot:
    torch.manual_seed(step)
    return Snapshot(
        step=step,
        card=Card(kind="tokenizer", model=to_plain(CONFIG)),
        weights=Tokenizer(CONFIG).state_dict(),
        optimizer={"model.mask_token.step": torch.tensor(float(step))},
        state={"batches": {"short": {"samples_consumed": step}}},
    )


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = snapshot(3)
    found = read_snapshot(save_checkpoint(tmp_path, saved, keep=1))
    assert (found.step, found.card, found.state) == (saved.step, saved.card, saved.state)
    for name, tensor in {**saved.weights, **saved.optimizer}.items():
        assert torch.equal(tensor, {**found.weights, **found.optimizer}[name]), name


def _rewritten(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "config.json").read_text())
    card["model"] |= {name: value for name, value in changes.items() if value != "absent"}
    for name in (name for name, value in changes.items() if value == "absent"):
        del card["model"][name]
    (folder / "config.json").write_text(json.dumps(card))
    write_checksums(folder)


def test_a_model_forced_to_kernels_of_another_machine_is_loaded_for_this_one(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, snapshot(1), keep=1)
    for backend in ("flash", "sdpa", "flex"):
        _rewritten(folder, backend=backend)
        assert load_tokenizer(folder).config == CONFIG


@pytest.mark.parametrize(("stored", "found"), [(50.0, 50.0), (None, None), (20.0, 20.0), ("absent", 50.0)])
def test_a_model_keeps_the_soft_cap_that_it_was_trained_with(
    stored: object, found: float | None, tmp_path: Path
) -> None:
    """Whatever the default is by then: a card that names none is of a time when it was 50."""
    folder = save_checkpoint(tmp_path, snapshot(1), keep=1)
    _rewritten(folder, softcap=stored)
    model = load_tokenizer(folder)
    assert model.config.softcap == found
    assert {layer.attention.softcap for layer in model.encoder.layers} == {found}


@pytest.mark.parametrize("moment", ["write_json", "save_tensors", "write_text"])
@pytest.mark.parametrize("calls_before", [0, 1, 2])
def test_a_death_while_saving_leaves_the_former_checkpoint(
    moment: str, calls_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, snapshot(1), keep=2)
    place = stored if moment == "save_tensors" else snapshots
    whole, calls = getattr(place, moment), []

    def dying(*arguments: object) -> None:
        if len(calls) == calls_before:
            raise Killed
        calls.append(1)
        whole(*arguments)

    monkeypatch.setattr(place, moment, dying)
    try:
        save_checkpoint(tmp_path, snapshot(2), keep=2)
    except Killed:
        assert read_snapshot(tmp_path / "000000001").step == 1
    monkeypatch.undo()
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and read_snapshot(latest).step in (1, 2)
    assert read_snapshot(save_checkpoint(tmp_path, snapshot(2), keep=2)).step == 2
    assert not list(tmp_path.glob(".partial-*"))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, snapshot(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000004", "000000005", "latest"]


def test_a_model_loads_from_its_folder_alone(tmp_path: Path) -> None:
    saved = snapshot(7)
    folder = save_checkpoint(tmp_path / "run" / "checkpoints", saved, keep=1)
    for path in (folder, tmp_path / "run"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.config == CONFIG and not tokenizer.training
        assert torch.equal(tokenizer.mask_token, saved.weights["mask_token"])


def test_no_pickles(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, snapshot(1), keep=1)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: folder.joinpath("model.safetensors").write_bytes(b"short"),
            "model.safetensors: is damaged",
        ),
        (lambda folder: folder.joinpath("config.json").write_text("{"), "config.json: is damaged"),
        (lambda folder: _edit(folder, format=99), "has format 99"),
        (
            lambda folder: _edit(folder, kind="dynamics"),
            "holds a dynamics model, expected a tokenizer",
        ),
        (
            lambda folder: _edit(folder, model=to_plain(CONFIG) | {"width": 24}),
            "does not fit its config.json",
        ),
    ],
)
def test_damage_is_one_sentence(damage: object, sentence: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, snapshot(1), keep=1)
    assert callable(damage)
    damage(folder)
    with pytest.raises(UserError, match=sentence) as raised:
        load_tokenizer(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "sentence"), [("nothing", "no such run folder"), ("", "no complete checkpoint")]
)
def test_missing_checkpoints_are_one_sentence(path: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        load_tokenizer(tmp_path / path)


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    write_checksums(folder)  # as if it had been saved so
