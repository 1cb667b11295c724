"""From a row of the table to something that an option file selects: a function whose signature is the fork's option schema."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from ...core.annotations import usual
from ...core.errors import UserError, require
from ...core.registry import MISSING, guessed
from .mends import keep_own_tables, take_first_output, tensors_as_buffers
from .table import OVERFLOWING, ZooRow
from .words import WORDS


def build_of(name: str, row: ZooRow) -> Callable[..., nn.Module]:
    """A function that builds the network of `row` from keyword arguments, those of the fork or spandrel's.

    Its attributes: ``scale_option``, the option that is the factor of enlargement, and ``aliases``.

    Raises:
        UserError: spandrel is missing, or is a version without that class.
    """
    cls = _class(name, row)
    parameters = _parameters(cls, row)
    own = list(parameters)
    for fork, ours in row.renamed.items():
        parameters[fork] = parameters[ours].replace(name=fork, default=None)
    for key, value in {**dict.fromkeys((*row.ignored, *row.taken)), **row.fixed}.items():
        parameters.setdefault(
            key, inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=Any)
        )

    def build(**options: Any) -> nn.Module:
        return _build(cls, name, row, own, options)

    build.__name__ = build.__qualname__ = name
    build.__module__ = cls.__module__
    build.__doc__ = _doc(name, row, parameters)
    build.__annotations__ = {k: p.annotation for k, p in parameters.items()}
    build.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    build.scale_option = row.scale  # type: ignore[attr-defined]
    build.aliases = row.aliases  # type: ignore[attr-defined]
    build.check_options = functools.partial(_refuse_other_values, name, row)  # type: ignore[attr-defined]
    build.cautions = functools.partial(_cautions, name, row)  # type: ignore[attr-defined]
    return build


def _class(name: str, row: ZooRow) -> type[nn.Module]:
    module, _, cls = row.place.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what spandrel's dependencies will retire
        found = getattr(require(f"{row.library}.architectures.{module}", name), cls, None)
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)  # said by half of the table
    if found is None:
        raise UserError(f"{name}: this version of {row.library} has no {cls} in {module}")
    kind: type[nn.Module] = found
    return kind


def _parameters(cls: type[nn.Module], row: ZooRow) -> dict[str, inspect.Parameter]:
    """The constructor's options that YAML can say, with the fork's defaults; annotations guessed where there are none."""
    found = {}
    for name, parameter in inspect.signature(cls, eval_str=False).parameters.items():
        default = row.defaults.get(name, parameter.default)
        if callable(default) and default is not MISSING:
            continue  # a class or a function
        annotation = guessed(name, default) if default is not MISSING else _plain(parameter.annotation)
        found[name] = parameter.replace(default=default, annotation=annotation)
    required = [p for p in found.values() if p.default is MISSING]
    return {p.name: p for p in (*required, *(p for p in found.values() if p.default is not MISSING))}


def _plain(annotation: Any) -> Any:
    """The annotation of an option without default."""
    return {"int": int, "float": float, "bool": bool, "str": str}.get(
        annotation, annotation if annotation in (int, float) else Any
    )


def _build(cls: type[nn.Module], name: str, row: ZooRow, own: list[str], options: dict[str, Any]) -> nn.Module:
    # The options as the package's constructor calls them.
    values = {**row.defaults}
    _refuse_other_values(name, row, options)
    for key, value in options.items():
        if key in (*row.fixed, *row.ignored) and key not in own:
            continue
        if key in row.renamed and value is None:
            continue
        values[row.renamed.get(key, key)] = list(value) if isinstance(value, (list, tuple)) else value
    if row.translate is not None:
        values = row.translate(values)
    # Any error of that constructor is about the options.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            net = cls(**values)
    except (
        AssertionError,
        ImportError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ) as e:
        said = (str(e).strip().splitlines() or ["it refuses these options"])[0]
        raise UserError(f"{name}: cannot be built with these options ({type(e).__name__}: {said})") from e
    # What Relume asks of a network: one output, no training where that is impossible, its size multiple.
    for finish in row.finish:
        finish(net)
    if row.first_output:
        take_first_output(net)
    if row.untrainable:
        net.register_forward_pre_hook(
            functools.partial(_refuse_training, f"{name} cannot be trained here: {row.untrainable}")
        )
    keep_own_tables(net)
    tensors_as_buffers(net)
    multiple = values.get(row.multiple, usual(cls, row.multiple)) if isinstance(row.multiple, str) else row.multiple
    net.size_multiple = multiple  # type: ignore[assignment]
    _freeze(net, row)
    return net


def _refuse_other_values(name: str, row: ZooRow, options: Mapping[str, Any]) -> None:
    """Refuse options that have one possible value here, and another one there."""
    for key, value in row.fixed.items():
        if options.get(key, value) != value:
            raise UserError(f"{name}: {key} is {value} in {row.library}, and cannot be {options[key]}")


def _cautions(name: str, row: ZooRow, options: Mapping[str, Any], amp: str) -> Iterator[str]:
    """What ``relume check`` says of options that are accepted: those without effect, and a precision that is too low.

    Args:
        name, row: name and row of the architecture.
        options: those that the file gives.
        amp: what training computes in.
    """
    if idle := [key for key in row.ignored if options.get(key) not in (None, False)]:
        yield f"without effect in {name}, as in the original: {', '.join(idle)}"
    if amp == "fp16" and row.place.partition(".")[0] in OVERFLOWING:
        yield f"{name} overflows in fp16; bf16 has the range that it needs"
    if row.untrainable:
        yield f"{name} cannot be trained here: {row.untrainable}"


def _refuse_training(why: str, net: nn.Module, inputs: Any) -> None:
    if net.training:
        raise UserError(why)


def _freeze(net: nn.Module, row: ZooRow) -> None:
    """Leave out of training what never gets a gradient, for which DistributedDataParallel would wait."""
    for name, parameter in net.named_parameters():
        if any(re.search(pattern, name) for pattern in row.unused):
            parameter.requires_grad_(False)


def _doc(name: str, row: ZooRow, parameters: Mapping[str, inspect.Parameter]) -> str:
    """What ``relume explain`` and editors show."""
    notes = [f"{name}, by {row.library} ({row.licence})."]
    lines = []
    for key in parameters:
        if key in row.ignored:
            text = "accepted, without effect, as in the original."
        elif key in row.fixed:
            text = f"accepted where it is {row.fixed[key]}."
        elif key in row.renamed:
            text = f"the fork's name of {row.renamed[key]}."
        else:
            text = WORDS.get(key, "see the original.")
        lines.append(f"    {key}: {text}")
    return "\n".join([*notes, "", "Args:", *lines]) if lines else notes[0]
