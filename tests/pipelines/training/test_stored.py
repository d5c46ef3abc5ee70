"""Checkpoints in parts: written by some processes, read by others; damage is noticed; killed at any moment."""

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.durable import file_sha256
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.checkpoints import Card, latest_checkpoint, load_dynamics, weights_sha256
from reverie.pipelines.training.integrity import CHECKSUMS, all_files, require_whole, write_checksums
from reverie.pipelines.training.optimization import OptimizerConfig, make_optimizer
from reverie.pipelines.training.processes import Processes
from reverie.pipelines.training.sharding import full_tensor, shard_layers
from reverie.pipelines.training.snapshots import Snapshot, open_snapshot, read_snapshot, save_checkpoint
from reverie.pipelines.training.stored import (
    Part,
    StoredTensors,
    files_of,
    load_like,
    save_index,
    save_tensors,
)
from tests.batches import SPACE, latent_batch
from tests.pipelines.training.test_sharding import Predicting, run_group
from tests.processes import kill_group, start

WHOLE = {"a": torch.arange(21.0).reshape(7, 3), "b": torch.arange(4), "c": torch.tensor(2.5)}
CUTS = {"a": [(0, 3), (3, 6), (6, 7)], "b": [(0, 2), (2, 4)], "c": [(0, 1)]}


def in_parts(folder: Path) -> Path:
    """`WHOLE` in three parts; returns the name that it would have whole."""
    file, parts = folder / "model.safetensors", {}
    for rank in range(3):
        rows = {name: cuts[rank] for name, cuts in CUTS.items() if rank < len(cuts)}
        place = folder / f"model-{rank:05d}-of-00003.safetensors"
        save_tensors(place, {n: WHOLE[n][a:b] if WHOLE[n].dim() else WHOLE[n] for n, (a, b) in rows.items()})
        parts[place.name] = Part(file_sha256(place), rows, of_several=True)
    assert save_index(file, WHOLE, parts) == folder / "model.parts.json"
    return file


@pytest.mark.parametrize("form", ["whole", "parts"])
def test_any_rows_come_back(form: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_tensors(file, WHOLE) if form == "whole" else in_parts(tmp_path)
    stored = StoredTensors(file)
    assert dict(stored).keys() == WHOLE.keys()
    for name, expected in WHOLE.items():
        assert torch.equal(stored[name], expected) and stored[name].dtype is expected.dtype
        assert (stored.empty(name).shape, stored.empty(name).dtype) == (expected.shape, expected.dtype)
    for first in range(8):
        for end in range(first, 8):
            assert torch.equal(stored.rows("a", first, end), WHOLE["a"][first:end])
    assert len(files_of(file)) == (1 if form == "whole" else 4)


def edit(index: dict[str, Any], change: str) -> None:
    rows, parts = index["tensors"]["a"]["rows"], index["parts"]
    second = "model-00001-of-00003.safetensors"
    match change:
        case "a gap":
            rows[second] = [4, 6]
        case "an overlap":
            rows[second] = [2, 6]
        case "too few":
            del rows["model-00002-of-00003.safetensors"]
        case "elsewhere":
            parts["../model-00001-of-00003.safetensors"] = parts.pop(second)
        case "unknown part":
            del parts[second]
        case "no rows":
            rows.clear()
        case "other shape":
            index["tensors"]["a"]["shape"] = [7, 4]
        case "not numbers":
            rows[second] = ["3", "6"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("a gap", "rows of a in model-00001-of-00003.safetensors do not follow"),
        ("an overlap", "rows of a in model-00001-of-00003.safetensors do not follow"),
        ("too few", "has 6 of 7 rows of a"),
        ("elsewhere", r"\.\./model-00001-of-00003.safetensors is no name of a part"),
        ("unknown part", "rows of a in model-00001-of-00003.safetensors do not follow"),
        ("no rows", "has 0 of 7 rows of a"),
        ("other shape", r"cannot be read \(a is \[3, 3\], not \[3, 4\]\)"),
        ("not numbers", "tensors.a.rows"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(change: str, sentence: str, tmp_path: Path) -> None:
    file = in_parts(tmp_path)
    index = json.loads((tmp_path / "model.parts.json").read_text())
    edit(index, change)
    (tmp_path / "model.parts.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=sentence):
        dict(StoredTensors(file))


def test_a_part_of_other_content_is_refused(tmp_path: Path) -> None:
    file = in_parts(tmp_path)
    part = tmp_path / "model-00001-of-00003.safetensors"
    save_tensors(part, {"a": torch.zeros(2, 3), "b": torch.zeros(2)})
    with pytest.raises(UserError, match=r"model-00001-of-00003.safetensors: cannot be read \(a is \[2, 3\]"):
        dict(StoredTensors(file))
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(UserError, match="model-00001-of-00003.safetensors: cannot be read"):
        dict(StoredTensors(file))
    part.unlink()
    with pytest.raises(UserError, match="model-00001-of-00003.safetensors: cannot be read"):
        dict(StoredTensors(file))


def test_no_part_may_be_missing_or_changed(tmp_path: Path) -> None:
    older, newer = (tmp_path / f"checkpoints/00000000{step}" for step in (1, 2))
    for folder in (older, newer):
        save_checkpoint(folder.parent, snapshot(Predicting(), int(folder.name)), keep=2)
        (folder / "model.safetensors").unlink()
        in_parts(folder)
        write_checksums(folder)
        require_whole(folder, all_files(folder))
    identity = weights_sha256(newer)
    part = newer / "model-00002-of-00003.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert latest_checkpoint(tmp_path / "checkpoints") == older
    part.unlink()
    assert latest_checkpoint(tmp_path / "checkpoints") == older
    (newer / CHECKSUMS).unlink()
    assert latest_checkpoint(tmp_path / "checkpoints") == older
    assert weights_sha256(older) == identity, "the same tensors in the same parts"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("writers", "shard_size", "readers"),
    [(2, None, (1, 2, 3)), (4, None, (2,)), (4, 2, (1, 2)), (1, None, (2,))],
)
def test_what_some_processes_wrote_others_read(
    writers: int, shard_size: int | None, readers: tuple[int, ...], name: str, tmp_path: Path
) -> None:
    """Weights, moments of AdamW and Muon, and scalars are equal to the bit; odd sizes, so that parts are unequal or empty."""
    run_group(save, writers, tmp_path, shard_size, name)
    folder = latest_checkpoint(tmp_path / "checkpoints")
    assert folder is not None
    found = read_snapshot(folder)
    expected = read_snapshot(tmp_path / "gathered/000000003")
    for mine, theirs in zip(found.tensors().values(), expected.tensors().values(), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], x) for key, x in theirs.items())
    parts = sorted(folder.glob("model-*.safetensors"))
    # Of copies one is written; one process shards nothing.
    assert len(parts) == (0 if writers == 1 else shard_size or writers)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    loaded = load_dynamics(folder).state_dict()
    assert all(torch.equal(loaded[key], x) for key, x in found.weights.items())
    for world in readers:
        run_group(load, world, tmp_path, name)


@pytest.mark.slow
def test_processes_killed_while_saving_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    moments, checkpoints = random.Random(0), tmp_path / "checkpoints"
    for attempt in range(8):
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        before = latest_checkpoint(checkpoints)
        processes = [start(save_on, rank, 2, folder, checkpoints) for rank in range(2)]
        deadline = time.monotonic() + 120
        while latest_name(checkpoints) == (before.name if before else None):
            assert time.monotonic() < deadline and all(p.is_alive() for p in processes)
            time.sleep(0.005)
        time.sleep(moments.random() * 0.2)
        moments.shuffle(processes)
        assert kill_group(processes[0])
        kill_group(processes[1])  # which may have found the other one dead
        after = latest_checkpoint(checkpoints)
        assert after is not None and (before is None or int(after.name) > int(before.name))
        assert read_snapshot(after).step == int(after.name)


def latest_name(checkpoints: Path) -> str | None:
    file = checkpoints / "latest"
    return file.read_text().strip() if file.exists() else None


def card() -> Card:
    model = Predicting().model
    return Card(kind="dynamics", model=to_plain(model.config), action_space=to_plain(SPACE.to_json()))


def snapshot(model: Predicting, step: int, optimizer: torch.optim.Optimizer | None = None) -> Snapshot:
    """With what a session saves: possibly sharded tensors as they are."""
    moments = {
        f"{name}.{key}": x
        for name, parameter in model.named_parameters()
        for key, x in ({} if optimizer is None else optimizer.state[parameter]).items()
    }
    weights = model.model.state_dict()
    state = {"batches": {"short": {"samples_consumed": step}}}
    return Snapshot(step=step, card=card(), weights=weights, raw=weights, optimizer=moments, state=state)


def sharded(world: int, shard_size: int | None = None) -> Predicting:
    from torch.distributed.device_mesh import init_device_mesh

    model = Predicting()
    if world > 1:
        mesh = init_device_mesh("cpu", (world, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
        shard_layers(model, mesh, shard_size)
    return model


def save(rank: int, world: int, folder: Path, shard_size: int | None, name: str) -> None:
    """Trains two steps and saves; and gathered by the first process, for comparison."""
    model = sharded(world, shard_size)
    optimizer = make_optimizer(model, OptimizerConfig(name=name, lr=0.01))  # type: ignore[arg-type]
    for step in range(2):
        model(latent_batch(4, 6, (4, 6), seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    made = snapshot(model, 3, optimizer)
    save_checkpoint(folder / "checkpoints", made, 1, Processes(rank=rank, world_size=world))
    gathered = [{key: full_tensor(x) for key, x in tensors.items()} for tensors in made.tensors().values()]
    if rank == 0:
        weights, moments, objective, raw = gathered
        parts = {"weights": weights, "raw": raw, "optimizer": moments, "objective": objective}
        save_checkpoint(folder / "gathered", replace(made, **parts), 1)


def load(rank: int, world: int, folder: Path, name: str) -> None:
    """On other processes, into a model that has learned nothing."""
    saved = open_snapshot(folder / "checkpoints/000000003")
    expected = read_snapshot(folder / "gathered/000000003")
    model = sharded(world)
    model.model.load_state_dict(load_like(saved.weights, model.model.state_dict()))
    for key, x in model.model.state_dict().items():
        assert torch.equal(full_tensor(x), expected.weights[key]), key
    for parameter_name, parameter in model.named_parameters():
        for key in (k for k in saved.optimizer if k.startswith(f"{parameter_name}.")):
            moment: Tensor = saved.optimizer.like(key, parameter)
            assert moment.dim() == 0 or type(moment) is type(parameter.data)
            assert torch.equal(full_tensor(moment), expected.optimizer[key]), key


def save_on(rank: int, world: int, folder: Path, checkpoints: Path) -> None:
    """Saves one step after the other until it is killed."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    processes, model, newest = (
        Processes(rank=rank, world_size=world),
        sharded(world),
        latest_checkpoint(checkpoints),
    )
    step = 0 if newest is None else int(newest.name)
    dist.barrier()
    while True:
        step += 1
        save_checkpoint(checkpoints, snapshot(model, step), 2, processes)
