"""Underwater networks against plain transcriptions of their formulas (tests/archs/reference_underwater.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .common import Row, memory_row, paired, peak_mib, products_of, section, share_row, time_row


def contestants(system: str) -> dict[str, Callable[[], nn.Module]]:
    """Ours and the plain transcription of the same formulas, by system, in the originals' configurations."""
    import reference_underwater as reference

    from relume.archs import build_network

    spectroformer = {"dim": 16, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 4, "num_heads": [1, 2, 4, 8]}
    makers: dict[str, tuple[dict[str, Any], Callable[[], nn.Module]]] = {
        "spectroformer": (
            {"type": "Spectroformer", **spectroformer},
            lambda: reference.Spectroformer(**spectroformer),
        ),
        "phaseformer": ({"type": "Phaseformer"}, reference.Phaseformer),
        "agssf1": ({"type": "SpectroformerAGSSF", "variant": "agssf1"}, lambda: reference.AGSSF(variant="agssf1")),
    }
    block, plain = makers[system]
    return {"ours": lambda: build_network(block), "plain": plain}


def work(network: nn.Module, side: int, backward: bool) -> Callable[[], None]:
    """One forward (and backward) at 1 x 3 x side x side."""
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def both() -> None:
        network.zero_grad(set_to_none=True)
        outputs = network(x)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        sum(o.mean() for o in outputs).backward()

    return both if backward else forward


def prepare(system: str, who: str, side: str) -> Callable[[], None]:
    """For a fresh process: a network that has run once, at a small size, and its forward and backward to be measured."""
    network = contestants(system)[who]()
    work(network, 16, True)()
    return work(network, int(side), True)


def network_rows(system: str) -> list[Row]:
    """Time and peak memory of one network against its plain transcription."""
    rows: list[Row] = []
    makers = contestants(system)
    for side in (128, 256):
        networks = {}
        for who, make in makers.items():
            torch.manual_seed(0)
            networks[who] = make()
        for backward in (False, True):
            what = f"{system} {'forward+backward' if backward else 'forward'} 1x3x{side}x{side}"
            jobs = [work(networks[who], side, backward) for who in ("ours", "plain")]
            mine, theirs, least = paired(5 if side == 128 else 3, *jobs, products_of(jobs[0]))
            rows += [time_row(what, mine, theirs, "plain"), share_row(f"{what}, of it", mine, least)]
        peaks = (peak_mib(prepare, system, who, str(side)) for who in ("ours", "plain"))
        rows.append(memory_row(f"{system} peak memory 1x3x{side}x{side}", *peaks, "plain"))
    return rows


for name in ("spectroformer", "phaseformer", "agssf1"):
    section(name)(partial(network_rows, name))
