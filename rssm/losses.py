"""Terms of the three world-model losses as functions of tensors."""

import torch
from torch import Tensor

from reverie.nn.normalize import mean_of_all_rows
from reverie.rssm.config import Generation, WorldModelConfig
from reverie.rssm.heads import normal_nll
from reverie.rssm.latents import Latent


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where `mask` is True, over all processes; 0 if nowhere. Masked values get no gradient; they must be finite."""
    return mean_of_all_rows(torch.where(mask, x, 0.0).sum(), mask.sum())


def image_loss(generation: Generation, decoded: Tensor, target: Tensor) -> Tensor:
    """(N, C, H, W) each -> (N,): the Normal's negative log-likelihood (V1, V2) or the squared error (V3), summed over pixels."""
    if generation == "v3":
        return (decoded.float() - target).square().sum((1, 2, 3))
    return normal_nll(decoded.float(), target).sum((1, 2, 3))


def balanced_kl(
    config: WorldModelConfig, latent: Latent, posterior: Tensor, prior: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """The KL between posterior and prior, parameters (B, T, P) each.

    Returns:
      The plain mean KL in nats (detached from nothing) and the generation's loss:
      v1  s max(mean KL(q || p), free);
      v2  s_prior max(mean KL(sg q || p), free) + s_posterior max(mean KL(q || sg p), free);
      v3  the same with max before the mean: every step has its own free nats.
    """
    free = config.free_nats
    if config.generation == "v1":
        kl = masked_mean(latent.kl(posterior, prior), valid)
        return kl, config.prior_scale * kl.clamp_min(free)
    for_prior = latent.kl(posterior.detach(), prior)
    for_posterior = latent.kl(posterior, prior.detach())
    kl = masked_mean(for_prior, valid)
    if config.generation == "v2":
        trained = kl.clamp_min(free), masked_mean(for_posterior, valid).clamp_min(free)
    else:
        trained = (
            masked_mean(for_prior.clamp_min(free), valid),
            masked_mean(for_posterior.clamp_min(free), valid),
        )
    return kl, config.prior_scale * trained[0] + config.posterior_scale * trained[1]
