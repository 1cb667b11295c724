"""Kernels are tried before they are used: right ones, and ones broken on purpose."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from interpreting import interpreted

from relume.core.ops import (  # noqa: F401 - every op registers its case
    causal_conv1d,
    census,
    channel_attention,
    charbonnier,
    dispatch,
    filter_images,
    flow_warp,
    fourier,
    gradient,
    jpeg,
    laplacian,
    layer_norm,
    log_sinkhorn,
    ms_ssim,
    pixelwise,
    rms_norm,
    selective_scan,
    self_test,
    simple_gate,
    sinkhorn,
    smoothness,
    spectral_mixing,
    ssd,
    ssim,
    window_attention,
)

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    result = interpreted("interpreted_trials.py")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_op_has_a_case() -> None:
    assert set(self_test.CASES) == set(dispatch.NAMES)


def test_kernels_that_are_right_pass_and_the_trial_counts_no_launch(said: dict[str, Any]) -> None:
    assert said["faults"] == dict.fromkeys(dispatch.NAMES)
    assert said["half"] is None and said["launched"] == {} and said["right"] == "fused"


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("value", "found a value that is wrong by "),
        ("gradient", "found a gradient that is wrong by "),
        ("raises", "failed, TypeError: 'NoneType' object is not callable"),
    ],
)
def test_broken_kernels_stop_with_one_line_where_insisted_on(what: str, complaint: str, said: dict[str, Any]) -> None:
    start = "RELUME_KERNELS=on, but the fused gated RMS norm cannot run: its self-test in float32 "
    assert said[what].startswith(start + complaint) and "\n" not in said[what]


def test_broken_kernels_are_replaced_after_one_warning_otherwise(said: dict[str, Any]) -> None:
    assert said["auto"] == ["plain", "plain"]
    assert len(said["warned"]) == 1
    assert said["warned"][0].startswith(
        "The fused gated RMS norm is not used on cpu in this run: its self-test in float32"
    )
    assert "gated RMS norm: plain PyTorch (its self-test in float32 found a value" in said["decision"]
