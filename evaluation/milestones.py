"""Episodes of a quest and what they add up to: how often, and how soon, each milestone was reached."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from reverie.data.errors import UserError
from reverie.evaluation.statistics import Estimate, mean, success_rate

PAPER: dict[str, dict[str, float]] = {
    "BC": {"stone pickaxe": 53.8, "iron ore": 26.5, "iron pickaxe": 0.6, "diamond": 0.0},
    "VLA": {"stone pickaxe": 76.7, "iron ore": 46.3, "iron pickaxe": 11.2, "diamond": 0.0},
    "WM+BC": {"stone pickaxe": 89.4, "iron ore": 62.9, "iron pickaxe": 16.9, "diamond": 0.0},
    "Dreamer 4": {"stone pickaxe": 90.1, "iron ore": 66.7, "iron pickaxe": 29.0, "diamond": 0.7},
}
"""Success in % of 1000 episodes of 60 minutes each in Minecraft, as Hafner, Yan and Lillicrap (2025) report in their text;
VLA is a finetuned Gemma 3, WM+BC cloning on the world model."""

End = Literal["death", "limit", "crash"]


@dataclass(frozen=True, kw_only=True)
class QuestEpisode:
    """One episode, from an empty inventory to its end.

    end         "crash" where the game crashed more often than was allowed; what the last attempt reached counts
    milestones  item -> number of the step (from 1) at which the player had it
    events      task -> number of the step in which it was first accomplished
    prompts     how many prompts were fulfilled
    crashes     attempts that a crash of the game ended; the episode then began anew in the same world
    """

    number: int
    seed: int
    steps: int
    end: End
    episode_return: float
    milestones: dict[str, int]
    events: dict[str, int]
    prompts: int
    crashes: int

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> "QuestEpisode":
        """Of a file that holds `to_json`. Raises `UserError` for a damaged one."""
        from pydantic import TypeAdapter  # the command line should not wait for it

        try:
            return TypeAdapter(cls).validate_json(path.read_bytes(), strict=True)
        except (ValueError, OSError):
            raise UserError(f"{path}: is damaged; delete it, and its episode is played again.") from None

    def __post_init__(self) -> None:
        counts = [self.number, self.seed, self.steps, self.prompts, self.crashes]
        counts += [*self.milestones.values(), *self.events.values()]
        if min(counts) < 0 or not math.isfinite(self.episode_return):
            raise ValueError(f"counts must be at least 0 and the return finite, got {self}")


@dataclass(frozen=True)
class QuestScore:
    """A player's episodes and their figures.

    success  milestone -> share of the episodes that reached it, Wilson's interval
    minutes  milestone -> mean time to it in the game, over the episodes that reached it, Student's t
    """

    player: str
    learned: bool
    episodes: Sequence[QuestEpisode]
    success: dict[str, Estimate]
    minutes: dict[str, Estimate]

    @classmethod
    def of(
        cls, player: str, episodes: Sequence[QuestEpisode], items: Sequence[str], fps: float, *, learned: bool
    ) -> "QuestScore":
        """Scores `episodes` at the milestones `items`; `fps` steps are a second of the game."""
        steps = {item: [e.milestones[item] for e in episodes if item in e.milestones] for item in items}
        return cls(
            player=player,
            learned=learned,
            episodes=episodes,
            success={item: success_rate([item in e.milestones for e in episodes]) for item in items},
            minutes={item: mean([step / fps / 60 for step in found]) for item, found in steps.items()},
        )

    @property
    def crashes(self) -> int:
        """Crashes of the game in all episodes."""
        return sum(episode.crashes for episode in self.episodes)

    def line(self) -> str:
        """How the episodes ended."""
        ends = [episode.end for episode in self.episodes]
        steps = mean([episode.steps for episode in self.episodes])
        return (
            f"  {self.player}: {len(ends)} episodes of {steps.text(0)} steps, {ends.count('death')} deaths, "
            f"{self.crashes} crashes of the game, {ends.count('crash')} episodes given up for them"
        )


@dataclass(frozen=True)
class QuestScores:
    """All players in one game with milestones.

    prompts      what they were asked for
    max_minutes  the longest episode
    """

    env: str
    prompts: str
    max_minutes: float
    items: Sequence[str]
    players: list[QuestScore]

    def to_json(self) -> dict[str, Any]:
        """Figures, the paper's beside them, and every episode, so that runs can be pooled later."""
        return {
            "env": self.env,
            "prompts": self.prompts,
            "max_minutes": self.max_minutes,
            "milestones": list(self.items),
            "paper": PAPER,
            "players": [_player(score) for score in self.players],
        }

    def tables(self) -> list[Table]:
        """Success (Table 7 of the paper, with the figures that it gives in its text) and minutes (Table 8)."""
        episodes = max(len(score.episodes) for score in self.players)
        title = f"{self.env}: {episodes} worlds, at most {self.max_minutes:.1f} minutes, {self.prompts}, 95 % intervals"
        players = [score.player for score in self.players]
        success = Table("success %", *players, *PAPER, title=title, title_justify="left")
        minutes = Table("minutes to it", *players)
        for item in self.items:
            known = [f"{paper[item]:.1f}" if item in paper else "-" for paper in PAPER.values()]
            success.add_row(item, *(s.success[item].text(1, scale=100) for s in self.players), *known)
            minutes.add_row(item, *(s.minutes[item].text(1) for s in self.players))
        success.caption = (
            "BC, VLA, WM+BC, Dreamer 4: Hafner et al. (2025), 1000 episodes of 60 minutes in Minecraft"
        )
        return [success, minutes]


def _player(score: QuestScore) -> dict[str, Any]:
    return {
        "player": score.player,
        "learned": score.learned,
        "success": {item: estimate.to_json() for item, estimate in score.success.items()},
        "minutes": {item: estimate.to_json() for item, estimate in score.minutes.items()},
        "crashes": score.crashes,
        "episodes": [episode.to_json() for episode in score.episodes],
    }
