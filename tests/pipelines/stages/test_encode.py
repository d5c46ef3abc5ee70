"""Latents of clips are those of one stream over the whole episode, whatever is interrupted or lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.stages import encode as stage
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.training.checkpoints import Card, load_tokenizer
from reverie.pipelines.training.snapshots import Snapshot, save_checkpoint
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.streaming import encode_long

SMALL = TokenizerConfig(
    frame_size=(24, 40), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=2, bottleneck_channels=8,
    encoder_depth=4, decoder_depth=2, time_every=2, context_length=9,
)  # fmt: skip
"""Two time layers that look back 8 frames each: 16 frames of the past, half a clip."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tokenizer")
    torch.manual_seed(0)
    model = Tokenizer(SMALL)
    with torch.no_grad():  # a fresh block passes its input on: let the past matter
        for weight in model.encoder.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    save_checkpoint(
        run / "checkpoints",
        Snapshot(step=1, card=Card(kind="tokenizer", model=to_plain(SMALL)), weights=model.state_dict()),
        keep=1,
    )
    return run


def config(data: Path, tokenizer: Path, out: Path, frames_per_pass: int = 100) -> EncodeConfig:
    return EncodeConfig(
        data=data, tokenizer=tokenizer, out=out, device="cpu", frames_per_pass=frames_per_pass, shard_mb=0.01
    )


def stored(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """(episode, first frame) -> latents."""
    index = ShardIndex.load(folder)
    reader = ShardReader(index)
    return {(s.episode, s.start): reader.latents(s, 0, s.n).astype(np.float32) for s in all_samples(index)}


@pytest.mark.parametrize("frames_per_pass", [1, 100])
def test_clips_are_encoded_as_the_uncut_episode(
    frames_per_pass: int, prepared: Path, tokenizer: Path, tmp_path: Path
) -> None:
    encode(config(prepared, tokenizer, tmp_path / "out", frames_per_pass))
    found, index = stored(tmp_path / "out"), ShardIndex.load(prepared)
    reader, model = ShardReader(index), load_tokenizer(tokenizer)
    clips = 0
    for split in index.splits:
        for episode in index.episodes(split):
            frames = np.concatenate([reader.frames(s, 0, s.n) for s in episode.samples])
            stream = encode_long(model, torch.from_numpy(frames)[None], 1)[0].numpy()
            mine = np.concatenate([found[episode.name, s.start] for s in episode.samples])
            np.testing.assert_allclose(mine, stream, atol=1e-3)
            forgetful = [
                encode_long(model, torch.from_numpy(reader.frames(s, 0, s.n))[None])[0].numpy()
                for s in episode.samples[1:]
            ]
            for sample, alone in zip(episode.samples[1:], forgetful, strict=True):
                clips += int(np.abs(alone[0] - found[episode.name, sample.start][0]).max() > 0.05)
    assert clips > 3, "the past matters to this tokenizer"


def test_an_interrupted_run_gives_the_same_bytes(
    prepared: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(config(prepared, tokenizer, tmp_path / "whole"))
    calls, real = [], stage._encode_group

    def stopped(*arguments: object) -> dict[str, str]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "_encode_group", stopped)
    with pytest.raises(KeyboardInterrupt):
        encode(config(prepared, tokenizer, tmp_path / "parts"))
    assert list((tmp_path / "parts").glob("*.tar")), "something was finished before"
    encode(config(prepared, tokenizer, tmp_path / "parts"))
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()


def test_a_damaged_clip_is_left_out_and_listed(
    prepared: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shutil.copytree(prepared, tmp_path / "shards")
    index = ShardIndex.load(shards)
    bad = next(e for e in index.episodes("train") if len(e.samples) > 2).samples[1]
    with (shards / bad.shard).open("r+b") as file:
        file.seek(bad.members["clip.mp4"][0])
        file.write(bytes(bad.members["clip.mp4"][1]))
    encode(config(shards, tokenizer, tmp_path / "out"))
    found = stored(tmp_path / "out")
    assert len(found) == len(all_samples(index)) - 1 and (bad.episode, bad.start) not in found
    skipped = ShardIndex.load(tmp_path / "out").content["skipped"]
    assert [entry["source"] for entry in skipped] == [bad.key] and str(tmp_path) not in skipped[0]["reason"]
    out = capsys.readouterr().out
    assert f"skipped 1 of {len(all_samples(index))} clips" in out and bad.key in out
