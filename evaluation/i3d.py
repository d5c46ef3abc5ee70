"""Features of short videos for FVD: the logits of I3D on Kinetics-400 (Unterthiner et al. 2018).

The network is the TorchScript file that StyleGAN-V made of the one on TensorFlow Hub, and that the field uses since. It cannot be
shipped and no Python package carries it, so people bring it. TorchScript is a program, so only the file of the known checksum is
run, or another one that its owner vouches for by its checksum.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder, file_sha256

FILE = "i3d_torchscript.pt"
SHA256 = "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
FEATURES = 400
MIN_FRAMES = 10
"""Shorter videos leave too little for the network's last pooling, over two time steps of eight frames each."""


class VideoFeatures:
    """I3D's logits. Calling: videos (N, T, H, W, 3) uint8 of T >= 10 frames and any size -> (N, 400) float32 on the CPU.

    Values are scaled to [-1, 1] and frames resized to 224 x 224 by the network itself, as in StyleGAN-V.
    """

    def __init__(self, network: torch.jit.ScriptModule, device: torch.device):
        self._network, self._device = network.eval(), device

    @torch.no_grad()
    def __call__(self, videos: Tensor) -> Tensor:
        """See the class."""
        x = videos.to(self._device).movedim(-1, 1).float()
        features: Tensor = self._network(x, rescale=True, resize=True, return_features=True)
        if features.shape != (len(videos), FEATURES):
            raise UserError(
                f"--i3d: the network returns features of shape {tuple(features.shape)} for {len(videos)} videos, not "
                f"{(len(videos), FEATURES)}; give {FILE} of StyleGAN-V."
            )
        return features.float().cpu()


def find_i3d(path: Path | None, sha256: str = SHA256) -> Path:
    """The file at `path`, or in the cache folder. Raises `UserError` when it is missing or has another checksum."""
    place = path or cache_folder() / FILE
    if not place.is_file():
        raise UserError(
            f"{place}: the network behind FVD is missing; fetch {FILE} (51 MB, of StyleGAN-V, "
            f"github.com/universome/fvd-comparison tells where) and give it as --i3d, or put it there."
        )
    found = file_sha256(place)
    if found != sha256:
        raise UserError(
            f"{place}: its sha256 is {found}, not {sha256[:12]}...; give the unchanged {FILE}, or, if you trust this "
            f"file to run as a program, --i3d_sha256 {found}."
        )
    return place


def load_i3d(path: Path, device: torch.device) -> VideoFeatures:
    """The network in a file that `find_i3d` has checked. Raises `UserError` when it is no TorchScript."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: is no TorchScript file ({reason}); give {FILE} of StyleGAN-V.") from None
    return VideoFeatures(network, device)
