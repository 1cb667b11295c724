"""MambaIR, and the selective scan that it spends its time in, against the scan step by step, as its definition has it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Job, Row, memory_row, paired, peak_mib, section, time_row

LIGHT = {"embed_dim": 60, "depths": [2], "d_state": 10, "mlp_ratio": 1.2, "upscale": 2, "drop_path_rate": 0.0}
"""The published light network, with one group of two blocks instead of four of six."""
CHANNELS, STATES = 4 * 72, 10
"""Channels, in four directions, and states of its scans."""


def step_by_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool,
) -> Tensor:
    """`selective_scan`, shapes included, as in mamba_ssm's reference: all decays and inputs first, then one step at a time."""
    dt = F.softplus(delta + delta_bias[:, None]) if delta_softplus else delta + delta_bias[:, None]
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], 1) for t in (B, C))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
    written = torch.einsum("bdl,bdnl,bdl->bdln", dt, B, u)
    state, read = torch.zeros_like(decay[:, :, 0]), []
    # Unbound, so that the gradient of each step is not a map of all steps, as a slice's is.
    for factor, added, c in zip(decay.unbind(2), written.unbind(2), C.unbind(3), strict=True):
        state = factor * state + added
        read.append((state * c).sum(-1))
    return torch.stack(read, 2) + u * D[:, None]


def scan_inputs(side: int) -> dict[str, Any]:
    """What one layer's scans of an image of this side get."""
    generator = torch.Generator().manual_seed(0)
    length = side * side

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return {
        **{"u": drawn(1, CHANNELS, length), "delta": drawn(1, CHANNELS, length)},
        **{"A": -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)},
        **{"B": drawn(1, 4, STATES, length), "C": drawn(1, 4, STATES, length), "D": torch.ones(CHANNELS)},
        **{"delta_bias": torch.full((CHANNELS,), -3.0), "delta_softplus": True},
    }


def scan_job(who: str, side: str) -> Job:
    """Forward and backward of the scans of an image, for `peak_mib`."""
    from relume.core.ops.selective_scan import selective_scan

    function: Any = selective_scan if who == "ours" else step_by_step

    def run(given: dict[str, Any]) -> None:
        wanted = [given[k] for k in ("u", "delta", "B", "C")]
        torch.autograd.grad(function(**given).sum(), wanted)

    run(scan_inputs(4))
    given = scan_inputs(int(side))
    return lambda: run(given)


def network_job(plain: bool) -> Job:
    """Forward and backward of the network, with our scan or the plain one."""
    from relume.archs import build_network, state_space_2d

    network = build_network({"type": "MambaIR", **LIGHT, "upsampler": "pixelshuffledirect"})
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(x).mean().backward()

    def run_plain() -> None:
        with mock.patch.object(state_space_2d, "selective_scan", step_by_step):
            run()

    return run_plain if plain else run


@section("mambair")
def mambair_rows() -> list[Row]:
    """Time of the network, and time and memory of its scans alone."""
    rows = [
        time_row(
            "MambaIR light, 2 blocks, forward+backward 1x3x48x48",
            *paired(3, network_job(False), network_job(True)),
            "step by step",
        ),
        time_row(
            "selective_scan forward+backward 64x64",
            *paired(2, scan_job("ours", "64"), scan_job("plain", "64")),
            "step by step",
        ),
    ]
    memory = [peak_mib(scan_job, who, "128") for who in ("ours", "plain")]
    return [*rows, memory_row("selective_scan forward+backward peak 128x128", *memory, "step by step")]
