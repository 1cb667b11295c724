"""Functions as programs of torch.export, of as many free axes as they allow."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...archs.zoo.traceable import traceable
from ..errors import UserError, first_line

AXES = ("batch", "height", "width")


class Differs(UserError):
    """A file does not give what torch gives."""


Hint = tuple[str | None, str | None]
HINTS: tuple[Hint, ...] = (("DYNAMIC", "DYNAMIC"), ("AUTO", "AUTO"), (None, "DYNAMIC"), (None, None))
"""How torch.export is asked for free axes, the batch and the sides: all; those that can be; the sides of one picture; none."""
FIXED: tuple[Hint, ...] = (("DYNAMIC", None), (None, None))
"""Hints for a network that knows the size of its images."""
LONGEST = 1 << 14
"""Side of a picture up to which a program has to hold."""
T = TypeVar("T")


def freest(attempt: Callable[[Hint], T], hints: tuple[Hint, ...]) -> T:
    """The first of some `HINTS` with which an attempt succeeds.

    Raises:
        UserError: none does; the last reason is given, which is not about sizes.
    """
    error: UserError | None = None
    for hint in hints:
        try:
            return attempt(hint)
        except Differs as e:
            if hint == hints[0]:  # nothing was taken for fixed that is not
                raise
            error = e
        except UserError as e:
            error = e
    assert error is not None
    raise error


def traced(function: nn.Module, example: Tensor, hint: Hint) -> tuple[Any, tuple[str, ...]]:
    """The program of a function of (B, C, H, W) by torch.export, and the axes that may have any size.

    Where the batch may not have any size, the program is for one picture.

    Raises:
        UserError: it cannot be exported so.
    """
    batch, sides = (None if h is None else getattr(torch.export.Dim, h) for h in hint)
    kinds = {0: batch, 2: sides, 3: sides}
    shapes = {"x": {at: kind for at, kind in kinds.items() if kind is not None}}
    picture = example.clone() if batch is not None else example[:1].clone()
    try:
        with torch.no_grad(), silence(), traceable(function), no_sections_without_autocast():
            program = torch.export.export(function, (picture,), dynamic_shapes=shapes, strict=False)
    except Exception as e:  # torch.export raises whatever the operation that it stumbles over does
        raise UserError(f"torch.export cannot follow it: {export_failure(e)}") from e
    shape = next(n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.target == "x")
    free = tuple(a for a, at in zip(AXES, (0, 2, 3), strict=True) if not isinstance(shape[at], int))
    if batch is not None and "batch" not in free:  # nobody wants a file of always two pictures
        return traced(function, example, (None, hint[1]))
    refuse_limits(program, shape, free)
    return program, free


def refuse_limits(program: Any, shape: Any, free: tuple[str, ...]) -> None:
    """Refuse a program that is right for pictures up to some size: other files do not hold the limit, and go wrong above it.

    Args:
        program: program of torch.export.
        shape: shape of its input, (N, C, H, W), of symbols where axes are free.
        free: axes that may have any size.

    Raises:
        UserError: a side may be at most so long, below `LONGEST`.
    """
    for axis, at in zip(AXES, (0, 2, 3), strict=True):
        limits = program.range_constraints.get(shape[at].node.expr) if axis in free else None
        if limits is not None and limits.upper < LONGEST:
            raise UserError(f"torch.export follows it up to a {axis} of {limits.upper} only")


@contextmanager
def no_sections_without_autocast() -> Iterator[None]:
    """Inside: ``torch.autocast(..., enabled=False)`` does nothing, as nothing is cast while a network is exported.

    torch.export makes a graph of its own of each such section, and writes the whole program anew for each of them.
    """
    own = torch.autocast

    def autocast(device_type: str, *arguments: Any, **options: Any) -> Any:
        return own(device_type, *arguments, **options) if options.get("enabled", True) else nullcontext()

    torch.autocast = autocast  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = own  # type: ignore[misc]


@contextmanager
def silence() -> Iterator[None]:
    """Inside: what torch has to say about its own exporters is not shown."""
    loud = [logging.getLogger(n) for n in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loud]
    try:
        for logger in loud:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)


OPERATION = re.compile(r"translating node .*?target=torch\.ops\.([\w.]+)")
"""What torch's exporter says of the operation that it stumbled over."""
TORCH = Path(torch.__file__).parent


def export_failure(error: BaseException) -> str:
    """The innermost line that says why an export failed, after the operation in the way, or the line that has it."""
    place = ""
    while True:
        if (found := OPERATION.search(str(error))) is not None:
            place = f"{found[1]}: "
        if error.__cause__ is None:
            break
        error = error.__cause__
    return (place or line_of(error)) + first_line(error)


def line_of(error: BaseException) -> str:
    """The line of a network that an error was raised in, ``name.py:12:`` and a space; empty where none was."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.name == "forward" or "architectures" in f.filename
    ]
    own = [f for f in frames if TORCH not in Path(f.filename).parents]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""
