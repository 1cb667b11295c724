"""What must be changed in networks of spandrel, or in their options, to train and to give what the forks' own classes give."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import pad_symmetric

Options = dict[str, Any]


# ------------------------------------------------------------------ options
def without_latent_level(options: Options) -> Options:
    """FFTformer's files give a fourth number of blocks, which its class never builds."""
    return {**options, "num_blocks": list(options["num_blocks"])[:3]}


def dysample_of_upsampler(options: Options) -> Options:
    """traiNNer-redux calls it ``upsampler: dysample``, neosr and spandrel ``dysample: true``."""
    upsampler = options.pop("upsampler", None)
    return options if upsampler is None else {**options, "dysample": upsampler == "dysample"}


# ------------------------------------------------------------------ networks
def clone_input(net: nn.Module) -> None:
    """RCAN multiplies its input in place, and so the caller's batch."""
    net.register_forward_pre_hook(_cloned)


def _cloned(net: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)


def take_first_output(net: nn.Module) -> None:
    """The first output is the image; what follows (a quality factor, images at other sizes) is not."""
    net.register_forward_hook(_first)


def _first(net: nn.Module, inputs: Any, outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def tensors_as_buffers(net: nn.Module) -> None:
    """Tensors that are plain attributes become buffers, which move with the network and are not saved.

    Many of these networks keep their data's mean so, and move it to the device by an assignment in each call: a tensor of the
    host in the first step, and the wrong device's wherever a network is copied to several.
    """
    for part in net.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                delattr(part, name)
                part.register_buffer(name, value, persistent=False)


def initialise_transformer(net: nn.Module) -> None:
    """RGT's own initialisation, which spandrel's copy has lost: its linear layers would start seven times as large."""
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def pad_to_windows(net: nn.Module) -> None:
    """CRAFT's copy pads a whole window too much where the size is a multiple already, and so computes something else."""
    net.forward = types.MethodType(_craft, net)


def _craft(net: Any, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    x = pad_symmetric(x, net.window_size)
    net.h, net.w = x.shape[2:]
    mean = net.mean.type_as(x)
    x = net.conv_first((x - mean) * net.img_range)
    x = net.upsample(net.conv_after_body(net.forward_features(x)) + x) / net.img_range + mean
    return x[..., : height * net.upscale, : width * net.upscale]


def one_image_at_a_time(net: nn.Module) -> None:
    """SeemoRe chooses its experts for a whole batch in evaluation, and fails or mixes images where that has several."""
    net.forward = types.MethodType(_singly, net)


def _singly(net: Any, x: Tensor) -> Tensor:
    forward = type(net).forward
    if net.training or len(x) == 1:
        return forward(net, x)
    return torch.cat([forward(net, x[i : i + 1]) for i in range(len(x))])


def freeze_other_gates(net: nn.Module) -> None:
    """A block of FDAT has gates for both directions, and uses those of one."""
    for part in net.modules():
        if isinstance(getattr(part, "inter", None), nn.Module) and hasattr(part, "btype"):
            other = "cg" if part.btype != "spatial" else "sg"
            getattr(part.inter, other).requires_grad_(False)


REBUILT = (
    "attn_mask",
    "attn_mask_0",
    "attn_mask_1",
    "relative_position_index",
    "relative_position_index_SA",
    "relative_position_index_OCA",
    "aligned_relative_position_index",
    "relative_coords_table",
    "rpe_biases",
    "biases_h",
    "biases_v",
    "position_ids",
)
"""Buffers that follow from options such as ``img_size``; a checkpoint has those of its own training."""


def keep_own_tables(net: nn.Module) -> None:
    """Load weights of a network that was built for another ``img_size``: its tables are left, and the own ones kept."""
    net.register_load_state_dict_pre_hook(_with_own_tables)


def _with_own_tables(net: nn.Module, state: Options, prefix: str, *_: Any) -> None:
    for name, own in net.named_buffers():
        key = prefix + name
        if name.rsplit(".", 1)[-1] in REBUILT and key in state and state[key].shape != own.shape:
            state[key] = own
