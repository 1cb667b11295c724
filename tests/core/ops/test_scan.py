"""Orders of scanning against the original's, and against their definition."""

from __future__ import annotations

import torch
from filling import waves

from relume.core.ops.scan import (
    flip_merge,
    flip_scan,
    interleaved_merge,
    interleaved_scan,
    window_partition,
    window_reverse,
)


def test_originals(golden):
    for case in torch.load(golden("vfi/scan_orders.pt"), weights_only=True)["cases"]:
        x, expected = case["input"]["x"], case["output"]
        height, width = x.shape[1:3]
        if case["name"] == "window_partition":
            windows = window_partition(x, case["config"]["window_size"])
            assert torch.equal(windows, expected["windows"])
            assert torch.equal(window_reverse(windows, height, width), expected["reverse"])
            continue
        interleaved = case["name"].startswith("interleaved")
        scan, merge = (interleaved_scan, interleaved_merge) if interleaved else (flip_scan, flip_merge)
        y = case["input"]["y"].requires_grad_()
        merged = merge(y, height, width)
        assert torch.equal(scan(x), expected["scan"])
        assert torch.equal(merged, expected["merge"])
        if interleaved:
            merged.backward(case["grad_output"]["merge"])
            assert torch.equal(y.grad, case["grad"]["y"])


def test_interleaved_order_pixel_by_pixel():
    """Sample 1 of 2, two frames of 2 rows and 3 columns."""
    x = torch.arange(4 * 2 * 3).view(4, 2, 3, 1)
    sequences = interleaved_scan(x)[4:, :, 0].tolist()
    rows = [int(x[f, i, j]) for i in range(2) for j in range(3) for f in (1, 3)]
    columns = [int(x[f, i, j]) for j in range(3) for i in range(2) for f in (1, 3)]
    assert sequences == [rows, columns, rows[::-1], columns[::-1]]


def test_merging_a_scan_gives_four_times_the_image():
    x = waves("x", (2, 3, 4, 5))
    torch.testing.assert_close(interleaved_merge(interleaved_scan(x), 3, 4), 4 * x)
    torch.testing.assert_close(flip_merge(flip_scan(x), 3, 4), 4 * x)


def test_gradients():
    x, y = waves("x", (2, 2, 3, 2)).requires_grad_(), waves("y", (4, 12, 2)).requires_grad_()
    assert torch.autograd.gradcheck(interleaved_scan, (x,))
    assert torch.autograd.gradcheck(lambda t: interleaved_merge(t, 2, 3), (y,))
    assert torch.autograd.gradgradcheck(interleaved_scan, (x,))


def test_windows():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, 2)
    assert torch.equal(windows[4], x[0, 2:4, 2:4])
    assert torch.equal(window_reverse(windows, 4, 6), x)
