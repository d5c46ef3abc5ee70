"""What the loader is told."""

from dataclasses import dataclass

from reverie.data.errors import UserError
from reverie.data.shards.local import PATIENCE
from reverie.data.video.decoders import Backend


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What a batch is made of."""

    batch_size: int
    """Rows in a batch over all ranks together."""
    length: int
    """Frames in a row."""
    seed: int = 0
    """With the batch number, decides everything."""
    split: str = "train"
    """Split of the shards to read."""
    relevant_fraction: float = 0.0
    """Share of the rows, the last of each batch, drawn from stretches in which their task is accomplished, for the task
    `return` from the better episodes."""
    best_fraction: float = 0.1
    """Of the episodes with known actions and rewards, the share with the greatest returns, which is relevant to the task
    `return`; in (0, 1]."""
    relevant_before: int | None = None
    """Frames before an accomplished task that are relevant to it; None: as many as `length`."""
    num_workers: int = 0
    """Worker processes; 0 reads in this one. The order is the same for any number."""
    labelled_fraction: float = 1.0
    """Share of the labelled episodes of each corpus whose actions and rewards are shown; the others count as plain video."""
    labelled_group: str | None = None
    """Group of the episodes whose actions and rewards are shown; the others count as plain video. None: all groups."""
    task: str | None = None
    """Name of the one task of all rows; None draws a task per episode."""
    decoder: Backend = "pyav"
    """Library that decodes clips: pyav or decord."""
    cache_bytes: int = 512_000_000
    """Decoded clips or latents kept in memory, shared out to workers and corpora; those of a corpus only if all of them fit."""
    patience: float = PATIENCE
    """Seconds after which a shard that does not answer is left out."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        for name in ("relevant_fraction", "labelled_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: must be in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.best_fraction <= 1:
            raise UserError(f"best_fraction: must be above 0 and at most 1, got {self.best_fraction}.")
