"""Two processes with half the rows each learn what one process with all rows learns, however the rows fall."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from reverie.agent import cloning
from reverie.agent.cloning import CloningObjective, CloningObjectiveConfig
from reverie.agent.imagination import ImaginationConfig, ImaginationObjective, Rollout
from reverie.agent.model import Agent, AgentConfig
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import Corruption, draw_corruption
from reverie.nn.normalize import RunningRMS, in_any_process, mean_of_all_rows
from reverie.rssm.losses import masked_mean
from tests.batches import SPACE, latent_batch, random_actions
from tests.processes import finish, start

CONFIG = DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4)
STEPS = 3
Learn = Callable[[int, int], dict[str, Tensor]]
"""Rank and number of processes -> what they end with."""


def row_by_row(latents: Tensor, config: DynamicsConfig, bootstrap_rows: Tensor) -> Corruption:
    """The real draws, but the same for a row wherever it is processed."""
    drawn = []
    for row, bootstrap in zip(latents, bootstrap_rows, strict=True):
        torch.manual_seed(int(row.abs().sum() * 1000))
        drawn.append(draw_corruption(row[None], config, bootstrap[None]))
    fields = ("signal_index", "step_index", "noise")
    return Corruption(*(torch.cat([getattr(one, name) for one in drawn]) for name in fields))


def make() -> Agent:
    torch.manual_seed(0)
    return Agent(Dynamics(CONFIG, SPACE), AgentConfig(head_width=16, prediction_length=3), ["a", "b"])


def clone(rank: int, count: int) -> dict[str, Tensor]:
    """Some updates on batches of two rows, a uniform and a relevant one, or both of one kind."""
    cloning.draw_corruption = row_by_row
    settings = CloningObjectiveConfig(start_frame_fraction=0.0, context_level_fraction=1.0)
    objective = CloningObjective(make(), settings)
    model = DistributedDataParallel(objective, find_unused_parameters=True) if count > 1 else objective
    optimizer = torch.optim.SGD(objective.parameters(), 0.01)
    for step in range(STEPS):
        batch = latent_batch(2, seed=step)
        batch.relevant[:] = torch.tensor([step == 2, True])
        optimizer.zero_grad()
        model(batch.rows(slice(rank, None, count)))[0].backward()
        if step < STEPS - 1:
            optimizer.step()
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return {**gradients, **dict(objective.rms.named_buffers())}


def improve(rank: int, count: int) -> dict[str, Tensor]:
    """The gradients of imagination on four given rollouts, which end at different times."""
    agent = make()
    agent.freeze_prior()
    objective = ImaginationObjective(agent, ImaginationConfig(horizon=5))
    torch.manual_seed(1)
    rollout = Rollout(
        states=torch.randn(4, 6, 32),
        actions=random_actions(4, 5),
        rewards=torch.randn(4, 5),
        continues=torch.rand(4, 5),
        latents=torch.zeros(4, 5, 4, 8),
    )
    mine, alive = slice(rank, None, count), torch.tensor([True, False, True, True])
    share = Rollout(
        states=rollout.states[mine],
        actions={name: x[mine] for name, x in rollout.actions.items()},
        rewards=rollout.rewards[mine],
        continues=rollout.continues[mine],
        latents=rollout.latents[mine],
    )
    objective.loss(share, alive[mine])[0].backward()
    return {name: averaged(p.grad, count) for name, p in objective.named_parameters() if p.grad is not None}


def scale(rank: int, count: int) -> dict[str, Tensor]:
    """Normalisers and masked means by themselves, against the closed form."""
    values, mask = torch.tensor([[1.0, 2.0], [6.0, 9.0]]), torch.tensor([[True, True], [False, True]])
    mine = slice(rank, None, count)
    x = values[mine].clone().requires_grad_()
    rms, loss = RunningRMS(decay=0.9), masked_mean(x, mask[mine])
    (rms(loss) + mean_of_all_rows(x.sum(), torch.tensor(float(x.numel())))).backward()
    assert in_any_process(rank == 1, x.device) == (count > 1)
    gradient = torch.zeros(2, 2)
    assert x.grad is not None
    gradient[mine] = x.grad / count
    if count > 1:
        dist.all_reduce(gradient)
    return {"rms": rms.value(), "gradient": gradient, "loss": averaged(loss.detach(), count)}


def averaged(x: Tensor, count: int) -> Tensor:
    """Over the processes, as DDP does with gradients."""
    if count > 1:
        dist.all_reduce(x)
    return x / count


LEARNING: dict[str, Learn] = {"clone": clone, "improve": improve, "scale": scale}


@pytest.mark.parametrize("name", LEARNING)
def test_two_processes_learn_what_one_learns(name: str, tmp_path: Path) -> None:
    for count in (1, 2):
        processes = [start(_learn, name, rank, count, tmp_path) for rank in range(count)]
        for process in processes:
            finish(process)
    alone, *shared = [
        torch.load(tmp_path / f"{r}-{n}.pt", weights_only=True) for r, n in ((0, 1), (0, 2), (1, 2))
    ]
    for found in shared:
        assert found.keys() == alone.keys()
        for key, expected in alone.items():
            torch.testing.assert_close(
                found[key], expected, atol=2e-6, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_the_closed_form_of_the_shared_scale() -> None:
    found = scale(0, 1)
    assert found["loss"] == 4.0 and found["rms"] == 4.0
    expected = torch.tensor([[1.0, 1.0], [0.0, 1.0]]) / 3 / 4 + 0.25
    torch.testing.assert_close(found["gradient"], expected)


def _learn(name: str, rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    torch.save(LEARNING[name](rank, count), folder / f"{rank}-{count}.pt")
    if count > 1:
        dist.destroy_process_group()
