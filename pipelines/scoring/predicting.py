"""The part of `evaluate` that predicts: every world model continues the same held-out windows."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console

from reverie.dynamics.fast_frame import use_fast
from reverie.evaluation.changes import Tiles
from reverie.evaluation.charts import horizon_chart
from reverie.evaluation.figures import DREAMER_4, RolloutFigures, world_models_table
from reverie.evaluation.gallery import rollout_films, rollout_strips
from reverie.evaluation.predictors import LatentPredictor, RecurrentPredictor, dynamics_generator
from reverie.evaluation.rollouts import Predictor, Rollouts, roll_out
from reverie.evaluation.windows import Selection, Windows, load_windows
from reverie.pipelines.runs.progress import meter
from reverie.pipelines.scoring.models import Scoring
from reverie.pipelines.scoring.trusting import drift_figures, trust_figures


def predict_all(scoring: Scoring, selection: Selection, console: Console) -> dict[str, Any]:
    """Rolls out Dreamer 4 and every baseline, prints their figures, and returns what the report needs of them."""
    config, gallery = scoring.config, scoring.gallery
    windows = load_windows(scoring.index, selection.places, config.context + config.horizon)
    found: dict[str, RolloutFigures] = {}
    tiles = _tiles(config.tile, windows)
    for name, predictor in _predictors(scoring).items():
        rollouts = _roll_out(scoring, name, predictor, windows, tiles)
        found[name] = RolloutFigures.of(rollouts, selection, config.seed)
        console.print("\n".join(found[name].lines(name)))
        if name == DREAMER_4:
            gallery.rollout_films = rollout_films(rollouts, windows.keys, scoring.index.fps)
            gallery.rollout_strips = rollout_strips(rollouts, windows.keys)
            gallery.horizon_chart = horizon_chart(found[name].curves)
        else:
            gallery.baseline_strips += rollout_strips(rollouts, windows.keys, name)[:1]
    figures: dict[str, Any] = {}
    if DREAMER_4 in found:
        figures["rollouts"] = found[DREAMER_4].to_json()
        if config.trust:
            figures |= trust_figures(scoring, windows, console)
        if config.drift:
            figures |= drift_figures(scoring, windows, console)
    if scoring.models.baselines:
        console.print(world_models_table(found))
        gallery.world_models_chart = _side_by_side(found)
        figures["world_models"] = {name: rollouts.to_json() for name, rollouts in found.items()}
    return figures


def _predictors(scoring: Scoring) -> Mapping[str, Predictor]:
    models, found = scoring.models, dict[str, Predictor]()
    if models.dynamics is not None and models.tokenizer is not None:
        config = scoring.config
        rollouts = 4 if config.trust else 2  # also with other clips' actions
        frames = -(-config.clips // config.batch_size) * config.horizon * rollouts
        fast = use_fast(config.compile, models.tokenizer.mask_token.device, frames)
        first = config.frames_per_pass
        generator = dynamics_generator(models.dynamics, config.sampling_steps, first, fast)
        found[DREAMER_4] = LatentPredictor(models.tokenizer, generator, first, fast)
    return found | {name: RecurrentPredictor(model) for name, model in models.baselines.items()}


def _tiles(side: int | None, windows: Windows) -> Tiles | None:
    """What the tiles show in the windows' true frames. Raises `UserError` where these are of no grid."""
    if side is None:
        return None
    return Tiles.found_in(torch.cat([windows.load_frames([row]) for row in range(len(windows))]), side)


def _roll_out(
    scoring: Scoring, name: str, predictor: Predictor, windows: Windows, tiles: Tiles | None
) -> Rollouts:
    config = scoring.config
    with meter(f"roll out: {name}", len(windows)) as shown:
        return roll_out(
            predictor,
            windows,
            context=config.context,
            seed=config.seed,
            batch_size=config.batch_size,
            num_examples=config.videos,
            lpips=scoring.lpips,
            tiles=tiles,
            finished=shown.update,
        )


def _side_by_side(found: Mapping[str, RolloutFigures]) -> str:
    """The models' own curves in one chart, with copying, which is the same for all."""
    copy = next(iter(found.values())).curves["copy"]
    return horizon_chart(
        {name: rollouts.curves["model"] for name, rollouts in found.items()} | {"copy": copy}
    )
