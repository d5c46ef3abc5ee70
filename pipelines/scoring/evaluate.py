"""Stage `evaluate`: the tokenizer on held-out frames, rollouts against held-out video, players in the real game.

Each part needs what it scores: a tokenizer gives reconstructions, a dynamics run and baselines give rollouts (with or without
actions), a game adds players, some of which need no model; a game with milestones, such as Minecraft, is played in processes of
its own and continued when interrupted (`scoring.questing`). Dreamer 4 and the baselines go through the same code, on
the same windows and in the same worlds. Everything ends in report.html, report.json and tables.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from reverie.data.errors import UserError
from reverie.data.files.lock import sole_writer
from reverie.data.shards.index import ShardIndex
from reverie.environments.make import QUEST_GAMES
from reverie.environments.vector import VectorGame
from reverie.evaluation.changes import require_whole_tiles
from reverie.evaluation.figures import reconstruction_json, reconstruction_line
from reverie.evaluation.gallery import reconstruction_media
from reverie.evaluation.reconstruction import Reconstruction, choose_clips, reconstruct
from reverie.evaluation.report import write_report
from reverie.evaluation.windows import Selection, select
from reverie.nn.threads import shared_out
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.runs.run import RunFolder, open_run, read_provenance
from reverie.pipelines.scoring.models import EvaluateConfig, Scoring, load_models
from reverie.pipelines.scoring.playing import open_game, play_all
from reverie.pipelines.scoring.predicting import predict_all
from reverie.pipelines.scoring.questing import Setting, identity, open_quest, play_quests
from reverie.pipelines.training.checkpoints import weights_sha256
from reverie.tokenizer.model import Tokenizer
from reverie.tokenizer.perceptual import PerceptualDistance, load_lpips

SPLIT = "validation"


def evaluate(config: EvaluateConfig) -> Path:
    """Scores everything that `config` names, prints it, and writes the report; returns the path of the page.

    Raises `UserError` when runs, data and game do not fit each other.
    """
    index = ShardIndex.load(config.data)
    scoring = Scoring(config, index, load_models(config, index))
    # Before anything slow: what is asked must be possible.
    if scoring.models.need_recordings:
        scoring.chosen.samples(SPLIT)
    if config.tile is not None:
        require_whole_tiles(config.tile, *index.frame_size)
    selection = _select_windows(scoring) if scoring.models.predictors else None
    quest = open_quest(scoring) if config.env in QUEST_GAMES else None
    game = open_game(scoring) if config.env is not None and quest is None else None
    scoring.lpips = _load_lpips(scoring) if scoring.models.need_recordings else None
    inputs = {"data": index.hash()}
    if config.tokenizer is not None:
        inputs["tokenizer"] = weights_sha256(config.tokenizer)
    if quest is not None:  # its finished episodes are kept, and must not be mixed with those of other players
        inputs |= _model_hashes(config)
    played = {} if quest is None else identity(config)
    with sole_writer(config.out):
        run = open_run(config.out, kind="evaluate", config=config, model=played, inputs=inputs)
        with shared_out(scoring.models.frame_elements(config.batch_size)):
            return _score(scoring, run, selection, game, quest)


def _score(
    scoring: Scoring,
    run: RunFolder,
    selection: Selection | None,
    game: VectorGame | None,
    quest: Setting | None,
) -> Path:
    config = scoring.config
    console = Console(highlight=False, soft_wrap=True)

    figures: dict[str, Any] = {"format": 1, "title": config.env or str(config.data), "notes": scoring.notes}
    if scoring.models.tokenizer is not None:
        reconstruction = _reconstruct(scoring, scoring.models.tokenizer)
        figures["reconstruction"] = reconstruction_json(reconstruction)
        console.print(reconstruction_line(reconstruction))
    if selection is not None:
        figures |= predict_all(scoring, selection, console)
    if game is not None:
        scores = play_all(scoring, game)
        figures["games"] = scores.to_json()
        console.print(scores.table())
        console.print("\n".join(scores.lines()))
        console.print("\n".join(f"  {found.sentence}" for found in scoring.agreements))
        figures["agreements"] = [found.to_json() for found in scoring.agreements]
        figures["traces"] = scoring.traces
    if quest is not None:
        figures["quest"] = play_quests(scoring, quest, console)
    figures |= {"settings": to_plain(config), "provenance": _provenance(scoring, run.provenance)}
    page = write_report(config.out, figures, scoring.gallery)
    console.print(f"report: {page}")
    return page


def _select_windows(scoring: Scoring) -> Selection:
    config = scoring.config
    return select(scoring.chosen, config.context + config.horizon, config.clips, config.seed, SPLIT)


def _load_lpips(scoring: Scoring) -> PerceptualDistance | None:
    if scoring.config.lpips == "none":
        return None
    try:
        return load_lpips(scoring.config.lpips, None)
    except UserError as error:
        scoring.notes.append(f"LPIPS was not measured. {error}")
        return None


def _reconstruct(scoring: Scoring, tokenizer: Tokenizer) -> Reconstruction:
    config = scoring.config
    clips = choose_clips(scoring.chosen, config.clips, config.seed, SPLIT)
    with meter("reconstruct", len(clips)) as shown:
        found = reconstruct(tokenizer, scoring.index, clips, lpips=scoring.lpips, finished=shown.update)
    scoring.gallery.reconstruction_grids = reconstruction_media(found)
    return found


def _provenance(scoring: Scoring, path: Path) -> dict[str, Any]:
    """When and by what this was made, with the hashes of everything that went in."""
    config = scoring.config
    launch = read_provenance(path)["launches"][-1]
    return {
        **launch,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_sha256": scoring.index.hash(),
        **{f"{name}_sha256": digest for name, digest in _model_hashes(config).items()},
    }


def _model_hashes(config: EvaluateConfig) -> dict[str, str]:
    """Name of each run that is scored -> hash of its weights."""
    runs = {name: getattr(config, name) for name in ("tokenizer", "dynamics", "cloned", "agent")}
    named = {name: run for name, run in runs.items() if run is not None} | config.baselines
    return {name: weights_sha256(run) for name, run in named.items()}
