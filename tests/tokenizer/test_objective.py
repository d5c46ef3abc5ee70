"""Tokenizer objective: its parts, masking only in training, and that it learns."""

import pytest
import torch

from reverie.nn.frames import to_float, to_uint8
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig
from reverie.tokenizer.perceptual import PerceptualDistance, load_lpips
from reverie.tokenizer.weights import find_weights
from tests.batches import frame_batch

CONFIG = TokenizerConfig(
    frame_size=(16, 16), width=32, bottleneck_tokens=4, bottleneck_channels=8, context_length=4
)


class L1(torch.nn.Module):
    """A real, simple image distance for tests of the wiring."""

    def forward(self, a, b):
        return (a - b).abs().mean((1, 2, 3))


def make(lpips_weight=0.2):
    torch.manual_seed(0)
    config = TokenizerObjectiveConfig(lpips_weight=lpips_weight)
    return TokenizerObjective(Tokenizer(CONFIG), config, L1() if lpips_weight else None)


def test_first_loss_is_the_sum_of_the_weights():
    """Each term divided by its own RMS is 1 at the first step: 1 + 0.2."""
    loss, metrics = make()(frame_batch(2, 3, 16, 16))
    assert loss.item() == pytest.approx(1.2, abs=1e-5)
    assert set(metrics) == {"loss", "loss/mse", "loss/lpips", "psnr"}
    plain = metrics["loss/mse"] + TokenizerObjectiveConfig().lpips_weight * metrics["loss/lpips"]
    torch.testing.assert_close(metrics["loss"], plain)  # what is logged falls when reconstructions improve
    assert loss.item() != pytest.approx(plain.item(), rel=0.1), "what is minimised is normalised"
    assert metrics["psnr"].item() == pytest.approx(-10 * metrics["loss/mse"].log10().item())


def test_evaluation_masks_nothing_and_is_deterministic():
    objective, batch = make(), frame_batch(2, 3, 16, 16)
    objective.eval()
    with torch.no_grad():
        assert torch.equal(objective(batch)[1]["loss/mse"], objective(batch)[1]["loss/mse"])
        objective.train()
        assert not torch.equal(objective(batch)[1]["loss/mse"], objective(batch)[1]["loss/mse"])


def test_it_learns_a_batch():
    objective, batch = make(lpips_weight=0), frame_batch(1, 2, 16, 16)
    batch.frames = torch.tensor([200, 30, 90], dtype=torch.uint8).expand(1, 2, 16, 16, 3)
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    first = objective(batch)[1]["loss/mse"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss, metrics = objective(batch)
        loss.backward()
        optimizer.step()
    assert metrics["loss/mse"].item() < first / 5


def test_missing_network_is_an_error():
    with pytest.raises(ValueError, match="lpips_weight"):
        TokenizerObjective(Tokenizer(CONFIG), TokenizerObjectiveConfig(), None)


def test_frame_conversion_round_trips():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1)
    assert torch.equal(to_uint8(to_float(x)), x)


@pytest.mark.slow
def test_lpips_has_real_weights_and_reaches_the_pixels():
    find_weights("alex")
    lpips = load_lpips("alex", None)
    assert isinstance(lpips, PerceptualDistance) and not list(lpips.parameters())
    a = torch.rand(2, 3, 40, 40, requires_grad=True)
    assert lpips(a, a).abs().max().item() == 0
    lpips(a, torch.rand(2, 3, 40, 40)).sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0
