"""Training shows reconstructions and rollouts of held-out data beside its curves, and learns the same without them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.stages.dynamics import train_dynamics
from reverie.pipelines.training.metrics import read_metrics
from tests.pipelines.small_stages import Corpus
from tests.pipelines.training.test_boards import events


def test_reconstructions_of_the_tokenizer(corpus: Corpus) -> None:
    run, (height, width) = corpus.finished("tokenizer"), ShardIndex.load(corpus.shards).frame_size
    steps = [
        row["step"] for row in read_metrics(run / "metrics.jsonl") if any("heldout/" in name for name in row)
    ]
    shown = events(run / "tensorboard").Images("heldout/reconstruction")
    assert [x.step for x in shown] == steps and len(steps) > 1
    pictures = [np.asarray(Image.open(io.BytesIO(x.encoded_image_string)).convert("RGB")) for x in shown]
    assert pictures[0].shape[0] % (2 * height) == 0 and pictures[0].shape[1] % width == 0
    truth = [picture[:height] for picture in pictures]
    assert all(np.array_equal(x, truth[0]) for x in truth), "the same frames every time"
    assert not np.array_equal(pictures[0][height : 2 * height], pictures[-1][height : 2 * height])


def test_rollouts_of_the_world_model(corpus: Corpus, tmp_path: Path) -> None:
    plain = corpus.finished("dynamics")
    assert "heldout/rollout" not in events(plain / "tensorboard").Tags()["images"]
    config = replace(corpus.config("dynamics", tmp_path / "run"), tokenizer=corpus.finished("tokenizer"))
    train_dynamics(config)
    shown = events(tmp_path / "run" / "tensorboard").Images("heldout/rollout")
    film = Image.open(io.BytesIO(shown[-1].encoded_image_string))
    height, width = ShardIndex.load(corpus.shards).frame_size
    assert film.n_frames > 1 and film.size[0] == 2 * width and film.size[1] % height == 0
    losses = [
        [row["train/loss"] for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row]
        for run in (plain, tmp_path / "run")
    ]
    assert losses[0] == losses[1], "looking changes nothing"


def test_a_tokenizer_of_other_latents_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    stranger = corpus.finished("dynamics")
    config = replace(corpus.config("dynamics", tmp_path / "run"), tokenizer=stranger)
    with pytest.raises(UserError, match="did not make the latents"):
        train_dynamics(config)
    assert not (tmp_path / "run").exists()
