"""A world's README.md: what it was made of, by which commands, and how well it does, with intervals."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.runs.reading import read_json
from reverie.pipelines.runs.run import RunFolder, read_provenance
from reverie.pipelines.training.checkpoints import weights_sha256
from reverie.pipelines.training.integrity import WEIGHTS, sha256
from reverie.pipelines.worlds.manifest import Manifest

_REPORT = "report.json"
_PARTS = ("tokenizer", "dynamics", "agent")
_COMMITTED = re.compile(r"(?<![\w/])/\S*/(configs/\S+)")
_PLACE = re.compile(r"(?<![\w/])/\S*/([^/\s]+)")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a card tells beside the manifest.

    data       lines about the recordings
    launches   commands, with the commit of each
    parameters part -> numbers in its weights
    scores     rows (what, value with interval)
    """

    data: list[str]
    launches: list[tuple[str, str]]
    parameters: Mapping[str, int]
    scores: list[tuple[str, str]]


def origin_of(index: ShardIndex, runs: Mapping[str, Path], folder: Path, evaluation: Path | None) -> Origin:
    """Where the parts in `folder` come from. Raises `UserError` where the report cannot be read or is of other weights."""
    return Origin(
        data=list(_data(index)),
        launches=list(_launches(runs)),
        parameters={part: _count(folder / part / WEIGHTS) for part in _PARTS if (folder / part).is_dir()},
        scores=[] if evaluation is None else _scores(evaluation, runs, folder),
    )


def card_text(manifest: Manifest, origin: Origin) -> str:
    """The card."""
    height, width = manifest.frame_size
    numbers = ", ".join(f"{part} {n / 1e6:.2f}M" for part, n in origin.parameters.items())
    lines = [
        f"# {manifest.name}",
        "",
        f"{manifest.summary}. A world of Reverie: `reverie play --world {manifest.name}`.",
        "",
        f"- Frames: {height} x {width} pixels, {manifest.fps:g} a second.",
        f"- Game: {manifest.env or 'none, video'}{_options(manifest)}.",
        f"- Parameters, stored in 16 bits: {numbers}.",
        f"- Tasks of the agent: {', '.join(manifest.tasks) or 'there is no agent'}.",
        f"- Licence: {manifest.licence}.",
        "",
        "## Data",
        "",
        *origin.data,
        "",
        "## Commands",
        "",
        *(f"- `{command}`\n  (commit {commit})" for command, commit in origin.launches),
        "",
        "## Scores",
        "",
        *_table(origin.scores),
    ]
    return "\n".join(lines) + "\n"


def _table(scores: list[tuple[str, str]]) -> list[str]:
    if not scores:
        return ["Not evaluated."]
    note = "Held-out recordings and worlds, `reverie evaluate` on these weights, 95 % intervals."
    return [note, "", "| what | value |", "|---|---|", *(f"| {what} | {value} |" for what, value in scores)]


def _options(manifest: Manifest) -> str:
    told = dict(manifest.options) | ({"max_steps": manifest.max_steps} if manifest.max_steps else {})
    return f", {', '.join(f'{name} {value}' for name, value in told.items())}" if told else ""


def _data(index: ShardIndex) -> Iterator[str]:
    for split in index.splits:
        samples = index.samples(split)
        episodes = len({sample.episode for sample in samples})
        yield f"- {split}: {episodes:,} episodes, {sum(sample.n for sample in samples):,} frames."
    yield f"- Actions: {', '.join(index.action_space.components) or 'none'}. Hash of the shards: `{index.hash()[:16]}`."


def _launches(runs: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """The command of each run, without the machine's places."""
    told: set[str] = set()
    for run in runs.values():
        file = RunFolder(run).provenance
        if not file.exists():
            continue
        launch = read_provenance(file)["launches"][-1]
        command = _PLACE.sub(r"\1", _COMMITTED.sub(r"\1", str(launch.get("command"))))
        command = f"reverie {command.partition(' ')[2]}"
        if command not in told:
            told.add(command)
            yield command, str(launch.get("commit") or "unknown")[:12]


def _count(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _scores(evaluation: Path, runs: Mapping[str, Path], folder: Path) -> list[tuple[str, str]]:
    file = evaluation / _REPORT
    report = read_json(file, dict[str, Any], "give the folder of `reverie evaluate`")
    try:
        scored = {part: report["provenance"].get(f"{part}_sha256") for part in _PARTS}
        return list(_rows(report, lambda part: _is_ours(part, scored[part], runs, folder)))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: is no report of this version ({error}); run `reverie evaluate` again."
        ) from None


def _is_ours(part: str, digest: str | None, runs: Mapping[str, Path], folder: Path) -> bool:
    """Whether weights of this checksum are those of `part`, as they are packed or as they were before."""
    if digest is None or not (folder / part).is_dir():
        return False
    before = weights_sha256(runs[part]) if part in runs else None
    return digest in (before, sha256(folder / part / WEIGHTS))


def _rows(report: Mapping[str, Any], ours: Any) -> Iterator[tuple[str, str]]:
    if not ours("tokenizer"):
        raise UserError("--evaluation: its scores are of another tokenizer; evaluate this one.")
    if "reconstruction" in report:
        yield "tokenizer, dB", _interval(report["reconstruction"]["scores"]["psnr"])
    if "rollouts" in report and ours("dynamics"):
        yield from _rollout_rows(report["rollouts"])
    if "games" in report and (ours("agent")):
        yield from _game_rows(report["games"])


def _rollout_rows(rollouts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    windows = f"{rollouts['horizon']} frames after {rollouts['context']}, {rollouts['windows']} windows"
    yield f"rollouts of {windows}, dB", f"{rollouts['averages']['psnr']:.2f}"
    for other, words in (("copy", "over copying the last frame"), ("shuffled", "over shuffled actions")):
        if other in rollouts["advantage"]:
            yield f"rollouts {words}, dB", _interval(rollouts["advantage"][other]["average"], sign=True)


def _game_rows(games: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for player in games["players"]:
        if (success := (player.get("success") or {}).get(games["task"])) is not None:
            yield f"{player['player']}: {games['task']}, %", _interval(success, scale=100)
        yield f"{player['player']}: return", _interval(player["return"])


def _interval(score: Mapping[str, float], *, sign: bool = False, scale: float = 1.0) -> str:
    form = "+.2f" if sign else ".2f"
    low, high = (f"{scale * score[end]:.2f}" for end in ("low", "high"))
    return f"{scale * score['value']:{form}} [{low}, {high}]"
