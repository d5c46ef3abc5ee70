"""A whole Dreamer of any generation, and its objective for the training loop."""

from typing import Literal

import torch
from torch import Tensor, nn

from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.rssm.behaviour import Behaviour
from reverie.rssm.config import DreamerConfig
from reverie.rssm.world_model import WorldModel

Phase = Literal["joint", "world_model", "behaviour"]


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
      phase: joint trains everything, as when playing online; world_model and then behaviour train one on the frozen other,
        as the offline recipe does.
    """

    def __init__(self, model: Dreamer, phase: Phase = "joint"):
        super().__init__()
        self.model, self.phase = model, phase
        model.world_model.requires_grad_(phase != "behaviour")
        model.behaviour.requires_grad_(phase != "world_model")
        if model.behaviour.slow is not None:
            model.behaviour.slow.requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and detached metrics. One backward pass serves all parts: gradients are stopped between them."""
        world_model = self.model.world_model
        if self.phase == "behaviour":
            with torch.no_grad():
                states, valid = world_model.infer(batch)
            learned = self.model.behaviour.loss(world_model, states, valid, batch)
            return learned.loss, learned.metrics | {"loss": learned.loss.detach()}
        observed = world_model.loss(batch)
        loss, metrics = observed.loss, observed.metrics
        if self.phase == "joint":
            learned = self.model.behaviour.loss(world_model, observed.states, observed.valid, batch)
            loss, metrics = loss + learned.loss, metrics | learned.metrics
        return loss, metrics | {"loss": loss.detach()}
