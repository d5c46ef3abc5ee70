"""Where a run shows itself while it trains: TensorBoard, Weights & Biases, or Trackio.

metrics.jsonl is always written (`metrics`); a board gets the same numbers, and pictures and films beside them. The two services
are optional packages: `pip install reverie[wandb]`, `reverie[trackio]`. Trackio keeps runs on this machine (unless
`TRACKIO_SPACE_ID` says otherwise); Weights & Biases sends them, and keeps them in the run folder where it cannot or may not
(`WANDB_MODE=offline`). A training never waits for either.
"""

import io
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from reverie.data.errors import UserError
from reverie.pipelines.runs.run import RunFolder

Logger = Literal["tensorboard", "wandb", "trackio"]
FPS = 4.0
"""Films play at this rate, so that one can see what an action did."""
_PATIENCE = 20.0
"""Seconds in which the server of Weights & Biases must answer."""


class Board(Protocol):
    """Shows numbers, pictures and films of a run."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows (H, W, 3) uint8."""

    def film(self, step: int, name: str, film: np.ndarray) -> None:
        """Shows (T, H, W, 3) uint8."""

    def close(self) -> None:
        """Writes what is left."""


def open_board(logger: Logger, run: RunFolder, step: int) -> Board:
    """The board of a run that goes on after `step`. Raises `UserError` where the package is missing."""
    if logger == "tensorboard":
        return TensorBoard(run.tensorboard, step)
    module = _package(logger)
    return Wandb(module, run.path) if logger == "wandb" else Trackio(module, run.path)


def require_logger(logger: Logger) -> None:
    """Raises `UserError` where the package of `logger` is missing; call it before a run folder is made."""
    if logger != "tensorboard":
        _package(logger)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"--training.logger {name}: the package {name} is not installed; run `pip install {name}`, or use tensorboard."
        ) from None


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Board`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """See `Board`."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def film(self, step: int, name: str, film: np.ndarray) -> None:
        """See `Board`. Written as an animated picture: `add_video` would need another package for the same bytes."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = film.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(film))
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, step)

    def close(self) -> None:
        """See `Board`."""
        self._writer.close()


class Wandb:
    """Weights & Biases; one run for each run folder, gone on with when the folder is."""

    def __init__(self, wandb: Any, folder: Path) -> None:
        self._wandb = wandb
        try:
            self._run = self._begin(folder.resolve())
        except wandb.Error as error:  # no key, or no way to the server
            reason = str(error).splitlines()[0].rstrip(".")
            print(
                f"wandb: {reason}; this run is kept in {folder / 'wandb'}, `wandb sync` sends it.",
                file=sys.stderr,
            )
            wandb.teardown()  # the service would still hold the run that failed
            self._run = self._begin(folder.resolve(), mode="offline")

    def _begin(self, path: Path, **options: Any) -> Any:
        return self._wandb.init(
            project=_project(),
            name=path.name,
            id=_identifier(path),
            dir=str(path),
            resume="allow",
            settings=self._wandb.Settings(init_timeout=_PATIENCE),
            **options,
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Board`."""
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """See `Board`."""
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def film(self, step: int, name: str, film: np.ndarray) -> None:
        """See `Board`."""
        self._run.log({"step": step, name: self._wandb.Video(io.BytesIO(gif(film)), format="gif")})

    def close(self) -> None:
        """See `Board`."""
        self._run.finish()


class Trackio:
    """Trackio, which keeps runs on this machine; one run for each run folder, gone on with when the folder is."""

    def __init__(self, trackio: Any, folder: Path) -> None:
        self._trackio = trackio
        self._films = folder / "trackio"
        path = folder.resolve()
        self._run = trackio.init(project=_project(), name=f"{path.name}-{_identifier(path)}", resume="allow")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Board`."""
        self._trackio.log(dict(values), step=step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """See `Board`."""
        self._trackio.log({name: self._trackio.Image(picture)}, step=step)

    def film(self, step: int, name: str, film: np.ndarray) -> None:
        """See `Board`."""
        self._films.mkdir(exist_ok=True)
        path = self._films / f"{name.replace('/', '-')}-{step:09d}.gif"
        path.write_bytes(gif(film))
        self._trackio.log({name: self._trackio.Video(str(path))}, step=step)

    def close(self) -> None:
        """See `Board`."""
        self._trackio.finish()


def gif(film: np.ndarray) -> bytes:
    """(T, H, W, 3) uint8 as an animated GIF, without an end."""
    frames = [Image.fromarray(frame) for frame in film]
    buffer = io.BytesIO()
    pause = round(1000 / FPS)
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=pause, loop=0)
    return buffer.getvalue()


def _project() -> str:
    return os.environ.get("WANDB_PROJECT") or os.environ.get("TRACKIO_PROJECT") or "reverie"


def _identifier(path: Path) -> str:
    """The same for the same folder, so that a continued run continues its curves."""
    from hashlib import sha256

    return sha256(str(path).encode()).hexdigest()[:12]
