"""DiffIR's stage 1 against a plain transcription of its formulas (tests/archs/reference_diffir.py), and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .common import Job, Row, best_of, memory_row, peak_mib, section, time_row

OPTIONS: dict[str, Any] = {"n_encoder_res": 5, "num_blocks": [3, 5, 6, 6], "ffn_expansion_factor": 2}
"""As in the option files: 26.7 million parameters."""


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
    """Input and target."""
    generator = torch.Generator().manual_seed(0)
    lq, gt = (torch.rand(batch, 3, side, side, generator=generator) for _ in range(2))
    return lq, gt


def work(network: nn.Module, lq: Tensor, gt: Tensor, backward: bool = True) -> Job:
    """One forward pass, and one backward pass of the mean absolute difference."""

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
        ours, frugal, plain = best_of(5, *(work(n, *images(side), backward) for n in networks.values()))
        rows.append(time_row(f"{what} {name} 1x3x{side}x{side}", ours, plain, "plain"))
    rows.append(time_row(f"{what} {name}, checkpointed", frugal, plain, "plain"))
    peaks = {who: peak_mib(prepare, who, str(side)) for who in networks}
    for who, label in (("ours", "peak memory"), ("checkpointed", "peak memory, checkpointed")):
        rows.append(memory_row(f"{what} {label} 1x3x{side}x{side}", peaks[who], peaks["plain"], "plain"))
    return rows
