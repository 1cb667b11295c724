"""Compare a network or a block with what the original computed: outputs, gradients of the inputs, norms of the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def assert_same_as_original(network: nn.Module, case: dict[str, Any]) -> None:
    """`case` is a golden case as the underwater recipe loads it. `network` has the original's parameter names."""
    network.load_state_dict(case["state_dict"], strict=True)
    assert sum(p.numel() for p in network.parameters()) == case["param_count"]
    inputs = [x.clone().requires_grad_() for x in case["inputs"]]
    result = network(*inputs)
    outputs: tuple[Tensor, ...] = result if isinstance(result, tuple) else (result,)
    for found, expected in zip(outputs, case["outputs"], strict=True):
        within(found, expected, case["suggested_atol"])
    sum((y * g).sum() for y, g in zip(outputs, case["cotangents"], strict=True)).backward()
    for x, expected in zip(inputs, case["input_grads"], strict=True):
        within(x.grad, expected, case["suggested_grad_atol"])
    for name, p in network.named_parameters():
        if name in case["params_without_grad"]:
            assert p.grad is None, name
            continue
        norm = case["param_grad_norms"][name]
        allowed = case["param_grad_norm_atol"] + case["param_grad_norm_rtol"] * norm
        assert abs(p.grad.norm().item() - norm) <= allowed, name


def within(found: Tensor, expected: Tensor, atol: float) -> None:
    """Equal but for `atol`."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= atol
