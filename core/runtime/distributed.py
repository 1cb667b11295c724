"""Process groups: start one from torchrun's or SLURM's environment, and the few collectives that Relume uses.

Everything here also works without a process group, as rank 0 of 1, so that callers need no special case.
"""

from __future__ import annotations

import atexit
import datetime
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..annotations import Positive, Range, Section, setting
from ..errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Dist(Section):
    """Process group. Addresses come from torchrun or SLURM."""

    backend: Literal["nccl", "gloo"] | None = setting(None, "nccl on GPUs, gloo on CPUs when omitted.")
    port: Annotated[int, Range(least=1, most=65535)] = setting(29500, "Port of rank 0, for the slurm launcher.")
    timeout: Positive = setting(1800, "Seconds a collective may wait for the slowest rank (validation included).")


def initialise(launcher: str, options: Mapping[str, Any], use_cpu: bool) -> torch.device:
    """Join the process group that `launcher` (``none``, ``pytorch`` or ``slurm``) describes; the device of this rank.

    Raises:
        UserError: the environment lacks what the launcher promises, or a node has more ranks than GPUs.
    """
    settings = Dist.of(options)
    cuda = torch.cuda.is_available() and not use_cpu
    if launcher == "none":
        return torch.device("cuda", 0) if cuda else torch.device("cpu")
    if launcher == "slurm":
        _environment_from_slurm(settings.port)
    lacking = [k for k in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if k not in os.environ]
    if lacking:
        raise UserError(
            f"--launcher {launcher}: the environment lacks {', '.join(lacking)}. "
            "Start with: torchrun --nproc_per_node=<GPUs> -m relume train -opt <file> --launcher pytorch"
        )
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if cuda:
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"local rank {local_rank}, but this node has {torch.cuda.device_count()} GPU(s)")
        torch.cuda.set_device(local_rank)
    timeout = datetime.timedelta(seconds=settings.timeout)
    store, rank_here, ranks = next(dist.rendezvous("env://", timeout=timeout))
    # torchrun keeps its store over a restart; without a prefix the new ranks would find the addresses of dead ones there.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        settings.backend or ("nccl" if cuda else "gloo"),
        store=dist.PrefixStore(f"relume_attempt_{attempt}", store),
        rank=rank_here,
        world_size=ranks,
        timeout=timeout,
        device_id=torch.device("cuda", local_rank) if cuda else None,
    )
    return torch.device("cuda", local_rank) if cuda else torch.device("cpu")


def named_device(name: str) -> torch.device:
    """The device that a command line asks for.

    Raises:
        UserError: there is no such device, or it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise UserError(f"--device: there is no '{name}'; give cpu, cuda or cuda:<number>") from e
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device: '{name}' is not here, with {torch.cuda.device_count()} CUDA device(s)")
    return device


def _environment_from_slurm(port: int) -> None:
    """Translate srun's variables into those that ``init_process_group`` reads."""
    try:
        nodes = os.environ["SLURM_STEP_NODELIST" if "SLURM_STEP_NODELIST" in os.environ else "SLURM_NODELIST"]
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
        os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
        os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    except KeyError as e:
        raise UserError(f"--launcher slurm: {e.args[0]} is not set; start with srun") from e
    os.environ.setdefault("MASTER_PORT", str(port))
    if "MASTER_ADDR" not in os.environ:
        try:
            hosts = subprocess.run(  # noqa: S603
                ["scontrol", "show", "hostnames", nodes],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
        except (OSError, subprocess.CalledProcessError) as e:
            raise UserError(f"--launcher slurm: cannot list the hosts of '{nodes}' with scontrol ({e})") from e
        os.environ["MASTER_ADDR"] = hosts[0]


def restarted() -> bool:
    """Whether torchrun or SLURM has started this run again, which then goes on where it was."""
    return any(int(os.environ.get(k) or 0) > 0 for k in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def active() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if active() else 1


def is_main() -> bool:
    """Whether this is the rank that writes logs and checkpoints."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank."""
    if active():
        dist.barrier()


def shut_down() -> None:
    """Leave the process group, if there is one."""
    if active():
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process, whose work is done and saved, with an exit code.

    A launcher's rank ends without the teardown of the interpreter: torch's threads (gloo's, and autograd's under FSDP) outlive
    the process group, and one of them that asks a vanishing interpreter for its lock aborts a rank that had finished.
    """
    if "RANK" in os.environ:
        atexit._run_exitfuncs()  # trackers, temporary folders, worker processes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def maximum(values: Tensor) -> Tensor:
    """Elementwise maximum over ranks, in place."""
    if active():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def mean(values: Tensor) -> Tensor:
    """Elementwise mean over ranks, in place."""
    return total(values).div_(world_size())


def total(values: Tensor) -> Tensor:
    """Elementwise sum over ranks, in place."""
    if active():
        dist.all_reduce(values)
    return values


def global_mean(value: Tensor) -> Tensor:
    """Mean over ranks of a rank's mean, through which gradients flow back to every rank.

    A loss of it has, after the averaging of gradients over ranks, the gradient that one rank would have on the whole batch.
    """
    if not active():
        return value
    from torch.distributed.nn.functional import all_reduce

    mean: Tensor = all_reduce(value) / world_size()
    return mean


def concatenated(values: Tensor) -> Tensor:
    """Every rank's `values`, (n, ...) of the same shape everywhere, one after the other in rank order: (W n, ...)."""
    if not active():
        return values
    every = values.new_empty(world_size() * values.shape[0], *values.shape[1:])
    dist.all_gather_into_tensor(every, values.contiguous())
    return every


def gather(value: T) -> list[T]:
    """Every rank's `value` (picklable; sent between our own processes only), in rank order, on every rank."""
    if not active():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast(value: T) -> T:
    """Rank 0's `value` on every rank."""
    box = [value]
    if active():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def agree(error: UserError | None) -> None:
    """Raise on every rank when any rank has an error, so that none waits for one that left.

    Raises:
        UserError: the first rank's error.
    """
    first = next((e for e in gather(error) if e is not None), None)
    if first is not None:
        raise first


def wrap(network: nn.Module, device: torch.device, find_unused: bool, broadcast_buffers: bool = True) -> nn.Module:
    """DistributedDataParallel around a network that has something to train; the network itself without a process group.

    Args:
        network: on `device`.
        device: of this rank.
        find_unused: whether some updates leave some of its parameters without a gradient.
        broadcast_buffers: take rank 0's buffers before each call. Not for a network that is called twice before it is
            differentiated: they would be written over while the first call still needs them. See `align_buffers`.
    """
    if not active() or not any(p.requires_grad for p in network.parameters()):
        return network
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        network, device_ids=ids, find_unused_parameters=find_unused, broadcast_buffers=broadcast_buffers
    )


def align_buffers(network: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as a checkpoint of them will, where DistributedDataParallel has not."""
    if isinstance(network, nn.parallel.DistributedDataParallel) and not network.broadcast_buffers:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def is_sharded(network: nn.Module) -> bool:
    """Whether FSDP2 has split this network over ranks."""
    if not active():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(network, FSDPModule)


def reshard(network: nn.Module) -> None:
    """Part with the other ranks' share after an evaluation, where FSDP2 leaves the outermost parameters whole."""
    if is_sharded(network):
        network.reshard()  # type: ignore[operator]


def shard(network: nn.Module) -> nn.Module:
    """FSDP2: shard parameters, gradients and optimizer state over ranks, in place; the largest child lists block by block."""
    from torch.distributed.fsdp import fully_shard

    for module in reversed(list(network.modules())):  # lists within blocks of other lists come first
        if isinstance(module, nn.ModuleList):
            for block in module:
                if any(True for _ in block.parameters()):
                    fully_shard(block)
    fully_shard(network)
    return network
