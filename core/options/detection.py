"""What network a weights file is of: what the file says itself, else what its weights tell."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, first_line, require
from ..runtime import checkpoint, weights

log = logging.getLogger("relume")
FORMAT = 1
"""Version of what a file says of itself, see `description`."""


def entry(path: Path) -> Any:
    """What a weights file says of itself; None if it says nothing.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix == ".safetensors" and path.is_file():
        module = require("safetensors", str(path))
        try:
            with module.safe_open(str(path), "pt") as file:
                return json.loads((file.metadata() or {}).get(weights.ABOUT, "null"))
        except (module.SafetensorError, ValueError, OSError) as e:
            raise UserError(f"{path}: cannot be read, it is torn or not a checkpoint ({first_line(e)})") from e
    try:
        return weights.about_itself(checkpoint.load(path))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: what it says of itself cannot be read ({first_line(e)})") from e


def detected(path: Path) -> dict[str, Any] | None:
    """What the weights of a file written elsewhere tell, as `description` has it; None if nobody recognises them.

    Raises:
        UserError: the file cannot be read, or its options cannot be told.
    """
    from ...archs.zoo.detection import detect

    state = weights.unwrap(checkpoint.load(path), None, path)
    try:
        found = detect(state)
    except UserError as e:
        raise UserError(f"{path}: {e}; give the option file of its network with -opt") from e
    if found is None:
        return None
    block = yaml.safe_dump(found.network, default_flow_style=True, sort_keys=False, width=10**6).strip()
    log.info("%s: these are weights of %s; network_g: %s", path, found.about, block)
    # What a file of ours would say about itself; of other people's weights the rest is not known.
    return {
        "format": FORMAT,
        "about": found.about,
        "key": "g",
        "network": found.network,
        "model_type": "RestorationModel",
        "scale": found.scale,
        "plugins": [],
        "val": {},
        "inputs": None,
        "range": [0.0, 1.0],
        "colour": "rgb",
        "mean": None,
        "std": None,
        "transfer": None,
        "average": None,
        "iteration": None,
    }


def network_of(path: Path) -> dict[str, Any] | None:
    """The block of the network that a weights file is of; None if neither the file nor its weights tell it."""
    said = entry(path)
    if isinstance(said, dict) and isinstance(said.get("network"), dict):
        return dict(said["network"])
    found = detected(path)
    return None if found is None else dict(found["network"])
