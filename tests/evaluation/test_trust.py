"""Signals that need no truth: they change nothing, repeat, and their worth is Spearman's correlation."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from reverie.data.actions import ActionSpace, Categorical
from reverie.dynamics.doubt import doubt
from reverie.dynamics.frame import Step
from reverie.dynamics.generation import Continuation
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.evaluation.trust import EXPECTED, SIGNALS, Calibration, Signals, expected_error, measure, worths
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from tests.evaluation.test_rollouts import CONTEXT, HORIZON, WINDOWS, make_windows, moving

SPACE = ActionSpace({"move": Categorical(4)})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    config = TokenizerConfig(
        frame_size=(16, 24), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=4, bottleneck_channels=8
    )
    return Tokenizer(config).eval()


@pytest.fixture(scope="module")
def dynamics(tokenizer: Tokenizer) -> Dynamics:
    torch.manual_seed(1)
    config = DynamicsConfig(
        latent_shape=tokenizer.config.latent_shape, width=32, depth=4, num_heads=2, num_kv_heads=2
    )
    model = Dynamics(config, SPACE).eval()
    for parameter in model.parameters():  # an untrained model predicts nothing, whatever it is asked
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def frames_of(dynamics: Dynamics, asking: bool) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    shape = dynamics.config.latent_shape
    latents = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(2))
    led = Step({"move": torch.ones(2, 3, dtype=torch.int64)}, torch.ones(2, 3, dtype=torch.bool))
    generator = torch.Generator().manual_seed(3)
    continuation = Continuation(dynamics, latents, led, sampling_steps=2, generator=generator)
    assert doubt(continuation) == {}
    made, doubts = [], []
    for _ in range(4):
        made.append(continuation.next(led.at(slice(0, 1))))
        if asking:
            doubts.append(doubt(continuation))
    return torch.cat(made, 1), doubts


def test_asking_changes_nothing_and_repeats(dynamics: Dynamics) -> None:
    with_asking, doubts = frames_of(dynamics, asking=True)
    assert torch.equal(with_asking, frames_of(dynamics, asking=False)[0])
    again = frames_of(dynamics, asking=True)[1]
    for one, other in zip(doubts, again, strict=True):
        assert set(one) == {"refinement", "noises"}
        for name, values in one.items():
            assert values.shape == (2,) and (values > 0).all() and torch.equal(values, other[name])


def test_one_signal_alone_costs_the_other_nothing(dynamics: Dynamics) -> None:
    shape = dynamics.config.latent_shape
    led = Step({"move": torch.zeros(1, 1, dtype=torch.int64)}, torch.ones(1, 1, dtype=torch.bool))
    continuation = Continuation(dynamics, torch.randn(1, 1, *shape), led, sampling_steps=2)
    continuation.next(led)
    both = doubt(continuation)
    for name in both:
        alone = doubt(continuation, refinement=name == "refinement", noises=name == "noises")
        assert list(alone) == [name] and torch.equal(alone[name], both[name])


def test_every_window_and_frame_is_measured(tokenizer: Tokenizer, dynamics: Dynamics) -> None:
    windows = make_windows(moving())
    found = measure(tokenizer, dynamics, windows, context=CONTEXT, sampling_steps=2, batch_size=3)
    assert found.error.shape == (WINDOWS, HORIZON) and set(found.values) == set(SIGNALS)
    for values in found.values.values():
        assert values.shape == (WINDOWS, HORIZON) and np.isfinite(values).all() and (values >= 0).all()
    assert worths(found) == {}, "seven windows say nothing"


def made_up(m: int = 60, h: int = 8) -> Signals:
    """An error that two signals know together, and two that know nothing."""
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(len(SIGNALS), m, h))
    error = np.exp(logs[0] + logs[1] + 0.1 * rng.normal(size=(m, h)))
    return Signals(error * 1e-3, dict(zip(SIGNALS, np.exp(logs), strict=True)))


def test_worth_is_spearmans_correlation_and_the_combination_knows_more() -> None:
    signals = made_up()
    found = worths(signals)
    for name in SIGNALS:
        expected = spearmanr(signals.values[name].ravel(), signals.error.ravel()).statistic
        assert found[name].all.value == pytest.approx(expected)
        per_step = [spearmanr(signals.values[name][:, t], signals.error[:, t]).statistic for t in range(8)]
        assert found[name].within.value == pytest.approx(np.mean(per_step))
    assert found[SIGNALS[0]].all.low > 0.5 and found[SIGNALS[1]].all.low > 0.5
    assert found[SIGNALS[3]].all.low < 0 < found[SIGNALS[3]].all.high
    assert found[EXPECTED].all.value > 0.95 > found[SIGNALS[0]].all.high


def test_the_combination_is_of_windows_it_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    values = {name: np.exp(rng.normal(size=(12, 3))) for name in SIGNALS}
    signals = Signals(np.exp(rng.normal(size=(12, 3))), values)
    seen = Calibration.fit(values, signals.error).expected(values)
    fit = spearmanr(seen.ravel(), signals.error.ravel()).statistic
    unseen = spearmanr(expected_error(signals).ravel(), signals.error.ravel()).statistic
    assert unseen < fit - 0.1, "noise foretells nothing but what was fitted to it"
