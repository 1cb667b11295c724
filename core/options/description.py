"""What a weights file says of itself: its entry ``relume``, a dict of plain values from which the model can be built again.

A ``.pth`` file keeps it as `core.runtime.weights.described` says, a ``.safetensors`` file as JSON in its metadata.

====================  ==========================================================================================================
``format``            version of this layout
``key``, ``network``  the network is ``network_<key>`` of the options, and its block there
``model_type``        of the options, as ``scale`` and ``plugins`` (which are named, never imported from here)
``val``               the settings that inference depends on: padding, tiles, the model's own
``inputs``            items of the samples that the network is called with (``train.inputs``), None for pictures alone
``range``             of pixels as the network takes and gives them, before ``mean`` is subtracted and ``std`` divides
``colour``            order of the channels
``mean``, ``std``     of the training set's options, None where it has none; of luma (``color: y``), of the gray value in [0, 1]
``transfer``          how radiance is encoded (HDR), else None
``average``           entry of the file that is the moving average, or None
``iteration``         of training, None where there was none here
====================  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...datasets import DATASETS
from ..errors import UserError, expanded, first_line
from ..files import as_component
from ..models.base import model_class
from ..registry import plugged
from . import check
from .detection import FORMAT, detected, entry
from .schema import Options

INFERENCE = ("tile", "tile_overlap", "window_size", "padding")
"""Keys of ``val`` that every model's inference depends on."""
DATA = ("mean", "std", "transfer")
"""Parameters of data sets that a network's input and output depend on."""


def weights_description(
    opt: Options, key: str = "g", average: bool = False, iteration: int | None = None
) -> dict[str, Any]:
    """The entry for the weights of ``network_<key>``.

    Args:
        opt: checked options.
        average: whether the file has ``params_ema``.
    """
    values = opt.to_dict()
    settings = (*INFERENCE, *model_class(opt.model_type).inference_options)
    data = values["datasets"].get("train") or next(iter(values["datasets"].values()), None)
    return {
        "format": FORMAT,
        "key": key,
        "network": values[f"network_{key}"],
        "model_type": values["model_type"],
        "scale": values["scale"],
        "plugins": values["plugins"],
        "val": {k: values["val"][k] for k in settings if k in values["val"]},
        "inputs": (values["train"] or values["val"]).get("inputs"),
        "range": [0.0, 1.0],
        "colour": "rgb",
        **in_pixels({k: of_data(data, k) for k in (*DATA, "color")}),
        "average": "params_ema" if average else None,
        "iteration": iteration,
    }


def in_pixels(found: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a data set such that ``mean`` and ``std`` are of pixels in [0, 1]: luma spans [16, 235] / 255."""
    given = {k: found[k] for k in DATA}
    if found["color"] != "y":
        return given
    mean, std = ((found[k] or [default])[0] for k, default in (("mean", 0.0), ("std", 1.0)))
    return {**given, "mean": [(255 * mean - 16) / 219], "std": [255 * std / 219]}


def of_data(block: Any, name: str) -> Any:
    """The parameter `name` of a data set, given or by default; of the first that has it where data sets contain others."""
    if isinstance(block, Mapping):
        if block.get("type") in DATASETS:
            parameters = DATASETS.parameters(block["type"])
            if name in parameters:
                return block.get(name, parameters[name].default)
        block = list(block.values())
    found = (of_data(inner, name) for inner in block) if isinstance(block, list) else ()
    return next((value for value in found if value is not None), None)


def read(path: str | Path) -> dict[str, Any]:
    """The entry of a weights file; of one that has none, what its weights tell.

    Raises:
        UserError: there is no such file; nobody recognises its weights; or it has an entry of another version.
    """
    place = expanded(path)
    found = entry(place)
    if not isinstance(found, dict) or "network" not in found:
        found = detected(place)
    if found is None:
        raise UserError(f"{path}: does not say which network it is for; give the option file of its network with -opt")
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path}: describes its network in format {found.get('format')}, and this Relume knows format {FORMAT}; "
            "give the option file of its network with -opt"
        )
    return dict(found)


def options_of(described: Mapping[str, Any], path: str | Path) -> Options:
    """Options, checked, that build the model of a weights file; they name the file itself as its weights.

    Raises:
        UserError: what the entry says cannot be built here.
    """
    key = described["key"]
    opt = {
        "name": as_component(Path(path).stem),
        "model_type": described["model_type"],
        "scale": described["scale"],
        f"network_{key}": described["network"],
        "path": {f"pretrain_network_{key}": str(path)},
        "val": {**described["val"], **({"inputs": described["inputs"]} if described.get("inputs") else {})},
        "plugins": [p for p in described.get("plugins", ()) if plugged.known(p)],  # never imported for a file's sake
    }
    try:
        return check(opt)
    except UserError as e:
        needs = described.get("plugins")
        hint = f" It was trained with plugins: {', '.join(needs)}; import them first." if needs else ""
        raise UserError(
            f"{path}: what it says of its network cannot be built here ({first_line(e)}).{hint} "
            "Or give the option file of its network with -opt"
        ) from e
