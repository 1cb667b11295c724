"""Networks with all kernels, compiled as one graph, against themselves, in the interpreter: prints JSON.

By architecture, of those that launch a kernel of ours: the largest error of outputs and gradients, and which kernels ran.
Names on the command line are those of architectures; all of the registry when there are none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
os.environ["RELUME_KERNELS"] = "on"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "archs"))

import torch
from test_every_arch import NAMES, build, tensors, tiny
from torch import Tensor, nn

from relume.core.ops.launching import LAUNCHED

SIDES = (8, 16, 32)
"""Tried one after the other: the smallest that a network takes serves, since the interpreter is slow."""


def step(network: nn.Module, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs, and the gradients of a weighted sum of them."""
    network.zero_grad()
    torch.manual_seed(1)  # networks that draw noise draw the same each time
    made = tensors(call(*inputs))
    weights = [torch.linspace(-1, 1, y.numel()).view(y.shape) for y in made]
    sum((y.float() * w).sum() for y, w in zip(made, weights, strict=True) if y.requires_grad).backward()
    return [*(y.detach() for y in made), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


def smallest(name: str, network: nn.Module) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The smallest inputs that the network takes, and its step on them."""
    for side in SIDES[:-1]:
        try:
            inputs = tiny(name).training_inputs(side, side)
            return inputs, step(network, network, inputs)
        except Exception:
            continue
    inputs = tiny(name).training_inputs(SIDES[-1], SIDES[-1])
    return inputs, step(network, network, inputs)


def main(names: list[str]) -> None:
    said: dict[str, Any] = {}
    for name in names or NAMES:
        network = build(name).train()
        LAUNCHED.clear()
        inputs, expected = smallest(name, network)
        if not LAUNCHED:
            continue
        kernels = sorted(LAUNCHED)
        torch.compiler.reset()
        found = step(network, torch.compile(network, backend="aot_eager", fullgraph=True), inputs)
        least = 1e-3 * max(b.norm() for b in expected)  # the gradient of what others cancel is rounding
        errors = [((a - b).norm() / b.norm().clamp_min(least)).item() for a, b in zip(found, expected, strict=True)]
        said[name] = [max(errors), kernels]
        print(name, max(errors), len(kernels), file=sys.stderr, flush=True)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1:])
