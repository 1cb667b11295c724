"""What the model wrappers of BasicSR's forks do beyond their options, written out as options before anything is checked.

Each wrapper is a name of a model here. What it always does (tiles, padding, clipping) stands in no option file, and would be
lost with its name; so it is added, and noted, where the file does not say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...datasets import meant_type
from .dialect import STAGED
from .nodes import Block, Entry, Items, Node, Problem, Scalar

PADS_TO_WINDOW = (
    "SwinIRModel",
    "HATModel",
    "DRCTModel",
    "CRAFT_Model",
    "RealHATGANModel",
    "RealHATMSEModel",
    "RealDRCTGANModel",
    "RealDRCTMSEModel",
)
"""Wrappers that continue images by reflection to a multiple of ``network_g.window_size``."""

MAMBAIR = {"val": {"parts": 200, "parts_context": 0.1}}
TWO_MEANINGS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "RCAN": (("n_feats", "n_resgroups", "n_resblocks"), "RCAN_n_feats"),
}
"""Names that two architectures have: the keys of the one that is called otherwise here, and its name here."""
SAME_SIZE = ("DeblurPairedDataset", "LDR_HDR_PairedDataset")
"""Data sets of DiffIR's own whose inputs are as large as their ground truths, whatever the file calls their scale."""
ALWAYS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "MambaIRModel": MAMBAIR,
    "MambaIRv2Model": MAMBAIR,
    "MambaIRv2LightModel": MAMBAIR,
    "ImageRestorationModel": {"train": {"use_grad_clip": True}},
}
"""Options that say what a wrapper always does, by wrapper and section."""

INSTEAD = {"parts": ("tile", "tile_pad", "grids"), "use_grad_clip": ("grad_clip_norm", "grad_clip_value")}
"""Options which say that another option's work is done differently, by that option."""


def written_out(root: Block) -> tuple[Block, list[Problem]]:
    """The top level of an option file with what its wrapper does beyond it, and a note on each addition."""
    notes: list[Problem] = []
    root = _stages(_scaled(_tile(_misplaced(_sets_meant(_meant(root, notes), notes), notes), notes), notes), notes)
    name = root.scalar("model_type")
    if not isinstance(name, str):
        return root, notes
    place = root.entries["model_type"].place
    for section, key, value in _always(root, name):
        owner = root.entries.get(section)
        block = owner.node if owner is not None else Block({}, root.place)
        # Without training there is nothing to clip; a file without `val` is tested all the same.
        if not isinstance(block, Block) or (owner is None and section == "train"):
            continue
        if any(k in block.entries for k in (key, *INSTEAD.get(key, ()))) or _belongs_to_absent(key, block):
            continue
        entry = Entry(key, place, Scalar(value, None, place))
        filled = Block({**block.entries, key: entry}, block.place, block.replaced)
        entry = owner._replace(node=filled) if owner is not None else Entry(section, place, filled)
        root = Block({**root.entries, section: entry}, root.place)
        shown = str(value).lower() if isinstance(value, bool) else value
        notes.append(Problem(place, f"{section}.{key}: {shown}, as {name} has it"))
    return root, notes


def _scaled(root: Block, notes: list[Problem]) -> Block:
    """DiffIR's networks take the scale of the top level where their data have it: the original has a class for each.

    TOFlow's is 1: its inputs were enlarged beforehand, whatever the file says.
    """
    scale = root.entries.get("scale")
    if scale is None or not isinstance(scale.node, Scalar) or scale.node.value == 1:
        return root
    # Networks whose output has the size of their input.
    network = root.entries.get("network_g")
    if network is not None and isinstance(network.node, Block) and network.node.scalar("type") == "TOFlow":
        notes.append(Problem(scale.place, "scale: 1, as TOFlow takes frames of the size of its output"))
        one = scale._replace(node=Scalar(1, None, scale.node.place))
        return Block({**root.entries, "scale": one}, root.place)
    # DiffIR, whose scale stood at the top level in the originals.
    networks = {
        k: e
        for k, e in root.entries.items()
        if k.startswith("network_") and isinstance(e.node, Block) and e.node.scalar("type") in ("DiffIRS1", "DiffIRS2")
    }
    if not networks or any("scale" in e.node.entries for e in networks.values() if isinstance(e.node, Block)):
        return root
    data = root.entries.get("datasets")
    blocks = data.node.entries.values() if data is not None and isinstance(data.node, Block) else ()
    types = {e.node.scalar("type") for e in blocks if isinstance(e.node, Block)}
    if same := sorted(types & set(SAME_SIZE)):
        notes.append(Problem(scale.place, f"scale: 1, as the images of {same[0]} are of one size"))
        entries = {"scale": scale._replace(node=Scalar(1, None, scale.node.place))}
    else:
        entries = {}
        for key, entry in networks.items():
            assert isinstance(entry.node, Block)
            filled = Block({**entry.node.entries, "scale": scale}, entry.node.place, entry.node.replaced)
            entries[key] = entry._replace(node=filled)
            notes.append(Problem(entry.place, f"{key}.scale: {scale.node.value}, the top level's"))
    return Block({**root.entries, **entries}, root.place)


def _meant(root: Block, notes: list[Problem]) -> Block:
    """Networks that share their name with one here, under the name that they have here instead."""
    entries = dict(root.entries)
    for key, entry in root.entries.items():
        if not key.startswith("network_") or not isinstance(entry.node, Block):
            continue
        telling, other = TWO_MEANINGS.get(str(entry.node.scalar("type")), ((), ""))
        if given := [k for k in telling if k in entry.node.entries]:
            kind = entry.node.entries["type"]
            named = Scalar(other, None, kind.node.place)
            filled = Block(
                {**entry.node.entries, "type": kind._replace(node=named)}, entry.node.place, entry.node.replaced
            )
            entries[key] = entry._replace(node=filled)
            was = entry.node.scalar("type")
            notes.append(
                Problem(kind.place, f"{key}.type: {was} with {given[0]} is {other}, another network than {was} here")
            )
    return Block(entries, root.place)


def _misplaced(root: Block, notes: list[Problem]) -> Block:
    """``ema_decay`` in the block of a network, where a file of BasicSR's own for EDVR has it, as a key of ``train``."""
    network, train = (root.entries.get(k) for k in ("network_g", "train"))
    if network is None or not isinstance(network.node, Block) or "ema_decay" not in network.node.entries:
        return root
    entry = network.node.entries["ema_decay"]
    left = {k: e for k, e in network.node.entries.items() if k != "ema_decay"}
    entries = {
        **root.entries,
        "network_g": network._replace(node=Block(left, network.node.place, network.node.replaced)),
    }
    if train is not None and isinstance(train.node, Block) and "ema_decay" not in train.node.entries:
        filled = Block({**train.node.entries, "ema_decay": entry}, train.node.place, train.node.replaced)
        entries["train"] = train._replace(node=filled)
    notes.append(Problem(entry.place, "network_g.ema_decay: taken as train.ema_decay"))
    return Block(entries, root.place)


def _sets_meant(root: Block, notes: list[Problem]) -> Block:
    """Data sets that share their name with another, distinguished by their keys."""
    data = root.entries.get("datasets")
    if data is None or not isinstance(data.node, Block):
        return root
    sets = dict(data.node.entries)
    for key, entry in data.node.entries.items():
        if not isinstance(entry.node, Block) or "type" not in entry.node.entries:
            continue
        was = entry.node.scalar("type")
        found = meant_type({**dict.fromkeys(entry.node.entries), "type": was})
        if found == was:
            continue
        kind = entry.node.entries["type"]
        named = {**entry.node.entries, "type": kind._replace(node=Scalar(found, None, kind.node.place))}
        sets[key] = entry._replace(node=Block(named, entry.node.place, entry.node.replaced))
        what = "frames around the middle one, as BasicSR has it; with dataroot it is the set for interpolation"
        notes.append(Problem(kind.place, f"datasets.{key}.type: {was} with dataroot_gt is {found}: {what}"))
    node = Block(sets, data.node.place, data.node.replaced)
    return Block({**root.entries, "datasets": data._replace(node=node)}, root.place)


def _stages(root: Block, notes: list[Problem]) -> Block:
    """A list of ``train.mini_accumulation_steps`` as the training set's ``accumulates``, beside its other stages."""
    train, data = (root.entries.get(k) for k in ("train", "datasets"))
    if train is None or not isinstance(train.node, Block) or data is None or not isinstance(data.node, Block):
        return root
    steps, block = train.node.entries.get(STAGED), data.node.entries.get("train")
    if steps is None or not isinstance(steps.node, Items) or block is None or not isinstance(block.node, Block):
        return root
    if len({str(n) for n in map(_shown, steps.node.items)}) < 2 or "accumulates" in block.node.entries:
        return root
    notes.append(Problem(steps.place, f"train.{STAGED}: taken as datasets.train.accumulates"))
    inner = {**block.node.entries, "accumulates": Entry("accumulates", steps.place, steps.node)}
    sets = {**data.node.entries, "train": block._replace(node=Block(inner, block.node.place, block.node.replaced))}
    left = {k: e for k, e in train.node.entries.items() if k not in (STAGED, "accumulation_steps")}
    changed = {
        "train": train._replace(node=Block(left, train.node.place, train.node.replaced)),
        "datasets": data._replace(node=Block(sets, data.node.place, data.node.replaced)),
    }
    return Block({**root.entries, **changed}, root.place)


def _always(root: Block, name: str) -> Iterator[tuple[str, str, Any]]:
    for section, values in ALWAYS.get(name, {}).items():
        for key, value in values.items():
            yield section, key, value
    network = root.entries.get("network_g")
    if name in PADS_TO_WINDOW and network is not None and isinstance(network.node, Block):
        window = network.node.scalar("window_size")
        if isinstance(window, int) and not isinstance(window, bool) and window > 1:
            yield "val", "window_size", window


def _belongs_to_absent(key: str, block: Block) -> bool:
    """Whether a key is about how parts are cut, and there are none."""
    return key == "parts_context" and block.scalar("parts") != 200


def _tile(root: Block, notes: list[Problem]) -> Block:
    """HATModel's ``tile: {tile_size, tile_pad}`` of the top level, as keys of ``val``."""
    owner = root.entries.get("tile")
    if owner is None or not isinstance(owner.node, Block) or set(owner.node.entries) - {"tile_size", "tile_pad"}:
        return root
    val = root.entries.get("val")
    block = val.node if val is not None else Block({}, owner.place)
    if not isinstance(block, Block) or {"tile", "tile_pad"} & set(block.entries):
        return root
    moved: dict[str, Entry] = {}
    for old, new in (("tile_size", "tile"), ("tile_pad", "tile_pad")):
        if (entry := owner.node.entries.get(old)) is not None:
            moved[new] = entry._replace(key=new)
    said = ", ".join(f"val.{k}: {_shown(e.node)}" for k, e in moved.items())
    notes.append(Problem(owner.place, f"tile: taken as {said}"))
    filled = Block({**block.entries, **moved}, block.place, block.replaced)
    entries = {k: e for k, e in root.entries.items() if k != "tile"}
    return Block({**entries, "val": Entry("val", val.place if val else owner.place, filled)}, root.place)


def _shown(node: Node) -> str:
    return str(node.value) if isinstance(node, Scalar) else "a block"
