"""Rollouts: exact baselines, an oracle that knows the future, shuffling that moves every clip."""

import numpy as np
import pytest
import torch
from torch import Tensor

from reverie.data.actions import ActionSpace, Categorical
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.evaluation.curves import advantage, curves
from reverie.evaluation.metrics import PSNR_CAP
from reverie.evaluation.predictors import LatentPredictor, decode_future, dynamics_generator
from reverie.evaluation.rollouts import Rollouts, derangement, roll_out
from reverie.evaluation.windows import Actions, Windows
from reverie.nn.frames import to_uint8
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

CONTEXT, HORIZON, WINDOWS = 3, 5, 7
SPACE = ActionSpace({"move": Categorical(4)})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    config = TokenizerConfig(
        frame_size=(16, 24), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=4, bottleneck_channels=8
    )
    return Tokenizer(config).eval()


def make_windows(frames: Tensor, labelled: bool = True) -> Windows:
    """Windows whose action at every frame but a first unknown one is random."""
    m, t = frames.shape[:2]
    generator = torch.Generator().manual_seed(5)
    known = torch.full((m, t), labelled)
    known[:, 0] = False
    actions = Actions({"move": torch.randint(4, (m, t), generator=generator)}, known)
    return Windows(actions, [str(i) for i in range(m)], lambda rows: frames[rows])


def moving(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (WINDOWS, CONTEXT + HORIZON, 16, 24, 3), dtype=torch.uint8, generator=generator)


def nothing(latents: Tensor, past: Actions, future: Actions, seed: int) -> Tensor:
    return latents.new_zeros(len(latents), future.known.shape[1], *latents.shape[2:])


def run(tokenizer: Tokenizer, windows: Windows, generator=nothing, **options) -> Rollouts:  # type: ignore[no-untyped-def]
    return roll_out(
        LatentPredictor(tokenizer, generator),
        windows,
        context=CONTEXT,
        **{"batch_size": 3, "seed": 11, **options},
    )


@pytest.mark.parametrize("n", [2, 3, 5, 64])
def test_a_derangement_moves_everything_and_loses_nothing(n: int) -> None:
    orders = [derangement(n, seed) for seed in range(20)]
    for order in orders:
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()
    assert (orders[3] == derangement(n, 3)).all()
    assert n < 5 or len({tuple(order) for order in orders}) > 1


def test_copying_is_exact_on_a_video_that_stands_still(tokenizer: Tokenizer) -> None:
    still = moving()[:, :1].expand(-1, CONTEXT + HORIZON, -1, -1, -1)
    copy = run(tokenizer, make_windows(still)).scores["copy"]
    assert copy.mse.shape == (WINDOWS, HORIZON)
    assert (copy.mse == 0).all() and (copy.psnr == PSNR_CAP).all()


def test_copying_shows_the_last_frame_given(tokenizer: Tokenizer) -> None:
    frames = moving()
    result = run(tokenizer, make_windows(frames), num_examples=2)
    assert torch.equal(
        result.examples["copy"], frames[:2, CONTEXT - 1 : CONTEXT].expand(-1, HORIZON, -1, -1, -1)
    )
    assert torch.equal(result.truth, frames[:2])
    error = (frames[:, CONTEXT:].double() - frames[:, CONTEXT - 1 : CONTEXT].double()) / 255
    torch.testing.assert_close(result.scores["copy"].mse, error.square().mean(dim=(2, 3, 4)))


def test_an_oracle_reaches_the_tokenizer_at_every_step(tokenizer: Tokenizer) -> None:
    frames = moving()

    def oracle(latents: Tensor, past: Actions, future: Actions, seed: int) -> Tensor:
        start = seed - 11
        return tokenizer.encode(frames[start : start + len(latents)])[:, CONTEXT:]

    result = run(tokenizer, make_windows(frames), oracle)
    for method in ("model", "shuffled"):
        for metric in ("mse", "psnr", "ssim"):
            ours = getattr(result.scores[method], metric)
            torch.testing.assert_close(ours, getattr(result.scores["tokenizer"], metric), rtol=0, atol=0)
    assert [e.value for e in advantage(result, "tokenizer").steps] == [0.0] * HORIZON


def test_a_perfect_model_of_a_perfect_tokenizer_has_perfect_curves(tokenizer: Tokenizer) -> None:
    # Frames that the tokenizer maps onto themselves: what it decodes from constant latents, encoded as those.
    latents = torch.tanh(
        torch.randn(WINDOWS, CONTEXT + HORIZON, 4, 8, generator=torch.Generator().manual_seed(2))
    )
    frames = to_uint8(tokenizer.decode(latents)).detach()
    exact = Tokenizer(tokenizer.config)
    exact.load_state_dict(tokenizer.state_dict())
    known = {frames[i].numpy().tobytes(): latents[i] for i in range(WINDOWS)}
    exact.encode = lambda x, **_: torch.stack([known[row.numpy().tobytes()] for row in x])  # type: ignore[method-assign]
    result = run(
        exact.eval(), make_windows(frames), lambda z, past, future, seed: known_future(latents, z, seed)
    )
    found = curves(result.scores["model"])
    assert [e.value for e in found["psnr"]] == [PSNR_CAP] * HORIZON
    assert all(e.value == pytest.approx(1.0, abs=1e-6) for e in found["ssim"])


def known_future(latents: Tensor, context: Tensor, seed: int) -> Tensor:
    start = seed - 11
    return latents[start : start + len(context), CONTEXT:]


def test_decoding_frame_by_frame_equals_decoding_at_once(tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        latents = tokenizer.encode(moving()[:2])
        streamed = decode_future(tokenizer, latents[:, :CONTEXT], latents[:, CONTEXT:])
        whole = to_uint8(tokenizer.decode(latents))[:, CONTEXT:]
    assert (streamed.int() - whole.int()).abs().max() <= 1  # rounding of equal floats at a half


@pytest.mark.parametrize("frames_per_pass", [1, 14, 10_000])
def test_a_long_context_in_pieces_is_the_context_at_once(tokenizer: Tokenizer, frames_per_pass: int) -> None:
    torch.manual_seed(1)
    config = DynamicsConfig(
        latent_shape=(4, 8), width=32, depth=4, num_heads=2, num_kv_heads=1, context_length=4
    )
    dynamics = Dynamics(config, SPACE).eval()
    frames = torch.randint(
        256, (2, 45, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    assert tokenizer.decoder.config.reach < 40, "or nothing is left out of what the decoder sees"
    windows = make_windows(frames)
    generator = dynamics_generator(dynamics, 2, frames_per_pass)
    found = LatentPredictor(tokenizer, generator, frames_per_pass)(frames, windows.actions, None, 42, 5)
    with torch.no_grad():
        latents = tokenizer.encode(frames)
        past, future = windows.actions.split(42)
        imagined = dynamics_generator(dynamics, 2, 10_000)(latents[:, :42], past, future, 5)
        expected = to_uint8(tokenizer.decode(torch.cat([latents[:, :42], imagined], 1)))[:, 42:]
    assert (found["model"].int() - expected.int()).abs().max() <= 1


def test_of_a_long_context_only_the_end_is_kept_to_look_at(tokenizer: Tokenizer) -> None:
    frames = torch.cat([moving(), moving(1)], 1)
    windows = make_windows(frames)
    result = roll_out(LatentPredictor(tokenizer, nothing), windows, context=12, batch_size=3, num_examples=2)
    assert (result.context, result.given, result.horizon) == (12, 8, 4)
    assert torch.equal(result.truth, frames[:2, 4:])
    assert torch.equal(result.examples["copy"], frames[:2, 11:12].expand(-1, 4, -1, -1, -1))


def test_shuffled_actions_are_those_of_other_windows_with_the_same_noise(tokenizer: Tokenizer) -> None:
    windows = make_windows(moving())
    calls: list[tuple[Tensor, Tensor, int]] = []

    def record(latents: Tensor, past: Actions, future: Actions, seed: int) -> Tensor:
        calls.append((past.values["move"], future.values["move"], seed))
        return nothing(latents, past, future, seed)

    run(tokenizer, windows, record)
    true, shuffled = calls[0::2], calls[1::2]
    moves = windows.actions.values["move"]
    assert torch.equal(torch.cat([future for _, future, _ in true]), moves[:, CONTEXT:])
    assert torch.equal(
        torch.cat([future for _, future, _ in shuffled]), moves[derangement(WINDOWS, 11)][:, CONTEXT:]
    )
    for (past_a, _, seed_a), (past_b, _, seed_b) in zip(true, shuffled, strict=True):
        assert torch.equal(past_a, past_b) and seed_a == seed_b


def test_video_without_actions_is_compared_with_copying_alone(tokenizer: Tokenizer) -> None:
    result = run(tokenizer, make_windows(moving(), labelled=False))
    assert list(result.scores) == ["model", "copy", "tokenizer"]


def test_the_real_dynamics_repeat_themselves_and_heed_actions(tokenizer: Tokenizer) -> None:
    torch.manual_seed(1)
    config = DynamicsConfig(
        latent_shape=(4, 8), width=32, depth=4, num_heads=2, num_kv_heads=1, context_length=4
    )
    dynamics = Dynamics(config, SPACE).eval()
    for name in dynamics.state_dict():
        if "components" in name:
            dynamics.state_dict()[name].mul_(100)  # untrained, actions would hardly show
    windows = make_windows(moving())
    results = [run(tokenizer, windows, dynamics_generator(dynamics, 2)) for _ in range(2)]
    for name in ("model", "shuffled"):
        assert torch.equal(results[0].scores[name].mse, results[1].scores[name].mse)
    assert not torch.equal(results[0].scores["model"].mse, results[0].scores["shuffled"].mse)


def test_curves_and_leads_are_those_of_the_formula(tokenizer: Tokenizer) -> None:
    result = run(tokenizer, make_windows(moving()))
    model, copy = (result.scores[name].mse.numpy().mean(0) for name in ("model", "copy"))
    expected = 10 * np.log10(copy / model)
    lead = advantage(result, "copy")
    np.testing.assert_allclose([e.value for e in lead.steps], expected)
    assert lead.average.value == pytest.approx(expected.mean())
    assert all(e.low <= e.value <= e.high and e.n == WINDOWS for e in lead.steps)
    assert lead.beaten_from() == (1 if (expected > 0).all() else lead.beaten_from())


@pytest.mark.parametrize(
    ("values", "start"), [([1, 1, 1], 1), ([-1, 1, 1], 2), ([1, -1, 1], 3), ([1, 1, -1], None)]
)
def test_ahead_means_ahead_to_the_end(values: list[float], start: int | None) -> None:
    from reverie.evaluation.curves import Advantage
    from reverie.evaluation.statistics import Estimate

    steps = [Estimate(v, v, v, 1) for v in values]
    assert Advantage(steps=steps, average=steps[0], average_frame=steps[0]).beaten_from() == start
