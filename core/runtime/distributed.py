"""The ranks of a run: where each stands, when they are connected, and the few collectives that Relume uses.

Everything here also works without other ranks, as rank 0 of 1, so that callers need no special case. Ranks meet first (see
`meeting`), and can then gather, broadcast and agree; once they are connected in a process group, tensors travel too.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..annotations import Count, Positive, Range, Section, setting
from ..errors import RanksError, UserError
from . import devices, launchers
from .launchers import restarted

if TYPE_CHECKING:
    from .meeting import Meeting

__all__ = ["restarted"]
T = TypeVar("T")
log = logging.getLogger("relume")

ROLL_CALL = 10.0
"""Seconds in which ranks whose collective failed find out which others are still there."""


@dataclass(frozen=True, eq=False)
class Dist(Section):
    """Process group. Addresses come from torchrun or SLURM."""

    backend: Literal["nccl", "gloo"] | None = setting(None, "nccl on GPUs, gloo on CPUs when omitted.")
    port: Annotated[int, Range(least=1, most=65535)] | None = setting(
        None, "Port of rank 0, for the slurm launcher; from the job's number when omitted."
    )
    timeout: Positive = setting(
        600, "Seconds to wait for the slowest rank: at the start, and in a collective (validation included)."
    )
    threads: Count | None = setting(
        None,
        "CPU threads of each rank; OMP_NUM_THREADS, else cores shared by ranks and loading processes, when omitted.",
    )


_meeting: Meeting | None = None
_hosts: Any = None
"""The process group by which hosts talk, where that of the devices is another; None is the group itself."""
_settings = Dist()


@contextlib.contextmanager
def joined(
    launcher: str, options: Mapping[str, Any], use_cpu: bool, asked: Callable[[], int] = int, kind: str = "auto"
) -> Iterator[torch.device]:
    """Inside, this process is one of the ranks that `launcher` has started; gives its device.

    An error of one rank is told to the others; what a collective says because another rank failed becomes that rank's.

    Raises:
        UserError: what `initialise` raises.
        RanksError: another rank failed or is gone.
    """
    device = initialise(launcher, options, use_cpu, asked, kind)
    try:
        yield device
    except Exception as e:
        if _meeting is None:
            raise
        _release(e)
        elsewhere = None if isinstance(e, UserError) else _failed_elsewhere(e)
        _leave_group()
        _meeting.fail(elsewhere or e)
        if elsewhere is not None:
            raise elsewhere from e
        raise
    finally:
        shut_down()


def initialise(
    launcher: str, options: Mapping[str, Any], use_cpu: bool, asked: Callable[[], int] = int, kind: str = "auto"
) -> torch.device:
    """Meet the ranks that `launcher` (``none``, ``pytorch`` or ``slurm``) has started; the device of this one.

    Args:
        kind: kind of device, see `devices.Device`.

    Raises:
        Stopped: a signal came before the others did, as `asked` says (see `Meeting`).
        UserError: the environment lacks what the launcher promises, ranks do not come, or a node has more ranks than GPUs.
    """
    global _meeting, _settings
    _settings = settings = Dist.of(options)
    meant = launchers.understood(launcher)
    if meant == "none":
        return devices.chosen(kind, use_cpu)
    from .meeting import Meeting

    if kind in ("xpu", "mps"):
        raise UserError(f"device: {kind} takes one process; ranks compute on cuda or on cpu", key="device")
    cuda = kind != "cpu" and devices.chosen(kind, use_cpu).type == "cuda"
    place = launchers.place(meant, settings.port)
    if meant != launcher and place.rank == 0:
        log.warning("RANK and WORLD_SIZE say that this is one of %d ranks: as with --launcher %s", place.world, meant)
    device, error = torch.device("cpu"), None
    try:
        device = _device(place.local_rank) if cuda else device
    except UserError as e:
        error = e
    gpu = f"{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None
    _meeting = Meeting(place, settings.timeout, {"gpu": gpu}, asked)
    agree(error)
    agree(_same_gpu(_meeting))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def connect(device: torch.device) -> None:
    """Make the process group of the ranks that have met. What forks processes should have done so before.

    Raises:
        UserError: the ranks do not reach one another.
    """
    global _hosts
    if _meeting is None or active():
        return
    backend = _settings.backend or ("nccl" if device.type == "cuda" else "gloo")
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", _meeting.store),
            rank=_meeting.rank,
            world_size=_meeting.world,
            timeout=datetime.timedelta(seconds=_settings.timeout),
            device_id=device if device.type == "cuda" and backend == "nccl" else None,
        )
    except (RuntimeError, ValueError) as e:
        said = str(e).strip().splitlines()
        raise UserError(
            f"{_meeting.name(_meeting.rank)} cannot connect to the other ranks by {backend} within {_settings.timeout:g} s "
            f"(dist_params.timeout): {said[0] if said else type(e).__name__}"
        ) from e
    _hosts = dist.new_group(backend="gloo") if backend == "nccl" else None
    _meeting.roll.listen()


def _device(local_rank: int) -> torch.device:
    """The GPU of a rank, by its number on the node, or the only one that it sees."""
    seen = torch.cuda.device_count()
    if local_rank < seen:
        return torch.device("cuda", local_rank)
    if (
        seen == 1 or launchers.own_gpus()
    ):  # bound to the task (srun --gpus-per-task=1); whether it is, all ranks compare
        return torch.device("cuda", local_rank % seen)
    raise UserError(f"local rank {local_rank}, but this node has {seen} GPU(s)")


def _same_gpu(meeting: Meeting) -> UserError | None:
    """The mistake that two ranks have one GPU."""
    owners: dict[tuple[str, str], int] = {}
    for rank, other in enumerate(meeting.others):
        if other["gpu"] is None:
            continue
        first = owners.setdefault((other["host"], other["gpu"]), rank)
        if first != rank:
            return RanksError(
                f"ranks {first} and {rank} have the same GPU of {other['host']}, which has fewer GPUs than ranks: start "
                "fewer there, or set num_gpu: 0 for CPUs",
                2,
            )
    return None


def _failed_elsewhere(error: Exception) -> RanksError | None:
    """What is behind an error of a collective: another rank's failure, or ranks that are gone or silent; None if it is ours."""
    if not active() or _meeting is None or world_size() == 1 or not _of_collective(error):
        return None
    first = str(error).strip().splitlines()[0][:200]
    _leave_group()
    if (failure := _meeting.failure(1.0)) is not None:
        return failure
    try:
        absent = _meeting.roll_call(ROLL_CALL)
    except RanksError as e:
        return e
    _meeting.lost.update(absent.dead)
    who = absent.dead or absent.busy
    from . import roll_call

    return RanksError(roll_call.said_of(absent, _meeting.name, _settings.timeout, first), 1, who) if who else None


def _of_collective(error: Exception) -> bool:
    """Whether an error says that other ranks were not heard of."""
    if isinstance(error, dist.DistError):
        return True
    said = str(error)
    signs = (
        "gloo/transport",
        "Connection closed by peer",
        "Connection reset by peer",
        "Timed out waiting",
        "[c10d]",
        "NCCL",
    )
    return isinstance(error, RuntimeError) and any(sign in said for sign in signs)


def named_device(name: str) -> torch.device:
    """The device that a command line asks for.

    Raises:
        UserError: there is no such device, or it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise UserError(f"--device: there is no '{name}'; give cpu, cuda, cuda:<number>, xpu or mps") from e
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device: '{name}' is not here, with {torch.cuda.device_count()} CUDA device(s)")
    if device.type in ("xpu", "mps") and not devices.available(device.type):
        raise UserError(f"--device: '{name}' is not here")
    return device


def active() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank; 0 without others."""
    return dist.get_rank() if active() else _meeting.rank if _meeting else 0


def world_size() -> int:
    """Number of ranks; 1 without others."""
    return dist.get_world_size() if active() else _meeting.world if _meeting else 1


def named() -> list[str]:
    """The ranks in words: with the hosts they are on, where they have met."""
    return [_meeting.name(r) if _meeting else f"rank {r}" for r in range(world_size())]


def ranks_here() -> int:
    """Number of ranks on this node."""
    if _meeting is None:
        return 1
    return sum(other["host"] == _meeting.others[_meeting.rank]["host"] for other in _meeting.others)


def is_main() -> bool:
    """Whether this is the rank that writes logs and checkpoints."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank."""
    if _connected():
        dist.barrier()


def _connected() -> bool:
    """Whether there is a process group; without one there must not be other ranks, or a number would be this rank's alone."""
    if not active() and world_size() > 1:
        raise RuntimeError("ranks that are not connected yet cannot exchange tensors")
    return active()


def shut_down() -> None:
    """Leave the other ranks, if there are any."""
    global _meeting
    if _meeting is not None:
        _meeting.roll.close()
    _meeting = None
    _leave_group()


def _release(error: BaseException) -> None:
    """Let go of what the frames of an error keep: networks hold connections, and others wait until these are closed."""
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__


def _leave_group() -> None:
    global _hosts
    _hosts = None
    if active():
        dist.destroy_process_group()
        gc.collect()


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
    """Elementwise maximum over ranks, in place, for any shape."""
    if _connected():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def agreed(code: int) -> int:
    """The largest of all ranks' numbers, by way of their hosts: no device is waited for."""
    if not _connected():
        return code
    values = torch.tensor([code])
    dist.all_reduce(values, op=dist.ReduceOp.MAX, group=_hosts)
    return int(values)


def hosts() -> Any:
    """A process group of its own by which the ranks' hosts talk, in the background too. Ranks make it together."""
    return dist.new_group(backend="gloo") if active() else None


def mean(values: Tensor) -> Tensor:
    """Elementwise mean over ranks, in place, for any shape."""
    return total(values).div_(world_size())


def total(values: Tensor) -> Tensor:
    """Elementwise sum over ranks, in place, for any shape."""
    if _connected():
        dist.all_reduce(values)
    return values


def global_mean(value: Tensor) -> Tensor:
    """Mean over ranks of each rank's mean, for any shape, through which gradients flow back to every rank.

    A loss of it has, after the averaging of gradients over ranks, the gradient that one rank would have on the whole batch.
    """
    if not _connected():
        return value
    from torch.distributed.nn.functional import all_reduce

    mean: Tensor = all_reduce(value) / world_size()
    return mean


def concatenated(values: Tensor) -> Tensor:
    """Every rank's `values`, (n, ...) of the same shape everywhere, one after the other in rank order: (W n, ...)."""
    if not _connected():
        return values
    every = values.new_empty(world_size() * values.shape[0], *values.shape[1:])
    dist.all_gather_into_tensor(every, values.contiguous())
    return every


def gather(value: T) -> list[T]:
    """Every rank's `value`, in rank order, on every rank: this one's as it is, the others' as `messages` bring them.

    Raises:
        TypeError: `messages.pack` cannot send it.
    """
    if world_size() == 1:
        return [value]
    if not active():
        assert _meeting is not None
        values: list[T] = _meeting.gather(value)
    else:
        from . import messages

        values = [messages.unpack(m) for m in _exchanged(messages.pack(value))]
    values[rank()] = value
    return values


def broadcast(value: T) -> T:
    """Rank 0's `value` on every rank; see `gather`."""
    if world_size() == 1:
        return value
    if not active():
        assert _meeting is not None
        heard: T = _meeting.broadcast(value)
        return heard
    from . import messages

    sent = _exchanged(messages.pack(value) if rank() == 0 else b"")[0]
    return value if rank() == 0 else messages.unpack(sent)


def _exchanged(message: bytes) -> list[bytes]:
    """Every rank's message."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    length = torch.tensor([len(message)], dtype=torch.int64, device=device)
    lengths = [int(n) for n in concatenated(length).tolist()]
    padded = torch.zeros(max(1, *lengths), dtype=torch.uint8)
    padded[: len(message)] = torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else padded[:0]
    every = concatenated(padded.to(device)).reshape(len(lengths), -1).cpu().numpy()
    return [row[:n].tobytes() for row, n in zip(every, lengths, strict=True)]


def agree(error: UserError | None) -> None:
    """Raise on every rank when any rank has an error, so that none waits for one that left.

    Raises:
        UserError: this rank's error.
        RanksError: it is the first other rank's, which is named unless all ranks have the same.
    """
    errors = gather(error)
    if error is not None:
        raise error
    for owner, other in enumerate(errors):
        if other is not None:
            raise RanksError(f"{named()[owner]} failed: {other}", other.code)
