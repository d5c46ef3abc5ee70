"""Steps in micro-batches: the rows, gradients and loss scales of the whole batch; a run in one or several processes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.nn.normalize import RunningRMS
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.stages.tokenizer import train_tokenizer
from reverie.pipelines.training.accumulation import mean_metrics, micro_batches, one_step
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.checkpoints import latest_checkpoint
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from tests.batches import frame_batch, latent_batch
from tests.pipelines.small_stages import Corpus

CONFIG = TokenizerConfig(frame_size=(16, 16), patch_size=4, width=32, encoder_depth=4, decoder_depth=4)


def make() -> TokenizerObjective:
    """Draws nothing: no patch is hidden."""
    torch.manual_seed(0)
    config = TokenizerObjectiveConfig(lpips_weight=0.0, max_mask_probability=0.0)
    return TokenizerObjective(Tokenizer(CONFIG), config, None)


def learned(count: int, steps: int = 3) -> tuple[list[Tensor], TokenizerObjective, list[float]]:
    """The gradients of each step at the same weights, the objective, and the losses."""
    objective, gradients, losses = make(), [], []
    for step in range(steps):
        objective.zero_grad()
        seen = []
        with one_step(objective, count):
            for rows in micro_batches(frame_batch(4, 3, 16, 16, seed=step), count):
                loss, metrics = objective(rows)
                (loss / count).backward()
                seen.append(metrics)
        losses.append(float(mean_metrics(seen)["loss/mse"]))
        grads = [p.grad.flatten() for p in objective.parameters() if p.grad is not None]
        gradients.append(torch.cat(grads))
    return gradients, objective, losses


@pytest.mark.parametrize("count", [2, 4])
def test_gradients_point_where_those_of_the_whole_batch_do(count: int) -> None:
    """At the same weights. Their length differs by the loss scale alone, which is that of the steps before."""
    (whole, one, losses), (parts, other, means) = learned(1), learned(count)
    torch.testing.assert_close(losses, means, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(one.mse_rms.mean_square, other.mse_rms.mean_square, rtol=1e-5, atol=0.0)
    assert one.mse_rms.count == other.mse_rms.count == 3
    for step, (a, b) in enumerate(zip(whole, parts, strict=True)):
        if step == 0:  # scaled by its own loss each
            assert torch.cosine_similarity(a, b, dim=0) > 0.99
        else:
            torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=1e-3, atol=1e-6)


def test_a_step_of_several_calls_is_one_value() -> None:
    one, several = RunningRMS(decay=0.9), RunningRMS(decay=0.9)
    for values in ([1.0, 3.0], [2.0, 6.0]):
        one(torch.tensor(sum(values) / 2))
        before = several.value() if several.count > 0 else None
        with one_step(several, 2):
            scaled = [several(torch.tensor(value)) for value in values]
        expected = [v / before for v in values] if before is not None else [1.0, 1.0]
        assert [float(x) for x in scaled] == pytest.approx([float(x) for x in expected])
    torch.testing.assert_close(one.value(), several.value())


def test_every_micro_batch_has_the_mixture_of_the_whole() -> None:
    batch = latent_batch(8)
    parts = micro_batches(batch, 4)
    assert [part.relevant.tolist() for part in parts] == [[False, True]] * 4
    assert sorted(key for part in parts for key in part.key) == sorted(batch.key)
    assert torch.equal(torch.cat([p.latents for p in parts]).sort(0)[0], batch.latents.sort(0)[0])
    assert micro_batches(batch, 1) == [batch]


@pytest.mark.slow
def test_a_stage_trains_in_micro_batches(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.config("tokenizer", tmp_path / "run")
    config = replace(config, batches=replace(config.batches, accumulate=2))
    train_tokenizer(config)
    found = latest_checkpoint(config.out / "checkpoints")
    assert found is not None and int(found.name) == config.training.steps


def test_what_cannot_be_cut_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate must be at least 1"):
        BatchesConfig(accumulate=0)
    config = corpus.config("tokenizer", tmp_path / "run")
    config = replace(config, batches=replace(config.batches, accumulate=3))
    with pytest.raises(UserError, match="--batches.accumulate 3: 2 windows of a process cannot be cut"):
        train_tokenizer(config)
    config = corpus.config("v3", tmp_path / "v3")
    with pytest.raises(UserError, match="--batches.accumulate 2: this stage cannot"):
        baseline(replace(config, batches=replace(config.batches, accumulate=2)))
