"""Several runs of the same pipeline with different seeds: how well the method does, not one agent.

    python -m reverie.evaluation.seeds runs/demo-*/evaluation/report.json

Every figure of a run is one observation; intervals are Student's t over runs. Gains of a stage over the one before
are differences within a run, so what runs share (data, world model) cancels.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.evaluation.figures import DREAMER_4
from reverie.evaluation.statistics import Estimate, mean, paired_difference

LADDER = ("random", "cloning", "imagination")


def over_seeds(reports: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Name -> mean over runs.

    PSNR of tokenizer and rollouts in dB, success in per cent, returns, gains between stages and over baselines.
    """
    found: dict[str, Estimate] = {}
    if all("reconstruction" in report for report in reports):
        psnr = [report["reconstruction"]["scores"]["psnr"]["value"] for report in reports]
        found["tokenizer PSNR, dB"] = mean(psnr)
    if all("rollouts" in report for report in reports):
        for name in reports[0]["rollouts"]["advantage"]:
            leads = [r["rollouts"]["advantage"][name]["average"]["value"] for r in reports]
            found[f"rollouts against {name}, dB"] = mean(leads)
    found |= _world_models(reports)
    if all("games" in report for report in reports):
        found |= _game(reports)
    return found


def markdown(found: Mapping[str, Estimate]) -> str:
    """A table of figures, intervals and numbers of runs."""
    rows = [f"| {name} | {estimate.text(2)} | {estimate.n} |" for name, estimate in found.items()]
    return "\n".join(["| figure | mean [95 % interval] over runs | runs |", "|---|---|---|", *rows])


def _world_models(reports: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """PSNR of each world model's rollouts, and by how much Dreamer 4 leads."""
    psnr = {
        name: [report["world_models"][name]["averages"]["psnr"] for report in reports]
        for name in _shared([list(report.get("world_models", {})) for report in reports])
    }
    found = {f"rollouts of {name}: PSNR, dB": mean(values) for name, values in psnr.items()}
    for name in psnr:
        if name != DREAMER_4 and DREAMER_4 in psnr:
            found[f"rollouts: {DREAMER_4} - {name}, dB"] = paired_difference(psnr[DREAMER_4], psnr[name])
    return found


def _game(reports: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    task = reports[0]["games"]["task"]
    rows = [{row["player"]: row for row in report["games"]["players"]} for report in reports]
    names = _shared([list(players) for players in rows])
    scored = names if task else []  # where agents play for the return there is no task to succeed at
    success = {n: [100 * players[n]["success"][task]["value"] for players in rows] for n in scored}
    returns = {n: [players[n]["return"]["value"] for players in rows] for n in names}
    pairs = _pairs(names, list(reports[0].get("world_models", {})))
    return {
        **{f"{task} %: {name}": mean(values) for name, values in success.items()},
        **{
            f"{task}: {a} - {b}, points": paired_difference(success[a], success[b])
            for a, b in pairs
            if a in success
        },
        **{f"return: {name}": mean(values) for name, values in returns.items()},
        **{f"return: {a} - {b}": paired_difference(returns[a], returns[b]) for a, b in pairs},
    }


def _pairs(names: Sequence[str], baselines: Sequence[str]) -> list[tuple[str, str]]:
    """(better, worse): each stage of Dreamer 4 after the one before, then its last one and every baseline."""
    ladder = [name for name in LADDER if name in names]
    pairs = [(better, worse) for worse, better in zip(ladder, ladder[1:], strict=False)]
    if ladder and ladder[-1] in LADDER[1:]:
        pairs += [(ladder[-1], name) for name in baselines if name in names]
    return pairs


def _shared(names: Sequence[Sequence[str]]) -> list[str]:
    """What all runs have, in the order of the first."""
    return [name for name in names[0] if all(name in others for others in names)]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as a report ({error}); run `reverie evaluate` again."
        ) from None


if __name__ == "__main__":
    print(markdown(over_seeds([_read(Path(argument)) for argument in sys.argv[1:]])))
