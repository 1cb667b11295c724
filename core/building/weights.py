"""Which weights the networks of a run start with: the resumed, the named, or those that its training has written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .. import changes, hub, options
from ..errors import UserError, expanded
from ..experiment import Experiment, Resume
from ..models.base import Model, model_class
from ..options.places import missing
from ..options.schema import Options
from ..runtime import checkpoint, distributed, weights
from ..runtime.checkpoint import Checkpoints

log = logging.getLogger("relume")


def load_pretrained(
    opt: Options, key: str, network: nn.Module, model: Model, resume: Resume | None, for_training: bool
) -> None:
    """Weights of one network: the resumed ones, else ``path.pretrain_network_<key>``.

    Training starts from ``params``, as in BasicSR; what is tested and used is the average, where the file has one.

    Raises:
        UserError: the weights cannot be read, or do not fit the network.
    """
    # Resumed weights come first.
    if resume and key not in model.frozen and key not in changes.left_out(opt):
        checkpoint.load_weights(network, resume.network_path(key), "params", strict=True)
        return
    named = opt.path.get(f"pretrain_network_{key}")
    if not named:
        return
    # Load the file that the options name.
    strict = opt.path.get(f"strict_load_{key}")
    usual = opt.path.get("param_key_g", "params") if key in model.frozen else "params"
    grow = bool(opt.path.get(f"grow_network_{key}"))
    try:
        path = hub.local(named)
        content = checkpoint.load(path)
        if not for_training:
            usual = weights.usual_key(content)
        param_key = opt.path.get(f"param_key_{key}", usual)
        differences = checkpoint.load_weights(network, path, param_key, strict is None or strict, grow, content)
        model.loaded[key] = weights.entry_taken(content, param_key)
    except checkpoint.DoesNotFit as e:
        advice = f"(path.strict_load_{key}: false loads what fits)"
        raise UserError(f"{e}. {advice} (path.pretrain_network_{key})") from e
    except UserError as e:
        raise UserError(f"{e} (path.pretrain_network_{key})") from e
    # Say what was loaded, and what was not.
    if distributed.is_main():
        log.info("network_%s: loaded %s%s", key, named, taken(content, param_key, key))
        if grow:
            log.info("network_%s: %d of its tensors are new and start as initialised", key, len(differences))
            return
        expected = [d for d in differences if part_of(d) in model.parts_of_stages] if key == "g" else []
        if expected:
            log.info("network_%s: as expected of a stage after that file's, %s", key, in_parts(expected))
        differences = [d for d in differences if d not in expected]
        for line in differences[:20]:
            log.warning("network_%s: not loaded: %s", key, line)
        if len(differences) > 20:
            log.warning("network_%s: not loaded: %d more", key, len(differences) - 20)


def part_of(difference: str) -> str:
    """The part of a network that a line of `checkpoint.load_weights` is about, if it says what is missing or left over.

    >>> part_of("missing condition.E.0.weight"), part_of("body.weight: (3,) in the file, (4,) in the network")
    ('condition', '')
    """
    kind, _, name = difference.partition(" ")
    return name.partition(".")[0] if kind in ("missing", "unexpected") else ""


def in_parts(differences: Sequence[str]) -> str:
    """How many tensors start as initialised and how many of the file are not used, by part.

    >>> in_parts(["missing a.x", "missing a.y", "missing b.x", "unexpected c.x"])
    '3 tensors start as initialised (a, b), 1 of the file is not used (c)'
    """
    said = []
    for kind, what in (("missing", ("start", "starts", "as initialised")), ("unexpected", ("are", "is", "not used"))):
        found = [part_of(d) for d in differences if d.startswith(f"{kind} ")]
        if found:
            one = len(found) == 1
            noun = (" tensor" if one else " tensors") if kind == "missing" else " of the file"
            parts = ", ".join(dict.fromkeys(found))
            said.append(f"{len(found)}{noun} {what[one]} {what[2]} ({parts})")
    return ", ".join(said)


def taken(content: Mapping[str, Any], param_key: str | None, key: str) -> str:
    """Which entry of a weights file was taken, and what else there was to take."""
    entries = [k for k, v in content.items() if isinstance(v, Mapping) and k != weights.ABOUT]
    if param_key not in entries:
        return ""
    what = "the moving average" if param_key == "params_ema" else "the weights themselves"
    others = [k for k in entries if k != param_key]
    more = f"; the file also has {', '.join(others)}: path.param_key_{key} chooses" if others else ""
    return f" [{param_key}]: {what}{more}"


def find_weights(opt: Options) -> Options:
    """Options that name, for networks without weights, what this experiment's training has written: the best, or latest."""
    root = Experiment(opt).root
    kind = model_class(opt.model_type)
    found: dict[str, Any] = {}
    # For each network: what the options name, what its run has instead, or what was trained here.
    for key in [k for k in opt.networks if k not in kind.frozen]:
        newest = trained_in(root, key)
        named = opt.path.get(f"pretrain_network_{key}")
        instead = instead_of_best(named, key) if named else None
        if instead is not None:
            found[f"pretrain_network_{key}"] = str(instead)
            log.warning("network_%s: there is no %s; taking %s, which that run has", key, named, instead.name)
        elif newest is None:
            continue
        elif not named:
            found[f"pretrain_network_{key}"] = str(newest)
            log.info("network_%s: path.pretrain_network_%s names no weights; taking those trained here", key, key)
        elif (
            opt.train is not None
            and not named.startswith(hub.PREFIX)
            and expanded(named).resolve().parent != newest.resolve().parent
        ):
            log.warning(
                "network_%s: testing %s, where the training of this file starts from; what it ended with is %s "
                "(path.pretrain_network_%s)",
                key,
                named,
                newest,
                key,
            )
    if not found:
        return opt
    values = opt.to_dict()
    values["path"] = {**values["path"], **found}
    return options.check(values)


def trained_in(root: Path, key: str) -> Path | None:
    """The weights that a run in the folder `root` has written: the best, or else the latest."""
    own = [Checkpoints(root).network_path(key, which) for which in ("best", "latest", checkpoint.INTERRUPTED)]
    return next((p for p in own if p.is_file()), None)


def instead_of_best(named: str, key: str) -> Path | None:
    """What the run has whose best weights are named and not there, because it scored nothing yet: the latest, or None."""
    place = expanded(named)
    if (
        "://" in named
        or named.startswith(hub.PREFIX)
        or place.is_file()
        or place.name != f"net_{key}_{checkpoint.BEST}.pth"
    ):
        return None
    return trained_in(place.parent.parent, key)


def refuse_random_weights(opt: Options, networks: Mapping[str, nn.Module], allowed: bool) -> None:
    """Say which networks have weights from nowhere, and go no further with them unless that is wanted.

    Raises:
        UserError: it is not.
    """
    frozen = model_class(opt.model_type).frozen
    for key, network in networks.items():
        if opt.path.get(f"pretrain_network_{key}") or not any(True for _ in network.parameters()):
            continue
        if not allowed and key not in frozen:
            models = Checkpoints(Experiment(opt).root).models
            raise UserError(
                f"network_{key} has no weights: path.pretrain_network_{key} names none, and there are none in {models}. "
                "Train first, name a file, or say --random_weights"
            )
        log.warning("network_%s has random weights: path.pretrain_network_%s names none", key, key)


def refuse_missing(opt: Options, phases: Sequence[str], weights: bool = True) -> None:
    """Raise `UserError` on all ranks with every file and folder that a run needs and some rank does not have."""
    lines = missing(opt, phases, weights)
    if opt.train is None or "train" not in phases:  # teachers are not built, and their weights not read
        kind = model_class(opt.model_type)
        unread = [f"(path.pretrain_network_{k})" for k in kind.frozen if k not in kind.required_networks]
        lines = [line for line in lines if not line.endswith(tuple(unread))]
    distributed.agree(UserError("\n".join(lines)) if lines else None)
