"""What solvers accept: costs and marginals in sufficient precision, checked and scaled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ops.precision import widest

CostScale = Literal["max", "mean", "median", "none"]
Method = Literal["kernel", "log"]


@contextlib.contextmanager
def constants(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast, no shortened products: plans are constants, and sums over tiny masses need the mantissa."""
    precision = torch.get_float32_matmul_precision()
    try:
        if precision != "highest":
            torch.set_float32_matmul_precision("highest")
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


def numbers(*values: Tensor) -> list[float]:
    """The values of tensors without dimensions, for which Python waits once."""
    read: list[float] = torch.stack([v.to(widest(v.device)) for v in values]).tolist()
    return read


def precise(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`x`, of any shape, without its graph, in float32 at least and in `dtype` at least."""
    return x.detach().to(torch.promote_types(torch.promote_types(x.dtype, torch.float32), dtype))


def checked_cost(owner: str, name: str, cost: Tensor) -> Tensor:
    """A matrix of costs (n, m), n, m >= 1.

    Raises:
        UserError: it is not a matrix, or empty.
    """
    if cost.dim() != 2 or 0 in cost.shape:
        raise UserError(f"{owner}: {name} must be a matrix with rows and columns, not of shape {tuple(cost.shape)}")
    return precise(cost)


def checked_tensor(owner: str, name: str, value: object) -> None:
    """Refuse what is no dense tensor of real numbers.

    Raises:
        UserError: `value` is none.
    """
    if not isinstance(value, Tensor):
        raise UserError(f"{owner}: {name} must be a tensor, not {type(value).__name__}")
    if value.is_complex():
        raise UserError(f"{owner}: {name} must be real, not {value.dtype}")
    if value.layout != torch.strided:
        raise UserError(f"{owner}: {name} must be dense, not {value.layout}; call .to_dense()")


def checked_marginals(
    owner: str, a: Tensor | None, b: Tensor | None, cost: Tensor, equal: bool
) -> tuple[Tensor, Tensor, float]:
    """Marginals (n,) and (m,) of a problem with that cost (n, m), uniform of mass 1 where None, and the mass of the first.

    Raises:
        UserError: wrong length, negative or not finite, no mass, or (when `equal` is asked for) different masses.
    """
    both = []
    for side, weights, size in (("rows", a, cost.shape[0]), ("columns", b, cost.shape[1])):
        if weights is None:
            both.append(cost.new_full((size,), 1 / size))
            continue
        checked_tensor(owner, f"the marginal of the {side}", weights)
        if weights.shape != (size,):
            raise UserError(f"{owner}: the marginal of the {side} has shape {tuple(weights.shape)}, not ({size},)")
        both.append(precise(weights).to(cost))
    facts = [fact for w in both for fact in (w.to(widest(w.device)).sum(), w.amin())]
    if a is None and b is None:
        return both[0], both[1], 1.0
    rows, least_row, columns, least_column = numbers(*facts)
    for side, mass, least in (("rows", rows, least_row), ("columns", columns, least_column)):
        if not (0 < mass < float("inf") and least >= 0):
            raise UserError(f"{owner}: the marginal of the {side} must be nonnegative and finite, with some mass")
    if equal and abs(rows - columns) > 1e-4 * rows:
        raise UserError(f"{owner}: the marginals' masses differ: rows {rows:g}, columns {columns:g}")
    return both[0], both[1], rows


def as_number(owner: str, name: str, value: float) -> float:
    """`value` as Python's number: it may be a tensor or NumPy's.

    Raises:
        UserError: it is no number.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as e:
        raise UserError(f"{owner}: {name} must be a number, not {value!r}") from e


def checked_settings(
    owner: str, epsilon: float, tol: float, bound: float | Tensor | None = None, **counts: int
) -> None:
    """Refuse settings, numbers or scalar tensors, with which no problem can be solved.

    Raises:
        UserError: `epsilon` is not positive and finite, `tol` is negative, or not 0 where `bound` is a tensor, or a count is
            below 1.
    """
    if isinstance(bound, Tensor) and tol != 0:
        raise UserError(f"{owner}: a bound that is a tensor is not looked at; that needs tol=0, not {tol}")
    if not 0 < epsilon < float("inf"):
        raise UserError(f"{owner}: epsilon must be positive, not {epsilon}; assignment() solves the problem without it")
    if not tol >= 0:
        raise UserError(f"{owner}: tol must be at least 0, not {tol}")
    for name, count in counts.items():
        if not hasattr(count, "__index__"):
            raise UserError(f"{owner}: {name} must be a whole number, not {count!r}")
        if count < 1:
            raise UserError(f"{owner}: {name} must be at least 1, not {count}")


def scale_of(cost: Tensor, kind: str) -> Tensor:
    """The statistic of absolute costs (n, m) that they are divided by, as a tensor without dimensions; 1 instead of 0."""
    if kind == "none":
        return cost.new_ones(())
    if kind == "max":
        low, high = torch.aminmax(cost)
        scale = torch.maximum(-low, high)
    else:
        scale = cost.abs().nanmean() if kind == "mean" else cost.abs().nanmedian()
    return torch.where(scale == 0, 1, scale)


def scaled(cost: Tensor, kind: str) -> Tensor:
    """`cost` (n, m) over its scale, in which forbidden pairs (infinite costs) do not count."""
    return cost / scale_of(forbidden_as(0 if kind == "max" else torch.nan, cost), kind)


def range_of(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest finite cost of (n, m), as tensors without dimensions, ()."""
    return cost.amin(), forbidden_as(-torch.inf, cost).amax()


def forbidden_as(value: float, cost: Tensor) -> Tensor:
    """`cost` (n, m) with that in place of +inf."""
    return cost.nan_to_num(nan=torch.nan, posinf=value, neginf=-torch.inf)


def rounding(dtype: torch.dtype, mass: float) -> float:
    """The L1 error that rounding leaves in a plan of that mass."""
    return 4 * torch.finfo(dtype).eps * mass


def explain_nonfinite_plan(
    owner: str, plan: Tensor, name: str, cost: Tensor, others: dict[str, Tensor | None] | None = None
) -> None:
    """Say why a plan came out as NaN.

    Args:
        owner: the solver.
        plan: T.
        name: what the solver calls the cost.
        cost: (n, m), in which +inf forbids a pair.
        others: what else must be finite.

    Raises:
        UserError: the plan is not finite; names what is not, or the rows that nothing may be transported from, or the dtype
            that is too narrow.
    """
    if bool(plan.isfinite().all()):
        return
    if bool((cost.isnan() | (cost == -torch.inf)).any()):
        raise UserError(f"{owner}: {name} holds NaN or -inf; check the features that it was computed from")
    for other, values in (others or {}).items():
        if values is not None and not bool(values.isfinite().all()):
            raise UserError(
                f"{owner}: {other} holds NaN or infinite numbers; check the features that it was computed from"
            )
    if bool((cost == torch.inf).any()):
        raise UserError(f"{owner}: no plan exists; a row or column with mass has only forbidden pairs (infinite cost)")
    raise UserError(
        f"{owner}: costs over epsilon leave the range of {plan.dtype}; take float64, or another epsilon or scale"
    )
