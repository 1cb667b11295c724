"""Which architecture some weights are of, and with which options: spandrel's detection, said in the words of an option file."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...core.errors import UserError, require
from . import EXTRA_LIBRARY, adapted, has_extra, rows

UNKNOWABLE = {
    "ATD": ("category_size",),
    "DCTLSA": ("num_head",),
    "GRL": ("window_size", "stripe_size", "anchor_window_down_factor"),
    "IPT": ("num_heads",),
    "SeemoRe": ("use_shuffle", "lr_space", "topk"),
}
"""Options that weights do not tell, and that change what the network computes; spandrel assumes the usual ones."""


@dataclass(frozen=True)
class Detected:
    """What weights are of.

    Attributes:
        network: a block ``network_g``.
        scale: output size / input size.
        about: remarks in words: the architecture, its licence, and what had to be assumed.
    """

    network: dict[str, Any]
    scale: int
    about: str


def detect(state: Mapping[str, Any]) -> Detected | None:
    """The architecture of a state dict, ours or one of the table's; None if nobody recognises it.

    Raises:
        UserError: it was recognised, and its options could not be told.
    """
    if "encoder_level1.0.attn.temperature" in state and "refinement.0.attn.temperature" in state:
        return Detected(_restormer(state), 1, "Restormer")
    return _by_spandrel(state)


def _restormer(state: Mapping[str, Any]) -> dict[str, Any]:
    """Restormer's options; spandrel keeps it with the restrictive licences."""

    def count(prefix: str) -> int:
        found = {int(m[1]) for k in state if (m := re.match(rf"{prefix}\.(\d+)\.", k))}
        return max(found) + 1 if found else 0

    first = state["patch_embed.proj.weight"]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    hidden = state["encoder_level1.0.ffn.project_out.weight"].shape[1]
    return {
        "type": "Restormer",
        "inp_channels": first.shape[1],
        "out_channels": state["output.weight"].shape[0],
        "dim": first.shape[0],
        "num_blocks": [count(level) for level in levels],
        "num_refinement_blocks": count("refinement"),
        "heads": [state[f"{level}.0.attn.temperature"].shape[0] for level in levels],
        "ffn_expansion_factor": 2.66 if int(first.shape[0] * 2.66) == hidden else hidden / first.shape[0],
        "bias": "encoder_level1.0.attn.qkv.bias" in state,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in state else "BiasFree",
        "dual_pixel_task": "skip_conv.weight" in state,
    }


def _by_spandrel(state: Mapping[str, Any]) -> Detected | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spandrel = require("spandrel", "the detection of weights")
        registry = spandrel.MAIN_REGISTRY
        if has_extra():  # a copy, for spandrel's own is everybody's
            registry = registry.copy()
            registry.add(*require(EXTRA_LIBRARY, "the detection of weights").EXTRA_REGISTRY.architectures())
        try:
            with torch.random.fork_rng(devices=[]):
                found = registry.load(dict(state))
        except spandrel.UnsupportedModelError:
            return None
        except Exception as e:  # a detector that took them for something else trips over whatever it finds
            said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            raise UserError(f"the architecture was recognised, but not its options ({said})") from e
    block = _block(found)
    return None if block is None else Detected(block, int(found.scale), _about(block))


def _block(found: Any) -> dict[str, Any] | None:
    """The block of what spandrel found; None if neither Relume nor the table has it."""
    net, architecture = found.model, found.architecture.id
    options = {k: _plain(v) for k, v in net.hyperparameters.items() if not callable(v)}
    if architecture == "ESRGAN":
        return {
            "type": "RRDBNet",
            "num_in_ch": found.input_channels,
            "num_out_ch": options["out_nc"],
            "scale": found.scale,
            "num_feat": options["num_filters"],
            "num_block": options["num_blocks"],
        }
    if architecture in ("Compact", "NAFNet"):
        return {"type": type(net).__name__, **options}
    place = f"{type(net).__module__.partition('.architectures.')[2]}:{type(net).__name__}"
    name = next((name for name, row in rows().items() if row.place == place), None)
    if name is None:
        return None
    accepted = inspect.signature(adapted(name)).parameters
    return {"type": name, **{k: v for k, v in options.items() if k in accepted}}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _about(block: Mapping[str, Any]) -> str:
    name = str(block["type"])
    row = rows().get(name)
    licence = f" ({row.library}, {row.licence})" if row else ""
    assumed = ", ".join(f"{k}: {block[k]}" for k in UNKNOWABLE.get(name, ()) if k in block)
    return f"{name}{licence}" + (f"; weights do not tell {assumed}, which is assumed" if assumed else "")
