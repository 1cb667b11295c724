"""DiffIR's stage 1 against a plain transcription of its formulas (tests/archs/reference_diffir.py), and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .common import Job, Row, best_of, memory_row, paired, peak_mib, products_of, seconds, section, share_row, time_row

OPTIONS: dict[str, Any] = {"n_encoder_res": 5, "num_blocks": [3, 5, 6, 6], "ffn_expansion_factor": 2}
"""Settings of the option files: 26.7 million parameters."""


def contestants() -> dict[str, Callable[[], nn.Module]]:
    """Ours, ours keeping less for the backward pass, and the plain transcription, with the weights of the same seed."""
    import reference_diffir as reference

    from relume.archs import build_network

    def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            torch.manual_seed(0)
            return make()

        return build

    return {
        "ours": seeded(lambda: build_network({"type": "DiffIRS1", **OPTIONS})),
        "checkpointed": seeded(lambda: build_network({"type": "DiffIRS1", **OPTIONS, "use_checkpoint": True})),
        "plain": seeded(lambda: reference.DiffIRS1(**OPTIONS)),
    }


def images(side: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Input and target, (batch, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    lq, gt = (torch.rand(batch, 3, side, side, generator=generator) for _ in range(2))
    return lq, gt


def work(network: nn.Module, lq: Tensor, gt: Tensor, backward: bool = True) -> Job:
    """One forward pass of (B, 3, H, W), or with it the backward pass of the mean absolute difference."""

    def forward() -> None:
        with torch.no_grad():
            network(lq, gt)

    def both() -> None:
        network.zero_grad(set_to_none=True)
        (network(lq, gt)[0] - gt).abs().mean().backward()

    return both if backward else forward


def prepare(who: str, side: str) -> Job:
    """For a fresh process: a network that has run once, at a small size, and its forward and backward to be measured."""
    network = contestants()[who]()
    work(network, *images(16))()
    return work(network, *images(int(side)))


@section("diffir")
def stage_1() -> list[Row]:
    """Targets: forward and backward 1.5 times as fast as the formulas, in 60 % of their memory."""
    side, what = 128, "diffir s1"
    networks = {who: make() for who, make in contestants().items()}
    rows: list[Row] = []
    for backward, name in ((False, "forward"), (True, "forward+backward")):
        jobs = [work(n, *images(side), backward) for n in networks.values()]
        ours, frugal, plain, least = paired(5, *jobs, products_of(jobs[0]))
        label = f"{what} {name} 1x3x{side}x{side}"
        rows += [time_row(label, ours, plain, "plain"), share_row(f"{label}, of it", ours, least)]
    rows.append(time_row(f"{what} {name}, checkpointed", frugal, plain, "plain"))
    peaks = {who: peak_mib(prepare, who, str(side)) for who in networks}
    for who, label in (("ours", "peak memory"), ("checkpointed", "peak memory, checkpointed")):
        rows.append(memory_row(f"{what} {label} 1x3x{side}x{side}", peaks[who], peaks["plain"], "plain"))
    return rows


# ------------------------------------------------------------------ on a GPU
class Work(TorchDispatchMode):
    """What every operation inside costs at least: arithmetic (of products and convolutions) and bytes read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        flops = float(count(*args, **(kwargs or {}), out_val=out)) if count else 0.0
        views = func.is_view or func.overloadpacket is torch.ops.aten.detach
        tensors = [] if views else [t for t in torch.utils._pytree.tree_leaves((args, out)) if isinstance(t, Tensor)]
        self.operations.append((flops, float(sum(t.numel() * t.element_size() for t in tensors))))
        return out

    def least_seconds(self, flops: float, bandwidth: float) -> float:
        """Sum over operations of what either limit asks for: the roofline without fusion, in seconds."""
        return sum(max(f / flops, b / bandwidth) for f, b in self.operations)


def limits(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Arithmetic (FLOP/s, in products of large matrices) and bandwidth (bytes/s, in copies) that this machine reaches."""
    n = 8192 if device == "cuda" else 512
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    long, other = (torch.empty(n * n, device=device) for _ in range(2))
    product, copy = best_of(5, lambda: a @ b, lambda: long.copy_(other))
    return 2 * n**3 / product, 8 * n * n / copy


@section("diffir_gpu")
def gpu() -> list[Row]:
    """bf16, compiled, fused norms against float32 as it is; and the time against what the machine's limits ask for."""
    side, batch = 256, 4
    what = f"diffir s1 forward+backward {batch}x3x{side}x{side}"
    if not torch.cuda.is_available():
        return [(what, "skipped: no GPU", "", "")]
    # The same step in float32, counted, and compiled.
    lq, gt = (t.cuda() for t in images(side, batch))
    network = contestants()["ours"]().cuda()
    plain = work(network, lq, gt)
    with Work() as counted, torch.autocast("cuda", torch.bfloat16):
        plain()
    compiled = contestants()["ours"]().cuda()
    compiled.compile()

    def half(net: nn.Module) -> Job:
        job = work(net, lq, gt)

        def run() -> None:
            with torch.autocast("cuda", torch.bfloat16):
                job()

        return run

    # Times in bfloat16, against float32 and against what bandwidth and arithmetic allow.
    eager, fused, full = paired(10, half(network), half(compiled), plain)
    least = counted.least_seconds(*limits("cuda", torch.bfloat16))
    return [
        time_row(f"{what}, bf16 + fused norm", eager, full, "float32 eager"),
        time_row(f"{what}, bf16 + compile", fused, full, "float32 eager"),
        (f"{what}, roofline", seconds(least), f"{seconds(fused)} compiled", f"{100 * least / fused:.0f} %"),
    ]
