"""Results as the plain values of report.json, and as lines and a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from reverie.environments.vector import EpisodeResult
from reverie.evaluation.charts import NAMES
from reverie.evaluation.curves import Advantage, Curve, advantage, change_curves, curves
from reverie.evaluation.games import Gain, GameScore
from reverie.evaluation.reconstruction import Reconstruction
from reverie.evaluation.rollouts import Rollouts
from reverie.evaluation.statistics import Estimate
from reverie.evaluation.windows import Selection

CHANGE = {
    "change": "change that is right, first and last step",
    "right": "frames with every tile right",
    "right_changing": "the same where a tile changes",
}
"""Figures that say whether the world does what the actions say (`changes`), and what they are called."""
DREAMER_4 = "dreamer 4"
"""What Dreamer 4's world model is called beside the baselines."""


@dataclass(frozen=True)
class GameScores:
    """All players of one evaluation in one game.

    task   what the agents played for; None in a game without tasks
    gains  each stage against the one before it, in the same worlds
    """

    env: str
    task: str | None
    tasks: Sequence[str]
    episodes: int
    players: list[GameScore]
    gains: list[Gain]

    def to_json(self) -> dict[str, Any]:
        """Figures and the outcome of every episode, so that runs can be pooled later."""
        return {
            "env": self.env,
            "task": self.task,
            "tasks": list(self.tasks),
            "episodes": self.episodes,
            "players": [_player(score) for score in self.players],
            "gains": [_gain(gain) for gain in self.gains],
        }

    def table(self) -> Table:
        """One row per player: success at the task if there is one, return and steps, with intervals."""
        title = f"{self.env}: {self.episodes} held-out worlds, 95 % intervals"
        asked = any(score.task for score in self.players)
        success = [f"{self.task} %"] if self.task else []
        columns = ["player", *(["asked for"] if asked else []), *success, "return", "steps"]
        table = Table(*columns, title=title, title_justify="left")
        for score in self.players:
            task = [score.task or "-"] if asked else []
            success = [score.success[self.task].text(1, scale=100)] if self.task else []
            table.add_row(score.player, *task, *success, score.episode_return.text(3), score.length.text(1))
        return table

    def lines(self) -> list[str]:
        """Each stage's gain over the one before it, in the same worlds, and episodes that were given up."""
        gains = [f"  {gain.better} over {gain.worse}: {_gain_text(gain)}" for gain in self.gains]
        return [*gains, *(f"  {sentence}" for sentence in self.failures())]

    def failures(self) -> list[str]:
        """A sentence for each player whose game crashed again and again in some worlds."""
        return [
            f"{score.player}: {len(failed)} of {len(score.results)} episodes were given up and are left out: "
            f"{failed[-1].crashes[-1]}"
            for score in self.players
            if (failed := score.given_up)
        ]


@dataclass(frozen=True)
class RolloutFigures:
    """Curves of all methods and the model's lead over each baseline."""

    rollouts: Rollouts
    selection: Selection
    curves: dict[str, dict[str, Curve]]
    advantage: dict[str, Advantage]

    @classmethod
    def of(cls, rollouts: Rollouts, selection: Selection, seed: int) -> "RolloutFigures":
        """Computes curves and leads with their bootstrap intervals."""
        baselines = [name for name in ("copy", "shuffled") if name in rollouts.scores]
        return cls(
            rollouts=rollouts,
            selection=selection,
            curves={
                name: curves(scores, seed) | change_curves(rollouts.changes[name], seed)
                for name, scores in rollouts.scores.items()
            },
            advantage={name: advantage(rollouts, name, seed) for name in baselines},
        )

    def to_json(self) -> dict[str, Any]:
        """All curves, leads and how many windows there were."""
        return {
            "windows": len(self.selection.places),
            "episodes": self.selection.episodes,
            "clips_too_short": self.selection.clips_too_short,
            "clips_unlabelled": self.selection.clips_unlabelled,
            "context": self.rollouts.context,
            "horizon": self.rollouts.horizon,
            "curves": {
                method: {metric: _curve(curve) for metric, curve in found.items()}
                for method, found in self.curves.items()
            },
            "averages": self.averages(),
            "advantage": {name: _advantage(lead) for name, lead in self.advantage.items()},
        }

    def averages(self) -> dict[str, float]:
        """Metric -> the model's mean over the horizon."""
        found = self.curves["model"]
        return {name: sum(e.value for e in curve) / len(curve) for name, curve in found.items()}

    def lines(self, name: str) -> list[str]:
        """What the rollouts of the model called `name` show, one line per baseline."""
        count, context, horizon = len(self.selection.places), self.rollouts.context, self.rollouts.horizon
        lines = [
            f"rollouts of {name}: {count} windows, {horizon} frames after {context}; PSNR in dB: {self._levels('psnr', 2)}"
        ]
        lines += [
            f"  {metric.upper()}: {self._levels(metric, 3)}"
            for metric in ("ssim", "lpips")
            if metric in self.curves["model"]
        ]
        lines += [
            f"  {text}: {self._ends(metric)}"
            for metric, text in CHANGE.items()
            if metric in self.curves["model"]
        ]
        for other, lead in self.advantage.items():
            start = lead.beaten_from()
            when = f"ahead at every step from {start} on" if start else "not ahead at the last step"
            lines.append(f"  against {NAMES[other]}: {lead.average.text(signed=True)} dB, {when}")
        return lines

    def _ends(self, metric: str) -> str:
        """Each method after one step and after the last."""
        ends = {
            name: (found[metric][0].value, found[metric][-1].value) for name, found in self.curves.items()
        }
        return ", ".join(f"{NAMES[name]} {first:.3f} to {last:.3f}" for name, (first, last) in ends.items())

    def _levels(self, metric: str, digits: int) -> str:
        """Each method's mean over the horizon."""
        means = {
            name: sum(e.value for e in found[metric]) / len(found[metric])
            for name, found in self.curves.items()
        }
        return ", ".join(f"{NAMES[name]} {value:.{digits}f}" for name, value in means.items())


def world_models_table(found: Mapping[str, RolloutFigures]) -> Table:
    """One row per world model: means over the horizon, and its lead with intervals."""
    one = next(iter(found.values()))
    metrics = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}
    metrics = {name: title for name, title in metrics.items() if name in one.averages()}
    leads = {name: f"over {NAMES[name]}, dB" for name in one.advantage}
    ends = {"change": "change right, step 1", "right": "tiles right, step 1"}
    ends = {name: title for name, title in ends.items() if name in one.curves["model"]}
    count, horizon = len(one.selection.places), one.rollouts.horizon
    title = f"world models: {count} held-out windows, {horizon} frames after {one.rollouts.context}"
    columns = ["model", *metrics.values(), *leads.values(), *ends.values()]
    table = Table(*columns, title=title, title_justify="left")
    for name, rollouts in found.items():
        means = [f"{rollouts.averages()[metric]:.{2 if metric == 'psnr' else 4}f}" for metric in metrics]
        ahead = [rollouts.advantage[lead].average.text(signed=True) for lead in leads]
        table.add_row(name, *means, *ahead, *(rollouts.curves["model"][end][0].text(3) for end in ends))
    return table


def reconstruction_json(reconstruction: Reconstruction) -> dict[str, Any]:
    """Scores and sample counts; None for what was not measured."""
    names = ("psnr", "psnr_frame", "ssim", "lpips")
    scores = {name: _estimate(reconstruction.scores.get(name)) for name in names}
    return {"clips": reconstruction.clips, "frames": reconstruction.frames, "scores": scores}


def reconstruction_line(reconstruction: Reconstruction) -> str:
    """The tokenizer's scores in one line."""
    digits = {"psnr": 2, "psnr_frame": 2, "ssim": 4, "lpips": 4}
    names = {"psnr": "PSNR", "psnr_frame": "PSNR mean over frames", "ssim": "SSIM", "lpips": "LPIPS"}
    parts = [f"{names[name]} {e.text(digits[name])}" for name, e in reconstruction.scores.items()]
    return f"tokenizer: {reconstruction.frames} held-out frames, {', '.join(parts)}"


def _player(score: GameScore) -> dict[str, Any]:
    return {
        "player": score.player,
        "learned": score.learned,
        "task": score.task,
        "given_up": len(score.given_up),
        "return": score.episode_return.to_json(),
        "length": score.length.to_json(),
        "success": {task: estimate.to_json() for task, estimate in score.success.items()},
        "episodes": [_episode(result) for result in score.results],
    }


def _episode(result: EpisodeResult) -> dict[str, Any]:
    figures = {
        "seed": result.seed,
        "steps": result.steps,
        "return": result.episode_return,
        "events": result.events,
    }
    crashed = {"crashes": result.crashes, "given_up": result.given_up} if result.crashes else {}
    return figures | crashed


def _gain(gain: Gain) -> dict[str, Any]:
    return {
        "text": f"{gain.better} over {gain.worse}",
        "success": _estimate(gain.success),
        "return": gain.episode_return.to_json(),
    }


def _gain_text(gain: Gain) -> str:
    success = f"{gain.success.text(1, scale=100, signed=True)} points of success, " if gain.success else ""
    return f"{success}return {gain.episode_return.text(3, signed=True)}"


def _advantage(lead: Advantage) -> dict[str, Any]:
    return {
        "steps": _curve(lead.steps),
        "average": lead.average.to_json(),
        "average_frame": lead.average_frame.to_json(),
        "beaten_from": lead.beaten_from(),
    }


def _curve(curve: Curve) -> list[dict[str, float | int | None]]:
    return [estimate.to_json() for estimate in curve]


def _estimate(estimate: Estimate | None) -> dict[str, float | int | None] | None:
    return None if estimate is None else estimate.to_json()
