"""What a first iteration's error is put down to: the options on which shapes, channels and memory depend."""

from __future__ import annotations

from typing import Any

from relume.core.building import first
from relume.core.errors import UserError
from relume.core.options import check

NET = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}


def said(error: Exception, key: str | None = None, data: dict[str, Any] | None = None, **changes: Any) -> str:
    opt = {
        "name": "toy",
        "model_type": "RestorationModel",
        "datasets": {"train": {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", **(data or {})}},
        "network_g": NET,
        "train": {"total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
        **changes,
    }
    return str(first.said(error, key, check(opt)))


def test_a_scale_that_does_not_fit_is_named_and_one_that_does_is_not_blamed_alone() -> None:
    error = UserError("L1Loss: prediction 2x3x56x56, target 2x3x16x16 differ in shape")
    text = said(error, network_g={**NET, "upscale": 7}, scale=2)
    assert text.endswith("differ in shape: network_g.upscale is 7, scale is 2")
    text = said(error)
    assert "network_g is SRVGGNetCompact with num_feat: 4" in text and text.endswith("scale is 1")


def test_other_channels_name_both_sides() -> None:
    error = UserError("images of the shape (2, 1, 16, 16): this network takes (B, 3, H, W)")
    text = said(error, "network_g", {"color": "gray"}, network_g={**NET, "num_in_ch": 3})
    assert "network_g.num_in_ch is 3" in text and "datasets.train.color is gray" in text
    error = UserError("the network takes 1 channel(s) where images, or what it makes of them, have 2")
    assert "network_g is SRVGGNetCompact with num_feat: 4" in said(error, "network_g")


def test_an_operation_without_a_deterministic_form_is_named_with_what_needs_it() -> None:
    error = RuntimeError(
        "reflection_pad2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation."
    )
    text = said(error, "network_g", deterministic=True)
    assert text.startswith("network_g (SRVGGNetCompact) needs reflection_pad2d_backward_cuda") and "\n" not in text
    assert "deterministic: false" in text


def test_a_step_without_memory_names_networks_and_sizes() -> None:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: x")
    for key in (None, "network_g"):
        text = said(error, key, {"batch_size_per_gpu": 2})
        assert "out of memory" in text and "num_feat: 4" in text and "batch_size_per_gpu: 2" in text
    assert "batch_size_per_gpu: 2" in said(error, "datasets.train", {"batch_size_per_gpu": 2})
