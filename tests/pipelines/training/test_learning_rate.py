"""The learning rate over a run: warm-up, each decay at hand-computed points, the end."""

import pytest

from reverie.pipelines.training.optimization import OptimizerConfig, learning_rate

STEPS = 110


def rate(step, decay):
    config = OptimizerConfig(lr=2.0, warmup_steps=10, decay=decay, final_lr_fraction=0.1)
    return learning_rate(step, STEPS, config)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_it_rises_linearly_to_the_peak(decay):
    assert [rate(step, decay) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])


@pytest.mark.parametrize(
    ("decay", "half", "nine_tenths"),
    [
        ("constant", 2.0, 2.0),
        ("linear", 0.2 + 1.8 * 0.5, 0.2 + 1.8 * 0.1),
        ("cosine", 0.2 + 1.8 * 0.5, 0.2 + 1.8 * 0.0244717),
    ],
)
def test_it_falls_as_the_decay_says(decay, half, nine_tenths):
    assert rate(60, decay) == pytest.approx(half, rel=1e-5)
    assert rate(100, decay) == pytest.approx(nine_tenths, rel=1e-5)
    assert rate(STEPS, decay) == pytest.approx(2.0 if decay == "constant" else 0.2)
