"""Dreams side by side: each is the dream that it would be alone, and going back is exact."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from reverie.agent.dream import Dream
from reverie.agent.dreams import DreamRow, Dreams
from reverie.agent.model import Agent, AgentConfig
from reverie.data.actions import ActionSpace, Binary, Categorical
from reverie.dynamics.frame import Step
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.tokenizer.model import Tokenizer, TokenizerConfig

SPACE = ActionSpace({"move": Categorical(5), "keys": Binary(3)})
SIZE = (16, 24)


@pytest.fixture(scope="module")
def dreams() -> Dreams:
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        TokenizerConfig(
            frame_size=SIZE,
            width=32,
            num_heads=2,
            num_kv_heads=1,
            bottleneck_tokens=4,
            bottleneck_channels=8,
            context_length=5,
        )
    ).eval()
    config = DynamicsConfig(
        latent_shape=tokenizer.config.latent_shape,
        **dict(
            width=32, depth=4, num_heads=2, num_kv_heads=1, num_registers=1, time_every=2, context_length=4
        ),
    )
    dynamics = Dynamics(config, SPACE).eval()
    agent = Agent(dynamics, AgentConfig(head_width=16, prediction_length=2), ["a", "b"]).eval()
    return Dreams(tokenizer, dynamics, agent, history=20)


def context(seed: int, length: int) -> tuple[torch.Tensor, Step]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (1, length, *SIZE, 3), dtype=torch.uint8, generator=generator)
    led = {
        "move": torch.randint(0, 5, (1, length), generator=generator),
        "keys": torch.rand(1, length, 3, generator=generator) < 0.5,
    }
    return frames, Step(led, torch.ones(1, length, dtype=torch.bool))


def action(number: int) -> dict[str, np.ndarray]:
    return {"move": np.array(number % 5), "keys": np.array([number % 2 == 0, number % 3 == 0, False])}


def go_on(dreams: Dreams, rows: Sequence[DreamRow], numbers: Sequence[int]) -> list[np.ndarray]:
    frames = dreams.show(rows, [action(number) for number in numbers])
    dreams.keep(rows)
    return frames


@pytest.mark.parametrize("length", [0, 1, 3, 9])
def test_a_row_alone_is_the_dream(dreams: Dreams, length: int) -> None:
    frames, led = context(1, length)
    row = dreams.begin(frames, led, seed=7, sampling_steps=2)
    dream = Dream(dreams.tokenizer, dreams.dynamics, frames, led, sampling_steps=2, seed=7)
    for t in range(12):
        step = Step(
            {k: torch.from_numpy(v)[None, None] for k, v in action(t).items()},
            torch.ones(1, 1, dtype=torch.bool),
        )
        expected = dream.next(step)[0].numpy()
        assert np.abs(go_on(dreams, [row], [t])[0].astype(int) - expected).max() <= 1


def test_rows_that_join_leave_and_stand_still_dream_as_alone(dreams: Dreams) -> None:
    lengths, ticks = (0, 1, 3, 9), 15
    together = [dreams.begin(*context(i, n), seed=i, task=i % 2) for i, n in enumerate(lengths)]
    alone = [dreams.begin(*context(i, n), seed=i, task=i % 2) for i, n in enumerate(lengths)]
    for tick in range(ticks):
        here = [i for i in range(len(lengths)) if tick >= 2 * i and (tick + i) % 3]
        if not here:
            continue
        made = go_on(dreams, [together[i] for i in here], [tick + i for i in here])
        for i, frame in zip(here, made):
            expected = go_on(dreams, [alone[i]], [tick + i])[0]
            assert np.abs(frame.astype(int) - expected).max() <= 1, (tick, i)
            assert together[i].frames == alone[i].frames
            torch.testing.assert_close(together[i].state, alone[i].state, rtol=0, atol=2e-4)


def test_going_back_restores_every_number(dreams: Dreams) -> None:
    rows = [dreams.begin(*context(i, 3), seed=i) for i in range(3)]
    numbers = list(range(14))
    first = [go_on(dreams, rows, [n, n + 1, n + 2]) for n in numbers]
    assert dreams.back(rows[1], 9) == 9 and rows[1].frames == 5
    assert np.array_equal(rows[1].frame, first[4][1])
    again = [go_on(dreams, [rows[1]], [n + 1])[0] for n in numbers[5:]]
    assert max(np.abs(a.astype(int) - b[1]).max() for a, b in zip(again, first[5:])) <= 1
    assert dreams.back(rows[1], 9) == 9
    assert np.array_equal(again, [go_on(dreams, [rows[1]], [n + 1])[0] for n in numbers[5:]]), (
        "alone it is exact"
    )


def test_history_is_bounded(dreams: Dreams) -> None:
    row = dreams.begin(*context(0, 2), seed=0)
    for t in range(25):
        go_on(dreams, [row], [t])
    assert row.can_go_back == 20 and dreams.back(row, 100) == 20 and row.frames == 5


def test_rows_have_their_own_context_level(dreams: Dreams) -> None:
    rows = [dreams.begin(*context(0, 3), seed=0) for _ in range(2)]
    alone = dreams.begin(*context(0, 3), seed=0, context_level=0.25)
    rows[1].context_level = 0.25
    made = [go_on(dreams, rows, [t, t]) for t in range(4)]
    expected = [go_on(dreams, [alone], [t])[0] for t in range(4)]
    assert np.abs(np.stack([m[1] for m in made]).astype(int) - np.stack(expected)).max() <= 1
    assert not np.array_equal(made[-1][0], made[-1][1])
    assert rows[0].state is not None and dreams.read(rows)[0] is not None


def test_an_agent_reads_every_frame_and_acts(dreams: Dreams) -> None:
    row = dreams.begin(*context(0, 3), seed=0, task=1)
    go_on(dreams, [row], [0])
    reading = dreams.read([row])[0]
    assert reading is not None and 0 <= reading.continues <= 1
    assert sum(reading.policy["move"]) == pytest.approx(1, abs=1e-5) and len(reading.policy["keys"]) == 3
    taken = dreams.act(row, torch.Generator().manual_seed(0))
    SPACE.check({name: value[None] for name, value in taken.items()}, 1, "agent")
