"""What the options of a resumed training have changed since its checkpoint: allowed, allowed with a note, or refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from .annotations import plain
from .errors import UserError, without_secrets

log = logging.getLogger("relume")
ABSENT = "absent"
MOST_NOTES = 20


class Verdict(Enum):
    """What a changed option does to a resumed training."""

    ALLOWED = "allowed"
    NOTED = "allowed, with a note"
    REFUSED = "refused"


class Rule(NamedTuple):
    """What holds for options, by name: the first rule that fits an option decides."""

    options: tuple[str, ...]
    verdict: Verdict
    why: str


RULES = (
    Rule(
        (
            *(
                "name",
                "plugins",
                "path",
                "val",
                "logger",
                "num_gpu",
                "device",
                "dist_params",
                "deterministic",
                "auto_resume",
            ),
            *("find_unused_parameters", "datasets.val*", "datasets.test*", "train.max_nonfinite"),
            *("train.compile", "train.cuda_graph", "train.channels_last", "train.strategy", "datasets.train.name"),
            "train.keep_global_batch",
            *("datasets.train.num_worker_per_gpu", "datasets.train.prefetch_mode", "datasets.train.num_prefetch_queue"),
            *(
                "train.keep_global_batch",
                "datasets.train.pin_memory",
                "datasets.train.io_backend",
                "datasets.train.persistent_workers",
            ),
            "datasets.train.timeout",
            *("train.optim_*.foreach", "train.optim_*.fused", "train.optim_*.capturable"),
        ),
        Verdict.ALLOWED,
        "where things are, what is shown, how it is computed: the training is the same",
    ),
    Rule(
        ("train.total_iter",),
        Verdict.NOTED,
        "the training ends there; its schedule is the one written in this file, as if the whole training had had it",
    ),
    Rule(("model_type",), Verdict.REFUSED, "another model's state means nothing to this one"),
    Rule(("scale",), Verdict.REFUSED, "the weights were trained for another scale"),
    Rule(("network_*.type",), Verdict.REFUSED, "the weights are another network's"),
    Rule(("train.optim_*.type",), Verdict.REFUSED, "what one optimizer remembers means nothing to another"),
    Rule(
        ("train.optim_*.lr", "train.optim_*.weight_decay", "train.optim_*.eps", "train.optim_*.betas"),
        Verdict.NOTED,
        "holds from the next iteration on",
    ),
    Rule(
        ("train.optim_*.param_groups",), Verdict.NOTED, "holds from the next iteration on, if the groups are the same"
    ),
    Rule(
        ("train.optim_*",),
        Verdict.REFUSED,
        "it decides what the optimizer remembers; of numbers, those that are neither 0 before nor after are allowed",
    ),
    Rule(("train.scheduler*",), Verdict.NOTED, "the schedule goes on as if the whole training had had it"),
    Rule(("train.ema_*",), Verdict.NOTED, "an average that begins now begins at the trained weights"),
    Rule(
        ("datasets.train",),
        Verdict.NOTED,
        "the training goes on at the same number of samples seen; their order, or what they are, may be another",
    ),
    Rule(("manual_seed",), Verdict.NOTED, "the order of the samples, and all that is drawn, is another from here on"),
    Rule(("*",), Verdict.NOTED, "holds from the next iteration on"),
)


def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every option; lists are values, absent ones and None are the same."""
    if isinstance(values, Mapping) and (values or not name):
        for key, value in values.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    elif values is not None:
        yield name, values


def rule_of(option: str) -> Rule:
    """The rule for an option; one for a section holds for all that is in it."""
    return next(r for r in RULES if any(fnmatchcase(option, p) or fnmatchcase(option, f"{p}.*") for p in r.options))


def verdict(option: str, before: Any, now: Any) -> Verdict:
    """What a changed option does.

    >>> verdict("train.optim_g.momentum", 0.9, 0.95), verdict("train.optim_g.momentum", 0, 0.9)
    (<Verdict.NOTED: 'allowed, with a note'>, <Verdict.REFUSED: 'refused'>)
    """
    found = rule_of(option).verdict
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and v != 0 for v in (before, now))
    if found is Verdict.REFUSED and fnmatchcase(option, "train.optim_*") and numbers:
        return Verdict.NOTED
    return found


def remembered(opt: Mapping[str, Any]) -> dict[str, Any]:
    """What a training state keeps of checked options: by dotted name, all but those that may change without a word."""
    return {k: without_secrets(v) for k, v in flat(plain(opt)) if rule_of(k).verdict is not Verdict.ALLOWED}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(option, value before, value now) of all that differ, in the order of the options now; both as of `remembered`."""
    names = [*now, *(k for k in before if k not in now)]
    return [
        (k, before.get(k, ABSENT), now.get(k, ABSENT)) for k in names if before.get(k, ABSENT) != now.get(k, ABSENT)
    ]


def left_out(opt: Mapping[str, Any]) -> set[str]:
    """Keys of the networks that ``path.ignore_resume_networks`` leaves out of a resume."""
    return {str(name).removeprefix("network_") for name in opt.get("path", {}).get("ignore_resume_networks", ())}


def check(before: Mapping[str, Any] | None, now: Mapping[str, Any], path: Path, *, tell: bool = True) -> None:
    """Compare the options of a checkpoint with those of the run that continues from it.

    Args:
        before: `remembered` options that the checkpoint was written with; None for one that does not say.
        now: checked options.
        path: path of the training state.
        tell: log the changes that are noted.

    Raises:
        UserError: a change is refused; both values are named.
    """
    if before is None:
        return
    found = [(option, old, new, verdict(option, old, new)) for option, old, new in changed(before, remembered(now))]
    # A network that is left out of the resume begins anew, and its optimizer with it.
    anew = [f"{part}.*" for key in left_out(now) for part in (f"network_{key}", f"train.optim_{key}")]
    found = [
        (o, old, new, Verdict.NOTED if any(fnmatchcase(o, a) for a in anew) else what) for o, old, new, what in found
    ]
    refused = [(o, old, new) for o, old, new, what in found if what is Verdict.REFUSED]
    if refused:
        option, old, new = refused[0]
        more = f" (and {len(refused) - 1} more options)" if len(refused) > 1 else ""
        raise UserError(
            f"{path}: cannot be continued with another {option}: it was {shown(old)} and is {shown(new)}{more}; "
            f"{rule_of(option).why}. Set it back, or start anew from the weights, with path.pretrain_network_g"
        )
    noted = [(o, old, new) for o, old, new, what in found if what is Verdict.NOTED] if tell else []
    for option, old, new in noted[:MOST_NOTES]:
        log.warning(
            "changed since the checkpoint: %s: was %s, is %s (%s)", option, shown(old), shown(new), rule_of(option).why
        )
    if len(noted) > MOST_NOTES:
        log.warning("changed since the checkpoint: %d more options", len(noted) - MOST_NOTES)


def shown(value: Any) -> str:
    """A value for a message, short."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
