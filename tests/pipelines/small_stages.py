"""Tiny stages on a corpus made by the real writers, run in processes of their own, which can be killed."""

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from reverie.agent.imagination import ImaginationConfig
from reverie.agent.model import AgentConfig
from reverie.data.errors import UserError
from reverie.dynamics.model import DynamicsConfig
from reverie.pipelines.runs.stops import Stopped
from reverie.pipelines.stages.baseline import baseline
from reverie.pipelines.stages.baseline_config import BaselineStage, OnlineConfig, PolicyConfig
from reverie.pipelines.stages.clone import CloneStage, train_clone
from reverie.pipelines.stages.dynamics import DynamicsStage, train_dynamics
from reverie.pipelines.stages.encode import EncodeConfig, encode
from reverie.pipelines.stages.imagine import ImagineStage, train_imagine
from reverie.pipelines.stages.tokenizer import TokenizerStage, train_tokenizer
from reverie.pipelines.training.batches import BatchesConfig
from reverie.pipelines.training.loop import FabricConfig
from reverie.pipelines.training.optimization import OptimizerConfig
from reverie.pipelines.training.session import TrainingConfig
from reverie.tokenizer.model import TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjectiveConfig
from tests.processes import TIMEOUT, start
from tests.rssm.models import small_config

STAGES: dict[str, Callable[[Any], None]] = {
    "tokenizer": train_tokenizer,
    "encode": encode,
    "dynamics": train_dynamics,
    "clone": train_clone,
    "imagine": train_imagine,
    **dict.fromkeys(("v1", "v2", "v3", "online"), baseline),
}


@dataclass(frozen=True)
class Corpus:
    """Folders of the shared corpus and of finished runs, made on first use."""

    root: Path

    def config(self, stage: str, out: Path) -> Any:
        """The tiny configuration of `stage`, writing to `out`; makes what it needs first."""
        return getattr(self, f"_{stage}")(out)

    def finished(self, stage: str) -> Path:
        """The folder of an undisturbed run of `stage`."""
        out = self.root / stage
        if not (out / "done").exists():
            run_stage(stage, self.config(stage, out)).join(TIMEOUT)
            (out / "done").touch()
        return out

    @property
    def shards(self) -> Path:
        """Video shards of recorded play."""
        return self.root / "shards"

    def _tokenizer(self, out: Path) -> TokenizerStage:
        model = TokenizerConfig(
            width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=4, bottleneck_channels=8
        )
        objective = TokenizerObjectiveConfig(lpips_weight=0.0)
        return TokenizerStage(data=self.shards, out=out, model=model, objective=objective, **_common(2, 4))

    def _encode(self, out: Path) -> EncodeConfig:
        tokenizer = self.finished("tokenizer")
        return EncodeConfig(
            data=self.shards, tokenizer=tokenizer, out=out, frames_per_pass=32, shard_mb=0.02, device="cpu"
        )

    def _dynamics(self, out: Path) -> DynamicsStage:
        model = DynamicsConfig(
            width=32, depth=4, num_heads=2, num_kv_heads=1, num_registers=1, context_length=4
        )
        return DynamicsStage(data=self.finished("encode"), out=out, model=model, **_common(4, 6, "muon"))

    def _clone(self, out: Path) -> CloneStage:
        latents, dynamics = self.finished("encode"), self.finished("dynamics")
        model = AgentConfig(head_width=16, prediction_length=2)
        return CloneStage(data=latents, dynamics=dynamics, out=out, model=model, **_common(4, 6, "muon"))

    def _imagine(self, out: Path) -> ImagineStage:
        common = _common(4, 4)
        common.pop("fabric")
        imagination = ImaginationConfig(horizon=3, sampling_steps=2)
        latents, agent = self.finished("encode"), self.finished("clone")
        return ImagineStage(data=latents, agent=agent, out=out, imagination=imagination, cpu=True, **common)

    def _v1(self, out: Path) -> BaselineStage:
        return self.offline("v1", out)

    def _v2(self, out: Path) -> BaselineStage:
        return self.offline("v2", out)

    def _v3(self, out: Path) -> BaselineStage:
        return self.offline("v3", out)

    def offline(self, version: Literal["v1", "v2", "v3"], out: Path, **changes: Any) -> BaselineStage:
        """Six steps of the world model, six of the policy."""
        common = _common(4, 8) | {
            "training": TrainingConfig(steps=6, log_every=1, evaluate_every=3, save_every=3, keep=4),
            "policy": PolicyConfig(steps=6),
            "task": "reach_goal",
        }
        del common["optimizer"]
        settings = {"data": self.shards, **common, **changes}
        return BaselineStage(version=version, out=out, model=small_config(version, burn_in=2), **settings)

    def _online(self, out: Path) -> BaselineStage:
        common = _common(4, 8)
        del common["optimizer"]
        collect = OnlineConfig(prefill=40, train_ratio=2.0, memory=120, noise=0.1, episodes=2)
        return BaselineStage(
            version="v3",
            out=out,
            model=small_config("v3"),
            online=True,
            env="minigrid-empty-5x5",
            max_steps=12,
            collect=collect,
            **common,
        )


def run_stage(stage: str, config: Any, max_file_bytes: int | None = None) -> BaseProcess:
    """Starts a stage in a process of its own; `max_file_bytes` makes larger files fail, as on a full disk."""
    return start(_run, stage, config, max_file_bytes)


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Returns once `condition` holds or the process has ended."""
    deadline = time.monotonic() + TIMEOUT
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline, "the stage did not get there"
        time.sleep(0.001)


def shorter(config: Any, **training: Any) -> Any:
    """`config` with other training settings."""
    return replace(config, training=replace(config.training, **training))


def _run(stage: str, config: Any, max_file_bytes: int | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    try:
        STAGES[stage](config)
    except Stopped as stopped:
        print(stopped)
        os._exit(130)
    except UserError as error:
        print(error)
        os._exit(1)


def _common(batch_size: int, length: int, optimizer: Literal["adamw", "muon"] = "adamw") -> dict[str, Any]:
    return {
        "batches": BatchesConfig(
            batch_size=batch_size, length=length, long_batch_size=2, long_length=8, long_probability=0.5
        ),
        "optimizer": OptimizerConfig(name=optimizer, lr=1e-3, warmup_steps=2),
        "training": TrainingConfig(steps=12, log_every=1, evaluate_every=6, save_every=3),
        "fabric": FabricConfig(accelerator="cpu"),
    }
