"""A tiny agent trained by the real stages on generated recordings in VPT's format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.video.codec import encode_video
from reverie.pipelines.cli import main
from tests.data.vpt_corpus import tick, write_log

SIZE = (36, 64)
_LINES = 120


@dataclass(frozen=True)
class Trained:
    """Folders of shards and runs."""

    root: Path

    def flags(self, out: Path, game: str, **more: Any) -> list[str]:
        """Of `reverie evaluate`."""
        given = {
            "data": self.root / "shards",
            "tokenizer": self.root / "tokenizer",
            "agent": self.root / "imagine",
            "out": out,
            "env": game,
            "clips": 2,
            "lpips": "none",
            "device": "cpu",
            **more,
        }
        return ["evaluate", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def games_of(pid: int) -> list[int]:
    """Process ids of the games that the process `pid` has started and not yet seen end."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
        if parent == pid and b"reverie.evaluation.game_process" in command:
            found.append(int(folder.name))
    return found


def write_recordings(folder: Path) -> None:
    """Three sessions at 360 x 640 in which logs are mined, planks and sticks crafted, and so on through the 20 tasks."""
    rng = np.random.default_rng(0)
    items = ["mine_block:oak_log", "craft_item:oak_planks", "craft_item:stick", "mine_block:stone"]
    for session in range(3):
        lines, frames = [], []
        for t in range(_LINES):
            stats = {
                f"minecraft.{name.replace(':', ':minecraft.')}": t // (7 + 3 * i)
                for i, name in enumerate(items)
            }
            held = ("w",) if rng.random() < 0.5 else ()
            lines.append(
                tick(*held, dx=float(rng.integers(-30, 30)), buttons=(0,) if t % 3 else (1,), stats=stats)
            )
            frame = np.full((360, 640, 3), 40 + 60 * session, np.uint8)
            frame[300:340, 4 * t : 4 * t + 40] = 255
            frames.append(frame)
        name = f"alias{session}-session{session}-20210806-1200{session:02d}"
        write_log(folder / f"{name}.jsonl", *lines)
        encode_video(folder / f"{name}.mp4", frames, 20, quality="high")


def train(root: Path) -> Trained:
    """Prepares, trains and improves; each stage is the real command."""
    write_recordings(root / "vpt")
    few = "--training.steps 2 --training.evaluate_every 2 --training.save_every 2 --optimizer.warmup_steps 1"
    batches = "--batches.batch_size 2 --batches.length 8"
    stage = f"{few} {batches} --batches.long_batch_size 1 --batches.long_length 8 --fabric.accelerator cpu"
    sizes = "--model.width 16 --model.time_every 2 --model.num_heads 2 --fabric.precision 32-true"
    tokenizer = (
        "--model.encoder_depth 2 --model.decoder_depth 2 --model.num_kv_heads 2 --model.patch_size 12 "
        "--model.bottleneck_tokens 4 --model.bottleneck_channels 8 --objective.lpips_weight 0"
    )
    dynamics = "--model.depth 2 --model.num_kv_heads 1 --model.num_registers 1 --model.context_length 8"
    commands = [
        f"prepare --source {root}/vpt --out {root}/shards --size [36,64] --workers 1",
        f"tokenizer --data {root}/shards --out {root}/tokenizer {stage} {sizes} {tokenizer}",
        f"encode --data {root}/shards --tokenizer {root}/tokenizer --out {root}/latents",
        f"dynamics --data {root}/latents --out {root}/dynamics {stage} {sizes} {dynamics}",
        f"clone --data {root}/latents --dynamics {root}/dynamics --out {root}/clone {stage} "
        f"--model.head_width 16 --model.prediction_length 2",
        f"imagine --data {root}/latents --agent {root}/clone --out {root}/imagine {few} {batches} "
        f"--imagination.horizon 3 --cpu true",
    ]
    for command in commands:
        assert main(command.split()) == 0, command
    return Trained(root)
