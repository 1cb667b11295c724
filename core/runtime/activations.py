"""Activations that are computed again instead of kept: ``train.checkpoint_activations``, for networks of any kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
"""Function that gives the contexts in which a block is computed, the first time and again."""

LAYER_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def recomputed(network: nn.Module, contexts: Contexts = noop_context_fn) -> int:
    """Have the repeated blocks of a network keep only what goes in, in training, and compute the rest again for the backward
    pass (Chen et al., "Training deep nets with sublinear memory cost", 2016). Results are the same, dropout included.

    Args:
        network: what is changed.
        contexts: what each of its blocks is computed in.

    Returns:
        How many blocks there are, see `recomputable`.
    """
    found = recomputable(network)
    for block in found:
        block.forward = functools.partial(_again, block, block.forward, contexts)
    return len(found)


def recomputable(network: nn.Module) -> list[nn.Module]:
    """The blocks that `recomputed` changes.

    A block is an entry of a ``ModuleList``, ``ModuleDict`` or ``Sequential`` that has layers of its own, and no list of several
    such entries in it. Blocks with batch statistics, which would be updated twice, are left as they are.
    """
    return [b for b in blocks(network) if not any(map(counts, b.modules()))]


def blocks(network: nn.Module, listed: bool = False) -> Iterator[nn.Module]:
    """The blocks of a network, or of a part of it, which may itself be an entry of a list."""
    composite = listed and not isinstance(network, LAYER_LISTS) and any(True for _ in network.children())
    if composite and not any(map(repeats, network.modules())):
        yield network
        return
    for child in network.children():
        yield from blocks(child, isinstance(network, LAYER_LISTS))


def repeats(module: nn.Module) -> bool:
    """Whether a module is a list of several that have layers of their own."""
    entries = module.children() if isinstance(module, LAYER_LISTS) else ()
    return sum(not isinstance(e, LAYER_LISTS) and any(True for _ in e.children()) for e in entries) > 1


def counts(module: nn.Module) -> bool:
    """Whether a layer updates statistics as it runs."""
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats


def _again(block: nn.Module, forward: Any, contexts: Contexts, *arguments: Any, **settings: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*arguments, **settings)
    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=contexts, **settings)
