"""An attention backend that cannot train on this machine is refused before anything is written; one that can, trains."""

from dataclasses import replace
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.metrics import read_metrics
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.model import TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig

MODEL = TokenizerConfig(width=16, num_heads=2, num_kv_heads=2, bottleneck_tokens=2, bottleneck_channels=4)


def stage(data: Path, out: Path, model: TokenizerConfig) -> TokenizerStage:
    return TokenizerStage(
        data=data,
        out=out,
        model=model,
        objective=TokenizerObjectiveConfig(lpips_weight=0.0),
        batches=BatchesConfig(batch_size=2, length=4),
        training=TrainingConfig(steps=1, evaluate_every=0, log_every=1),
        fabric=FabricConfig(accelerator="cpu"),
    )


def test_flex_is_refused_on_a_cpu_before_there_is_a_run(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model.backend flex .* no backward pass on a CPU"):
        train_tokenizer(stage(prepared, tmp_path / "run", replace(MODEL, backend="flex")))
    assert not (tmp_path / "run").exists()


def test_backends_learn_the_same_and_go_on_with_each_others_runs(prepared: Path, tmp_path: Path) -> None:
    """Without a soft cap, `math` and `sdpa` have the same loss; a run begun with the one goes on with the other."""
    losses = {}
    for backend in ("math", "sdpa"):
        model = replace(MODEL, backend=backend, softcap=None)
        train_tokenizer(stage(prepared, tmp_path / backend, model))
        losses[backend] = read_metrics(tmp_path / backend / "metrics.jsonl")[0]["train/loss"]
    assert losses["math"] == pytest.approx(losses["sdpa"], rel=1e-4)
    other = stage(prepared, tmp_path / "math", replace(MODEL, backend="sdpa", softcap=None))
    train_tokenizer(replace(other, training=replace(other.training, steps=2)))
    steps = [row["step"] for row in read_metrics(tmp_path / "math" / "metrics.jsonl") if "train/loss" in row]
    assert steps == [1, 2]
