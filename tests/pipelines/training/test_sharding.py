"""Shards on gloo processes learn what one process learns that has all rows: AdamW, Muon, bfloat16, hybrid; votes."""

import uuid
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.nn.precision import bfloat16
from reverie.pipelines.training.layers import prepare_layers
from reverie.pipelines.training.loop import FabricConfig, make_fabric
from reverie.pipelines.training.muon import orthogonalize
from reverie.pipelines.training.optimization import OptimizerConfig, make_optimizer
from reverie.pipelines.training.processes import Vote
from reverie.pipelines.training.sharding import full_tensor, on_whole_matrices, shard_layers
from tests.batches import SPACE, latent_batch
from tests.processes import finish, start

CPU = torch.device("cpu")
STEPS, ROWS = 3, 4
Name = Literal["adamw", "muon"]


class Predicting(nn.Module):
    """The dynamics model with a loss that draws nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        # Odd sizes: rows do not divide evenly among processes.
        self.model = Dynamics(
            DynamicsConfig(latent_shape=(4, 6), width=24, depth=4, num_heads=2, num_kv_heads=1), SPACE
        )

    def forward(self, batch: Batch) -> Tensor:
        """Mean squared error of z_hat."""
        assert batch.latents is not None
        index = torch.full(batch.shape, 3)
        z_hat, _ = self.model(batch.latents, index, index, batch.actions, batch.action_mask)
        return (z_hat - batch.latents.roll(1, 1)).square().mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "shard_size", "name", "half", "layers"),
    [
        (2, None, "adamw", False, "none"),
        (2, None, "muon", False, "layers"),
        (4, 2, "muon", False, "none"),
        (2, None, "adamw", True, "layers"),
    ],
)
def test_shards_learn_what_one_process_learns(
    world: int, shard_size: int | None, name: Name, half: bool, layers: Any, tmp_path: Path
) -> None:
    case = (shard_size, name, half, layers)
    run_group(_shards, world, tmp_path, *case)
    found, expected = load_file(tmp_path / "weights.safetensors"), _alone(world, name, half)
    start_weights = Predicting().state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        travelled = (value - start_weights[key]).norm()
        assert (found[key] - value).norm() <= 1e-3 * travelled + 1e-6, key


@pytest.mark.slow
def test_whole_matrices_are_computed_by_shares(tmp_path: Path) -> None:
    """Five matrices of seven rows on three processes: nothing divides evenly."""
    run_group(_orthogonalized, 3, tmp_path)
    found = load_file(tmp_path / "matrices.safetensors")
    torch.testing.assert_close(found["whole"], orthogonalize(_matrices()), atol=1e-5, rtol=1e-4)
    assert found["counts"].tolist() == [2, 2, 2], "each computes its share"


@pytest.mark.slow
def test_all_processes_learn_of_a_vote_at_the_same_step(tmp_path: Path) -> None:
    run_group(_votes, 3, tmp_path)
    answers = [load_file(tmp_path / f"votes{rank}.safetensors")["x"].tolist() for rank in range(3)]
    # Asked by one process in call 2, known to all in call 3; with `now`, in the call itself.
    assert answers == [[0, 0, 0, 1, 0, 0, 1]] * 3


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            FabricConfig(accelerator="cpu", strategy="fsdp", devices=4, shard_size=3),
            "must divide the number of processes, 4",
        ),
        (
            FabricConfig(accelerator="cpu", strategy="fsdp", devices=4, shard_size=0),
            "must divide the number of processes, 4",
        ),
        (FabricConfig(accelerator="cpu", shard_size=2), "add --fabric.strategy fsdp"),
    ],
)
def test_shard_sizes_that_cannot_be_are_refused(config: FabricConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_fabric(config)


def _alone(world: int, name: Name, half: bool) -> dict[str, Tensor]:
    """One process, which takes the rows of each of them in turn: bfloat16 rounds alike."""
    model = Predicting()
    optimizer = make_optimizer(model, OptimizerConfig(name=name, lr=0.01))
    for step in range(STEPS):
        for rank in range(world):
            with bfloat16(CPU, half):
                loss = model(latent_batch(ROWS, 6, (4, 6), seed=step).rows(slice(rank, None, world)))
            (loss / world).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def _shards(
    rank: int, world: int, folder: Path, shard_size: int | None, name: Name, half: bool, layers: Any
) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    model = Predicting()
    prepare_layers(model, CPU, compile="off", checkpointing=layers, frames=0)
    mesh = init_device_mesh("cpu", (world, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    shard_layers(model, mesh, shard_size)
    optimizer = make_optimizer(model, OptimizerConfig(name=name, lr=0.01))
    for step in range(STEPS):
        rows = latent_batch(ROWS, 6, (4, 6), seed=step).rows(slice(rank, None, world))
        with bfloat16(CPU, half):
            loss = model(rows)
        loss.backward()
        assert all(p.grad is None or p.grad.dtype is torch.float32 for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    weights = {key: full_tensor(x) for key, x in model.state_dict().items()}
    if rank == 0:
        save_file({key: x.contiguous() for key, x in weights.items()}, folder / "weights.safetensors")


def _matrices() -> Tensor:
    return torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))


def _orthogonalized(rank: int, world: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    counts = torch.zeros(world, dtype=torch.int64)

    def counted(x: Tensor) -> Tensor:
        counts[rank] = len(x)
        return orthogonalize(x)

    shards = [distribute_tensor(x, mesh, [Shard(0)]) for x in _matrices()]
    parts = on_whole_matrices(counted, shards)
    results = [
        DTensor.from_local(x, mesh, [Shard(0)], shape=(7, 4), stride=(4, 1)).full_tensor() for x in parts
    ]
    dist.all_reduce(counts)
    if rank == 0:
        save_file({"whole": torch.stack(results), "counts": counts}, folder / "matrices.safetensors")


def _votes(rank: int, world: int, folder: Path) -> None:
    vote = Vote()
    answers = [vote(rank == 1 and call in (2, 6), call == 6) for call in range(7)]
    save_file({"x": torch.tensor(answers, dtype=torch.int64)}, folder / f"votes{rank}.safetensors")


def run_group(target: Any, world: int, folder: Path, *arguments: Any) -> None:
    """`target(rank, world, folder, ...)` in `world` gloo processes."""
    meeting = folder / f"meeting-{uuid.uuid4().hex}"  # one that others met in would make these wait for them
    for process in [start(_in_group, target, rank, world, meeting, *arguments) for rank in range(world)]:
        finish(process)


def _in_group(target: Any, rank: int, world: int, meeting: Path, *arguments: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    target(rank, world, meeting.parent, *arguments)
    dist.barrier()
    dist.destroy_process_group()
