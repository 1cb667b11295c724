"""The batch over all ranks, when a run is resumed on another number of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .. import options
from ..options.schema import Options
from ..runtime import distributed

log = logging.getLogger("relume")


def kept(opt: Options, state: Mapping[str, Any] | None) -> Options:
    """Options whose micro-batches make the batch over all ranks what it was (``train.keep_global_batch``), where they can.

    Args:
        opt: checked options.
        state: the training state that is resumed; None for a run that begins.
    """
    if state is None or opt.train is None or not opt.train.keep_global_batch or not state.get("options"):
        return opt
    # Samples per step then, and what each stage of this run would take.
    before, block, ranks = state["options"], opt.datasets["train"], distributed.world_size()
    batches = _each(before.get("datasets.train.mini_batch_sizes"), before.get("datasets.train.batch_size_per_gpu", 1))
    micro = _each(before.get("datasets.train.accumulates"), before.get("train.accumulate", 1))
    now = _each(block.mini_batch_sizes, block.batch_size_per_gpu)
    stages = max(len(batches), len(micro), len(now))
    wanted = [_of(batches, i) * _of(micro, i) * state["world_size"] for i in range(stages)]
    shares = [_of(now, i) * ranks for i in range(stages)]
    needed = [total // share for total, share in zip(wanted, shares, strict=True)]
    own = _each(block.accumulates, opt.train.accumulate)
    # They must divide evenly; stages of different factors need their own list.
    divides = all(n and n * share == total for n, share, total in zip(needed, shares, wanted, strict=True))
    if not divides or (block.accumulates is None and len(set(needed)) > 1):
        if distributed.is_main():
            log.warning(
                "train.keep_global_batch: %s samples cannot be shared out over %d rank(s) in micro-batches of %s",
                *(_listed(wanted), ranks, _listed([_of(now, i) for i in range(stages)])),
            )
        return opt
    if needed == [_of(own, i) for i in range(stages)]:
        return opt
    if distributed.is_main():
        log.info(
            "train.keep_global_batch: %s samples on %d rank(s) as on %d, in %s micro-batch(es) per step",
            *(_listed(wanted), ranks, state["world_size"], _listed(needed)),
        )
    # The same options with other numbers of micro-batches.
    values = opt.to_dict()
    if block.accumulates is None:
        values["train"] = {**values["train"], "accumulate": needed[0]}
    else:
        values["datasets"] = {**values["datasets"], "train": {**values["datasets"]["train"], "accumulates": needed}}
    return options.check(values)


def say_whether_it_changes(state: Mapping[str, Any], now: int) -> None:
    """Tell the user, once, if an iteration has another number of samples (`now`) than before."""
    before = state.get("global_batch")  # states of earlier versions do not say
    if before is None or before == now:
        return
    log.warning(
        "the batch over all ranks was %d (%d rank(s)) and is %d (%d rank(s)) from here on; learning rates stay as they are. "
        "train.keep_global_batch: true keeps it where micro-batches can",
        *(before, state["world_size"], now, distributed.world_size()),
    )


def _each(stages: Sequence[int] | None, otherwise: int) -> list[int]:
    """A number for each stage, or one for all."""
    return list(stages) if stages else [otherwise]


def _of(stages: Sequence[int], stage: int) -> int:
    return stages[min(stage, len(stages) - 1)]


def _listed(numbers: Sequence[int]) -> str:
    """``8``, or ``8, 6``, each once."""
    return ", ".join(map(str, dict.fromkeys(numbers)))
