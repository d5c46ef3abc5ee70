"""The RSSM world model: encoder, core, decoder, reward and continue heads, and its loss on a `Batch`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.data.actions import ActionSpace
from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.nn.precision import at_least_float32, in_float32
from reverie.rssm.actions import code_size, encode_actions
from reverie.rssm.config import WorldModelConfig
from reverie.rssm.cores import CORES, Core
from reverie.rssm.frames import Padded, Resized
from reverie.rssm.heads import ContinueHead, scalar_head
from reverie.rssm.images import PoolingEncoder, StridedDecoder, StridedEncoder, UpsamplingDecoder
from reverie.rssm.losses import balanced_kl, image_loss, masked_mean
from reverie.rssm.state import State, stack


@dataclass(frozen=True)
class Observed:
    """What the world model makes of a batch.

    loss: scalar, the weighted sum, with gradient. metrics: detached scalars, in nats where they are likelihoods.
    states (B, T, ...) posterior states, with gradient. valid (B, T) bool, where the losses hold: not in burn-in.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    states: State
    valid: Tensor


class WorldModel(nn.Module):
    """World model of one generation.

    Args:
      config: sizes and loss.
      frame_shape: (H, W, C) of the data. v1 and v2 work on frames resized to 64 x 64, v3 on frames padded to multiples of 16.
      action_space: of the data; every mixture of kinds.

    Raises:
      UserError: the data have no actions.
    """

    def __init__(
        self, config: WorldModelConfig, frame_shape: tuple[int, int, int], action_space: ActionSpace
    ):
        super().__init__()
        if not action_space.components:
            raise UserError("data: the baselines need recordings with actions, and these shards have none.")
        self.config, self.frame_shape, self.action_space = config, frame_shape, action_space
        channels, generation = frame_shape[2], config.generation
        self.fit = (Padded if generation == "v3" else Resized)(frame_shape[:2])
        self.encoder = _encoder(config, channels, self.fit.size)
        self.core = CORES[generation](config, code_size(action_space), self.encoder.size)
        self.decoder = _decoder(config, self.core, channels, self.fit.size)
        feature, units, norm = self.core.feature_size, config.units, config.layer_norm
        self.reward_head = scalar_head(generation, feature, units, config.reward_layers, norm)
        self.continue_head = (
            ContinueHead(generation, feature, units, config.continue_layers, norm)
            if config.continue_scale
            else None
        )

    def initial(self, batch_size: int) -> State:
        """The state before anything is seen, (B, ...)."""
        return self.core.initial(batch_size)

    def observe(
        self,
        state: State,
        actions: Mapping[str, Tensor],
        action_mask: Tensor,
        frames: Tensor,
        is_first: Tensor,
    ) -> tuple[State, Tensor]:
        """Infers states along recorded video.

        Args:
          state: (B, ...) before the first frame; `initial` or what an earlier call ended with.
          actions: component -> (B, T, ...), the action that led to each frame.
          action_mask: (B, T) bool; unknown actions enter as zeros.
          frames: (B, T, H, W, C) uint8.
          is_first: (B, T) bool; state and action are forgotten before these frames.

        Returns:
          Posterior states (B, T, ...) and the parameters (B, T, P) of their distribution.
        """
        return self._observe(state, self._codes(actions, action_mask), self._enter(frames), is_first)

    def imagine(self, state: State, actions: Mapping[str, Tensor]) -> State:
        """Predicts without frames: states (B, ...) and actions component -> (B, H, ...) to the H next states (B, H, ...)."""
        codes = encode_actions(self.action_space, actions)
        linears, states = self.core.linears(), []
        for t in range(codes.shape[1]):
            state = self.core.step(linears, state, codes[:, t])
            states.append(state)
        return stack(states)

    def feature(self, state: State) -> Tensor:
        """What the heads see, (..., F)."""
        return self.core.feature(state)

    def decode(self, state: State) -> Tensor:
        """Mean frames (..., C, H, W) float32 at the data's size; may leave [0, 1] a little in v1 and v2."""
        leading = state.deter.shape[:-1]
        flat = state.map(lambda x: x.flatten(0, -2))
        return self.fit.leave(self._images(self.feature(flat), flat)).unflatten(0, leading)

    def reward(self, feature: Tensor) -> Tensor:
        """Expected reward (...) on arriving at the state, in the transformed units of `reward_transform`."""
        return self.reward_head.mean(self.reward_head(feature))

    def continues(self, feature: Tensor) -> Tensor:
        """gamma times the probability (...) that the episode goes on after the state; gamma without a continue head."""
        if self.continue_head is None:
            return torch.full_like(feature[..., 0], self.config.discount)
        return self.continue_head(feature).sigmoid()

    def recorded_reward(self, batch: Batch) -> Tensor:
        """(B, T) the data's rewards in the units that the reward head learns; 0 where unknown."""
        reward = torch.where(batch.reward_mask, batch.reward, 0.0)
        return reward.tanh() if self.config.reward_transform == "tanh" else reward

    def infer(self, batch: Batch) -> tuple[State, Tensor]:
        """Posterior states (B, T, ...) along a batch, and where they can be relied on, (B, T) bool: not in burn-in."""
        assert batch.frames is not None
        first = starts(batch)
        initial = self.initial(len(first))
        states, _ = self.observe(initial, batch.actions, batch.action_mask, batch.frames, first)
        return states, warmed_up(batch, self.config.burn_in)

    def loss(self, batch: Batch) -> Observed:
        """The generation's loss: image, reward and continue likelihoods and the KL between posterior and prior.

        Unknown actions and rewards contribute no gradient to the layers that read or predict them. Means are over the
        steps that count.
        """
        assert batch.frames is not None
        first = starts(batch)
        valid = warmed_up(batch, self.config.burn_in)
        images = self._enter(batch.frames)
        codes = self._codes(batch.actions, batch.action_mask)
        states, posterior = self._observe(self.initial(len(first)), codes, images, first)
        feature = self.feature(states)
        known = valid & batch.reward_mask
        terms = {
            "image": (self.config.image_scale, self._image_loss(states, feature, images, valid)),
            "reward": (self.config.reward_scale, self._reward_loss(feature, batch, known)),
        }
        if self.continue_head is not None:
            terms["continue"] = (self.config.continue_scale, self._continue_loss(feature, batch, known))
        kl, kl_loss = balanced_kl(
            self.config, self.core.latent, posterior, self.core.prior(states.deter), valid
        )
        loss = torch.stack([scale * value for scale, value in terms.values()]).sum() + kl_loss
        metrics = {f"loss/{name}": value.detach() for name, (_, value) in terms.items()}
        metrics |= {"loss/model": loss.detach(), "loss/kl": kl_loss.detach(), "kl": kl.detach()}
        return Observed(loss, metrics, states, valid)

    def _enter(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, C) uint8 -> (B, T, C, h, w) float in [0, 1]."""
        return self.fit.enter(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _codes(self, actions: Mapping[str, Tensor], action_mask: Tensor) -> Tensor:
        codes = encode_actions(self.action_space, actions)
        return torch.where(action_mask[..., None], codes, 0.0)

    def _observe(self, state: State, codes: Tensor, images: Tensor, is_first: Tensor) -> tuple[State, Tensor]:
        embed = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.core.observe(state, codes, embed, (~is_first).to(embed.dtype))

    def _images(self, feature: Tensor, state: State) -> Tensor:
        """Mean images of features (N, F) and states (N, ...), float32 under autocast too: pixels, see `nn.precision`."""
        with in_float32(feature.device):
            return self.decoder(at_least_float32(feature), state.map(at_least_float32))

    def _image_loss(self, states: State, feature: Tensor, images: Tensor, valid: Tensor) -> Tensor:
        decoded = self.fit.visible(self._images(feature.flatten(0, 1), states.flatten()))
        target = self.fit.visible(images.flatten(0, 1))
        return masked_mean(image_loss(self.config.generation, decoded, target), valid.flatten())

    def _reward_loss(self, feature: Tensor, batch: Batch, known: Tensor) -> Tensor:
        out = self.reward_head(feature)
        return masked_mean(self.reward_head.loss(out, self.recorded_reward(batch)), known)

    def _continue_loss(self, feature: Tensor, batch: Batch, known: Tensor) -> Tensor:
        """The target holds gamma; ends are known where rewards are."""
        assert self.continue_head is not None
        target = (~batch.is_terminal).float() * self.config.discount
        return masked_mean(self.continue_head.loss(self.continue_head(feature), target), known)


def starts(batch: Batch) -> Tensor:
    """(B, T) bool: the past must be forgotten here; an episode or another piece of video starts."""
    changed = torch.ones_like(batch.is_first)
    changed[:, 1:] = batch.segment[:, 1:] != batch.segment[:, :-1]
    return batch.is_first | changed


def warmed_up(batch: Batch, burn_in: int) -> Tensor:
    """(B, T) bool: False in the first `burn_in` steps of pieces that start in the middle of an episode."""
    cold = starts(batch) & ~batch.is_first
    index = torch.arange(cold.shape[1], device=cold.device).expand_as(cold)
    never = torch.full_like(index, -burn_in)
    last_cold = torch.where(cold, index, never).cummax(1).values
    last_first = torch.where(batch.is_first, index, never).cummax(1).values
    return (index - last_cold >= burn_in) | (last_first >= last_cold)


def _encoder(
    config: WorldModelConfig, channels: int, size: tuple[int, int]
) -> StridedEncoder | PoolingEncoder:
    match config.generation:
        case "v1":
            return StridedEncoder(channels, config.depth, nn.ReLU)
        case "v2":
            return StridedEncoder(channels, config.depth, nn.ELU, config.layer_norm)
        case "v3":
            return PoolingEncoder(channels, config.depth, size)


def _decoder(
    config: WorldModelConfig, core: Core, channels: int, size: tuple[int, int]
) -> StridedDecoder | UpsamplingDecoder:
    match config.generation:
        case "v1":
            return StridedDecoder(core.feature_size, channels, config.depth, nn.ReLU)
        case "v2":
            return StridedDecoder(core.feature_size, channels, config.depth, nn.ELU, config.layer_norm)
        case "v3":
            return UpsamplingDecoder(core.deter, core.latent.size, config.units, channels, config.depth, size)
