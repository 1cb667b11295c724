"""One-step generation against the arithmetic that it cannot do without, done by one matrix product of the same run."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .common import Job, Row, paired, products_of, section, share_row

OPTIONS: dict[str, Any] = {"type": "OneStepGenerator", "img_resolution": 32, "label_dim": 10}
"""The generator of the CIFAR-10 experiment: 61.8 million parameters."""


def mean_seconds(job: Job, warm_up: int, timed: int) -> float:
    """Mean duration of a call, the device waited for before and after all of them."""

    def settled() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(warm_up):
        job()
    began = settled()
    for _ in range(timed):
        job()
    return (settled() - began) / timed


@section("one_step")
def one_step() -> list[Row]:
    """Images per second from noise to image at batch 1 and 256, in float32 and under bfloat16 autocast; on a CPU at batch 1 and
    4, in float32, for few CPUs multiply bfloat16 at all."""
    from relume.archs import build_network

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    calls = (10, 100) if cuda else (1, 5)
    torch.manual_seed(0)
    network: Any = build_network(OPTIONS).to(device).eval()
    rows: list[Row] = []
    for batch in (1, 256 if cuda else 4):
        noise = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.eye(10, device=device)[torch.arange(batch, device=device) % 10]
        # The least time: that of a matrix product with as many operations.
        with FlopCounterMode(display=False) as counter:
            network.sample(noise, labels)
        work = counter.get_total_flops()
        for dtype in (torch.float32, torch.bfloat16) if cuda else (torch.float32,):
            side = 8192 if cuda else 1024
            square = torch.randn(side, side, device=device, dtype=dtype)
            floor = mean_seconds(lambda square=square: square @ square, *calls) / (2 * side**3) * work

            # The network itself, in each precision.
            def generate(noise: Any = noise, labels: Any = labels, dtype: Any = dtype) -> None:
                with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                    network.sample(noise, labels)

            ours = mean_seconds(generate, *calls)
            what = (
                f"one step, batch {batch}, {str(dtype).removeprefix('torch.')} ({work / batch / 1e9:.1f} GFLOP/image)"
            )
            rows.append(
                (what, f"{batch / ours:.3g} img/s", f"{batch / floor:.3g} img/s as a product", f"{floor / ours:.0%}")
            )
    return rows


@section("generator")
def training() -> list[Row]:
    """A step of training on a CPU, forward and backward, against its own products and convolutions."""
    from relume.archs import build_network

    network: Any = build_network(OPTIONS)
    rows: list[Row] = []
    for batch in (1, 4):
        noise, labels = torch.randn(batch, 3, 32, 32), torch.eye(10)[torch.arange(batch) % 10]

        def step(noise: Any = noise, labels: Any = labels) -> None:
            network.zero_grad(set_to_none=True)
            network(noise, class_labels=labels).square().mean().backward()

        rows.append(share_row(f"generator forward+backward, batch {batch}", *paired(3, step, products_of(step))))
    return rows
