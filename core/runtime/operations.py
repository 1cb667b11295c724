"""Floating-point operations of what torch is asked for, forward and backward; of compiled networks, without a look inside."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from . import memory


class Counted(TorchDispatchMode):
    """Adds up the floating-point operations of what torch is asked for inside, forward and backward, by torch's formulas.

    Attributes:
        flops: twice the multiply-accumulates of products, convolutions and attention.
        unknown: what was not counted: kernels of Relume's own, which stand for operations that have no formula, and operations
            whose formula does not know such arguments.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]
        aten = torch.ops.aten
        self.formulas: Mapping[Any, Any] = flop_registry
        """torch's; operators of Relume's have their own as ``flops``."""
        self.own: dict[Any, Any] = {
            aten.convolution_backward: convolution_backward,
            **{of: flop_registry[like] for of, like in ((aten.addmm_, aten.addmm), (aten.baddbmm_, aten.baddbmm))},
        }
        """What it lacks."""
        self.flops = 0
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = getattr(func, "_overloadpacket", func)
        formula = self.own.get(packet) or self.formulas.get(packet)
        if formula is None and func.namespace == "relume":
            formula = getattr(packet, "flops", None)
        if formula is not None:
            try:
                self.flops += formula(*args, **(kwargs or {}), out_val=out)
            except Exception:  # no count is worth a training
                self.unknown.add(str(packet))
        elif func.namespace == "relume":
            self.unknown.add(str(packet))
        return out


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    out_val: Any = None,
) -> int:
    """Operations of the wanted gradients of a convolution's input and weight: each as many as the convolution itself has.

    Shapes are those of ``torch.ops.aten.convolution_backward``.

    torch's own formula counts the weight's as if there were one group, for a depthwise convolution once for each channel.
    """
    places = x if transposed else grad
    return 2 * places.shape[0] * places.shape[2:].numel() * weight.numel() * (bool(wanted[0]) + bool(wanted[1]))


class CompiledCalls:
    """Counts the calls of compiled networks as those of the same networks before they were compiled, on tensors without data.

    Attributes:
        flops, unknown: counts as those of `Counted`, forward and, where gradients are wanted, backward.
    """

    now: CompiledCalls | None = None
    """What counts at the moment."""

    def __init__(self) -> None:
        self.flops = 0
        self.unknown: set[str] = set()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Inside, calls are counted."""
        CompiledCalls.now = self
        try:
            yield
        finally:
            CompiledCalls.now = None

    def add(self, network: nn.Module, arguments: Sequence[Any], settings: Mapping[str, Any]) -> None:
        """Count a call that is about to be made."""
        from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second

        fakes = FakeTensorMode(allow_non_fake_inputs=True)

        def fake(value: Any) -> Any:
            return fakes.from_tensor(value) if isinstance(value, Tensor) else value

        try:
            own = {id(t): fake(t) for t in (*network.parameters(), *network.buffers())}
            given = tree_map(fake, (list(arguments), dict(settings)))
            with memory.nothing_drawn():
                twin = copy.deepcopy(network, own)
                with fakes, Counted() as seen:
                    out = twin.forward(*given[0], **given[1])
                    ends = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor) and t.requires_grad]
                    if ends:
                        torch.autograd.backward([t.real.sum() if t.is_complex() else t.sum() for t in ends])
        except Exception:  # what a network does with values cannot be done without them
            self.unknown.add(type(network).__name__)
            return
        self.flops += seen.flops
        self.unknown |= seen.unknown


def counts_calls(network: nn.Module) -> None:
    """Have the calls of a network that was compiled in place counted where `CompiledCalls` counts."""
    compiled: Any = network._compiled_call_impl
    if compiled is None:
        return

    def call(*arguments: Any, **settings: Any) -> Any:
        if CompiledCalls.now is not None:
            CompiledCalls.now.add(network, arguments, settings)
        return compiled(*arguments, **settings)

    network._compiled_call_impl = call
