"""The one training loop of the stages that learn from shards, driven by Lightning Fabric.

An objective is a module with `forward(batch) -> (loss, metrics)`; the loss always goes through the wrapped module, so
gradients synchronise. From one process to many nodes only flags change: --fabric.devices 8 starts eight processes here;
under torchrun or SLURM the launcher's world is used.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reverie.data.batch import Batch
from reverie.data.errors import UserError
from reverie.nn.onednn import onednn_products
from reverie.nn.precision import bfloat16, in_bfloat16, tf32
from reverie.pipelines.training.accumulation import mean_metrics, micro_batches, one_step
from reverie.pipelines.training.finite import GRADIENT_NORM
from reverie.pipelines.training.metrics import Averages
from reverie.pipelines.training.optimization import (
    OptimizerConfig,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from reverie.pipelines.training.parts import part
from reverie.pipelines.training.processes import Processes, Vote
from reverie.pipelines.training.session import Session
from reverie.pipelines.training.sharding import full_tensor, is_sharded, require_shard_size, shard_layers

if TYPE_CHECKING:  # lightning takes seconds to import, which `--help` should not
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class FabricConfig:
    """Where training runs."""

    accelerator: str = "auto"
    """Device kind: auto, cpu, cuda or mps."""
    devices: int = 1
    """Devices, and so processes, on each node."""
    num_nodes: int = 1
    """Nodes; start the command on each by torchrun or SLURM."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """ddp copies the model to every process, fsdp shards it over them; auto is ddp if there are several."""
    shard_size: int | None = None
    """With fsdp, how many neighbouring processes share one copy of the weights, such as the devices of a node (hybrid sharding);
    null for all."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the forward pass; what needs 32 bits keeps them, see `reverie.nn.precision`.
    auto: bf16-mixed on GPUs that multiply it in hardware, 32-true elsewhere."""


def make_fabric(config: FabricConfig) -> "Fabric":
    """A launched Fabric. With several devices and no outer launcher it starts the other processes.

    Raises `UserError` where there are no such devices.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    config = _as_launched(config)
    strategy = _strategy(config)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # every process would introduce itself
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=strategy,
        )
    except (RuntimeError, ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(
            f"--fabric.accelerator {config.accelerator} with --fabric.devices {config.devices}: cannot be had here "
            f"({_first_sentence(error)}); give devices that there are, or --fabric.accelerator cpu."
        ) from None
    fabric.launch()
    return fabric


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


def fabric_processes(fabric: "Fabric") -> Processes:
    """How the processes of `fabric` agree."""
    if fabric.world_size == 1:
        return Processes()

    return Processes(rank=fabric.global_rank, world_size=fabric.world_size, vote=Vote())


@dataclass(frozen=True)
class Updates:
    """How a stage's weights are updated.

    make_optimizer  called with the objective once it is on its device and sharded
    prepare         called with the optimiser and the number of the coming step; sets its learning rate
    clip_norm       gradients are scaled down to this global norm; None where the optimiser itself clips
    """

    make_optimizer: Callable[[nn.Module], Optimizer]
    prepare: Callable[[Optimizer, int], None]
    clip_norm: float | None


def scheduled_updates(config: OptimizerConfig, steps: int) -> Updates:
    """AdamW or Muon with warm-up and decay over `steps`."""

    def prepare(optimizer: Optimizer, step: int) -> None:
        set_learning_rate(optimizer, learning_rate(step, steps, config))

    return Updates(partial(make_optimizer, config=config), prepare, config.clip_norm)


def fit(
    fabric: "Fabric",
    objective: nn.Module,
    updates: Updates,
    make_session: Callable[[nn.Module, Optimizer], Session],
    precision: str,
    accumulate: int = 1,
) -> None:
    """Trains until the session's last step.

    Args:
      make_session: called with the wrapped objective and the optimiser; resumes both.
      accumulate: micro-batches of a step, see `reverie.pipelines.training.accumulation`.
    """
    model = fabric.setup_module(objective)
    raw_optimizer = updates.make_optimizer(objective)
    optimizer = fabric.setup_optimizers(raw_optimizer)
    assert not isinstance(optimizer, tuple)
    fast = tf32(fabric.device, in_bfloat16(precision, fabric.device))
    with onednn_products(objective, fabric.device), fast, make_session(model, raw_optimizer) as session:
        while session.running:
            step, batch = session.begin_step()
            updates.prepare(raw_optimizer, step)
            with session.counted(), one_step(objective, accumulate):
                metrics = _passes(fabric, model, micro_batches(batch, accumulate), precision)
            with part("optimizer"):
                norm = _clipped_norm(fabric, model, optimizer, updates.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
            session.end_step({**metrics, GRADIENT_NORM: norm})


def _passes(fabric: "Fabric", model: Any, parts: Sequence[Batch], precision: str) -> Mapping[str, Tensor]:
    """Forward and backward of every micro-batch. Returns the metrics.

    Gradients of processes meet in the last one; sharded ones in each, or every process would hold them whole in between.
    """
    seen, sharded = [], any(is_sharded(p) for p in model.parameters())
    for number, rows in enumerate(parts, 1):
        with fabric.no_backward_sync(model, enabled=number < len(parts) and not sharded):
            with part("forward"):
                loss, metrics = forward(model, rows, fabric.device, precision)
            with part("backward"):
                fabric.backward(loss if len(parts) == 1 else loss / len(parts))
        seen.append(metrics)
    return mean_metrics(seen)


def _clipped_norm(fabric: "Fabric", model: Any, optimizer: Any, clip_norm: float | None) -> Tensor:
    """Clips the gradients to `clip_norm`, where that is given; returns the norm that they had."""
    if clip_norm is None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return full_tensor(nn.utils.get_total_norm(gradients))
    norm = fabric.clip_gradients(model, optimizer, max_norm=clip_norm, error_if_nonfinite=False)
    assert norm is not None
    return full_tensor(norm)


def forward(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Any:
    """What the wrapped objective returns for `batch`.

    Fabric's own mixed precision would round the batch itself to bfloat16, and with it the latents and rewards that are targets.
    """
    with bfloat16(device, in_bfloat16(precision, device)):
        return model(batch.to(device))


def heldout_metrics(model: Callable[[Batch], Any], batches: Sequence[Batch]) -> Mapping[str, float]:
    """Means of the objective's metrics over fixed held-out batches."""
    averages = Averages()
    for batch in batches:
        averages.add(model(batch)[1])
    return averages.take()


def _as_launched(config: FabricConfig) -> FabricConfig:
    """Under torchrun its numbers hold: otherwise every process would believe it was alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return config
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return replace(config, devices=local, num_nodes=world // local)


def _strategy(config: FabricConfig) -> "Strategy | str":
    from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy

    # All processes share out the data; by default Lightning would split matrices over those of a node.
    processes = config.devices * config.num_nodes
    if config.strategy == "fsdp":
        require_shard_size(config.shard_size, processes)
        shard = partial(shard_layers, shard_size=config.shard_size)
        return ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1)
    if config.shard_size is not None:
        raise UserError("--fabric.shard_size: is for sharded weights; add --fabric.strategy fsdp.")
    if config.strategy == "ddp" or processes > 1:
        # Which heads and embeddings a batch reaches depends on its labels. Gradients are the buckets, not copies of them.
        return DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True)
    return "auto"
