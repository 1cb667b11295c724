"""What a first step needs of memory, said before it is taken: on a CPU, one that needs too much costs more than itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...archs import ARCHS
from ..errors import UserError
from ..options.schema import Options
from ..runtime import memory
from ..runtime.gate import given_in

CHANNELS = 64
"""Number of channels that a layer is taken to have, in the guess at whether a closer look is worth its time."""


def watch(networks: Mapping[str, nn.Module], opt: Options, device: torch.device) -> None:
    """Have the first call of each network in training find out how much memory its step needs.

    On a GPU running out of memory is an error like others, and fused kernels keep less than can be told from here; compiled and
    sharded networks keep other things. They are not looked at.
    """
    train = opt.train
    if device.type == "cpu" and train is not None and not train.compile and train.strategy != "fsdp":
        for key, network in networks.items():
            Look(network, key, opt)


class Look:
    """A hook that is called before a network, once in training, and refuses a step for which there is too little memory."""

    def __init__(self, network: nn.Module, key: str, opt: Options) -> None:
        self.key = key
        self.opt = opt
        self.handle = network.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, network: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Raises UserError where the step needs more than there is."""
        if not (network.training and torch.is_grad_enabled()):
            return
        self.handle.remove()
        there_is = memory.there_is()
        ours = ARCHS.ships(type(network))  # others may keep tensors, fakes among them, somewhere
        if not ours or not may_be_large(network, inputs, there_is):
            return
        kept = kept_for_gradients(network, inputs, more)
        if kept is None:
            return
        assert self.opt.train is not None
        size = 2 * memory.bytes_of(network) + (kept if self.opt.train.amp in ("off", None) else kept // 2)
        if size > there_is:
            raise self.refusal(size, there_is, inputs)

    def refusal(self, size: int, there_is: int, inputs: tuple[Any, ...]) -> UserError:
        """What to say."""
        shapes = " and ".join("x".join(map(str, t.shape)) for t in inputs if isinstance(t, Tensor))
        block = self.opt.datasets["train"]
        sizes = [f"{k}: {block[k]}" for k in ("gt_size", "batch_size_per_gpu", "mini_batch_sizes") if block.get(k)]
        return UserError(
            f"datasets.train: a step of network_{self.key} on {shapes} would need {memory.gib(size)} GB of memory for its "
            f"weights, their gradients and what is kept for these; this machine has {memory.gib(there_is)} "
            f"({'; '.join(sizes)}; {given_in(self.opt[f'network_{self.key}'])}). {memory.LESS}",
            key="datasets.train",
        )


def may_be_large(network: nn.Module, inputs: tuple[Any, ...], there_is: int) -> bool:
    """Whether a guess at what a step needs comes near to what there is."""
    pixels = sum(t.numel() // max(1, t.shape[1]) for t in inputs if isinstance(t, Tensor) and t.dim() > 3)
    layers = sum(1 for _ in network.modules())
    return pixels * layers * CHANNELS * 4 > there_is // 4


def kept_for_gradients(network: nn.Module, inputs: tuple[Any, ...], more: Mapping[str, Any]) -> int | None:
    """Bytes that a call of a network in training keeps for its gradients, besides its parameters; it is not computed.

    A copy of the network is called on torch's fake tensors, which have shapes and no memory. Random numbers are drawn
    afterwards as if nothing had been called.

    Returns:
        None where it cannot be called so.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second

    fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(value: Any) -> Any:
        return fakes.from_tensor(value) if isinstance(value, Tensor) else value

    try:
        own = {id(t): fake(t) for t in (*network.parameters(), *network.buffers())}
        arguments, named = [fake(v) for v in inputs], {k: fake(v) for k, v in more.items()}
        with memory.nothing_drawn():
            twin = copy.deepcopy(network, dict(own))
            with fakes, memory.kept_for_gradients(own.values()) as kept:
                twin.forward(*arguments, **named)
    except Exception:  # what a network does with values cannot be done without them
        return None
    return sum(storage.nbytes() for storage in kept.values())
