"""A trained agent plays into a recording, beside a random player."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from reverie.agent.player import Player
from reverie.data.errors import UserError
from reverie.data.sources.episodes import Recording, log_path, read_steps, video_path
from reverie.data.video.codec import read_frames
from reverie.pipelines.datasets.record import RecordConfig, record
from reverie.pipelines.training.checkpoints import load_agent, load_tokenizer, weights_sha256
from reverie.pipelines.worlds.gamer import tokenizer_of
from tests.pipelines.small_stages import Corpus


def asked(corpus: Corpus, out: Path, **changes: object) -> RecordConfig:
    settings = {
        "players": {"agent": 0.6, "random": 0.4},
        "agent": corpus.finished("clone"),
        "episodes": 5,
        **changes,
    }
    return RecordConfig(out=out, env="minigrid-doorkey", max_steps=12, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recorded(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent") / "episodes"
    record(asked(corpus, out))
    return out


def logs(folder: Path) -> Iterator[tuple[str, bytes, bytes]]:
    for number in range(5):
        name = f"{number:06d}"
        yield name, log_path(folder, name).read_bytes(), video_path(folder, name).read_bytes()


def test_its_actions_are_those_of_the_agent_on_what_it_saw(recorded: Path, corpus: Corpus) -> None:
    run = corpus.finished("clone")
    tokenizer, agent = load_tokenizer(corpus.finished("tokenizer")), load_agent(run)
    recording, seen = Recording.load(recorded), 0
    for number in range(5):
        steps = read_steps(recorded, f"{number:06d}", recording)
        if steps.player == "random":
            continue
        assert steps.player == f"agent {weights_sha256(run)[:8]}"
        seed = np.random.SeedSequence([0, number]).spawn(2)[1].spawn(2)[1]
        drawn = int(np.random.default_rng(seed).integers(2**62))
        player = Player(tokenizer, agent, 1, task=agent.task_index("reach_goal"), seed=drawn)
        frames = read_frames(video_path(recorded, f"{number:06d}"), range(steps.num_frames), (40, 40))
        found = [int(player.act(frame[None])["action"][0]) for frame in frames[:-1]]
        assert found == steps.actions["action"][:-1].tolist()
        seen += 1
    assert 0 < seen < 5


def test_it_repeats_and_workers_do_not_matter(recorded: Path, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    record(asked(corpus, tmp_path / "half", episodes=2))
    record(asked(corpus, tmp_path / "half", workers=2))
    assert list(logs(tmp_path / "half")) == list(logs(recorded))


def test_the_tokenizer_beside_it_is_found(corpus: Corpus, tmp_path: Path) -> None:
    run = corpus.finished("clone")
    assert tokenizer_of(run) == corpus.finished("tokenizer")
    (tmp_path / "alone").symlink_to(run)
    with pytest.raises(UserError, match="--tokenizer: that of .*alone does not lie beside it"):
        tokenizer_of(tmp_path / "alone")


def test_an_agent_of_one_task_is_not_asked_for_another(corpus: Corpus, tmp_path: Path) -> None:
    """The game's last task is another; the agent's model knows the names of all."""
    run, tokenizer = tmp_path / "one", corpus.finished("tokenizer")
    run.mkdir()
    for part in corpus.finished("clone").iterdir():
        if part.name != "config.yaml":
            (run / part.name).symlink_to(part)
    settings = yaml.safe_load((corpus.finished("clone") / "config.yaml").read_text()) | {"task": "open_door"}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="--task reach_goal: the agent has learned open_door alone"):
        record(asked(corpus, tmp_path / "out", agent=run, tokenizer=tokenizer, episodes=1))
    alone = {"players": {"agent": 1.0}, "agent": run, "tokenizer": tokenizer, "episodes": 1}
    record(asked(corpus, tmp_path / "out", task="open_door", **alone))
    played = read_steps(tmp_path / "out", "000000", Recording.load(tmp_path / "out"))
    assert (played.player or "").startswith("agent ")


def test_another_agent_may_not_add_to_its_episodes(recorded: Path, corpus: Corpus) -> None:
    with pytest.raises(UserError, match="holds episodes with players.agent"):
        record(
            asked(corpus, recorded, agent=corpus.finished("imagine"), tokenizer=corpus.finished("tokenizer"))
        )


def test_what_does_not_fit_is_one_sentence(corpus: Corpus, tmp_path: Path) -> None:
    config = asked(corpus, tmp_path / "out")
    for changes, words in (
        ({"agent": None}, "players: an agent is to play; give its run folder"),
        ({"players": {"random": 1}}, "agent: nobody lets it play"),
        ({"task": "fly"}, "--task fly: this agent knows the tasks pick_up_key"),
        ({"tokenizer": corpus.finished("dynamics")}, "--tokenizer .*was trained with"),
        ({"options": {"tile_size": 10}}, "is for frames of .40, 40., but game"),
    ):
        with pytest.raises(UserError, match=words):
            record(replace(config, **changes))
    cart = {"env": "gym:CartPole-v1", "options": {"frame_size": [40, 40]}}
    with pytest.raises(UserError, match="has learned the actions action, but game .* or other sizes"):
        record(replace(config, **cart))
    assert not (tmp_path / "out").exists()
