"""Parameters that may be spread over processes (FSDP2), and their whole values.

Weights, gradients and optimiser state are sharded in float32 along their first dimension, and gradients are summed in float32.
bfloat16 stays the business of autocast (`reverie.nn.precision`): a policy of FSDP would also round what must not be rounded, such
as gains of norms, embeddings and the tokenizer's decoder, and would save only bandwidth.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from reverie.data.errors import UserError
from reverie.nn.transformer import Layer

if TYPE_CHECKING:  # torch.distributed.tensor takes seconds to import; most runs do without
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of `tensor`."""
    return hasattr(tensor, "device_mesh")


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a possibly sharded tensor; every process must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a possibly sharded tensor; shares its memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def held_rows(tensor: Tensor) -> tuple[int, int]:
    """The first row and the end of what this process holds of a possibly sharded tensor; a scalar is one row."""
    rows = tensor.shape[0] if tensor.dim() else 1
    start = 0
    for shard, coordinate, processes in _places(tensor):
        if shard:
            start = min(rows, coordinate * -(-rows // processes))  # as torch.chunk has it
    held = local_part(tensor).shape[0] if tensor.dim() else 1
    return start, start + held


def is_first_holder(tensor: Tensor, rank: int) -> bool:
    """Whether no process before this one, number `rank`, holds the same part of a possibly sharded tensor."""
    if not is_sharded(tensor):
        return rank == 0
    return all(shard or coordinate == 0 for shard, coordinate, _ in _places(tensor))


def _places(tensor: Tensor) -> Iterator[tuple[bool, int, int]]:
    """For each dimension of the mesh: whether rows are spread over it, this process's coordinate, and the processes."""
    if not is_sharded(tensor):
        return
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(tensor, DTensor)
    coordinates = tensor.device_mesh.get_coordinate()
    assert coordinates is not None
    for dimension, (place, coordinate) in enumerate(zip(tensor.placements, coordinates, strict=True)):
        assert place.is_replicate() or place == Shard(0), place
        yield place == Shard(0), coordinate, tensor.device_mesh.size(dimension)


def shard_like(rows: Tensor, parameter: Tensor) -> Tensor:
    """The sharded tensor of which this process holds `rows`, those of `held_rows`; nothing is sent."""
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        rows.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def require_shard_size(shard_size: int | None, processes: int) -> None:
    """Raises `UserError` unless groups of `shard_size` divide the processes evenly."""
    if shard_size is not None and (shard_size < 1 or processes % shard_size):
        raise UserError(
            f"--fabric.shard_size {shard_size}: must divide the number of processes, {processes}; "
            f"give the devices of a node, or leave it out to shard over all."
        )


def shard_layers(objective: nn.Module, mesh: "DeviceMesh", shard_size: int | None = None) -> nn.Module:
    """Shards every transformer layer of `objective` by itself, then the rest.

    Args:
      mesh: of all processes, with a dimension `data_parallel`.
      shard_size: neighbouring processes that share one copy; None for all of them. Copies are kept alike (hybrid sharding).
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    chosen = _sharding_mesh(mesh, shard_size)
    precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in objective.modules():
        if isinstance(module, Layer):
            fully_shard(module, mesh=chosen, mp_policy=precision)
            # Layers are entered through these methods, not through `forward`.
            for method in ("space", "time"):
                register_fsdp_forward_method(module, method)
    fully_shard(objective, mesh=chosen, mp_policy=precision)
    objective.register_forward_pre_hook(_share_buffers)
    return objective


def _sharding_mesh(mesh: "DeviceMesh", shard_size: int | None) -> "DeviceMesh":
    from torch.distributed.device_mesh import init_device_mesh

    processes = mesh["data_parallel"].size()
    if shard_size is None or shard_size == processes:
        return mesh["data_parallel"]
    shape, names = (processes // shard_size, shard_size), ("replicate", "shard")
    return init_device_mesh(mesh.device_type, shape, mesh_dim_names=names)


def reshard(objective: nn.Module) -> None:
    """Lets go of what FSDP has gathered: the next pass gathers anew, from weights that were changed in the meantime."""
    for module in objective.modules():
        let_go: Callable[[], None] | None = getattr(module, "reshard", None)
        if let_go is not None:
            let_go()


def _share_buffers(objective: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Loss normalisers follow the first process, as under DDP: there is one of each in a checkpoint."""
    for buffer in objective.buffers():
        torch.distributed.broadcast(buffer, src=0)


def on_whole_matrices(function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """`function` of sharded matrices of one shape, each process computing its share of them.

    Rows go to the process that computes a matrix, and its result comes back, in one exchange each way.

    Args:
      function: (n, rows, columns) -> same, for each matrix by itself; rows of zeros below a matrix must change nothing.
      matrices: (rows, columns), sharded along rows over one group of processes; in the same order everywhere.

    Returns:
      This process's rows of each result.
    """
    group, size = _shard_group(matrices[0])
    parts = [local_part(matrix) for matrix in matrices]
    rows = -(-matrices[0].shape[0] // size)  # of a part, as torch.chunk has it; the last ones may have fewer
    padded: list[Tensor] = [F.pad(part, (0, 0, 0, rows - part.shape[0])) for part in parts]
    padded += [torch.zeros_like(padded[0])] * (-len(parts) % size)
    gathered = _exchange(rearrange(padded, "(owner n) r c -> owner n r c", owner=size), group)
    whole = function(rearrange(gathered, "owner n r c -> n (owner r) c"))
    returned = _exchange(rearrange(whole, "n (owner r) c -> owner n r c", owner=size), group)
    results = rearrange(returned, "owner n r c -> (owner n) r c")
    return [result[: part.shape[0]] for result, part in zip(results, parts, strict=False)]


def _shard_group(tensor: Tensor) -> tuple["ProcessGroup", int]:
    """The processes over which the rows of `tensor` are spread."""
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(tensor, DTensor)
    dimension = next(i for i, place in enumerate(tensor.placements) if place == Shard(0))
    return tensor.device_mesh.get_group(dimension), tensor.device_mesh.size(dimension)


def _exchange(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Part i goes to process i of the group; part j of the result came from process j."""
    x = x.contiguous()
    received = torch.empty_like(x)
    torch.distributed.all_to_all_single(received, x, group=group)
    return received
