"""What `reverie prepare` is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reverie.data.errors import UserError
from reverie.data.sources.layout import Layout
from reverie.data.sources.lerobot.dataset import LeRobotOptions
from reverie.data.sources.vpt.recordings import VPTOptions
from reverie.data.video.codec import Quality
from reverie.data.video.decoders import Backend
from reverie.data.video.resize import ResizeMode


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turns recorded episodes, VPT recordings, LeRobot datasets, or videos with or without logs, into shards."""

    source: Path
    """Folder of recorded episodes (`reverie record`), LeRobot dataset, folder of videos, searched at any depth, or a video."""
    out: Path
    """Folder for the shards. The same command again continues an interrupted run."""
    base: Path | None = None
    """Shards to which the sources are added, in their form (size, rate, clips, split); out is that folder, or a new one that
    shares its files."""
    size: tuple[int, int] | None = None
    """Height and width in pixels of the stored frames; default: the size of the videos, if they agree."""
    mode: ResizeMode = "pad"
    """How other sizes are fitted: pad (black bars), crop (cut the overhang) or stretch."""
    fps: float | None = None
    """Frames a second of the stored clips, converted by timestamps; default: the rate of the videos."""
    clip_length: int = 256
    """Frames in a clip, the unit of storage. Windows for training may span the clips of an episode."""
    validation_fraction: float = 0.1
    """Share of the episodes (of VPT: sessions) held out, at least one of two or more; a lone video is split by time."""
    seed: int = 0
    """Decides which episodes are held out."""
    quality: Quality | Literal["auto"] = "auto"
    """lossless, high, standard; auto: lossless for frames up to 128 pixels high, high above."""
    shard_mb: float = 256.0
    """Size limit of one shard file in MB."""
    decoder: Backend = "pyav"
    """Library that reads the stored clips back, to measure what storing cost: pyav or decord. Videos are read by PyAV."""
    interlaced: Literal["keep", "refuse"] = "keep"
    """Videos whose frames hold two moments, line by line: store them so and say it, or skip them."""
    hdr: Literal["keep", "refuse"] = "keep"
    """Videos of high dynamic range: store their colours without tone mapping and say it, or skip them."""
    workers: int = 0
    """Videos converted at a time, each holding one clip in memory; 0: one per CPU core."""
    ray: str | None = None
    """Ray cluster that converts the videos instead: auto, local or HOST:PORT; all its machines must see both folders."""
    vpt: VPTOptions = field(default_factory=VPTOptions)
    """How the quirks of VPT recordings are read."""
    lerobot: LeRobotOptions = field(default_factory=LeRobotOptions)
    """Which parts of a LeRobot dataset are taken."""
    layout: Layout = field(default_factory=Layout)
    """Rate of pictures, and where the parts of episodes lie in files of arrays."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 2:
            raise UserError(f"size: must be at least 2 2 pixels, got {self.size}.")
        if self.fps is not None and self.fps <= 0:
            raise UserError(f"fps: must be above 0, got {self.fps}.")
        if self.clip_length < 2:
            raise UserError(f"clip_length: must be at least 2 frames, got {self.clip_length}.")
        if not 0 <= self.validation_fraction < 1:
            raise UserError(f"validation_fraction: must be in [0, 1), got {self.validation_fraction}.")
        if self.shard_mb <= 0:
            raise UserError(f"shard_mb: must be above 0, got {self.shard_mb}.")
