"""FVD end to end on small models, with a feature network of the real one's form in the real one's place."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from reverie.data.errors import UserError
from reverie.dynamics.frame import Step
from reverie.evaluation import fvd as fvd_module
from reverie.evaluation.fvd import MIN_CHUNKS, act_as_recorded, score
from reverie.evaluation.i3d import find_i3d, load_i3d
from reverie.evaluation.windows import Actions
from reverie.pipelines.scoring import fvd as stage
from reverie.pipelines.scoring.fvd import FvdConfig, fvd

from .conftest import Corpus

CHUNK = 10


class Network(torch.nn.Module):
    """Called as the real one: the videos' mean colours and their change, spread over 400 features."""

    def __init__(self, features: int = 400) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out = torch.nn.Linear(24, features)

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale and resize and return_features
        assert x.dtype == torch.float32 and x.shape[1] == 3
        x = torch.nn.functional.adaptive_avg_pool3d(x * 2 / 255 - 1, (2, 2, 2))
        return self.out(x.flatten(1))


def save_network(path: Path, features: int = 400) -> str:
    torch.jit.script(Network(features)).save(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("i3d") / "network.pt"
    return path, save_network(path)


@pytest.fixture
def settings(corpus: Corpus, network: tuple[Path, str], tmp_path: Path, monkeypatch) -> FvdConfig:  # type: ignore[no-untyped-def]
    for module in (stage, fvd_module):
        monkeypatch.setattr(module, "MIN_CHUNKS", 4)  # the corpus is small
    return FvdConfig(
        data=corpus.data,
        tokenizer=corpus.tokenizer,
        dynamics=corpus.dynamics,
        out=tmp_path / "fvd",
        i3d=network[0],
        i3d_sha256=network[1],
        videos=7,
        frames=25,
        chunk=CHUNK,
        batch_size=3,
        sampling_steps=1,
        device="cpu",
    )


@pytest.mark.parametrize("acting", ["recorded", "policy"])
def test_the_distance_is_that_of_the_features(
    settings: FvdConfig, corpus: Corpus, acting: str, capsys
) -> None:  # type: ignore[no-untyped-def]
    config = replace(settings, policy=corpus.cloned if acting == "policy" else None)
    found = fvd(config)
    files = sorted((config.out / "features").iterdir())
    generated = np.concatenate([np.load(f) for f in files if f.name.startswith("generated")])
    real = np.concatenate([np.load(f) for f in files if f.name.startswith("real")])
    assert generated.shape == (7, 2, 400) and real.shape == (14, 400)
    flat = generated.reshape(-1, 400).astype(np.float64)
    a, b = np.cov(flat, rowvar=False), np.cov(real.astype(np.float64), rowvar=False)
    root = sqrtm(a @ b + 1e-14 * np.eye(400)).real  # both are singular here: few chunks
    expected = np.square(flat.mean(0) - real.mean(0)).sum() + np.trace(a + b) - 2 * np.trace(root)
    assert found.value == pytest.approx(expected, rel=1e-3)
    report = json.loads((config.out / "report.json").read_text())
    assert report["value"] == found.value and (report["generated"], report["real"]) == (14, 14)
    assert "14 chunks of 10 frames from 7 generated videos against 14 held-out" in capsys.readouterr().out


def test_the_same_command_continues_and_other_models_are_refused(settings: FvdConfig) -> None:
    first = fvd(settings)
    folder = settings.out / "features"
    kept, lost = folder / "generated-000000-3.npy", folder / "generated-000003-3.npy"
    content, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert fvd(settings).value == first.value
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="made differently"):
        fvd(replace(settings, sampling_steps=2))


def test_too_few_chunks_are_refused_before_anything_is_made(
    settings: FvdConfig, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(stage, "MIN_CHUNKS", MIN_CHUNKS)
    with pytest.raises(UserError, match="14 chunks of 10, but the covariance of 400 features needs 401"):
        replace(settings)
    with pytest.raises(UserError, match="held-out chunks of 10 frames are used, .* prepare more data"):
        fvd(replace(settings, videos=201))
    assert not settings.out.exists()


def test_recorded_actions_are_those_of_the_recordings_and_the_first_is_unknown() -> None:
    values = torch.arange(12).reshape(2, 6)
    actor = act_as_recorded(Actions({"move": values}, torch.ones(2, 6, dtype=torch.bool)))
    frames = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    taken: list[Step] = [actor(None), *(actor(frames) for _ in range(5))]
    assert torch.equal(torch.cat([step.actions["move"] for step in taken], 1), values)
    assert torch.cat([step.action_mask for step in taken], 1).tolist() == [[False] + [True] * 5] * 2


def test_halves_say_how_much_the_number_of_chunks_matters() -> None:
    rng = np.random.default_rng(0)
    generated = rng.normal(size=(120, 8, 400)).astype(np.float32)
    real = rng.normal(size=(960, 400)).astype(np.float32)
    found = score(generated, real, seed=0)
    assert found.half is not None and found.floor is not None
    assert found.half > found.value > 0, (
        "the same distribution: all of it is bias, and it falls with the count"
    )
    assert found.floor == pytest.approx(found.half, rel=0.1)
    few = score(generated[:60], real[:480], seed=0)
    assert few.half is None and few.floor is None


def test_without_the_network_one_sentence_says_where_it_belongs(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"i3d_torchscript.pt: the network behind FVD is missing; .* --i3d"):
        find_i3d(None)


def test_only_known_programs_run(network: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"its sha256 is {network[1]}, not bec6519f66ea"):
        find_i3d(network[0])
    assert find_i3d(network[0], network[1]) == network[0]
    shutil.copy(__file__, tmp_path / "i3d.pt")
    with pytest.raises(UserError, match="is no TorchScript file"):
        load_i3d(tmp_path / "i3d.pt", torch.device("cpu"))


def test_another_network_than_i3d_is_refused(tmp_path: Path) -> None:
    save_network(tmp_path / "other.pt", features=512)
    features = load_i3d(tmp_path / "other.pt", torch.device("cpu"))
    with pytest.raises(UserError, match=r"shape \(2, 512\) for 2 videos, not \(2, 400\)"):
        features(torch.zeros(2, 10, 8, 8, 3, dtype=torch.uint8))


@pytest.mark.slow
def test_the_real_network_tells_motion_from_stillness() -> None:
    try:
        path = find_i3d(None)
    except UserError as error:
        pytest.skip(str(error))
    features = load_i3d(path, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    still = torch.randint(256, (1, 1, 64, 64, 3), dtype=torch.uint8, generator=generator).expand(
        -1, 16, -1, -1, -1
    )
    found = features(torch.cat([still, still, still.roll(1, 0).flip(1) // 2]))
    assert (
        found.shape == (3, 400) and torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])
    )
