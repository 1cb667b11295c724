"""Frame interpolation: the state-space scan and the census distance against plain transcriptions, and memory against length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .common import Job, Row, memory_row, paired, peak_mib, products_of, section, share_row, time_row

CHUNKS = (64, 128, 256)
SHAPES = {
    "4096 steps, 8 heads": (2, 4096, 8, 32, 64),
    "16384 steps, 1 head": (4, 16384, 1, 64, 64),
}
"""Batch, length, heads, channels per head and states: a common size, and that of HybridVFI's first stage."""


def scan_inputs(batch: int, length: int, heads: int, width: int, states: int) -> list[Tensor]:
    """x, dt, A, B and C of one group, in the shapes of `ssd`, with gradients; steps and decays as after Mamba-2's
    initialisation.
    """
    torch.manual_seed(0)
    dt = torch.exp(torch.empty(batch, length, heads).uniform_(-6.9, -2.3))
    A = -torch.empty(heads).uniform_(1, 16)
    x = torch.randn(batch, length, heads, width)
    B, C = (torch.randn(batch, length, 1, states) for _ in range(2))
    return [t.requires_grad_() for t in (x, dt, A, B, C)]


def scans() -> dict[str, Callable[..., Tensor]]:
    """Our scan and mamba_ssm's two PyTorch forms at every chunk size, transcribed in tests/core/ops/reference_ssd.py; shapes as
    in `ssd`.
    """
    import reference_ssd

    from relume.core.ops.ssd import ssd

    def ours(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        y = ssd(x, dt, A, B, C)
        assert isinstance(y, Tensor)
        return y

    def minimal(chunk: int, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        B, C = (t.expand(-1, -1, x.shape[2], -1) for t in (B, C))
        y: Tensor = reference_ssd.minimal(x * dt[..., None], dt * A, B, C, chunk)[0]
        return y

    def chunked(chunk: int, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        B, C = (t.expand(-1, -1, x.shape[2], -1) for t in (B, C))
        y: Tensor = reference_ssd.chunked(x, dt, A, B, C, chunk)
        return y

    found: dict[str, Callable[..., Tensor]] = {"ours": ours}
    for chunk in CHUNKS:
        found[f"minimal, chunks of {chunk}"] = partial(minimal, chunk)
        found[f"chunked, chunks of {chunk}"] = partial(chunked, chunk)
    return found


def job(function: Callable[..., Tensor], given: list[Tensor], backward: bool) -> Job:
    """A forward pass, or one with the gradients of all inputs; shapes are those of `function`."""
    if not backward:
        return lambda: function(*(t.detach() for t in given))
    wanted = [t for t in given if t.requires_grad]
    return lambda: torch.autograd.grad(function(*given).sum(), wanted)


@section("ssd")
def ssd_times() -> list[Row]:
    """Against each of mamba_ssm's references at its best chunk size, denormal numbers flushed for all of them."""
    flushed = torch.set_flush_denormal(True)
    rows: list[Row] = []
    try:
        for label, shape in SHAPES.items():
            given, functions = scan_inputs(*shape), scans()
            for backward in (False, True):
                what = "forward+backward" if backward else "forward"
                mine, *theirs = paired(4, *(job(f, given, backward) for f in functions.values()))
                for form in ("minimal", "chunked"):
                    of_form = {n: t for n, t in zip([*functions][1:], theirs, strict=True) if n.startswith(form)}
                    name = min(of_form, key=of_form.__getitem__)
                    rows.append(time_row(f"ssd {what}, {label}, {form}", mine, of_form[name], name))
    finally:
        torch.set_flush_denormal(False)
    assert flushed, "this processor cannot flush denormal numbers"
    return rows


PUBLISHED: dict[str, Any] = {
    "F": 32,
    "window_size": 8,
    "depths": [2, 2, 2],
    "num_heads": [2, 4, 8],
    "mlp_ratios": [4, 4, 4],
    "mamba": {"d_state": 64, "d_conv": 4, "expand": 2, "headdim": 64},
    "drop_path": 0.0,
}
PHASES: dict[str, dict[str, Any]] = {"phase 1": {}, "phase 2": {"use_flow": True, "flow_c": [240, 150, 90]}}
"""HybridVFI as published (options/vfi)."""


def as_original(job: Job, chunk: int) -> Job:
    """The same with the original's blocks and mamba_ssm's ``ssd_minimal_discrete`` (tests/archs/reference_hybrid.py)."""
    import reference_hybrid

    def run() -> None:
        with reference_hybrid.plain(chunk):
            job()

    return run


def hybrid(phase: str, side: int) -> Job:
    """Forward and backward of two frames."""
    from relume.archs import build_network

    torch.manual_seed(0)
    network = build_network({"type": "HybridVFI", **PUBLISHED, **PHASES[phase]})
    frames = torch.rand(1, 6, side, side)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(frames)[0].mean().backward()

    return run


CHUNKS_OF_TWINS = (256, 64)
"""Chunks of mamba_ssm's scan: the original's own, and the fastest on a CPU."""


def hybrid_alone(who: str, phase: str, side: str) -> Job:
    """For `peak_mib`."""
    made = hybrid(phase, int(side))
    return made if who == "ours" else as_original(made, int(who))


@section("hybrid")
def hybrid_rows() -> list[Row]:
    """HybridVFI against the original's form, in its chunks and in the fastest, denormal numbers flushed for all of them."""
    torch.set_flush_denormal(True)
    rows: list[Row] = []
    try:
        for phase in PHASES:
            for side in (64, 128):
                made = hybrid(phase, side)
                jobs = [as_original(made, chunk) for chunk in CHUNKS_OF_TWINS]
                mine, *theirs, least = paired(3, made, *jobs, products_of(made))
                what = f"hybrid {phase} forward+backward 1x6x{side}x{side}"
                rows += [
                    time_row(f"{what}, its chunks {n}", mine, t, "original's form")
                    for t, n in zip(theirs, CHUNKS_OF_TWINS, strict=True)
                ]
                rows.append(share_row(f"{what}, of it", mine, least))
                mine, *theirs = (
                    peak_mib(hybrid_alone, who, phase, str(side)) for who in ("ours", *map(str, CHUNKS_OF_TWINS))
                )
                what = f"hybrid {phase} peak memory 1x6x{side}x{side}"
                rows += [
                    memory_row(f"{what}, its chunks {n}", mine, t, "original's form")
                    for t, n in zip(theirs, CHUNKS_OF_TWINS, strict=True)
                ]
    finally:
        torch.set_flush_denormal(False)
    return rows


def scan_alone(who: str, length: str) -> Job:
    """One forward and backward of a scan of some length, for `peak_mib`."""
    functions = scans()
    job(functions[who], scan_inputs(1, 256, 2, 32, 32), True)()
    given = scan_inputs(1, int(length), 2, 32, 32)
    return job(functions[who], given, True)


@section("ssd_memory")
def ssd_memory() -> list[Row]:
    """Forward and backward from 1k to 64k steps, in fresh processes: what four times the length costs, and the peer."""
    rows: list[Row] = []
    peer = "minimal, chunks of 64"
    before = None
    for length in (1024, 4096, 16384, 65536):
        mine = peak_mib(scan_alone, "ours", str(length))
        theirs = peak_mib(scan_alone, peer, str(length))
        rows.append(memory_row(f"ssd forward+backward peak, {length} steps", mine, theirs, peer))
        if before is not None:
            label = f"ssd peak, {length} steps / {length // 4} steps (linear: 4)"
            rows.append((label, f"{mine:.0f} MiB", f"{before:.0f} MiB", f"{mine / max(before, 1e-9):.1f} x"))
        before = mine
    return rows


@section("census")
def census() -> list[Row]:
    """The census distance and its gradient against one map per neighbour by a convolution, as its originals have it."""
    from relume.core.ops.census import census_distance

    functions: dict[str, Callable[..., Tensor]] = {"ours": census_distance, "maps": census_by_maps}
    torch.manual_seed(0)
    given = [torch.rand(2, 256, 256).requires_grad_(), torch.rand(2, 256, 256)]
    mine, theirs = paired(5, *(job(f, given, True) for f in functions.values()))
    memory = [peak_mib(census_alone, who) for who in functions]
    return [
        time_row("census forward+backward, 2x256x256", mine, theirs, "one map per neighbour"),
        memory_row("census forward+backward peak, 2x256x256", *memory, "one map per neighbour"),
    ]


def census_by_maps(pred: Tensor, target: Tensor, patch: int = 7) -> Tensor:
    """Census distance of planes, (B, H, W) -> (B, H, W), by a convolution with one-hot kernels to all neighbours."""
    kernel = torch.eye(patch**2).view(-1, 1, patch, patch)
    signs = []
    for x in (pred[:, None], target[:, None]):
        d = torch.nn.functional.conv2d(x, kernel, padding=patch // 2) - x
        signs.append(d / torch.sqrt(0.81 + d**2))
    u = (signs[0] - signs[1]) ** 2
    return (u / (0.1 + u)).mean(1)


def census_alone(who: str) -> Job:
    """One forward and backward, for `peak_mib`."""
    from relume.core.ops.census import census_distance

    function = census_distance if who == "ours" else census_by_maps
    job(function, [torch.rand(1, 16, 16).requires_grad_(), torch.rand(1, 16, 16)], True)()
    return job(function, [torch.rand(2, 256, 256).requires_grad_(), torch.rand(2, 256, 256)], True)
