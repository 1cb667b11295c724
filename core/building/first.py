"""The first iterations of a run: what goes wrong in it is said of the block of the options that it comes of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...archs import ARCHS
from ..errors import UserError
from ..inference.network import explaining_channels
from ..options.schema import Options, Train
from ..registry import MISSING
from ..runtime import memory
from ..runtime.gate import blame, given_in, owner, refusal
from ..training.parts import Parts

FACTORS = re.compile(r"(up_?)?(scale|scaling|sampling|sample)(_factor)?|sf")
"""How networks call the factor by which they enlarge."""
CHANNELS = {
    "takes": re.compile(r"((num|n|in|inp|img|image|input)_?)+(chn?|chans?|channels?)"),
    "gives": re.compile(r"((num|n|out|outp|img|image|output)_?)+(chn?|chans?|channels?)"),
}
"""How they call the channels of what they take and give."""
SIZES = ("gt_size", "gt_size_h", "gt_size_w", "batch_size_per_gpu", "num_frame")
"""Options of a training set by which a step's memory grows."""
LOSS = re.compile(r"(train\.\w+_opt): ")
"""How a complaint begins that already says whose it is."""
OTHER_CHANNELS = re.compile(r"of the shape \(\d+, (\d+), .* takes \(B, (?!\1,)")
"""What networks say of images of other channels than they take."""
TAKEN = re.compile(r"takes (?:\(B, )?(\d+)")
COLOURS = re.compile(r"\bneeds?\b.* \d channels?\b")
"""What losses say of images of other colours than they are for."""
NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
"""What torch says of an operation that it refuses where ``deterministic`` is true."""
LACKING = re.compile(r": the samples have no '")
"""What models say of samples without what they need."""
SHAPES = re.compile(r"prediction ((?:\d+x)*\d+), target ((?:\d+x)*\d+)")


@contextlib.contextmanager
def first_iteration(opt: Options, parts: Parts) -> Iterator[None]:
    """Inside, the parts of a run work together for one of the first times.

    Raises:
        UserError: what the user can mend, with the key of the block whose component it went wrong in. What else goes wrong is
            raised as it is, with such an error for commands to say (`gate.said_of`).
    """
    try:
        with explaining_channels():
            yield
    except Exception as e:
        if isinstance(e, UserError) and (e.key is not None or type(e) is not UserError):
            raise
        key = owner(e, owners(parts))
        error = said(e, key, opt)
        if not isinstance(e, UserError):
            blame(e, error)
            raise
        raise error from (e.__cause__ or e)


def trained_by(train: Train) -> str:
    """The optimizers and losses of a run with their values, on one line, for messages on numbers that are none any more."""
    blocks = {k: v for k, v in train.items() if isinstance(v, Mapping) and k.startswith(("optim_", "scheduler"))}
    blocks |= {k: v for k, v in train.items() if isinstance(v, Mapping) and k.endswith("_opt")}
    return "; ".join(f"train.{k}: {given_in(v)}" for k, v in blocks.items())


def owners(parts: Parts) -> list[tuple[Any, str]]:
    """The objects of a run and the keys of the options that they were made of, the more special ones first."""
    found: list[tuple[Any, str]] = [(loss, f"train.{key}") for key, loss in parts.model.losses.items()]
    found += [(network, f"network_{key}") for key, network in parts.model.networks.items()]
    found += [(network, f"network_{key}") for key, network in parts.networks.items()]
    found += [(optimizer, f"train.optim_{key}") for key, optimizer in parts.optimizers.items()]
    found += [(part, "train.scheduler") for part in parts.schedulers.values()]
    found += [(part, "train.scheduler") for s in parts.schedulers.values() for part in vars(s).values()]
    return [*found, (parts.ema, "train.ema_decay"), (parts.loader, "datasets.train")]


def said(error: Exception, key: str | None, opt: Options) -> UserError:
    """What to tell the user of an error of a first iteration, which the component at `key` raised."""
    text = str(error) if isinstance(error, UserError) else ""
    # From the most telling message to the least: shapes, channels, determinism, then loss, memory and the rest.
    shapes = SHAPES.search(text)
    if shapes:
        return of_shapes(text, shapes[1].split("x"), shapes[2].split("x"), opt)
    if "channel(s)" in text or OTHER_CHANNELS.search(text):
        named = [(f"network_{k}.{n}", v) for k, b in opt.networks.items() for n, v in settings(b, CHANNELS["takes"])]
        taken = {int(n) for n in TAKEN.findall(text)}
        whole = [f"network_{k} is {given_in(b)}" for k, b in opt.networks.items()]
        explained = any(v in taken for _, v in named)
        reasons = [*([] if explained else whole), *(f"{n} is {v}" for n, v in named), *colours(opt)]
        return UserError(f"{text} ({', '.join(reasons)})" if reasons else text, key="network_g")
    if found := NOT_DETERMINISTIC.search(str(error)):
        whose = f"{key} ({of(key, opt).get('type')})" if key and "type" in of(key, opt) else key or "this run"
        advice = "deterministic: false allows it; resumed runs are then no longer equal to the bit"
        said_so = f"{whose} needs {found[1]}, which has no deterministic form on this device. {advice}"
        return UserError(said_so, key="deterministic")
    if LACKING.search(text):
        return UserError(f"{text} (datasets.train is {given_in(opt.datasets['train'])})", key="datasets.train")
    if of_loss := LOSS.match(text):
        key = of_loss[1]
        return put_to(key, text, of(key, opt))
    if memory.ran_out(error) and not isinstance(error, UserError):
        return of_memory(error, key, opt)
    block = of(key, opt)
    refused = refusal(error, key or "train", block, "the first iterations failed: ")
    if COLOURS.search(text) and (reasons := colours(opt)):
        refused = UserError(f"{refused} ({', '.join(reasons)})", key=refused.key)
    return refused


def put_to(key: str, text: str, block: Mapping[str, Any]) -> UserError:
    """A loss's complaint about its answer, with the values of its block, among which ``reduction`` may be the reason."""
    of_option = f"{key}.reduction" if block.get("reduction") == "none" else key
    return UserError(f"{text} ({given_in(block)})", key=of_option)


def of_shapes(text: str, pred: list[str], target: list[str], opt: Options) -> UserError:
    """A loss's complaint about shapes, with the values of the options that are likely to be the reason."""
    network = opt.networks.get("g", {})
    reasons: list[str] = []
    named = False
    key = "network_g"
    if pred[2:] != target[2:]:
        found = settings(network, FACTORS)
        named = any(value != opt.scale for _, value in found)
        reasons += [f"network_g.{name} is {value}" for name, value in found] + [f"scale is {opt.scale}"]
        key = f"network_g.{found[0][0]}" if found else key
    if pred[1:2] != target[1:2]:
        found = settings(network, CHANNELS["gives"])
        named |= bool(found)
        reasons += [f"network_g.{name} is {value}" for name, value in found] + colours(opt)
        key = f"network_g.{found[0][0]}" if found and key == "network_g" else key
    if not named and network:
        reasons.insert(0, f"network_g is {given_in(network)}")
    return UserError(f"{text}: {', '.join(reasons)}" if reasons else text, key=key)


def of_memory(error: Exception, key: str | None, opt: Options) -> UserError:
    """What to say where a step has no memory left: the networks with their values, and the sizes of what they are given."""
    data = opt.datasets["train"]
    sizes = {k: data[k] for k in SIZES if data.get(k) is not None}
    if key not in (None, "train") and not str(key).startswith(("network_", "train.optim")):
        return refusal(error, str(key), of(key, opt), "the first iterations failed: ")
    made_of = [*(f"network_{k}: {given_in(b)}" for k, b in opt.networks.items()), f"datasets.train: {given_in(sizes)}"]
    found = refusal(error, key or "train", {}, "the first iterations failed: ")
    return type(found)(f"{found} ({'; '.join(made_of)})", key=found.key)


def colours(opt: Options) -> list[str]:
    """The options of the training set on which the channels of its images depend."""
    block = opt.datasets["train"]
    return [
        f"datasets.train.{n} is {v}" for n, v in block.items() if n in ("color", "grayscale", "task") and v is not None
    ]


def settings(block: Mapping[str, Any], names: re.Pattern[str]) -> list[tuple[str, Any]]:
    """The options of a network whose names match, given or not, with their values."""
    parameters = ARCHS.parameters(block["type"]) if "type" in block else {}
    every = {k: block.get(k, p.default) for k, p in parameters.items() if names.fullmatch(k)}
    return [(k, v) for k, v in every.items() if v is not MISSING]


def of(key: str | None, opt: Options) -> Mapping[str, Any]:
    """The block of the options at a dotted key; empty where there is none."""
    block: Any = opt
    for part in (key or "").split("."):
        block = block.get(part) if isinstance(block, Mapping) else None
    return block if isinstance(block, Mapping) else {}
