"""Masked autoencoding objective: MSE + 0.2 LPIPS, each divided by its running RMS (Dreamer 4, Eq. 5)."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from reverie.data.batch import Batch
from reverie.nn.frames import to_float
from reverie.nn.normalize import RunningRMS
from reverie.tokenizer.model import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerObjectiveConfig:
    """What the tokenizer minimises."""

    max_mask_probability: float = 0.9
    """Per frame p ~ U(0, this) of the patches are masked."""
    lpips_weight: float = 0.2
    """Weight of LPIPS beside MSE; 0 trains on MSE alone and needs no weights file."""
    lpips_net: Literal["alex", "vgg"] = "alex"
    """Backbone of LPIPS: alex (fast) or vgg."""
    lpips_fraction: float = 1.0
    """Share of frames on which LPIPS is computed (it dominates the cost at 360x640)."""
    lpips_bfloat16: bool = False
    """Convolutions of LPIPS in bfloat16. On Minecraft frames that changes distances by 0.3 to 1.1 % and their gradients by 12 to
    16 %; whether tokenizers learn as well is not measured."""
    rms_decay: float = 0.99
    """Decay of the running RMS of each loss term."""

    def __post_init__(self) -> None:
        for name in ("max_mask_probability", "lpips_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"objective.{name} must lie in [0, 1], got {getattr(self, name)}")


class TokenizerObjective(nn.Module):
    """Tokenizer with its loss; the training loop calls `forward` on batches of frames."""

    def __init__(self, tokenizer: Tokenizer, config: TokenizerObjectiveConfig, lpips: nn.Module | None):
        """`lpips` maps two (N, 3, H, W) images in [-1, 1] to distances; None only if `lpips_weight` is 0."""
        super().__init__()
        if config.lpips_weight > 0 and lpips is None:
            raise ValueError(
                f"objective.lpips_weight is {config.lpips_weight} but no LPIPS network was given"
            )
        self.model, self.config = tokenizer, config
        self.lpips = lpips
        self.mse_rms = RunningRMS(config.rms_decay)
        self.lpips_rms = RunningRMS(config.rms_decay)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on `batch.frames`, each part over its running RMS, and what it is made of.

        Metrics: loss/mse (mean squared error of pixels in [0, 1]), loss/lpips, psnr (dB), and loss, their sum as it is:
        the normalised one rises while reconstructions improve, whenever the RMS falls faster.
        """
        assert batch.frames is not None
        mask_probability = None
        if self.training:
            mask_probability = self.config.max_mask_probability * torch.rand(
                batch.frames.shape[:2], device=batch.frames.device
            )
        latents = self.model.encode(batch.frames, batch.segment, mask_probability=mask_probability)
        predicted, target = self.model.decode(latents, batch.segment), to_float(batch.frames)
        mse = (predicted - target).square().mean()
        loss, plain = self.mse_rms(mse), mse.detach()
        metrics = {"loss/mse": mse.detach(), "psnr": -10 * mse.detach().clamp_min(1e-10).log10()}
        if self.lpips is not None and self.config.lpips_weight > 0:
            distance = self._perceptual_distance(predicted, target)
            loss = loss + self.config.lpips_weight * self.lpips_rms(distance)
            plain = plain + self.config.lpips_weight * distance.detach()
            metrics["loss/lpips"] = distance.detach()
        return loss, metrics | {"loss": plain}

    def _perceptual_distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        assert self.lpips is not None
        pair = [rearrange(x, "b t c h w -> (b t) c h w") * 2 - 1 for x in (predicted, target)]
        if self.config.lpips_fraction < 1:
            count = max(1, round(len(pair[0]) * self.config.lpips_fraction))
            chosen = torch.randperm(len(pair[0]), device=predicted.device)[:count]
            pair = [x[chosen] for x in pair]
        return self.lpips(*pair).mean()
