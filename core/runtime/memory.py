"""How much memory this process may use, what a network needs of it, and errors that say that there was too little."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from . import devices

try:
    import resource as limits_of
except ImportError:  # Windows
    limits_of: Any = None  # type: ignore[no-redef]

GIB = 1 << 30
UNKNOWN = 1 << 62
"""Bytes of a machine that does not say how many it has."""
MOST_LAYERS = 10_000
"""Modules within a network: more than any has."""
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
ALLOCATORS = (
    *("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "Insufficient memory"),
    *("Cannot allocate memory", "Unable to allocate", "Storage size calculation overflowed", "numel: integer"),
    *("array is too big", "Maximum allowed dimension", "cannot reserve", "Invalid memory allocation"),
)
"""What libraries say when memory is at its end, or was asked for in a quantity that no machine has."""


def there_is() -> int:
    """Bytes that this process may use: the least of the machine's, its control group's and its own limit."""
    limits = [UNKNOWN]
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows has no such question
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such control groups, or "max"
            limits.append(int(Path(name).read_text()))
    if limits_of is not None and (soft := limits_of.getrlimit(limits_of.RLIMIT_AS)[0]) != limits_of.RLIM_INFINITY:
        limits.append(soft)
    return min(limits)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError, ValueError)) and any(words in str(error) for words in ALLOCATORS)


@contextlib.contextmanager
def bounded(device: torch.device) -> Iterator[None]:
    """Inside, on a CPU, what asks for more memory than there is gets an error, instead of a system that ends the process."""
    if device.type != "cpu" or limits_of is None:
        yield
        return
    soft, hard = limits_of.getrlimit(limits_of.RLIMIT_DATA)
    least = min(limit for limit in (there_is(), soft, hard) if limit != limits_of.RLIM_INFINITY)
    limits_of.setrlimit(limits_of.RLIMIT_DATA, (least, hard))
    try:
        yield
    finally:
        limits_of.setrlimit(limits_of.RLIMIT_DATA, (soft, hard))


# ------------------------------------------------------------------ networks
class TooManyLayers(UserError):
    """A network of more than `MOST_LAYERS` modules."""


@contextlib.contextmanager
def counting_layers() -> Iterator[None]:
    """Inside, building a network ends when there are too many modules in it.

    Raises:
        TooManyLayers: there are.
    """
    count = 0
    original = nn.Module.__init__

    def counted(self: nn.Module, *arguments: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count > MOST_LAYERS:
            raise TooManyLayers(f"has more than {MOST_LAYERS:,} layers")
        original(self, *arguments, **more)

    nn.Module.__init__ = counted  # type: ignore[method-assign]  # torch tells of modules only when they are put into others
    try:
        yield
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]


def bytes_of(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Inside, random numbers are drawn on the CPU; those that are drawn afterwards are as if none had been."""
    state, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)


@contextlib.contextmanager
def kept_for_gradients(aside: Iterable[Tensor]) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Inside, storages kept for gradients enter the dictionary, except for those of the tensors `aside`, of any shape."""
    leave = {t.untyped_storage()._cdata for t in aside}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage())._cdata not in leave:
            kept[storage._cdata] = storage
        return tensor.detach()  # else nodes that save what they made would keep themselves, and all of it, for good

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


class Unfilled(TorchFunctionMode):
    """Inside, tensors without data are not filled at random, for which torch would import its compiler: that takes seconds."""

    FILLS = (Tensor.normal_, Tensor.uniform_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.FILLS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def weighed(build: Callable[[], nn.Module]) -> int | None:
    """Bytes of the parameters and buffers of what `build` builds; no memory is used for them.

    Random numbers are drawn afterwards as if nothing had been built.

    Returns:
        None where `build` needs the values of tensors, which there are none of.

    Raises:
        UserError: the weights need more memory than any machine has.
    """
    try:
        with nothing_drawn(), warnings.catch_warnings(), torch.device("meta"), Unfilled():
            warnings.simplefilter("ignore")
            return bytes_of(build())
    except UserError as e:
        if "meta tensor" in str(e):  # a library's network that cannot be built there
            return None
        raise
    except (
        Exception
    ) as e:  # on the meta device anything may fail that works elsewhere; what does not, fails there as well
        if isinstance(e, RuntimeError) and ran_out(e):  # where nothing is allocated: torch cannot count so far
            raise UserError("would need more memory for its weights than any machine has") from e
        return None


def refuse_too_large(size: int, device: torch.device, for_training: bool) -> None:
    """Compare what a network of `size` bytes needs with what there is.

    Raises:
        UserError: it is more.
    """
    places = [(there_is(), "this machine")]
    if (own := devices.there_is(device)) is not None:
        places.append((own, "the GPU"))
    for most, where in places:
        if size > most:
            needed = "for its weights"
        elif for_training and 3 * size > most:
            size, needed = 3 * size, "for its weights, their gradients and an optimizer"
        else:
            continue
        raise UserError(f"would need {gib(size)} GB of memory {needed}; {where} has {gib(most)}")


def gib(size: float) -> str:
    """Bytes as gigabytes of 2^30 bytes, without a unit."""
    value = size / GIB
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


LESS = (
    "What takes less: a smaller batch_size_per_gpu with train.accumulate, gt_size, train.amp: bf16, "
    "train.checkpoint_activations: true; val.tile in a test"
)


def explained(error: BaseException) -> str:
    """One line on an error for which `ran_out` holds."""
    first: Any = (str(error).strip().splitlines() or [""])[0]
    return f"out of memory ({type(error).__name__}: {first}). {LESS}"
