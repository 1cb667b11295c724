"""Sinkhorn against stored solutions, POT, closed forms, and the optimality conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from clouds import golden_case, l1, unit_points, waits_of, weights
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops.sinkhorn import scale_to_marginals
from relume.losses.ot import assignment, costs, sinkhorn
from relume.losses.ot.inputs import numbers
from relume.losses.ot.scaling import Potentials, Solution, kernel_or_log

CASES = [
    "rand_5x7",
    "rand_32x32",
    "rand_24x96",
    "rand_16x16",
    "nonuniform_marginals",
    "tiny_weight_1e-9",
    "zero_weight_row",
    "unnormalised_big_cost_1e4",
    "small_eps_kernel_underflows",
    "very_small_eps",
    "scales_1e-6_to_1e2",
    "duplicate_rows",
    "zero_cost_pairs",
    "constant_cost",
    "single_row",
    "single_col",
    "negative_costs_shifted",
]
EXACT = {"tol": 1e-13, "max_iters": 20000}


@pytest.mark.parametrize("method", ["kernel", "log"])
@pytest.mark.parametrize("name", CASES)
def test_stored_solutions(name: str, method: str, golden: Callable[[str], Path]) -> None:
    case = golden_case(golden, "linear", name)
    problem = [case[k] for k in ("M", "a", "b")]
    result = sinkhorn(*problem, epsilon=case["eps"], method=method, tol=1e-12, max_iters=20000)
    assert l1(result.plan, case["T"]) < 1e-9
    assert float(result.objective) == pytest.approx(case["objective"], rel=1e-10)
    assert float(result.linear) == pytest.approx(case["lin"], rel=1e-9)
    assert max(float(result.row_err), float(result.col_err)) < 1e-11
    assert result.method == method
    single = sinkhorn(*(x.float() for x in problem), epsilon=case["eps"], method=method, tol=1e-8, max_iters=5000)
    # A logit of 3000 in float32 is off by 1e-4; the scalings of the kernel make up for it.
    small = case["eps"] < 2e-3 * float(case["M"].max()) and method == "log"
    assert l1(single.plan, case["T"]) < (2e-4 if small else 1e-5)


def test_stored_batch_against_memory(golden: Callable[[str], Path]) -> None:
    case = torch.load(golden("generation/ot.pt"), weights_only=True)["linear_big"]
    x, y = (torch.nn.functional.normalize(case[k].double(), dim=1) for k in ("X", "Y"))
    result = sinkhorn(costs.squared_euclidean(x, y), epsilon=case["eps"], cost_scale="max", tol=1e-12)
    assert l1(result.plan, case["T"]) < 1e-9
    assert torch.equal(result.plan.argmax(1), case["argmax"])


@pytest.mark.parametrize("index", range(4))
def test_stored_unbalanced_solutions(index: int, golden: Callable[[str], Path]) -> None:
    case = torch.load(golden("generation/ot.pt"), weights_only=True)["unbalanced"][index]
    options = {"epsilon": case["eps"], "rho": case["rho"], "reg_type": case["reg_type"], "max_iters": 5000}
    result = sinkhorn(case["M"], case["a"], case["b"], **options, tol=1e-13)
    assert l1(result.plan, case["T"]) < 1e-9
    assert float(result.plan.sum()) == pytest.approx(case["mass"], rel=1e-9)


@pytest.mark.parametrize(("n", "m", "epsilon"), [(3, 40, 0.03), (33, 20, 0.05), (1, 5, 0.1), (6, 1, 0.1)])
def test_agrees_with_pot(n: int, m: int, epsilon: float) -> None:
    pot = pytest.importorskip("ot")
    cost, a, b = costs.squared_euclidean(unit_points("x", n), unit_points("y", m)) / 4, weights("a", n), weights("b", m)
    expected = pot.bregman.sinkhorn_log(a, b, cost, epsilon, numItermax=20000, stopThr=1e-13)
    for method in ("kernel", "log"):
        assert l1(sinkhorn(cost, a, b, epsilon=epsilon, method=method, **EXACT).plan, expected) < 1e-9
    uniform = pot.bregman.sinkhorn_log(cost.new_ones(n) / n, cost.new_ones(m) / m, cost, epsilon, stopThr=1e-13)
    assert l1(sinkhorn(cost, epsilon=epsilon, **EXACT).plan, uniform) < 1e-8


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_unbalanced_agrees_with_pot(reg_type: str) -> None:
    pot = pytest.importorskip("ot")
    cost, a, b = (
        costs.squared_euclidean(unit_points("x", 7), unit_points("y", 11)),
        weights("a", 7),
        2 * weights("b", 11),
    )
    options = {"numItermax": 5000, "stopThr": 1e-14}
    expected = pot.unbalanced.sinkhorn_unbalanced(a, b, cost, 0.2, 0.7, reg_type=reg_type, **options)
    result = sinkhorn(cost, a, b, epsilon=0.2, rho=0.7, reg_type=reg_type, **EXACT)
    assert l1(result.plan, expected) < 1e-9


def test_fingerprint() -> None:
    cost = torch.tensor([[0.0, 0.2, 0.9], [0.5, 0.1, 0.3]])
    plan = sinkhorn(cost, torch.tensor([0.4, 0.6]), torch.tensor([0.5, 0.3, 0.2]), epsilon=0.1).plan
    expected = torch.tensor([[0.39714310, 0.00284401, 0.00001290], [0.10285691, 0.29715601, 0.19998711]])
    torch.testing.assert_close(plan, expected, rtol=0, atol=1e-6)


def test_two_by_two_is_the_root_of_a_quadratic() -> None:
    """T11 T22 / (T12 T21) = exp(-(C11 + C22 - C12 - C21) / eps) =: k, hence T11 = sqrt k / (1 + sqrt k) / 2."""
    cost = torch.tensor([[0.1, 0.7], [0.4, 0.2]], dtype=torch.float64)
    root = torch.exp(-(cost[0, 0] + cost[1, 1] - cost[0, 1] - cost[1, 0]) / 0.25).sqrt()
    for method in ("kernel", "log"):
        plan = sinkhorn(cost, epsilon=0.25, method=method, **EXACT).plan
        torch.testing.assert_close(plan[0, 0], root / (1 + root) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", ["kernel", "log"])
def test_potentials_give_the_plan(method: str) -> None:
    cost = costs.squared_euclidean(unit_points("x", 9), unit_points("y", 14)) - 1.7
    result = sinkhorn(cost, weights("a", 9), weights("b", 14), epsilon=0.05, method=method)
    rebuilt = torch.exp((result.f[:, None] + result.g - cost) / 0.05)
    torch.testing.assert_close(rebuilt, result.plan, rtol=1e-9, atol=0)


def test_small_epsilon_reaches_the_optimal_assignment() -> None:
    cost = costs.squared_euclidean(unit_points("x", 12), unit_points("y", 12)).float()
    result = sinkhorn(cost, epsilon=1e-4, max_iters=3000)
    assert torch.equal(result.plan.argmax(1), assignment(cost))
    assert float(result.col_err) < 1e-5


def test_annealing_saves_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = costs.squared_euclidean(unit_points("x", 12), unit_points("y", 15)).float()
    annealed = sinkhorn(cost, epsilon=2e-3, max_iters=30000)
    monkeypatch.setattr("relume.losses.ot.scaling.anneal", lambda problem, start, spread, budget: (start, 0))
    plain = sinkhorn(cost, epsilon=2e-3, max_iters=30000)
    assert annealed.iters < plain.iters
    assert l1(annealed.plan, plain.plan) < 1e-3


def test_zero_masses_give_empty_rows_and_columns() -> None:
    cost = costs.squared_euclidean(unit_points("x", 5), unit_points("y", 6))
    a, b = weights("a", 5), weights("b", 6)
    a[2], b[0] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    for method in ("kernel", "log"):
        for dtype in (torch.float32, torch.float64):
            plan = sinkhorn(cost.to(dtype), a, b, epsilon=0.05, method=method).plan
            assert plan.isfinite().all()
            assert not plan[2].any()
            assert not plan[:, 0].any()
            reduced = sinkhorn(cost[[0, 1, 3, 4], 1:], a[a > 0], b[b > 0], epsilon=0.05, **EXACT)
            assert l1(plan[[0, 1, 3, 4], 1:], reduced.plan) < 1e-5


@pytest.mark.parametrize("method", ["kernel", "log"])
def test_forbidden_pairs(method: str) -> None:
    cost = costs.squared_euclidean(unit_points("x", 6), unit_points("y", 8))
    allowed = torch.arange(6)[:, None] % 2 == torch.arange(8) % 2
    forbidding = torch.where(allowed, cost, torch.inf)
    for scale in ("none", "max", "mean"):
        result = sinkhorn(forbidding, epsilon=0.1, method=method, cost_scale=scale)
        assert not result.plan[~allowed].any()
        assert float(result.col_err) < 1e-6
        assert result.objective.isfinite()
    even = sinkhorn(cost[::2, ::2], epsilon=0.1, **EXACT)
    whole = sinkhorn(forbidding, epsilon=0.1, method=method, **EXACT)
    torch.testing.assert_close(whole.plan[::2, ::2], even.plan / 2, rtol=1e-8, atol=1e-12)


def test_integers_are_costs_and_marginals() -> None:
    cost, a, b = torch.tensor([[0, 3, 1], [2, 0, 4]]), torch.tensor([2, 1]), torch.tensor([1, 0, 2])
    expected = sinkhorn(cost.float(), a.float(), b.float(), epsilon=0.5)
    assert torch.equal(sinkhorn(cost, a, b, epsilon=0.5).plan, expected.plan)
    assert float(expected.plan.sum()) == pytest.approx(3)


def test_cost_scale_divides_once() -> None:
    cost = 7 * costs.squared_euclidean(unit_points("x", 6), unit_points("y", 8))
    for kind, size in (("max", cost.max()), ("mean", cost.mean()), ("median", cost.median())):
        result = sinkhorn(cost, epsilon=0.1, cost_scale=kind)
        assert l1(result.plan, sinkhorn(cost / size, epsilon=0.1).plan) < 1e-12
        torch.testing.assert_close(result.cost, cost / size)


def test_half_precision_and_autocast_do_not_reach_the_solver() -> None:
    cost = costs.squared_euclidean(unit_points("x", 20), unit_points("y", 30)).bfloat16()
    expected = sinkhorn(cost.float(), epsilon=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        result = sinkhorn(cost, epsilon=0.05)
        assert result.plan.dtype == torch.float32
        assert torch.equal(result.plan, expected.plan)
        assert torch.equal(result.objective, expected.objective)


def test_shortened_matrix_products_do_not_reach_the_solver() -> None:
    cost = costs.squared_euclidean(unit_points("x", 40), unit_points("y", 60)).float()
    expected = sinkhorn(cost, epsilon=0.05)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(sinkhorn(cost, epsilon=0.05).plan, expected.plan)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_plan_is_the_gradient_of_the_value() -> None:
    cost = costs.squared_euclidean(unit_points("x", 4), unit_points("y", 5)).requires_grad_()
    result = sinkhorn(cost, epsilon=0.1, **EXACT)
    assert not result.plan.requires_grad
    nudge = 1e-5 * torch.arange(20, dtype=torch.float64).reshape(4, 5).cos()
    up, down = (sinkhorn(cost + s * nudge, epsilon=0.1, **EXACT).objective for s in (1, -1))
    assert float((up - down) / 2) == pytest.approx(float((result.plan * nudge).sum()), rel=1e-6)


def test_perplexity_counts_columns() -> None:
    constant = sinkhorn(torch.zeros(3, 8), epsilon=0.1)
    torch.testing.assert_close(constant.perplexity, torch.full((3,), 8.0))
    distinct = sinkhorn(1 - torch.eye(5), epsilon=0.02)
    torch.testing.assert_close(distinct.perplexity, torch.ones(5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", ["kernel", "log"])
def test_without_tolerance_python_waits_only_before_and_after(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the range of the cost, which is not counted on a CPU, and once to see whether the plan is sound."""
    reads = []
    monkeypatch.setattr("relume.losses.ot.linear.numbers", lambda *values: reads.append(1) or numbers(*values))
    cost = costs.squared_euclidean(unit_points("x", 4), unit_points("y", 5)).float()
    for iters in (20, 200):
        waits = waits_of(lambda iters=iters: sinkhorn(cost, epsilon=0.1, tol=0, max_iters=iters, method=method))
        assert waits == 1
    assert len(reads) == 2
    assert waits_of(lambda: sinkhorn(cost, epsilon=1e-3, tol=1e-30, max_iters=200, method=method)) > 4


@pytest.mark.parametrize("method", ["kernel", "log"])
@pytest.mark.parametrize("epsilon", [0.5, 0.02, 2e-4])
def test_a_bound_on_the_device_asks_nothing(epsilon: float, method: str) -> None:
    """Neither where exp(-C / eps) underflows, nor where it does not; and the plan is that of a solver which does ask."""
    cost = costs.squared_euclidean(unit_points("x", 12), unit_points("y", 20)).float()
    asked = sinkhorn(cost, epsilon=epsilon, tol=0, max_iters=400, method=method)
    found = []
    settings = {"epsilon": epsilon, "tol": 0, "max_iters": 400, "method": method, "bound": cost.amax()}
    assert waits_of(lambda: found.append(sinkhorn(cost, **settings))) == 0
    assert l1(found[0].plan, asked.plan) < max(1e-5, 30 * float(asked.col_err))
    assert float(found[0].row_err) < (1e-3 if method == "log" else 1e-5)
    assert (found[0].iters, found[0].method) == (400, method)


@pytest.mark.parametrize("broken", [0, 1, 3])
def test_where_the_kernel_breaks_the_device_goes_on_in_the_log_domain(
    broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four kernels one is broken, the first, the second, or the last."""
    cost = costs.squared_euclidean(unit_points("x", 12), unit_points("y", 20)).float()
    calls = []

    def scale(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, iterations: int) -> None:
        scale_to_marginals(kernel, a, b, u, v, iterations)
        if len(calls) == broken:
            v.fill_(torch.nan)
        calls.append(iterations)

    monkeypatch.setattr("relume.losses.ot.scaling.scale_to_marginals", scale)
    found = sinkhorn(cost, epsilon=0.4, tol=0, max_iters=181, bound=cost.amax())
    monkeypatch.undo()
    assert len(calls) == 4
    exact = sinkhorn(cost.double(), epsilon=0.4, **EXACT)
    assert float(found.row_err) < 1e-5 and l1(found.plan, exact.plan) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"epsilon": 0.05},
        {"epsilon": 0.015, "check_every": 3},
        {"epsilon": 0.05, "method": "log"},
        {"epsilon": 0.1, "rho": 0.5},
    ],
)
def test_the_device_stops_where_the_host_does(options: dict[str, Any]) -> None:
    cost = costs.squared_euclidean(unit_points("x", 20), unit_points("y", 30)).float()
    same = {**options, "tol": 1e-4, "max_iters": 3000, "bound": 2.0}
    expected, found = (sinkhorn(cost, **same, waiting=waiting) for waiting in (True, False))
    assert 10 < expected.iters < 3000 and int(found.iters) == expected.iters
    for name in ("plan", "f", "g"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(("method", "iters"), [("kernel", 1), ("kernel", 7), ("log", 7), ("kernel", 130)])
def test_iterations_are_counted_and_rows_exact(method: str, iters: int) -> None:
    cost = costs.squared_euclidean(unit_points("x", 9), unit_points("y", 30)).float()
    result = sinkhorn(cost, epsilon=0.03, tol=0, max_iters=iters, method=method)
    reference = sinkhorn(cost.double(), epsilon=0.03, tol=0, max_iters=iters, method="log")
    assert result.iters == iters
    assert float(result.row_err) < 1e-6
    assert float(result.col_err) == pytest.approx(float(reference.col_err), rel=0.05, abs=1e-6)
    assert l1(result.plan, reference.plan) < 1e-4


def test_a_broken_kernel_is_replaced_by_the_log_domain() -> None:
    a = torch.tensor([0.5, 0.5])
    good = Solution(Potentials(a, a), torch.full((2, 2), 0.25), 1)

    def run(broken: Tensor) -> tuple[Solution, str]:
        return kernel_or_log(lambda kernel: good._replace(plan=broken) if kernel else good, True, a)

    for broken in (torch.full((2, 2), torch.nan), torch.tensor([[0.25, 0.25], [0.0, 0.0]])):
        solution, served = run(broken)
        assert served == "log"
        assert solution is good
    assert run(good.plan)[1] == "kernel"


@pytest.mark.parametrize("options", [{}, {"method": "log"}, {"rho": 1.0}, {"rho": 1.0, "reg_type": "entropy"}])
def test_nothing_comes_from_where_nothing_may_go(options: dict[str, Any]) -> None:
    """A row without mass may have forbidden pairs only; one with mass too, if marginals are but penalised."""
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    closed = torch.cat([torch.full((1, 5), torch.inf), cost])
    alone = sinkhorn(cost, epsilon=0.1, tol=1e-12, **options)
    with_row = sinkhorn(
        closed, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]), epsilon=torch.tensor(0.1), tol=1e-12, **options
    )
    assert not with_row.plan[0].any() and with_row.f[0] == -torch.inf
    torch.testing.assert_close(with_row.plan[1:], alone.plan, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(with_row.objective, alone.objective, rtol=1e-6, atol=1e-9)
    if "rho" in options:
        weights = torch.tensor([0.5, 0.25, 0.25, 0.25, 0.25])
        open_mass = sinkhorn(closed, weights, epsilon=0.1, tol=1e-12, **options).plan
        assert not open_mass[0].any()
        torch.testing.assert_close(open_mass[1:], alone.plan, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive, not 0.0"),
        ({"epsilon": float("inf")}, "epsilon must be positive, not inf"),
        ({"epsilon": float("nan")}, "epsilon must be positive, not nan"),
        ({"epsilon": "small"}, "epsilon must be a number, not 'small'"),
        (
            {"epsilon": 1e-45, "cost": torch.eye(2, 3)},
            r"costs over epsilon leave the range of torch\.float32; take float64",
        ),
        ({"max_iters": 1.5}, "max_iters must be a whole number, not 1.5"),
        ({"cost": torch.zeros(2, 3).to_sparse()}, r"cost must be dense, not torch\.sparse_coo"),
        ({"rho": 0.0}, "rho must be positive, not 0.0; None makes the marginals constraints"),
        ({"cost": [[0.0, 1.0]]}, "cost must be a tensor, not list"),
        ({"cost": torch.zeros(2, 3, dtype=torch.complex64)}, r"cost must be real, not torch\.complex64"),
        ({"b": [0.2, 0.3, 0.5]}, "the marginal of the columns must be a tensor, not list"),
        ({"tol": -1.0}, "tol must be at least 0"),
        ({"bound": torch.tensor(1.0)}, "a bound that is a tensor is not looked at; that needs tol=0, not 1e-06"),
        ({"max_iters": 0}, "max_iters must be at least 1, not 0"),
        ({"method": "kernal"}, r"method cannot be 'kernal'\. Did you mean 'kernel'\?"),
        ({"reg_type": "l2"}, "reg_type cannot be 'l2'"),
        ({"cost": torch.zeros(3)}, r"cost must be a matrix with rows and columns, not of shape \(3,\)"),
        ({"cost": torch.zeros(0, 3)}, "cost must be a matrix"),
        ({"cost": torch.full((2, 3), torch.nan)}, "cost holds NaN or -inf"),
        ({"cost": torch.tensor([[0.0, 0.0, 0.0], [torch.inf] * 3])}, "only forbidden pairs"),
        ({"a": torch.ones(3)}, r"the marginal of the rows has shape \(3,\), not \(2,\)"),
        ({"a": torch.tensor([-0.5, 1.5])}, "must be nonnegative and finite"),
        ({"b": torch.tensor([torch.nan, 0.5, 0.5])}, "the marginal of the columns must be nonnegative and finite"),
        ({"b": torch.ones(3)}, "the marginals' masses differ: rows 1, columns 3"),
    ],
)
def test_impossible_problems(change: dict[str, Any], message: str) -> None:
    problem = {"cost": torch.zeros(2, 3), "epsilon": 0.1} | change
    with pytest.raises(UserError, match=message):
        sinkhorn(**problem)
