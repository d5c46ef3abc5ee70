"""The agent: a dynamics model with agent tokens, task embeddings and heads (Dreamer 4, section 3.3).

The agent tokens read everything of their frame and their own past; nothing reads them, so the world model's predictions depend
on the task only through actions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.dynamics.model import Dynamics
from reverie.nn.distributions import ActionDistribution, parameter_count
from reverie.nn.heads import Head
from reverie.nn.twohot import NUM_BINS


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Sizes of the agent's heads."""

    head_width: int = 256
    """Hidden width of the heads."""
    prediction_length: int = 8
    """Multi-token prediction length L: actions 1..L and rewards 0..L-1 steps ahead."""

    def __post_init__(self) -> None:
        if self.prediction_length < 1:
            raise ValueError(f"agent.prediction_length must be at least 1, got {self.prediction_length}")


class Agent(nn.Module):
    """World model, task embedding and the heads on the agent token's output h_t (`agent_state`)."""

    def __init__(self, dynamics: Dynamics, config: AgentConfig, tasks: Sequence[str]):
        super().__init__()
        self.dynamics, self.config, self.tasks = dynamics, config, tuple(tasks)
        width, length = dynamics.config.width, config.prediction_length
        # The last row stands for "no task".
        self.task_embedding = nn.Parameter(torch.randn(len(tasks) + 1, width) * 0.02)
        size = parameter_count(dynamics.action_space)
        self.policy = Head(width, config.head_width, size, distances=length, out_scale=0.01)
        self.prior_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.reward_head = Head(width, config.head_width, NUM_BINS, distances=length, out_scale=0.0)
        self.continue_head = Head(width, config.head_width, 1, distances=length, out_scale=0.0)
        self.value_head = Head(width, config.head_width, NUM_BINS, out_scale=0.0)

    def agent_tokens(self, task: Tensor) -> Tensor:
        """(B, T) int64 task indices, -1 for none -> (B, T, 1, D) agent token inputs."""
        return self.task_embedding[task % len(self.task_embedding)].unsqueeze(2)

    def act(self, agent_state: Tensor, *, prior: bool = False) -> ActionDistribution:
        """H (..., D) -> distribution of the next action, by the policy or its frozen behavioural prior."""
        head = self.prior_policy if prior else self.policy
        return ActionDistribution(self.dynamics.action_space, head.nearest(agent_state))

    def freeze_prior(self) -> None:
        """Makes the present policy the behavioural prior."""
        self.prior_policy.load_state_dict(self.policy.state_dict())

    @property
    def default_task(self) -> str | None:
        """What it plays for unless told: the last of its tasks, the game's own reward only where it knows no other."""
        others = [task for task in self.tasks if task != RETURN]
        return others[-1] if others else (RETURN if self.tasks else None)

    def task_index(self, task: str) -> int:
        """Index of a task by name. Raises `UserError` listing the tasks."""
        if task not in self.tasks:
            raise UserError(
                f"--task {task}: this agent knows the tasks {', '.join(self.tasks)}; choose one of them."
            )
        return self.tasks.index(task)
