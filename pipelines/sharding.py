"""Parameters that may be spread over processes (FSDP), and their whole values in checkpoints."""

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from reverie.nn.transformer import Layer


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a possibly sharded tensor; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` on the device of `parameter`, and sharded as it is where the shapes agree."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def shard_layers(objective: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shards every transformer layer of `objective` by itself, then the rest (FSDP2)."""
    data_parallel = mesh["data_parallel"]
    for module in objective.modules():
        if isinstance(module, Layer):
            fully_shard(module, mesh=data_parallel)
            # Layers are entered through these methods, not through `forward`.
            for method in ("space", "time"):
                register_fsdp_forward_method(module, method)
    fully_shard(objective, mesh=data_parallel)
    return objective
