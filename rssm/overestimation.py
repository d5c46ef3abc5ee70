"""How far the critic's values lie above what recordings brought: the failure of offline reinforcement learning to watch."""

import torch
from torch import Tensor

from reverie.data.batch import Batch
from reverie.rssm.losses import masked_mean
from reverie.rssm.model import Dreamer
from reverie.rssm.recorded import recorded_returns


@torch.no_grad()
def overestimation(model: Dreamer, batch: Batch) -> dict[str, Tensor]:
    """Means over the steps of (held-out) recordings whose next reward is known.

    value/predicted: the critic's value of the rewards to come. value/recorded: the recorded rewards, discounted, and the critic's
    value where the window or the recording ends. overestimation: the difference. All in units of `reward_transform`.
    """
    world_model, discount = model.world_model, model.config.world_model.discount
    states, valid = world_model.infer(batch)
    value = model.behaviour.value(world_model.feature(states))
    reward = world_model.recorded_reward(batch)
    if world_model.config.generation != "v3":
        # Values of V1 and V2 include the state's own reward: V[t] - r[t] = gamma r[t+1] + gamma (V[t+1] - r[t+1]).
        value = value - reward
        reward = discount * reward
    returns, known = recorded_returns(batch, reward, value, discount, 1.0)
    counts = known & valid[:, :-1]
    predicted, recorded = masked_mean(value[:, :-1], counts), masked_mean(returns, counts)
    return {
        "value/predicted": predicted,
        "value/recorded": recorded,
        "overestimation": predicted - recorded,
    }
