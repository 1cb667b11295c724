"""The model wrapper with its networks, their averages and their optimizers, as the options ask for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ...archs import ARCHS, build_network
from ...losses import build_loss
from ..annotations import Epochs
from ..ema import EMA
from ..errors import UserError
from ..experiment import Resume
from ..inference.network import channels_innermost
from ..inference.tiling import Inference
from ..models import MODELS
from ..models.base import Model, model_class
from ..options.checking.kinds import parameters
from ..options.schema import Options, Train, Val
from ..runtime import checkpoint, distributed, memory, parallel
from ..runtime.activations import recomputed
from ..runtime.gate import gate, given_in, mentioned, refusal, without_it
from ..runtime.optimizers import build_optimizer
from .weights import load_pretrained

log = logging.getLogger("relume")
MOST_TRIED = 40
"""Options of a network beyond which the one to blame is not searched for."""
SMALL = (16, 3, 1)
"""What is tried in place of a number that a network needs."""
LAGGING = 0.02
"""Share of the initial weights in the final average beyond which that is remarked upon."""


def build_model(
    opt: Options, device: torch.device, *, for_training: bool, resume: Resume | None = None
) -> tuple[Model, dict[str, nn.Module]]:
    """The model wrapper and its networks on `device`, with the weights that the options or `resume` name."""
    kind = model_class(opt.model_type)
    of_training = (*kind.frozen, *kind.discriminators)
    teachers = [] if for_training else [k for k in of_training if k not in kind.required_networks]
    # Networks; those of which only training has a use are left out elsewhere.
    networks = {}
    for key, block in opt.networks.items():
        if key in teachers:
            continue
        networks[key] = weighed_network(key, block, device, for_training and key not in kind.frozen)
    # Losses, named as in the option file.
    blocks: Mapping[str, Any] = opt.train or {}
    losses = {}
    for name in [k for k in blocks if for_training and k.endswith("_opt")]:
        with gate(f"train.{name}", blocks[name]):
            losses[name.removesuffix("_opt")] = build_loss(blocks[name])
    # The model, with those keys of train and val that are parameters of it.
    own = MODELS.parameters(opt.model_type)
    settings = {k: v for k, v in blocks.items() if k in own and k not in kind.inference_options}
    settings = {k: v for k, v in settings.items() if not isinstance(v, Epochs)}  # only training knows how long they are
    settings.update({k: opt.val[k] for k in (*kind.inference_options, *kind.shared_options) if k in opt.val})
    with gate("train" if for_training else "model_type", settings):
        model: Model = kind(networks, losses, **settings)
        if kind.top_level is not None:
            model.configure(kind.top_level(**{k: opt[k] for k in parameters(kind.top_level) if k in opt}))
    # Weights, before the move to the device.
    for key, network in networks.items():
        with gate(f"path.pretrain_network_{key}"):
            load_pretrained(opt, key, network, model, resume, for_training)
        with gate(f"network_{key}", opt[f"network_{key}"]):
            network.to(device)
    model.losses.to(device)
    val = opt.val
    model.inference = Inference(val.tile, val.tile_overlap, val.window_size, val.padding, val.cut(opt.scale))
    return model, networks


def weighed_network(key: str, block: Mapping[str, Any], device: torch.device, for_training: bool) -> nn.Module:
    """The network of ``network_<key>``, after a look at whether there is memory for it, which takes none.

    Raises:
        UserError: there is not, or its constructor refuses the options; the message says which, if that can be found out.
    """

    def build(block: Mapping[str, Any]) -> nn.Module:
        with memory.counting_layers():
            return build_network(block)

    with gate(f"network_{key}", block):
        try:
            size = memory.weighed(lambda: build(block))
            if size is not None:
                memory.refuse_too_large(size, device, for_training)
            return build(block)
        except Exception as e:
            if (found := blamed(e, f"network_{key}", block, build)) is e:
                raise
            raise found from e


def blamed(
    error: Exception, key: str, block: Mapping[str, Any], build: Callable[[Mapping[str, Any]], nn.Module]
) -> Exception:
    """An error of `build` that names no option, said of those without any one of which there would be none, if there are such
    options, the likeliest first; one that names some, with such options besides, on which it depends too."""
    named = mentioned(str(error), block)
    if len(block) > MOST_TRIED:
        return error

    def alike(block: Mapping[str, Any]) -> None:
        if (size := memory.weighed(lambda: build(block))) is not None:
            memory.refuse_too_large(size, torch.device("cpu"), for_training=True)
        else:
            build(block)

    culprits = without_it(alike, changed(block, [k for k in block if k not in named]))
    if not culprits:
        return error
    place = f"{key}.{culprits[0]}"
    lists = [k for k, v in block.items() if isinstance(v, (list, tuple)) and k not in culprits]
    if any(isinstance(block[k], (list, tuple)) for k in culprits):  # which often have to be as long as others
        culprits += lists
    if not named:
        return refusal(error, place, {k: block[k] for k in culprits})
    found = refusal(error, key, block)
    said = mentioned(str(found), block)
    more = {k: block[k] for k in culprits if k not in said}
    return type(found)(f"{found} ({given_in(more)})", key=place) if more else found


def changed(block: Mapping[str, Any], keys: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each of some options of a network, those of the largest numbers first, and the network without it; where it needs such a
    number, with a small one."""
    parameters = ARCHS.parameters(block["type"])
    for key in sorted((k for k in keys if k in parameters), key=lambda k: -largest(block[k])):
        if not parameters[key].required:
            yield key, {k: v for k, v in block.items() if k != key}
        elif isinstance(block[key], int) and not isinstance(block[key], bool):
            yield from ((key, {**block, key: small}) for small in SMALL)


def largest(value: Any) -> float:
    """The largest number in a value of the options, whatever its sign; 0 where there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(largest, value), default=0)
    return abs(value) if isinstance(value, (int, float)) else 0


def build_ema(train: Train, model: Model, trained: Mapping[str, nn.Module], resume: Resume | None) -> EMA | None:
    """The averages of the model's networks, resumed if there is something to resume; None when switched off."""
    if train.ema_decay <= 0 and train.ema_halflife is None:
        return None
    averaged = {k: trained[k] for k in model.averaged if k in trained}
    ema = EMA(averaged, train.ema_decay, train.ema_halflife, train.ema_rampup)
    if resume:
        for key, network in ema.networks.items():
            checkpoint.load_weights(network, resume.network_path(key), "params_ema", strict=True)
    return ema


def lay_out(train: Train, val: Val, trained: Mapping[str, nn.Module], ema: EMA | None) -> None:
    """Put networks into training mode, and into the memory layout, compiled form and shards that the options ask for."""
    for network in trained.values():
        network.train()
        if train.checkpoint_activations and not recomputed(network):
            log.warning(
                "train.checkpoint_activations: %s has no repeated blocks to compute again", type(network).__name__
            )
    for network in (*trained.values(), *(ema.networks.values() if ema else ())):
        if train.channels_last:  # averages too: they are validated, and averaged with, in the same layout
            channels_innermost(network)
    for network in trained.values():
        compile_as(network, train.compile)
    for network in ema.networks.values() if ema else ():
        compile_as(network, val.compile)
    if train.strategy == "fsdp" and distributed.active():
        for network in (*trained.values(), *(ema.networks.values() if ema else ())):
            parallel.shard(network)


def compile_as(network: nn.Module, how: bool | str) -> None:
    """Compile a network in place when it is called, as options say it."""
    if how:
        from ..runtime.operations import counts_calls

        network.compile(mode=None if how is True else str(how))
        counts_calls(network)


def build_optimizers(model: Model, blocks: Mapping[str, Any], opt: Options) -> dict[str, torch.optim.Optimizer]:
    """The optimizer of each ``optim_<key>`` block, over the parameters that the model gives it.

    Raises:
        UserError: an optimizer's, or a network to be trained has no parameters at all.
    """
    for key in opt.networks:
        if f"optim_{key}" in blocks and not list(model.named_parameters(key)):
            said = f"network_{key} has no parameters to train: {given_in(opt.networks[key])}"
            raise UserError(said, key=f"network_{key}")
    keys = [k.removeprefix("optim_") for k in blocks if k.startswith("optim_")]
    recorded = opt.train is not None and opt.train.cuda_graph
    found = {}
    for key in keys:
        with gate(f"train.optim_{key}", blocks[f"optim_{key}"]):
            found[key] = build_optimizer(model.named_parameters(key), blocks[f"optim_{key}"], recorded)
    return found


def say_how_far_it_lags(train: Train, ema: EMA, samples: int) -> None:
    """Tell the user, once, if the average will still remember the initial weights at the end of the run.

    Args:
        samples: samples that the run takes.
    """
    if ema.rampup is not None or train.total_iter < 1:
        return
    key = "ema_decay" if ema.halflife is None else "ema_halflife"
    share = ema.decay**train.total_iter if ema.halflife is None else 0.5 ** (samples / ema.halflife)
    if share < LAGGING:
        return
    better = f"{1 - min(0.5, 10 / train.total_iter):.3g}" if ema.halflife is None else f"{samples / 14:.3g}"
    log.warning(
        "train.%s: %s: after %d iterations the average, which validation scores, is %.0f %% initial weights; "
        "for a run of this length, %s: %s",
        key,
        train[key],
        train.total_iter,
        100 * share,
        key,
        better,
    )
