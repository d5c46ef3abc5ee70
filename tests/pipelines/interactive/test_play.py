"""Playing inside a world model over a real socket: what is seen, what is recorded, marked and resumed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps, video_path
from reverie.data.video.codec import read_frames
from reverie.dynamics.generation import generate
from reverie.nn.frames import to_uint8
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from reverie.pipelines.interactive.checklist import FILE, SHIPPED, load_tasks
from reverie.pipelines.interactive.contexts import Contexts
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.serving import open_house
from reverie.pipelines.training.checkpoints import load_dynamics, load_tokenizer
from tests.pipelines.interactive.page_client import Page, keys_of, page
from tests.pipelines.small_stages import Corpus

CONTEXT = 6


@pytest.fixture(scope="module")
def settings(corpus: Corpus) -> PlayConfig:
    dynamics = corpus.finished("dynamics")
    return PlayConfig(
        data=corpus.shards,
        tokenizer=corpus.finished("tokenizer"),
        dynamics=dynamics,
        out=corpus.root / "unused",
        context=CONTEXT,
        split="train",
        sampling_steps=2,
        precision="32-true",
        port=0,
        device="cpu",
    )


def test_frames_are_those_of_generate_and_are_recorded(settings: PlayConfig, tmp_path: Path) -> None:
    config = replace(settings, out=tmp_path / "play", seed=3)
    with page(config) as visitor:
        state, first = visitor.state, visitor.frame
        assert (state["frames"], state["checklist"]) == (0, None)
        pressed = [
            keys_of(state)[name] for name in ("forward", "left", "forward", "right", "pickup", "toggle")
        ]
        frames = [visitor.act(code, mouse=[3, 4]) for code, _ in pressed]
        frames.append(visitor.act())
        assert visitor.shown.content["frame"] == len(frames)
        null = ShardIndex.load(config.data).action_space.null_numpy()["action"]
        taken = [index for _, index in pressed] + [int(null)]

    index = ShardIndex.load(config.data)
    context = Contexts(index, "train", CONTEXT, CONTEXT, seed=3).drawn(0)
    assert np.array_equal(context.frames[0, -1].numpy(), first)
    tokenizer, dynamics = load_tokenizer(config.tokenizer).eval(), load_dynamics(config.dynamics).eval()
    with torch.no_grad():
        latents = tokenizer.encode(context.frames)
        future = torch.tensor([taken])
        imagined = generate(
            dynamics,
            latents,
            context.led.actions,
            context.led.action_mask,
            {"action": future},
            torch.ones_like(future, dtype=torch.bool),
            sampling_steps=2,
            generator=torch.Generator().manual_seed(3),
        )
        expected = to_uint8(tokenizer.decode(torch.cat([latents, imagined], 1)))[0, CONTEXT:].numpy()
    assert np.abs(np.stack(frames).astype(int) - expected).max() <= 1  # rounding of equal floats at a half

    recording = Recording.load(config.out)
    assert complete_episodes(config.out) == ["000001"]
    steps = read_steps(config.out, "000001", recording)
    assert steps.actions["action"].tolist() == [*taken, int(null)]
    assert steps.player == "human" and not steps.reward_known
    stored = read_frames(video_path(config.out, "000001"), range(len(frames) + 1), index.frame_size)
    assert np.array_equal(stored, np.stack([first, *frames]))
    assert (config.out / "films" / "000001.mp4").stat().st_size > 0


def test_what_was_played_can_be_prepared_and_its_rewards_are_unknown(
    settings: PlayConfig, tmp_path: Path
) -> None:
    config = replace(settings, out=tmp_path / "play")
    with page(config) as visitor:
        for _ in range(2):
            for _ in range(5):
                visitor.act("ArrowUp")
            visitor.ask(type="begin", kind="clip")
    prepare(PrepareConfig(source=config.out, out=tmp_path / "shards", workers=1, validation_fraction=0.5))
    index = ShardIndex.load(tmp_path / "shards")
    assert sum(len(index.samples(split)) for split in index.splits) == 2
    steps = ShardReader(index).steps(index.samples("train")[0])
    assert len(steps) == 6 and steps.action_mask[:-1].all() and not steps.reward_mask.any()


def test_restarting_takes_the_same_context_with_other_noise_or_the_next(
    settings: PlayConfig, tmp_path: Path
) -> None:
    with page(replace(settings, out=tmp_path)) as visitor:
        here, first = visitor.state, visitor.frame
        once = visitor.act()
        again = visitor.ask(type="begin", kind="again")
        assert again["place"] == here["place"] and again["frames"] == 0
        assert np.array_equal(visitor.frame, first)
        assert not np.array_equal(visitor.act(), once)
        assert visitor.ask(type="begin", kind="clip")["place"] != here["place"]
    assert complete_episodes(tmp_path) == ["000001", "000002"]


def test_a_checklist_is_gone_through_marked_and_resumed(
    settings: PlayConfig, tmp_path: Path, corpus: Corpus
) -> None:
    clip = ShardIndex.load(corpus.shards).samples("train")[1]
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(
        "tasks:\n  - {name: walk, do: Walk to the wall.}\n"
        f"  - {{name: turn, do: Turn around., clip: {clip.key!r}, frame: 2}}\n  - {{name: rest, do: Do nothing.}}\n"
    )
    config = replace(settings, out=tmp_path / "play", checklist=tasks)
    with page(config) as visitor:
        assert visitor.state["checklist"]["current"] == "walk"
        visitor.act("ArrowUp")
        assert visitor.ask(type="begin", kind="clip")["attempt"] == 2
        for _ in range(3):
            visitor.act("ArrowUp")
        state = visitor.ask(type="mark", success=True, note="the wall | stayed")
        assert state["checklist"]["current"] == "turn" and state["attempt"] == 1
        assert state["place"] == f"{clip.episode}, frame {clip.start + 2}"
        visitor.act()
    with page(config) as visitor:
        state = visitor.state
        assert state["checklist"]["current"] == "turn" and state["attempt"] == 2, (
            "the broken off attempt is kept"
        )
        visitor.ask(type="mark", success=False)
        visitor.act()
        done = visitor.ask(type="mark", success=True, note="")
        assert done["checklist"]["current"] is None
        assert "no task to mark" in visitor.ask(type="mark", success=True)["text"]
    content = json.loads((config.out / FILE).read_text())
    assert (content["succeeded"], content["marked"]) == (2, 3)
    walk, turn, rest = (row["mark"] for row in content["tasks"])
    assert (walk["success"], walk["frames"], walk["attempt"], walk["episode"]) == (True, 3, 2, "01-walk-2")
    assert (turn["success"], turn["frames"], turn["episode"]) == (False, 0, "")
    assert rest["episode"] == "03-rest-1"
    assert complete_episodes(config.out) == ["01-walk-1", "01-walk-2", "02-turn-1", "03-rest-1"]
    table = (config.out / FILE).with_suffix(".md").read_text()
    assert (
        table.startswith("2 of 3 tasks succeeded: 67 [")
        and "| walk | success | 3 | 2 | the wall / stayed |" in table
    )
    tasks.write_text("tasks:\n  - {name: other, do: Something else.}\n")
    with pytest.raises(UserError, match="made differently"):
        open_house(config)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tasks: []", "needs `tasks`"),
        ("tasks: [walk]", "task 1: should have fields name and do"),
        ("tasks: [{name: a b, do: x}]", "needs a name of letters"),
        ("tasks: [{name: a}]", "needs do"),
        ("tasks: [{name: a, do: x, clips: y}]", "unknown field 'clips'"),
        ("tasks: [{name: a, do: x, frame: -1}]", "frame should be a whole number"),
        ("tasks: [{name: a, do: x}, {name: a, do: y}]", "same name"),
        ("tasks: [", "no valid YAML"),
    ],
)
def test_wrong_checklists_are_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_tasks(path)


def test_the_shipped_list_has_the_papers_tasks() -> None:
    from reverie.data.sources.vpt.tasks import TASKS

    assert [task.name for task in load_tasks(Path("minecraft"))] == list(TASKS)
    assert all(path.is_file() for path in SHIPPED.values())


def test_what_does_not_fit_is_refused_before_anything_is_served(settings: PlayConfig, tmp_path: Path) -> None:
    config = replace(settings, out=tmp_path / "play")
    for changes, sentence in (
        ({"clip": "nowhere"}, "has no clip or episode 'nowhere'"),
        ({"context": 5000}, "has 5000 frames in a row"),
        ({"checklist": tmp_path / "none.yaml"}, "no such file; give a checklist, or one of minecraft"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_house(replace(config, **changes))


def test_what_cannot_be_recorded_is_said_and_play_goes_on_once_it_can(
    settings: PlayConfig, tmp_path: Path
) -> None:
    with page(replace(settings, out=tmp_path, history=0)) as visitor:
        (tmp_path / "films").touch()  # where a folder should be
        problem = None
        for _ in range(100):
            visitor.send(type="act")
            assert visitor.hear().content["type"] == "frame"
            visitor.send(type="save")  # what comes before its answer is a problem
            if (said := visitor.hear())["type"] == "problem":
                problem, _ = said["text"], visitor.hear()
                break
        assert problem is not None and f"{tmp_path}: cannot be written" in problem
        (tmp_path / "films").unlink()
        visitor.ask(type="begin", kind="again")
        visitor.act()
    assert len(complete_episodes(tmp_path)) == 1  # its number depends on how many were begun in vain


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped_and_then_finishes_the_episode(
    settings: PlayConfig, tmp_path: Path, ending: signal.Signals
) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks: [{name: walk, do: Walk.}]")
    flags = {
        "data": settings.data,
        "tokenizer": settings.tokenizer,
        "dynamics": settings.dynamics,
        "out": tmp_path / "play",
    }
    flags |= {"split": "train", "port": 0, "device": "cpu", "checklist": tasks}
    command = [sys.executable, "-m", "reverie.pipelines.cli", "play"]
    command += [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("open ").strip()
        visitor = Page(address)
        assert visitor.state["checklist"]["current"] == "walk"
        visitor.act("ArrowUp")
        process.send_signal(ending)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "0 of 0 tasks succeeded, 1 to go" in said
    assert complete_episodes(tmp_path / "play") == ["01-walk-1"]
