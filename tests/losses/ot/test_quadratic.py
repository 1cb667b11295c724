"""Fused Gromov-Wasserstein against stored solutions, POT, and its own theory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from clouds import fused_problem, golden_case, l1, unit_points, waits_of, weights
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops import hosts
from relume.losses.ot import (
    Dense,
    FusedCoupling,
    Graphs,
    SquaredEuclidean,
    costs,
    descent,
    from_lambda,
    fused_gromov_wasserstein,
    sinkhorn,
    targets,
    tensor_product,
)
from relume.losses.ot import graphs as graphs_module

CASES = [
    "eucl_12x12",
    "eucl_10x25",
    "eucl_32x32",
    "eucl_16x48",
    "eucl_14x14",
    "sq_eucl_structure",
    "nonuniform",
    "duplicates",
    "structure_scale_mismatch",
    "alpha0_is_linear",
    "small_eps",
    "isometry_with_hint",
]
UNSCALED = {"cost_scale": "none"}


def solve_case(case: dict[str, Any], dtype: torch.dtype, **options: Any) -> FusedCoupling:
    problem = (case[k].to(dtype) for k in ("M", "C1", "C2", "p", "q"))
    return fused_gromov_wasserstein(*problem, alpha=case["alpha"], epsilon=case["eps"], **UNSCALED, **options)


@pytest.mark.parametrize("name", CASES)
def test_stored_solutions(name: str, golden: Callable[[str], Path]) -> None:
    case = golden_case(golden, "fgw", name)
    slow = name == "isometry_with_hint"  # Sinkhorn gains a digit in 800 iterations there
    budget = {"outer_iters": 100, "inner_iters": 400} if slow else {"outer_iters": 400, "inner_iters": 200}
    result = solve_case(case, torch.float64, tol=1e-11, **budget)
    assert l1(result.plan, case["T"]) < (1e-5 if slow else 1e-9)
    assert float(result.objective) == pytest.approx(case["objective"], rel=1e-6 if slow else 1e-8)
    assert float(result.linear) == pytest.approx(case["lin"], rel=1e-3 if slow else 1e-8)
    assert float(result.quadratic) == pytest.approx(case["gw"], rel=1e-3 if slow else 1e-8)
    assert torch.equal(targets.argmax(result.plan), case["argmax"])
    if slow:
        assert torch.equal(targets.argmax(result.plan), case["true_match"])


@pytest.mark.parametrize("name", CASES)
def test_stored_solutions_in_float32(name: str, golden: Callable[[str], Path]) -> None:
    case = golden_case(golden, "fgw", name)
    result = solve_case(case, torch.float32, tol=1e-8, outer_iters=400, inner_iters=200)
    assert result.plan.dtype == torch.float32
    assert l1(result.plan, case["T"]) < (1e-4 if name == "isometry_with_hint" else 1e-5)
    assert float(result.row_err) < 1e-6


@pytest.mark.parametrize("method", ["kernel", "log"])
@pytest.mark.parametrize("name", ["trunc_16x16", "trunc_12x40", "trunc_8x8"])
def test_iterates_in_the_order_of_pot(name: str, method: str, golden: Callable[[str], Path]) -> None:
    case = golden_case(golden, "fgw_truncated", name)
    budget = {"outer_iters": case["outer"], "inner_iters": case["inner"], "tol": 0}
    result = solve_case(case, torch.float64, **budget, warm_start=False, method=method)
    assert l1(result.plan, case["T"]) < 1e-12
    assert float(result.col_err) == pytest.approx(case["col_err"], abs=1e-12)
    assert (result.iters, result.outer_iters) == (case["outer"] * case["inner"], case["outer"])


@pytest.mark.parametrize("index", range(2))
def test_stored_tensor_products(index: int, golden: Callable[[str], Path]) -> None:
    case = torch.load(golden("generation/ot.pt"), weights_only=True)["tensor_product"][index]
    product = tensor_product(Dense(case["C1"]), case["T"], Dense(case["C2"]))
    torch.testing.assert_close(product, case["L_x_T"])
    assert float((product * case["T"]).sum()) == pytest.approx(case["gw"])


@pytest.mark.parametrize(
    ("n", "m", "alpha", "epsilon"),
    [(5, 31, 0.3, 0.05), (20, 12, 0.9, 0.05), (1, 9, 0.5, 0.1), (7, 1, 0.5, 0.1), (1, 1, 0.5, 0.1), (13, 13, 1.0, 0.3)],
)
@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")
def test_agrees_with_pot(n: int, m: int, alpha: float, epsilon: float) -> None:
    pot = pytest.importorskip("ot")
    problem, p, q = fused_problem(n, m), weights("p", n), weights("q", m)
    expected, log = pot.gromov.entropic_fused_gromov_wasserstein(
        *problem, p, q, "square_loss", epsilon=epsilon, symmetric=True, alpha=alpha, max_iter=100, tol=1e-11,
        numItermax=1000, stopThr=1e-12, log=True,
    )  # fmt: skip
    options = {"alpha": alpha, "epsilon": epsilon, "tol": 1e-12, "outer_iters": 500, "inner_iters": 1000}
    result = fused_gromov_wasserstein(*problem, p, q, **options, **UNSCALED)
    assert l1(result.plan, expected) < 1e-7
    fused = (1 - alpha) * result.linear + alpha * result.quadratic
    assert float(fused) == pytest.approx(float(log["fgw_dist"]), rel=1e-7, abs=1e-12)


def brute_force(C1: Tensor, C2: Tensor, T: Tensor) -> Tensor:
    difference = C1[:, None, :, None] - C2[None, :, None, :]
    return torch.einsum("ijkl,kl->ij", difference.square(), T)


def test_tensor_product_is_the_sum_over_four_indices() -> None:
    _, C1, C2 = fused_problem(4, 7)
    T = unit_points("T", 4, 7).abs()  # no coupling of anything in particular
    torch.testing.assert_close(tensor_product(Dense(C1), T, Dense(C2)), brute_force(C1, C2, T))


def test_negative_structures() -> None:
    """Only differences of C1 and C2 count, so both may be shifted and turned around together."""
    M, C1, C2 = (c.float() for c in fused_problem(9, 14))
    options = {"alpha": 0.6, "epsilon": 0.05, "outer_iters": 30, **UNSCALED}
    expected = fused_gromov_wasserstein(M, C1, C2, **options)
    for first, second in ((-C1, -C2), (C1 - 3, C2 - 3)):
        assert l1(fused_gromov_wasserstein(M, first, second, **options).plan, expected.plan) < 1e-4


def test_fingerprint() -> None:
    M, C1, C2 = (c.float() for c in fused_problem(3, 4))
    result = fused_gromov_wasserstein(M, C1, C2, alpha=0.5, epsilon=0.05, outer_iters=50, **UNSCALED)
    expected = torch.tensor(
        [
            [0.0000000836, 0.0000407115, 0.0837772399, 0.2495152980],
            [0.0066300644, 0.1601571920, 0.1660613840, 0.0004846927],
            [0.2433698520, 0.0898020963, 0.0001613761, 0.0000000090],
        ]
    )
    torch.testing.assert_close(result.plan, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("structure", [costs.euclidean, costs.squared_euclidean])
def test_every_step_decreases_the_objective(structure: Callable[[Tensor], Tensor]) -> None:
    x, y = unit_points("x", 9), unit_points("y", 17)
    problem = costs.squared_euclidean(x, y), structure(x), structure(y)
    values = [
        float(
            fused_gromov_wasserstein(*problem, alpha=0.8, epsilon=0.03, outer_iters=k, inner_iters=500, tol=0).objective
        )
        for k in range(1, 9)
    ]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values))
    assert values[0] - values[-1] > 1e-4


def test_warm_start_converges_within_a_budget_that_a_cold_start_misses() -> None:
    problem = [c.float() for c in fused_problem(12, 60)]
    options = {"alpha": 0.2, "epsilon": 0.015, "tol": 0, **UNSCALED}
    warm, cold = (fused_gromov_wasserstein(*problem, **options, warm_start=warm) for warm in (True, False))
    assert float(warm.col_err) < 0.1 * float(cold.col_err)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("points", [False, True])
def test_products_are_left_out_only_where_they_change_nothing(
    dtype: torch.dtype, points: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = unit_points("x", 15).to(dtype), unit_points("y", 40).to(dtype)
    structure = SquaredEuclidean if points else costs.euclidean
    problem = costs.squared_euclidean(x, y), structure(x), structure(y)
    options = {"alpha": 0.2, "epsilon": 0.1, "outer_iters": 30, "tol": 0}
    formed = []
    product = descent.cross_product
    monkeypatch.setattr(descent, "cross_product", lambda *args: formed.append(1) or product(*args))
    found = fused_gromov_wasserstein(*problem, **options)
    few = len(formed)
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)
    expected = fused_gromov_wasserstein(*problem, **options)
    assert few < 20
    assert len(formed) - few == 29  # the first step's is one of vectors
    assert (found.iters, found.outer_iters) == (expected.iters, 30)
    assert l1(found.plan, expected.plan) < 30 * torch.finfo(dtype).eps
    assert float(found.objective) == pytest.approx(float(expected.objective), rel=20 * torch.finfo(dtype).eps)


def test_without_tolerance_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one read before, which is not counted on a CPU, and one after."""
    problem = [c.float() for c in fused_problem(6, 9)]
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)  # as on a GPU
    for outer, inner in ((1, 5), (7, 130)):
        options = {"alpha": 0.5, "epsilon": 0.05, "outer_iters": outer, "inner_iters": inner, "tol": 0}
        assert waits_of(lambda options=options: fused_gromov_wasserstein(*problem, **options)) == 1


@pytest.mark.parametrize("epsilon", [0.3, 0.01])
def test_a_bound_on_the_device_asks_nothing(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the plan is that of a solver which does ask; a store of graphs leaves such problems alone."""
    problem = [c.float() for c in fused_problem(6, 9)]
    options = {"alpha": 0.5, "epsilon": epsilon, "outer_iters": 9, "inner_iters": 500, "tol": 0, "cost_scale": "none"}
    expected = fused_gromov_wasserstein(*problem, **options)
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)  # as on a GPU
    monkeypatch.setattr(graphs_module, "capturable", lambda logits: True)
    found = []
    options |= {"bound": torch.stack([c.amax() for c in problem]).amax(), "graphs": Graphs()}
    assert waits_of(lambda: found.append(fused_gromov_wasserstein(*problem, **options))) == 0
    assert l1(found[0].plan, expected.plan) < 1e-3 and float(found[0].row_err) < 1e-6
    assert float(found[0].objective) == pytest.approx(float(expected.objective), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"outer_iters": 30, "inner_iters": 130, "tol": 1e-7},
        {"outer_iters": 4, "inner_iters": 300, "tol": 1e-5, "warm_start": False, "check_every": 7},
        {"outer_iters": 12, "inner_iters": 60, "tol": 1e-6, "method": "log"},
        {"outer_iters": 2, "inner_iters": 20, "tol": 1e-12},
    ],
)
def test_the_device_stops_where_the_host_does(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)  # as on a GPU
    problem, same = [c.float() for c in fused_problem(6, 9)], {"alpha": 0.5, "epsilon": 0.05, "bound": 1.0}
    found = []

    def solve() -> None:
        found.append(fused_gromov_wasserstein(*problem, **same, **options, waiting=False))

    assert waits_of(solve) == 0
    expected = fused_gromov_wasserstein(*problem, **same, **options)
    assert (int(found[0].iters), int(found[0].outer_iters)) == (expected.iters, expected.outer_iters)
    for name in ("plan", "f", "g"):
        assert torch.equal(getattr(found[0], name), getattr(expected, name))


def test_without_structure_it_is_sinkhorn() -> None:
    M, C1, C2 = fused_problem(8, 11)
    fused = fused_gromov_wasserstein(M, C1, C2, alpha=0, epsilon=0.05, tol=1e-13, inner_iters=5000)
    assert l1(fused.plan, sinkhorn(M, epsilon=0.05, cost_scale="max", tol=1e-13, max_iters=5000).plan) < 1e-10


def test_methods_agree_where_the_kernel_is_hard_pressed() -> None:
    """A small epsilon and a strong structure, in float32."""
    problem = fused_problem(16, 40)
    options = {"alpha": 0.9, "epsilon": 0.002, "outer_iters": 15, "inner_iters": 300, "tol": 0}
    exact = fused_gromov_wasserstein(*problem, **options, method="log")
    found = fused_gromov_wasserstein(*(c.float() for c in problem), **options)
    assert float(found.row_err) < 1e-6
    assert float(found.objective) == pytest.approx(float(exact.objective), rel=1e-3)
    assert (targets.argmax(found.plan) == targets.argmax(exact.plan)).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["max", "mean", "median", "none"])
def test_scales_leave_one_problem(kind: str) -> None:
    M, C1, C2 = fused_problem(8, 11)
    size = {"max": torch.amax, "mean": torch.mean, "median": torch.median, "none": torch.ones_like}[kind]
    s_m, s_c = (M.new_ones(()), M.new_ones(())) if kind == "none" else (size(M), torch.maximum(size(C1), size(C2)))
    options = {"alpha": 0.6, "epsilon": 0.05, "outer_iters": 30}
    expected = fused_gromov_wasserstein(M / s_m, C1 / s_c, C2 / s_c, **options, **UNSCALED)
    result = fused_gromov_wasserstein(M, C1, C2, **options, cost_scale=kind)
    assert l1(result.plan, expected.plan) < 1e-6
    assert float(result.objective) == pytest.approx(float(expected.objective), rel=1e-6)
    if kind != "none":
        larger = fused_gromov_wasserstein(5 * M, 3 * C1, 3 * C2, **options, cost_scale=kind)
        assert l1(result.plan, larger.plan) < 1e-6


def test_points_are_as_good_as_their_distances() -> None:
    x, y = unit_points("x", 30, 2), unit_points("y", 70, 4)
    M = costs.squared_euclidean(x, y[:, :2])
    first, second = SquaredEuclidean(x), SquaredEuclidean(y)
    assert len(first.factors) == len(second.factors) == 2
    p, q = weights("p", 30), weights("q", 70)
    for kind in ("max", "mean", "none"):
        options = {"alpha": 0.5, "epsilon": 0.1, "outer_iters": 20, "cost_scale": kind}
        expected = fused_gromov_wasserstein(M, first.matrix, second.matrix, p, q, **options)
        for C1, C2 in ((first, second), (first.matrix, second)):
            result = fused_gromov_wasserstein(M, C1, C2, p, q, **options)
            assert l1(result.plan, expected.plan) < 1e-9
            assert float(result.objective) == pytest.approx(float(expected.objective), rel=1e-9)


def test_starting_plan() -> None:
    problem = fused_problem(10, 10)
    options = {"alpha": 0.9, "epsilon": 0.05, "outer_iters": 300, "tol": 1e-10, "inner_iters": 500}
    solved = fused_gromov_wasserstein(*problem, **options)
    again = fused_gromov_wasserstein(*problem, **options, init=solved.plan)
    assert again.outer_iters < solved.outer_iters / 2
    assert l1(again.plan, solved.plan) < 1e-8


def test_converts_the_convention_without_the_factor_two() -> None:
    """Descending on (1 - l) M + l L x T directly, with Sinkhorn at epsilon, arrives at the same plan."""
    M, C1, C2 = fused_problem(6, 9)
    weight, epsilon = 0.4, 0.1
    plan = torch.full_like(M, 1 / 54)
    for _ in range(40):
        cost = (1 - weight) * M + weight * brute_force(C1, C2, plan)
        plan = sinkhorn(cost, epsilon=epsilon, tol=1e-13, max_iters=5000).plan
    alpha, epsilon = from_lambda(weight, epsilon)
    options = {"outer_iters": 40, "inner_iters": 5000, "tol": 1e-13, **UNSCALED}
    assert l1(fused_gromov_wasserstein(M, C1, C2, alpha=alpha, epsilon=epsilon, **options).plan, plan) < 1e-9


def test_zero_masses_and_forbidden_pairs() -> None:
    M, C1, C2 = fused_problem(6, 8)
    p = torch.tensor([0.2, 0.0, 0.2, 0.2, 0.2, 0.2])
    M[0, 3] = torch.inf
    for method in ("kernel", "log"):
        for alpha in (0.5, 1.0):
            result = fused_gromov_wasserstein(M, C1, C2, p, alpha=alpha, epsilon=0.1, method=method)
            assert not result.plan[1].any()
            assert result.plan[0, 3] == 0
            assert float(result.col_err) < 1e-5
            assert result.objective.isfinite()


def test_half_precision_and_autocast_do_not_reach_the_solver() -> None:
    problem = [c.bfloat16() for c in fused_problem(20, 30)]
    expected = fused_gromov_wasserstein(*(c.float() for c in problem), alpha=0.3, epsilon=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        result = fused_gromov_wasserstein(*(c.requires_grad_() for c in problem), alpha=0.3, epsilon=0.1)
        assert torch.equal(result.plan, expected.plan)
        assert torch.equal(result.objective, expected.objective)
    assert not result.plan.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "alpha must be from 0 to 1, not 1.5"),
        ({"epsilon": -1.0}, "epsilon must be positive"),
        ({"outer_iters": 0}, "outer_iters must be at least 1"),
        ({"inner_iters": 0}, "inner_iters must be at least 1"),
        ({"cost_scale": "maximum"}, "cost_scale cannot be 'maximum'"),
        ({"C1": torch.zeros(2, 3)}, r"C1 has shape \(2, 3\); with this M it must be \(2, 2\)"),
        ({"C2": torch.zeros(2, 2)}, r"C2 has shape \(2, 2\); with this M it must be \(3, 3\)"),
        ({"C2": SquaredEuclidean(torch.zeros(4, 2))}, "C2 has 4 points, but M has 3 of them"),
        ({"C2": torch.full((3, 3), torch.nan)}, "C2 holds NaN or infinite numbers"),
        ({"C1": torch.tensor([[0, torch.inf], [torch.inf, 0]])}, "C1 holds NaN or infinite numbers"),
        ({"M": torch.tensor([[0, 1, -torch.inf], [0, 1, 2]])}, "M holds NaN or -inf"),
        ({"init": [1.0]}, "init must be a tensor, not list"),
        ({"alpha": None}, "alpha must be a number, not None"),
        ({"C1": SquaredEuclidean(torch.full((2, 2), torch.nan))}, "C1 holds NaN"),
        ({"M": torch.full((2, 3), torch.nan)}, "M holds NaN"),
        ({"init": torch.full((2, 3), torch.nan)}, "init holds NaN"),
        ({"C2": torch.arange(9.0).reshape(3, 3)}, "C2 is not symmetric"),
        ({"C1": [[0, 1], [1, 0]]}, "C1 must be a tensor, not list"),
        ({"init": torch.zeros(3, 2)}, r"init has shape \(3, 2\), M \(2, 3\)"),
        ({"p": torch.ones(2)}, "the marginals' masses differ"),
    ],
)
@pytest.mark.parametrize("cost_scale", ["max", "none"])
def test_impossible_problems(change: dict[str, Any], message: str, cost_scale: str) -> None:
    problem = {"M": torch.zeros(2, 3), "C1": torch.zeros(2, 2), "C2": torch.zeros(3, 3), "alpha": 0.5, "epsilon": 0.1}
    with pytest.raises(UserError, match=message):
        fused_gromov_wasserstein(**{**problem, "cost_scale": cost_scale, **change})


# -------------------------------------------------------------------------------- CUDA graphs
@pytest.mark.parametrize("points", [False, True])
def test_graphs_solve_other_problems_of_the_same_kind(points: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a recorder for the CPU: what it replays is the run that a graph would replay, on the same memory."""
    recorded = []

    def record(own: descent.Descent) -> tuple[Any, Callable[[], None]]:
        solution = graphs_module.afresh(own)
        recorded.append(own)

        def replay() -> None:
            again = graphs_module.afresh(own)
            for old, new in zip((*solution.potentials, solution.plan), (*again.potentials, again.plan), strict=True):
                old.copy_(new)

        return solution, replay

    monkeypatch.setattr(graphs_module, "record", record)
    monkeypatch.setattr(graphs_module, "capturable", lambda logits: True)
    graphs = Graphs(keep=2)
    structure = SquaredEuclidean if points else costs.euclidean
    seen = []
    for name, alpha, epsilon, size in (
        ("a", 0.3, 0.1, 9),
        ("b", 0.6, 0.05, 9),
        ("c", 0.3, 0.1, 10),
        ("d", 0.3, 0.1, 9),
    ):
        x, y = unit_points(f"x{name}", 6), unit_points(f"y{name}", size, 2 if points else 3)
        problem = costs.squared_euclidean(x, unit_points(f"z{name}", size)), structure(x), structure(y)
        options = {"alpha": alpha, "epsilon": epsilon, "outer_iters": 4, "tol": 0}
        found = fused_gromov_wasserstein(*problem, **options, graphs=graphs)
        expected = fused_gromov_wasserstein(*problem, **options)
        assert l1(found.plan, expected.plan) < 1e-13
        assert l1(found.f, expected.f) < 1e-12
        assert (found.iters, found.outer_iters) == (expected.iters, 4)
        seen.append((found.plan, found.plan.clone()))
    assert len(recorded) == 2
    assert all(torch.equal(plan, kept) for plan, kept in seen)  # not overwritten by later replays
    fused_gromov_wasserstein(*problem, alpha=0.3, epsilon=0.1, outer_iters=5, tol=0, graphs=graphs)
    assert len(recorded) == 3 and len(graphs.recorded) == 2
    fused_gromov_wasserstein(*problem, alpha=0.3, epsilon=0.1, graphs=graphs)  # a tolerance needs to look
    assert len(recorded) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(32, 2048), (256, 300)])
def test_graphs_on_a_gpu(size: tuple[int, int]) -> None:
    graphs = Graphs()
    for name in "ab":
        x, y = (unit_points(f"{name}{n}", n).float().cuda() for n in size)
        problem = costs.squared_euclidean(x, y), costs.euclidean(x), costs.euclidean(y)
        found, expected = (
            fused_gromov_wasserstein(*problem, alpha=0.2, epsilon=0.1, tol=0, graphs=g) for g in (graphs, None)
        )
        assert l1(found.plan, expected.plan) < 1e-5
    assert len(graphs.recorded) == 1
