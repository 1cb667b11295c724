"""What option files of BasicSR and its forks say in other words: keys under other names or elsewhere, and keys without effect.

Nothing here is silent: a key that changes nothing is noted, with the reason, and one that would change something is translated
or refused. A key that the model, data set or network of the file has itself is theirs, and nothing here applies to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from .nodes import Block, Entry, Node, Place, Scalar, from_python, to_python

NO_EFFECT: Mapping[str, Mapping[str, str]] = {
    "": {
        "suffix": "val.suffix is what names pictures",
        "save_img": "val.save_img is what saves pictures",
        "crop_border": "the metrics' own crop_border is what counts",
        "gt_size": "the training set's gt_size is what counts",
        "use_tb_logger": "logger.use_tb_logger is what counts",
        "gpu_ids": "use CUDA_VISIBLE_DEVICES and torchrun",
        "gpu": "use CUDA_VISIBLE_DEVICES and torchrun",
        "set_CUDA_VISIBLE_DEVICES": "use CUDA_VISIBLE_DEVICES",
        "task": "it is a note for people",
        "degradation": "it is a note for people",
        "val_func": "val.metrics are what is computed",
        "rank": "the launcher says it",
        "world_size": "the launcher says it",
        "dist": "the launcher says it",
        "root_path": "outputs go below the current folder",
    },
    "datasets": {
        "scale": "the top level's scale is passed on",
        "use_cache": "files are read when they are needed",
        "prefetch_factor": "num_prefetch_queue says how many batches are prepared ahead",
        "n_workers": "num_worker_per_gpu is what counts",
        "crop_size": "val's crop sizes are what counts",
    },
    "train": {
        "manual_seed": "the top level's manual_seed is what counts",
        "max_checkpoints": "logger.keep_checkpoints says how many are kept",
    },
    "val": {
        "pbar_desc": "the bar says the data set's name",
        "flip_seq": "it is for networks of video",
        "center_frame_only": "it is for networks of video",
        "patchwise_testing": "whole pictures are used; val.tile is for those that do not fit",
    },
    "path": {
        "root": "outputs go below the current folder, or experiments_root",
        "models": "the experiment's folder holds them",
        "training_states": "the experiment's folder holds them",
        "training_state": "the experiment's folder holds them",
        "log": "the experiment's folder holds it",
        "visualization": "the experiment's folder holds it",
        "results": "results_root is what counts",
    },
    "logger": {
        "save_latest_freq": "net_g_latest.pth is written with every checkpoint",
        "show_tf_imgs_freq": "pictures are shown at every validation",
        "save_checkpoint_format": "weights are .pth files",
    },
}
"""Keys without effect here and why, by section (``datasets`` for every data set's block)."""

INERT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "": dict.fromkeys(("onnx", "eval_lpips", "fp16"), (None, False)),
    "datasets": {"task": (None, "SR"), **dict.fromkeys(("hist", "use_resize_crop", "lq_size"), (None, False))},
    "train": {"mixup": (None, False)},
    "val": {
        "trans_num": (None, 1),
        **dict.fromkeys(("save_input", "use_chop", "selfensemble_testing"), (None, False)),
    },
}
"""Keys of forks without a counterpart here, by section, and their values that ask for nothing; others are refused."""

Move = Callable[[Any], dict[str, Any] | None]
"""Function from a value to entries of the same section with the same meaning; None where it cannot be said."""


def _renamed(name: str) -> Move:
    return lambda value: {name: value}


def _if(wanted: Any, **moved: Any) -> Move:
    """What stands for one value; other values are refused, or ask for nothing."""
    return lambda value: dict(moved) if type(value) is type(wanted) and value == wanted else None


def _accumulate(value: Any) -> dict[str, Any] | None:
    steps = value if isinstance(value, list) else [value]
    return {"accumulate": steps[0]} if steps and len(set(map(str, steps))) == 1 else None


SAME: Mapping[str, Mapping[str, Move]] = {
    "datasets": {"meta_info_file": _renamed("meta_info")},
    "train": {
        "accumulation_steps": _accumulate,
        "accum_iter": _renamed("accumulate"),
        "gradient_accumulation_steps": _renamed("accumulate"),
        "max_grad_norm": _renamed("grad_clip_norm"),
        "clip_grad_norm": lambda value: (
            {"use_grad_clip": value} if isinstance(value, bool) else {"grad_clip_norm": value}
        ),
        "grad_clip_max_norm": _renamed("grad_clip_norm"),
        "use_amp": lambda value: {"amp": "fp16" if value else "off"} if isinstance(value, bool) else None,
        "total_iters": _renamed("total_iter"),
        "mixup": lambda value: {"mixing_augs": {"mixup": value}} if isinstance(value, bool) else None,
    },
    "val": {
        "use_pbar": _renamed("pbar"),
        "use_chop": _if(True, parts=200, parts_context=16),
        "trans_num": _if(8, self_ensemble="dihedral"),
        "selfensemble_testing": _if(True, self_ensemble="dihedral"),
        "key_metric": _renamed("best"),
        "crop_size": lambda value: {"crop_size_h": value, "crop_size_w": value},
    },
    "path": {
        "pretrain_model_g": _renamed("pretrain_network_g"),
        "pretrain_model_d": _renamed("pretrain_network_d"),
        "pretrain_model_G": _renamed("pretrain_network_g"),
        "param_key": _renamed("param_key_g"),
        "strict_load": _renamed("strict_load_g"),
        "pretrain_network": _renamed("pretrain_network_g"),
    },
}
"""Keys of forks that have another name here, and how their values translate, by section (``datasets`` for every data set's
block)."""

STAGED = "mini_accumulation_steps"

PHASE = re.compile(r"(train|val|test)(\d+)")
"""``test0``, which is ``test_0`` where there is no underscore to find the phase by."""


def section_of(key: str) -> str:
    """The tables' name of a dotted key: ``datasets`` for ``datasets.val``; itself for other sections."""
    return "datasets" if re.fullmatch(r"datasets\.[^.]+", key) else key


def why_ignored(key: str, name: str, node: Node) -> str | None:
    """Why the key `name` of the section at the dotted `key` changes nothing; None if it would, or is unknown."""
    section = section_of(key)
    if (reason := NO_EFFECT.get(section, {}).get(name)) is not None:
        return reason
    asks_nothing = INERT.get(section, {}).get(name, ())
    found = isinstance(node, Scalar) and any(type(node.value) is type(v) and node.value == v for v in asks_nothing)
    return "so set, it asks for nothing" if found else None


def translated(block: Block, key: str, accepted: Iterable[str]) -> tuple[Block, list[tuple[str, str, Place | None]]]:
    """A section with its keys under Relume's names, and the renamed ones: old name, new one, place.

    `accepted` names stay as they are; so do those that are given under both names, or whose value cannot be said here.
    """
    known = set(accepted)
    entries, said = _accumulation(dict(block.entries)) if key == "train" else (dict(block.entries), [])
    for name, move in SAME.get(section_of(key), {}).items():
        if name not in entries or name in known:
            continue
        entry = entries[name]
        moved = move(to_python(entry.node))
        if moved is None or not set(moved) <= known or any(new in entries for new in moved):
            continue
        del entries[name]
        entries |= {new: Entry(new, entry.place, _placed(value, entry)) for new, value in moved.items()}
        said.append((name, ", ".join(moved), entry.place))
    return (replace(block, entries=entries) if said else block), said


def _accumulation(entries: dict[str, Entry]) -> tuple[dict[str, Entry], list[tuple[str, str, Place | None]]]:
    """Keys of ``train`` in which a fork's switch, its steps, and its steps for each progressive stage are one number.

    Those for each stage come before those for all, and ``use_accumulation: false`` before both.
    """
    given = {k: entries[k] for k in ("use_accumulation", "accumulation_steps", STAGED) if k in entries}
    if "accumulate" in entries or set(given) <= {"accumulation_steps"}:
        return entries, []
    steps = given.get(STAGED) or given.get("accumulation_steps")
    switch = given.get("use_accumulation")
    off = switch is not None and isinstance(switch.node, Scalar) and switch.node.value is False
    moved = {"accumulate": 1} if off or steps is None else _accumulate(to_python(steps.node))
    if moved is None:
        return entries, []
    count = moved["accumulate"]
    source = steps or next(iter(given.values()))
    kept = {k: e for k, e in entries.items() if k not in given}
    kept["accumulate"] = Entry("accumulate", source.place, _placed(count, source))
    return kept, [(k, f"accumulate: {count}", e.place) for k, e in given.items()]


def _placed(value: Any, entry: Entry) -> Node:
    """The node of a value that stands for what `entry` says, at its place."""
    node = from_python(value)
    return Scalar(node.value, None, entry.node.place) if isinstance(node, Scalar) else node


def renamed_phases(root: Block) -> Block:
    """The top level with ``datasets.test0`` as ``test_0``."""
    owner = root.entries.get("datasets")
    if owner is None or not isinstance(owner.node, Block):
        return root
    datasets = owner.node
    entries = {}
    for name, entry in datasets.entries.items():
        match = PHASE.fullmatch(name)
        new = f"{match[1]}_{match[2]}" if match else name
        free = new not in datasets.entries
        entries[new if free else name] = entry._replace(key=new) if match and free else entry
    renamed = Block(entries, datasets.place)
    return Block({**root.entries, "datasets": owner._replace(node=renamed)}, root.place)
