"""Parameters that may be spread over processes (FSDP), and their whole values in checkpoints."""

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor, nn

from reverie.nn.transformer import Layer

if TYPE_CHECKING:  # torch.distributed.tensor takes seconds to import; most runs do without
    from torch.distributed.device_mesh import DeviceMesh


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of `tensor`."""
    return hasattr(tensor, "device_mesh")


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a possibly sharded tensor; every process must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` on the device of `parameter`, and sharded as it is where the shapes agree."""
    value = value.to(parameter.device)
    if not is_sharded(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def shard_layers(objective: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Shards every transformer layer of `objective` by itself, then the rest (FSDP2)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    data_parallel = mesh["data_parallel"]
    for module in objective.modules():
        if isinstance(module, Layer):
            fully_shard(module, mesh=data_parallel)
            # Layers are entered through these methods, not through `forward`.
            for method in ("space", "time"):
                register_fsdp_forward_method(module, method)
    fully_shard(objective, mesh=data_parallel)
    objective.register_forward_pre_hook(_share_buffers)
    return objective


def _share_buffers(objective: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Loss normalisers follow the first process, as under DDP: there is one of each in a checkpoint."""
    for buffer in objective.buffers():
        torch.distributed.broadcast(buffer, src=0)
