"""What options need to know of this machine and this run: the seed, and what cannot be given here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..options.schema import Options
from ..runtime import distributed
from ..runtime.precision import usable

log = logging.getLogger("relume")


def with_seed(opt: Options, state: Mapping[str, Any] | None) -> Options:
    """Options with a seed: the resumed run's, the options', or a fresh one drawn by rank 0."""
    if opt.manual_seed is not None:
        return opt
    seed = state["seed"] if state else distributed.broadcast(int(np.random.SeedSequence().generate_state(1)[0] % 10000))
    return dataclasses.replace(opt, manual_seed=seed)


def seed_of(opt: Options) -> int:
    """The seed, which the options have by now."""
    assert opt.manual_seed is not None
    return opt.manual_seed


def say_what_is_ignored(opt: Options, device: torch.device) -> None:
    """Tell the user, once, where this machine cannot give what a BasicSR file asks for."""
    if opt.num_gpu != 0 and opt.num_gpu != "auto" and device.type == "cpu":
        log.info("num_gpu: %s, but torch sees no GPU here: running on the CPU", opt.num_gpu)
    elif isinstance(opt.num_gpu, int) and opt.num_gpu > 1 and not distributed.active():
        log.warning(
            "num_gpu: %d without a launcher uses one GPU; start with: torchrun --nproc_per_node=%d -m relume train ... "
            "--launcher pytorch",
            opt.num_gpu,
            opt.num_gpu,
        )


def with_usable_precision(opt: Options, device: torch.device, networks: Mapping[str, nn.Module]) -> Options:
    """Options that ask for bf16 in place of fp16 where this device takes minutes for it, which is said."""
    count = sum(p.numel() for network in networks.values() for p in network.parameters())
    for name, section in (("train", opt.train), ("val", opt.val)):
        if section is None or (instead := usable(section.amp, device, count)) == section.amp:
            continue
        log.warning(
            "%s.amp: %s is tens of times slower on a CPU; computing in %s instead (off computes in float32)",
            *(name, section.amp, instead),
        )
        changed: dict[str, Any] = {name: dataclasses.replace(section, amp=instead)}
        opt = dataclasses.replace(opt, **changed)
    return opt
