"""What counts as moved and launched."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from relume.core.errors import UserError


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "kernel_traffic.py"
    spec = importlib.util.spec_from_file_location("kernel_traffic", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_inputs_and_outputs_count_once_each_and_views_not_at_all(tool: ModuleType) -> None:
    x, row = torch.empty(4, 6, device="meta"), torch.empty(6, device="meta")
    with tool.Traffic() as counted:
        x.view(6, 4).t()
        assert (counted.bytes, counted.launches) == (0, 0)
        y = x + row.expand(4, 6)
        torch.empty(3, device="meta")
    assert y.shape == (4, 6)
    assert (counted.bytes, counted.launches) == (4 * (24 + 6 + 24), 1)


def test_a_tensor_given_twice_is_read_once(tool: ModuleType) -> None:
    x = torch.empty(5, device="meta")
    with tool.Traffic() as counted:
        x * x
    assert counted.bytes == 4 * 10


def test_a_scan_counts_as_much_as_if_all_of_its_chunks_were_gone_through(tool: ModuleType) -> None:
    shapes = [(2, 8, 150), (2, 8, 150), (8, 1024), (2, 1, 1024, 150), (2, 1, 1024, 150), (8,), (8,)]  # chunks of 32
    given = [torch.empty(s, device="meta", requires_grad=True) for s in shapes]
    counted = []
    traffic = [tool.Traffic()]
    for scan in (tool.scan_chunks, tool.counted_scan(traffic)):
        traffic[0] = tool.Traffic()
        with traffic[0]:
            y, _ = scan(*given, True)
            torch.autograd.grad(y, given, torch.empty_like(y))
        counted.append((traffic[0].bytes, traffic[0].launches))
    assert counted[0] == counted[1] and counted[0][1] > 3 * 150


def test_an_unknown_system_is_one_line(tool: ModuleType) -> None:
    with pytest.raises(UserError, match="--systems: 'Restromer' is none of Spectroformer, ") as e:
        tool.run(argparse.Namespace(systems=["Restromer"]))
    assert "\n" not in str(e.value)
