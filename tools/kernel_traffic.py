#!/usr/bin/env python
"""Count what a training step of published systems moves and launches, without kernels of ours and with them, as a table.

Nothing is computed: networks run forward and backward on tensors without data (PyTorch's device "meta"), along the way that
GPUs take. Every operation that is no view counts as one launch that reads its inputs and writes its outputs once, expanded
tensors as large as they are in memory; of our kernels every launch counts by the tensors that it is given. Of networks losses
and optimizer are left out. The estimates in the last columns are the larger of two: bytes over a bandwidth, and launches times
what one costs the host. No time is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from relume.archs import build_network
from relume.core import options
from relume.core.cli import script
from relume.core.degradations.draws import Draws
from relume.core.degradations.second_order import BlurOptions, SecondOrder, degrade_second_order, draw_kernels
from relume.core.errors import UserError
from relume.core.ops import dispatch, filter_images_triton, jpeg_triton, launching, selective_scan, ssd_chunks
from relume.core.ops.selective_scan_chunks import _Layout, scan_chunks
from relume.losses import build_loss

BANDWIDTH, LAUNCH = 3.0e12, 4e-6
"""Bytes per second, and seconds of the host per launch, of the estimates."""
ROOT = Path(__file__).parents[1] / "options"
SYSTEMS = {
    "Spectroformer": ("underwater/spectroformer.yml", 6, 256, 3),
    "AGSSF1": ("underwater/agssf1.yml", 4, 256, 3),
    "Phaseformer": ("underwater/phaseformer.yml", 4, 256, 3),
    "Restormer": ("restoration/denoising/restormer.yml", 8, 128, 3),
    "NAFNet": ("restoration/denoising/nafnet.yml", 8, 256, 3),
    "DiffIR, stage 1": ("hdr/s1.yml", 8, 512, 3),
    "HybridVFI, phase 1": ("vfi/phase1.yml", 4, 256, 6),
    "MambaIR": ("restoration/denoising/mambair.yml", 4, 128, 3),
    "generator": ("generation/cifar10.yml", 32, 32, 3),
    "Real-ESRNet x4": ("realsr/realesrnet_x4.yml", 12, 64, 3),
}
"""Option file, samples, side, and channels of the input."""
LOSSES: dict[str, dict[str, Any]] = {
    "MS-SSIM": {"type": "MSSSIMLoss"},
    "SSIM": {"type": "SSIMLoss"},
    "Laplacian pyramid": {"type": "LaplacianLoss"},
    "edges": {"type": "EdgeLoss"},
    "gradient": {"type": "GradientLoss"},
    "gradient, Sobel": {"type": "GradientLoss", "operator": "sobel"},
    "total variation": {"type": "TVLoss"},
    "Charbonnier": {"type": "CharbonnierLoss"},
    "census": {"type": "TernaryCensusLoss"},
    "flow smoothness": {"type": "FlowSmoothnessLoss"},
}
"""Losses of images of `LOSS_SHAPE`."""
LOSS_SHAPE = (4, 3, 256, 256)
Step = Callable[[nn.Module, Tensor], Any]
SPECIAL: dict[str, Step] = {"DiffIR, stage 1": lambda net, x: net(x, x.clone())}
"""How networks are called that take more than one tensor."""


class Counts(NamedTuple):
    """Of some operations."""

    bytes: int
    launches: int


class Traffic(TorchDispatchMode):
    """Sums bytes and launches of the operations inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.launches = 0

    def add(self, tensors: Iterable[Any]) -> None:
        seen = {id(t): t for t in tensors if isinstance(t, Tensor)}
        moved = sum(map(size, seen.values()))
        if moved:
            self.bytes += moved
            self.launches += 1

    def include(self, counts: Counts) -> None:
        self.bytes += counts.bytes
        self.launches += counts.launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2]
        if not func.is_view and not name.startswith(("empty", "new_empty", "detach", "_unsafe_view", "lift")):
            self.add(tree_leaves((args, kwargs, made)))
        return made


def size(t: Tensor) -> int:
    """Bytes of a tensor's elements in memory, for any shape; those that an expansion repeats count once."""
    count = 1
    for extent, stride in zip(t.shape, t.stride(), strict=True):
        count *= extent if stride or not extent else 1
    return count * t.element_size()


# ---------------------------------------------------------------------------------------------- along the way of a GPU
def as_function(module: Any) -> Callable[..., Any]:
    """An op's kernels behind a gradient as of any function, so that what they are made of is seen."""

    class Op(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            made = module._run(*inputs)
            ctx.set_materialize_grads(False)
            module._setup(ctx, inputs, made)
            return made

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return module._gradients(ctx, module._run_backward, *grads)

    return Op.apply


NAMES = {
    "gdfn_triton": ("gate", "gate_backward"),
    "mdta_triton": ("attend", "attend_backward"),
    "phase_triton": ("unit", "unit_backward"),
    "polar_triton": ("polar", "polar_backward"),
    "spectral_mixing_triton": ("mix", "mix_backward"),
}
"""Where an op's two operators are called something else than ``fused`` and nothing."""


def counted_scan(traffic: list[Traffic]) -> Callable[..., Any]:
    """`scan_chunks` that adds what it would count, found from its first chunks: each further one counts as the second does."""
    # A long scan counts as its first chunk, and the difference that a second one makes, times the others.
    known: dict[Any, list[Counts]] = {}

    def counts(inputs: tuple[Any, ...]) -> list[Counts]:
        u, _, A, B, C = inputs[:5]
        chunk = _Layout(u, A, B, C).chunk
        more, rest = divmod(u.shape[2], chunk)
        key = tuple(t.shape if isinstance(t, Tensor) else t for t in inputs)
        if key not in known:
            once, twice = (both_ways(inputs, times * chunk + rest) for times in (1, 2))
            known[key] = [
                Counts(*(a + (more - 1) * (b - a) for a, b in zip(one, two, strict=True)))
                for one, two in zip(once, twice, strict=True)
            ]
        return known[key]

    def both_ways(inputs: tuple[Any, ...], length: int) -> list[Counts]:
        """What the scan of so many steps counts forward and backward."""
        given = [t.detach() if isinstance(t, Tensor) else t for t in inputs]
        given = [
            t.narrow(-1, 0, length) if i in (0, 1) or (i in (3, 4) and t.dim() == 4) else t for i, t in enumerate(given)
        ]
        wanted = [t.requires_grad_() for t in given if isinstance(t, Tensor)]
        outside = traffic[0].bytes, traffic[0].launches
        with torch.enable_grad(), Traffic() as forward:
            y, _ = scan_chunks(*given)
        with Traffic() as backward:
            torch.autograd.grad(y, wanted, torch.empty_like(y))
        traffic[0].bytes, traffic[0].launches = outside
        return [Counts(t.bytes, t.launches) for t in (forward, backward)]

    # In its place: an operator that adds these counts and computes nothing.
    class Scan(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.save_for_backward(*(t for t in inputs if isinstance(t, Tensor)))
            ctx.counts, ctx.given = counts(inputs), [isinstance(t, Tensor) for t in inputs]
            traffic[0].include(ctx.counts[0])
            ctx.set_materialize_grads(False)  # those zeros are counted already
            return torch.empty_like(inputs[0]), inputs[2].new_empty(len(inputs[0]), *inputs[2].shape)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            traffic[0].include(ctx.counts[1])
            made = iter([torch.empty_like(t) for t in ctx.saved_tensors])
            return tuple(next(made) if given else None for given in ctx.given)

    return Scan.apply


def prepare(traffic: list[Traffic], fused: list[bool]) -> None:
    """Let every op decide as `fused` says, and every launch count itself instead of running."""

    def launch(kernel: Any, grid: Any, *args: Any, **_: Any) -> None:
        traffic[0].add(args)

    torch.is_autocast_enabled = lambda *_: False  # autocast knows no device "meta"
    torch.autocast = lambda *_, **__: contextlib.nullcontext()  # type: ignore[misc, assignment]
    launching.interpreted = lambda: False
    selective_scan.scan_chunks = counted_scan(traffic)
    ssd_chunks.safe_tile = lambda decay, chunk: chunk  # it reads values; usually it is the chunk
    for path in Path(dispatch.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"relume.core.ops.{path.stem}")
        if hasattr(module, "use_kernel"):
            module.use_kernel = lambda *_: fused[0]
        if not path.stem.endswith("_triton"):
            continue
        module.launch = launch  # type: ignore[attr-defined]
        if hasattr(module, "_run_backward"):
            outer, inner = NAMES.get(path.stem, ("fused", ""))
            setattr(module, outer, as_function(module))
            if inner:
                setattr(module, inner, module._run_backward)


def step(network: nn.Module, x: Tensor, call: Step) -> None:
    """A forward and a backward pass; `x` has the shape that `call` takes."""
    made = [t for t in tree_leaves(call(network, x)) if isinstance(t, Tensor) and t.requires_grad]
    torch.autograd.backward(made, [torch.empty_like(t) for t in made])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    parser.add_argument("--losses", action="store_true", help="count losses instead, on images of 256 x 256")
    parser.add_argument("--chain", action="store_true", help="count the second-order degradation of a batch instead")


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: a system is unknown.
    """
    unknown = [name for name in a.systems if name not in SYSTEMS]
    if unknown:
        raise UserError(f"--systems: '{unknown[0]}' is none of {', '.join(SYSTEMS)}")
    traffic, fused = [Traffic()], [False]
    prepare(traffic, fused)
    if a.chain:
        of_chain(traffic, fused)
    else:
        of_losses(traffic, fused) if a.losses else of_systems(a.systems, traffic, fused)


def of_systems(names: list[str], traffic: list[Traffic], fused: list[bool]) -> None:
    """The table of networks."""
    print("| system, batch | GB plain | GB fused | launches plain | launches fused | estimate plain | estimate fused |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in names:
        file, batch, side, channels = SYSTEMS[name]
        network = build_network(options.load(ROOT / file)["network_g"]).to("meta").train()
        x = torch.empty(batch, channels, side, side, device="meta").to(memory_format=torch.channels_last)
        counted = counts(network, x, SPECIAL.get(name, lambda net, x: net(x)), traffic, fused)
        cells = [f"{c.bytes / 1e9:,.0f}" for c in counted] + [f"{c.launches:,}" for c in counted]
        cells += [f"{1e3 * max(c.bytes / BANDWIDTH, c.launches * LAUNCH):.0f} ms" for c in counted]
        print(f"| {name}, {batch} x {side} | " + " | ".join(cells) + " |", flush=True)


def of_losses(traffic: list[Traffic], fused: list[bool]) -> None:
    """The table of losses, of a prediction that asks for its gradient."""
    print("| loss | MB plain | MB fused | launches plain | launches fused |")
    print("|---|---:|---:|---:|---:|")
    target = torch.empty(LOSS_SHAPE, device="meta")
    for name, settings in LOSSES.items():
        pred, loss = target.clone().requires_grad_(), build_loss(settings).to("meta")
        for _ in range(2):  # what is made once, for all steps, does not count
            counted = counts(loss, pred, lambda criterion, x: criterion(x, target), traffic, fused)
        cells = [f"{c.bytes / 1e6:,.0f}" for c in counted] + [f"{c.launches:,}" for c in counted]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def of_chain(traffic: list[Traffic], fused: list[bool]) -> None:
    """The table of Real-ESRGAN's degradation with the public values, of 400 x 400 pixels to a quarter of the side.

    It is computed, since its noise depends on values, in place of kernels of ours with gray images.
    """

    def launch(kernel: Any, grid: Any, *args: Any, **_: Any) -> None:
        traffic[0].add(args)
        with _disable_current_modes():
            [t for t in args if isinstance(t, Tensor)][-1].fill_(0.5)

    for module in (filter_images_triton, jpeg_triton):
        module.launch = launch  # type: ignore[attr-defined]
    batch = 12
    draws = [Draws(seed) for seed in range(batch)]
    kernels = [torch.stack(k) for k in zip(*(draw_kernels(d, [BlurOptions()] * 2, 0.8) for d in draws), strict=True)]
    decisions = [SecondOrder().decide(d) for d in draws]
    gt = torch.rand(batch, 3, 400, 400)
    print("| samples | MB plain | MB fused | launches plain | launches fused |")
    print("|---|---:|---:|---:|---:|")
    counted = []
    for fused[0] in (False, True):
        for _ in range(2):  # what is made once, for all steps, does not count
            traffic[0] = Traffic()
            with traffic[0]:
                degrade_second_order(gt, *kernels, decisions, 4)
        counted.append(traffic[0])
    cells = [f"{c.bytes / 1e6:,.0f}" for c in counted] + [f"{c.launches:,}" for c in counted]
    print(f"| {batch} | " + " | ".join(cells) + " |")


def counts(module: nn.Module, x: Tensor, call: Step, traffic: list[Traffic], fused: list[bool]) -> list[Traffic]:
    """Traffic of a step without our kernels, and of one with them; `x` has the shape that `call` takes."""
    found = []
    for fused[0] in (False, True):
        traffic[0] = Traffic()
        module.zero_grad(set_to_none=True)  # else those of the other form are added to
        x.grad = None
        with traffic[0]:
            step(module, x, call)
        found.append(traffic[0])
    return found


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
