"""What of a run goes on from one launch to the next: weights, their average, moments of the optimiser, places in the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.data.errors import UserError
from reverie.pipelines.training.averaging import WeightAverage
from reverie.pipelines.training.batches import BatchSource
from reverie.pipelines.training.checkpoints import Card
from reverie.pipelines.training.integrity import OPTIMIZER, STATE
from reverie.pipelines.training.sharding import local_part
from reverie.pipelines.training.snapshots import SavedSnapshot, Snapshot, open_snapshot
from reverie.pipelines.training.stored import StoredTensors, load_like
from reverie.pipelines.training.tensors import first_nonfinite, require_finite


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The parts of a run that change while it trains.

    objective  module with attribute `model`, the model to save; the rest of its state are running scales of losses
    average    of the weights, where one is kept with decay `ema`
    seed       of the run, with which alone it can be gone on with
    run        its folder, for people
    """

    objective: nn.Module
    optimizer: Optimizer
    batches: BatchSource
    average: WeightAverage | None
    seed: int
    ema: float | None
    run: Path

    def snapshot(self, step: int, card: Card) -> Snapshot:
        """This moment, after `step` steps; tensors are the run's own."""
        weights, rest = _split(self.objective.state_dict())
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.objective.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return Snapshot(
            step=step,
            card=card,
            weights=weights if self.average is None else self.average.applied(weights),
            raw=None if self.average is None else weights,
            objective=rest,
            optimizer=moments,
            state={
                "seed": self.seed,
                "optimizer": type(self.optimizer).__name__,
                "batches": self.batches.state_dict(),
                "ema": self.ema,
            },
        )

    def go_on_from(self, path: Path) -> int:
        """Takes all from a checkpoint folder that was found whole; returns its step.

        Raises `UserError` where it is of another run, or does not fit.
        """
        snapshot = open_snapshot(path)
        self._require_same_run(snapshot)
        self._load(snapshot, path)
        return snapshot.step

    def _require_same_run(self, saved: SavedSnapshot) -> None:
        state = saved.state
        if state.get("seed") != self.seed:
            raise UserError(
                f"{self.run}: was begun with training.seed {state.get('seed')}, not {self.seed}; "
                f"give that seed or another --out."
            )
        optimizer = type(self.optimizer).__name__
        if state.get("optimizer", optimizer) != optimizer:
            raise UserError(
                f"{self.run}: was begun with the optimiser {state['optimizer']}, not {optimizer}; "
                f"give that optimiser or another --out."
            )
        if state.get("ema") != self.ema:
            began, asked = state.get("ema") or "null", self.ema or "null"
            raise UserError(
                f"{self.run}: was begun with training.ema {began}, not {asked}; give that or another --out."
            )

    def _load(self, snapshot: SavedSnapshot, path: Path) -> None:
        raw = snapshot.weights if snapshot.raw is None else snapshot.raw
        present, rest = _split(self.objective.state_dict())
        weights = {f"model.{name}": x for name, x in load_like(raw, present).items()}
        self.objective.load_state_dict(weights | load_like(snapshot.objective, rest))
        if self.average is not None:
            self.average.load(load_like(snapshot.weights, present))
        self._load_moments(snapshot.optimizer, path)
        try:
            self.batches.load_state_dict(snapshot.state["batches"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path / STATE}: batches lacks a usable field ({error}); use an undamaged checkpoint."
            ) from None

    def _load_moments(self, moments: StoredTensors, path: Path) -> None:
        unknown = set(moments)
        for name, parameter in self.objective.named_parameters():
            keys = {key.removeprefix(f"{name}."): key for key in unknown if key.startswith(f"{name}.")}
            _require_moments(moments, keys.values(), parameter, path)
            if keys:
                state = {key: moments.like(full, parameter) for key, full in keys.items()}
                require_finite({keys[key]: local_part(x) for key, x in state.items()}, moments.file)
                self.optimizer.state[parameter] = state
            unknown -= set(keys.values())
        if unknown:
            raise UserError(
                f"{path / OPTIMIZER}: has the unknown {min(unknown)}; use an undamaged checkpoint."
            )


def nonfinite(snapshot: Snapshot) -> str | None:
    """Which of the tensors that this process holds is not finite, in words."""
    for what, tensors in (
        ("weights", snapshot.weights if snapshot.raw is None else snapshot.raw),
        ("optimiser state", snapshot.optimizer),
        ("loss scales", snapshot.objective),
    ):
        name = first_nonfinite({name: local_part(x) for name, x in tensors.items()})
        if name is not None:
            return f"{name} of the {what} is not finite"
    return None


def _require_moments(moments: StoredTensors, keys: Iterable[str], parameter: Tensor, path: Path) -> None:
    """Raises `UserError` unless each is a scalar or has the shape of `parameter`."""
    for key in keys:
        shape = moments.shape(key)
        if shape and shape != parameter.shape:
            raise UserError(
                f"{path / OPTIMIZER}: {key} is {list(shape)}, not {list(parameter.shape)}; use an undamaged checkpoint."
            )


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State of an objective -> the model's weights under their own names, and the rest."""
    weights = {name.removeprefix("model."): x for name, x in state.items() if name.startswith("model.")}
    return weights, {name: x for name, x in state.items() if not name.startswith("model.")}
