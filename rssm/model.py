"""A whole Dreamer of any generation, and its objective for the training loop."""

from typing import Literal

import torch
from torch import Tensor, nn

from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.rssm.behaviour import Behaviour
from reverie.rssm.config import DreamerConfig
from reverie.rssm.world_model import WorldModel

Phase = Literal["joint", "world_model", "behaviour", "cloning"]


class Dreamer(nn.Module):
    """World model, actor and critic; see `WorldModel` for the arguments."""

    def __init__(self, config: DreamerConfig, frame_shape: tuple[int, int, int], action_space: ActionSpace):
        super().__init__()
        self.config = config
        self.world_model = WorldModel(config.world_model, frame_shape, action_space)
        self.behaviour = Behaviour(config.behaviour, self.world_model)


class DreamerObjective(nn.Module):
    """A Dreamer with its loss; the training loop calls `forward` on batches of frames and steps `make_optimizer`'s optimiser.

    Args:
      model: trained in place.
      phase: see `enter`.
    """

    def __init__(self, model: Dreamer, phase: Phase = "joint"):
        super().__init__()
        self.model = model
        self.enter(phase)

    def enter(self, phase: Phase) -> None:
        """Chooses what is trained from now on.

        joint: everything in one step, as when playing online. world_model: it alone. On the frozen world model, behaviour: actor
        and critic in imagination, as the offline recipe does; cloning: the actor alone, on the recorded actions.
        """
        self.phase: Phase = phase
        behaviour = self.model.behaviour
        self.model.world_model.requires_grad_(phase in ("joint", "world_model"))
        behaviour.actor.requires_grad_(phase != "world_model")
        behaviour.critic.requires_grad_(phase in ("joint", "behaviour"))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and detached metrics. One backward pass serves all parts: gradients are stopped between them."""
        world_model, behaviour = self.model.world_model, self.model.behaviour
        if self.phase in ("behaviour", "cloning"):
            with torch.no_grad():
                states, valid = world_model.infer(batch)
            if self.phase == "cloning":
                loss = behaviour.cloning_loss(world_model, states, valid, batch)
                return loss, {"loss": loss.detach()}
            learned = behaviour.loss(world_model, states, valid, batch)
            return learned.loss, learned.metrics | {"loss": learned.loss.detach()}
        observed = world_model.loss(batch)
        loss, metrics = observed.loss, observed.metrics
        if self.phase == "joint":
            learned = behaviour.loss(world_model, observed.states, observed.valid, batch)
            loss, metrics = loss + learned.loss, metrics | learned.metrics
        return loss, metrics | {"loss": loss.detach()}
