"""Networks whose batches, or whose parameters too, are split over the ranks."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._pytree import tree_map_only

from . import distributed
from .activations import LAYER_LISTS, blocks

Compression = Literal["fp16", "bf16"]


def wrap(
    network: nn.Module,
    device: torch.device,
    find_unused: bool,
    broadcast_buffers: bool = True,
    compression: Compression | None = None,
) -> nn.Module:
    """DistributedDataParallel around a network that has something to train; the network itself without a process group.

    Args:
        network: network, on `device`.
        device: device of this rank.
        find_unused: whether some updates leave some of its parameters without a gradient.
        broadcast_buffers: take rank 0's buffers before each call. Not for a network that is called twice before it is
            differentiated: they would be written over while the first call still needs them. See `align_buffers`.
        compression: gradients travel in half precision; they are averaged in it too.
    """
    if not distributed.active() or not any(p.requires_grad for p in network.parameters()):
        return network
    ids = [device.index] if device.type == "cuda" else None
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_hook(functools.partial(_laid_out_like, parameter.stride()))
    wrapper = nn.parallel.DistributedDataParallel
    new_name = (
        "forward_sync_buffers" in inspect.signature(wrapper).parameters
    )  # which newer torch asks for with a warning
    buffers: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": broadcast_buffers}
    wrapped = wrapper(network, device_ids=ids, find_unused_parameters=find_unused, **buffers)
    if compression is not None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(None, getattr(default_hooks, f"{compression}_compress_hook"))
    return wrapped


def _laid_out_like(strides: tuple[int, ...], gradient: torch.Tensor) -> torch.Tensor | None:
    """A gradient in its parameter's memory layout, into which DistributedDataParallel would have to copy it with a warning.

    Backward passes of convolutions with 1 x 1 kernels give sides of length 1 other strides, which is the same memory.
    """
    if gradient.stride() == strides:
        return None
    same = gradient.as_strided(gradient.shape, strides) if gradient.is_contiguous() else None
    if same is not None and same.is_contiguous():
        return same
    return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)


def align_buffers(network: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as a checkpoint of them will; batch statistics are each rank's own until then."""
    if distributed.active():
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def is_sharded(network: nn.Module) -> bool:
    """Whether FSDP2 has split this network over ranks."""
    if not distributed.active():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(network, FSDPModule)


def sharded_owner(networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> nn.Module | None:
    """The sharded network whose parameters `optimizer` steps, if it is one."""
    stepped = {id(p) for g in optimizer.param_groups for p in g["params"]}
    for network in networks.values():
        if is_sharded(network) and any(id(p) in stepped for p in network.parameters()):
            return network
    return None


def is_shared(value: Any) -> bool:
    """Whether this is a tensor of which each rank has a part."""
    return isinstance(value, torch.Tensor) and hasattr(value, "to_local")


def reshard(network: nn.Module) -> None:
    """Part with the other ranks' share after an evaluation, where FSDP2 leaves the outermost parameters whole."""
    if is_sharded(network):
        network.reshard()  # type: ignore[operator]


def shard(network: nn.Module) -> nn.Module:
    """FSDP2: shard parameters, gradients and optimizer state over ranks, in place, one unit after the other."""
    from torch.distributed.fsdp import fully_shard

    for unit in [*units(network), network]:
        unit.register_forward_hook(_without_views)
        fully_shard(unit)
    return network


def _without_views(unit: nn.Module, inputs: Any, output: Any) -> Any:
    """A unit's output, of which nothing is a view: a network that adds to one in place would lose FSDP2's hook on it."""
    return tree_map_only(torch.Tensor, lambda x: x.clone() if x.requires_grad and x._is_view() else x, output)


def units(network: nn.Module) -> Iterator[nn.Module]:
    """What is gathered whole when it is needed, and parted with again: the repeated blocks of a network.

    These are `activations.blocks`, and beside them modules with layers of their own of which the network has several of one
    kind, under whatever names.
    """
    listed = list(blocks(network))
    inside = {module for block in listed for module in block.modules()}

    def alone(module: nn.Module) -> bool:
        """Whether it has layers, and nothing in common with the listed blocks."""
        return (
            not isinstance(module, LAYER_LISTS)
            and any(True for _ in module.children())
            and inside.isdisjoint(module.modules())
        )

    kinds = Counter(type(module) for module in network.modules() if alone(module))

    def outermost(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if child not in listed and not (alone(child) and kinds[type(child)] > 1):
                yield from outermost(child)
            elif any(True for _ in child.parameters()):
                yield child

    yield from outermost(network)
