"""Golden cases of the zoo's architectures: compare a network with what its original computed, in value and gradient."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relume.archs import build_network


def cases(path: Path) -> list[dict[str, Any]]:
    return torch.load(path, weights_only=True)["cases"]


def procedural(shapes: dict[str, list[int]], salt: str, gain: float) -> dict[str, Tensor]:
    """Weights made from their names, as the README of the golden tensors says."""
    state = {}
    for name, shape in shapes.items():
        seed = zlib.crc32((salt + name).encode()) & 0x7FFFFFFF
        r = torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))
        last = name.rsplit(".", 1)[-1]
        if last == "A_logs":
            r = torch.log(1 + 15 * torch.sigmoid(r))
        elif last == "dt_projs_bias":
            r = -3 + 0.5 * r
        elif last in ("Ds", "skip_scale", "skip_scale2") or (last == "weight" and r.dim() == 1):
            r = 1 + 0.1 * r
        elif r.dim() == 1:
            r = 0.05 * r
        else:
            r = r * gain / (r.numel() / shape[0]) ** 0.5
        state[name] = r
    return state


@contextmanager
def without_noise() -> Iterator[None]:
    """``exponential_`` fills with 1, so that Gumbel noise is the same everywhere."""
    original = Tensor.exponential_
    Tensor.exponential_ = lambda self, *_, **__: self.fill_(1)
    try:
        yield
    finally:
        Tensor.exponential_ = original


def assert_same_as_original(case: dict[str, Any]) -> None:
    network = build_network({"type": case["type"], **case["config"]})
    network.train(case["mode"] == "train")
    made = case.get("procedural")
    state = {**case["state_dict"], **(procedural(made["shapes"], made["salt"], made["gain"]) if made else {})}
    network.load_state_dict(state, strict=True)
    assert sum(p.numel() for p in network.parameters()) == case["parameters"]

    inputs = [x.clone().requires_grad_() for x in case["inputs"].values()]
    if case["seed"] is not None:
        torch.manual_seed(case["seed"])
        np.random.seed(case["seed"])
        random.seed(case["seed"])
    with without_noise() if case.get("noise") == "none" else nullcontext():
        given = case.get("input_map")  # how the network's input is made of what the file has
        result = network(*(given(x) for x in inputs) if given else inputs)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    assert [tuple(y.shape) for y in outputs] == [tuple(s) for s in case["output_shapes"]]
    step = case["stride"]
    for i, (y, expected) in enumerate(zip(outputs, case["outputs"], strict=True)):
        near(y.flatten()[::step] if step > 1 else y, expected, case["rtol"], f"output {i}")
    torch.stack(
        [((y.flatten()[::step] if step > 1 else y) * g).sum() for y, g in zip(outputs, case["cotangents"], strict=True)]
    ).sum().backward()
    for x, expected in zip(inputs, as_list(case["input_grads"]), strict=True):
        near(x.grad.flatten()[::step] if step > 1 else x.grad, expected, case["grad_rtol"], "input gradient")
    parameters = dict(network.named_parameters())
    strides = case.get("grad_stride") or {}
    for name, expected in case["param_grads"].items():
        grad, every = parameters[name].grad, strides.get(name, 1)
        near(grad.flatten()[::every] if every > 1 else grad, expected, case["grad_rtol"], name)
    assert sorted(k for k, p in parameters.items() if p.grad is None) == sorted(case["without_grad"] or [])


def as_list(values: Any) -> list[Tensor]:
    return list(values.values()) if isinstance(values, dict) else list(values)


def near(found: Tensor, expected: Tensor, rtol: float, what: str) -> None:
    error, allowed = (found - expected).abs().max(), rtol * expected.abs().max() + 1e-7
    assert error <= allowed, f"{what}: differs by {error:.3g}, allowed {allowed:.3g}"
