"""LPIPS (Zhang et al. 2018) from the `lpips` package with converted pretrained weights, frozen."""

import warnings
from functools import cache
from pathlib import Path
from typing import Literal

import lpips
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from reverie.data.errors import UserError
from reverie.nn.precision import in_float32

MIN_SIDE = 64
"""Smaller frames are enlarged by whole pixels until they reach this: the last layers of the backbones need some extent."""


class Backbone(nn.Module):
    """The convolutions of LPIPS, channels last in memory and, if `half`, in bfloat16; features are float32 in any case.

    What is compared, squared and summed are features over their length: differences of 1e-3 that bfloat16 would not hold.
    """

    def __init__(self, net: nn.Module, half: bool):
        super().__init__()
        self.dtype = torch.bfloat16 if half else torch.float32
        self.net = net.to(self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the features of five layers, (N, C, H', W')."""
        x = x.to(dtype=self.dtype, memory_format=torch.channels_last)
        return [features.float() for features in self.net(x)]


class PerceptualDistance(nn.Module):
    """Frozen LPIPS. `forward(a, b)`: (N, 3, H, W) in [-1, 1] -> (N,) distances. No parameters, no saved state.

    Args:
      model: of the package `lpips`.
      half: convolutions in bfloat16, see `TokenizerObjectiveConfig.lpips_bfloat16`.
    """

    def __init__(self, model: nn.Module, *, half: bool = False):
        super().__init__()
        model = model.eval().requires_grad_(False)
        assert isinstance(model.net, nn.Module)
        model.net = Backbone(model.net, half)
        # Held outside the module tree: neither parameters to train nor weights to save.
        self._model = [model]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS between image pairs."""
        scale = max(1, -(-MIN_SIDE // min(a.shape[-2:])))
        if scale > 1:
            a, b = (F.interpolate(x, scale_factor=scale, mode="nearest") for x in (a, b))
        model = self._model[0].to(a.device)
        with in_float32(a.device):
            return model(a.float(), b.float()).flatten()


def load_lpips(
    net: Literal["alex", "vgg"], weights: Path | None, *, half: bool = False
) -> PerceptualDistance:
    """LPIPS with backbone `net` ("alex" or "vgg") from a safetensors file; None looks in the cache. `half` as in the class.

    Raises `UserError` with the command to run when the weights are missing.
    """
    from reverie.tokenizer.weights import find_weights

    weights = weights or find_weights(net)
    model = _network(net)
    missing, unexpected = model.net.load_state_dict(load_file(weights), strict=False)
    if missing or unexpected:
        raise UserError(
            f"{weights}: is not a converted {net} backbone of LPIPS; run `reverie fetch-weights --net {net}`."
        )
    return PerceptualDistance(model, half=half)


@cache
def untrained_lpips(net: Literal["alex", "vgg"]) -> PerceptualDistance:
    """LPIPS of the same sizes with weights that mean nothing, to count its memory and operations; needs no file."""
    with torch.device("meta"):  # drawing weights would take seconds
        model = _network(net)
    return PerceptualDistance(model.to_empty(device="cpu"))


def _network(net: str) -> lpips.LPIPS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's deprecated `pretrained` argument, used inside lpips
        return lpips.LPIPS(net=net, pretrained=True, pnet_rand=True, verbose=False)
