"""What every differentiable algorithm promises, as functions that raise AssertionError where it does not hold.

For an algorithm of your own, in a test file (pytest is not needed for the functions themselves):

    import pytest
    from evobench import testing
    from evobench.algorithms import register
    from mypackage import FAMILY

    register("es", FAMILY)

    @pytest.mark.parametrize("check", testing.OF_ALGORITHMS)
    @pytest.mark.parametrize("name", testing.names_of("es"))
    def test_variant(name, check):
        check(name)

    @pytest.mark.parametrize("check", testing.OF_FAMILIES)
    def test_family(check):
        check("es")

This package's own tests run the same functions over its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evobench.algorithms import ALGORITHMS, algorithm_named
from evobench.evograd import VARIANTS, Family
from evobench.evograd.loop import Algorithm, Evaluator, Generation, nothing_yet, run_batch
from evobench.evograd.space import Space, Streams
from evobench.problems import PAPER_FUNCTIONS, Problem, draw_shift, make_problem
from evobench.record import RunRecord

GOAL = 1.0
"""Where the median of three runs on the 3D sphere has to get; 6,000 random points reach about 100."""


def names_of(family: str) -> list[str]:
    """The names of a family's variants."""
    return [name for name, one in ALGORITHMS.items() if one.backend == "evograd" and one.family == family]


def family_of(name: str) -> Family:
    """The family that is registered under a name."""
    kernel = algorithm_named(f"{name}_diff").kernel
    if not isinstance(kernel, Family):
        raise ValueError(f"{name!r} is not the name of a family")
    return kernel


def run(
    name: str,
    fn: str = "rosenbrock",
    dim: int = 5,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    budget: int = 400,
    pop: int = 20,
    problem: Problem | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> list[RunRecord]:
    """Records of one registered algorithm on a small problem."""
    algorithm = algorithm_named(name)
    kernel: Any = algorithm.kernel
    return run_batch(
        partial(kernel.build, algorithm.configure(settings or {})),
        problem or make_problem(fn, dim),
        gradient=VARIANTS[algorithm.variant].gradient,
        seeds=seeds,
        pop_size=pop,
        budget=budget,
        init=options.pop("init", algorithm.own_start),
        **options,
    )


def started(
    family: str,
    overrides: dict[str, Any],
    *,
    seeds: int = 3,
    pop: int = 8,
    dim: int = 4,
    fn: str = "rosenbrock",
    generations: int = 3,
    dtype: torch.dtype = torch.float64,
) -> tuple[Algorithm, Problem, Any, Any, Any]:
    """An algorithm a few generations into its run, and the next generation's noise."""
    problem = make_problem(fn, dim)
    space = Space.of(problem, seeds, pop, "uniform", dtype, "cpu")
    kernel = family_of(family)
    algorithm = kernel.build(kernel.settings(**overrides), space)
    rng, evaluate = Streams(range(seeds), dtype, "cpu"), Evaluator(problem, nothing_yet(space))
    with torch.no_grad():
        step = Generation(algorithm, problem, "kept")
        carry = step.first(*algorithm.init(rng, evaluate), evaluate.best)
        for _ in range(generations):
            carry = step(carry, algorithm.noise(rng))
        return algorithm, problem, carry.params, carry.state, algorithm.noise(rng)


def assert_same(left: RunRecord, right: RunRecord) -> None:
    """Two runs are the same to the bit."""
    assert left.best_f == right.best_f, f"{left.best_f!r} is not {right.best_f!r}"
    np.testing.assert_array_equal(left.best_x, right.best_x)
    np.testing.assert_array_equal(left.history, right.history)
    assert left.learned.keys() == right.learned.keys()
    for name in left.learned:
        np.testing.assert_array_equal(left.learned[name], right.learned[name])


# Of every variant


def minimises_the_sphere(name: str, goal: float = GOAL) -> None:
    """It gets somewhere from a uniform start."""
    records = run(name, "sphere", 3, budget=6000, pop=30, init="uniform", dtype=torch.float64)
    median = float(np.median([record.best_f for record in records]))
    assert median < goal, f"the median of three runs is {median:g}, not below {goal:g}"


def record_is_honest(name: str, functions: Sequence[str] = PAPER_FUNCTIONS) -> None:
    """The best value is the objective's at the best point, in the box, within the budget; histories fall."""
    for fn in functions:
        problem = make_problem(fn, 5)
        for record in run(name, fn, 5, gradient_cost=3.0):
            assert problem(record.best_x) == record.best_f
            assert (np.abs(record.best_x) <= 100).all()
            assert record.f_evals + 3 * record.g_evals <= 400
            assert record.evals[-1] == record.f_evals + 3 * record.g_evals
            assert (np.diff(record.evals) > 0).all()
            assert (np.diff(record.history) <= 0).all()
            assert record.history[-1] == record.best_f


def every_evaluation_is_counted_and_inside_the_box(name: str) -> None:
    """Against a count made where the objective is called."""
    problem = make_problem("rosenbrock", 5)
    seen = []
    graded = 0

    def spy(x: Tensor) -> Tensor:
        nonlocal graded
        if torch.is_grad_enabled():
            graded += 1
        else:
            seen.append(x.clone())
        return problem.evaluate(x)

    records = run(name, problem=Problem("spy", 5, spy, problem.lower, problem.upper))
    points = torch.cat(seen, dim=1)
    assert points.abs().max() <= 100
    if name.endswith("_guarded"):  # what a run does not do is computed along for the others, and unseen
        assert all(record.f_evals <= points.shape[1] + graded for record in records)
        assert all(0 < record.g_evals <= graded for record in records)
        return
    assert points.shape[1] == records[0].f_evals
    assert graded == records[0].g_evals
    assert problem.evaluate(points).amin(1).tolist() == [record.best_f for record in records]


def a_run_depends_on_its_own_seed_alone(name: str) -> None:
    """Seed 4 alone is seed 4 among six, to the bit, in both precisions; other seeds are other runs."""
    problem = make_problem("ackley", 7)
    shifts = np.stack([draw_shift(seed, problem, 60.0) for seed in range(6)])[:, None]
    for dtype in (torch.float32, torch.float64):
        batch = run(name, problem=problem.shifted(shifts), seeds=range(6), budget=1200, dtype=dtype)
        alone = run(name, problem=problem.shifted(shifts[4:5]), seeds=(4,), budget=1200, dtype=dtype)
        assert_same(batch[4], alone[0])
        assert len({record.best_f for record in batch}) == 6


def bad_values_neither_win_nor_spread(name: str) -> None:
    """NaN and infinities: in a part of the space, and everywhere for one of the runs."""
    problem = make_problem("sphere", 4)
    for bad in (float("nan"), float("inf"), float("-inf")):

        def hostile(x: Tensor, bad: float = bad) -> Tensor:
            value = torch.where(x[..., 0] > 60, bad, problem.evaluate(x))  # a fifth of the space of every run
            if x.shape[0] == 3:
                value = torch.cat([torch.full_like(value[:1], bad), value[1:]])  # and all of the first
            return value

        spoiled = Problem("hostile", 4, hostile, problem.lower, problem.upper)
        records = run(name, problem=spoiled, init="uniform")
        assert records[0].best_f == np.inf
        for record in records[1:]:
            assert np.isfinite(record.best_f)
            assert record.best_x[0] <= 60
        untouched = run(name, problem=spoiled, seeds=(1, 2), init="uniform")
        assert_same(records[1], untouched[0])
        assert_same(records[2], untouched[1])


# Of every family


def plain_equals_diff_with_learning_rate_0(family: str, functions: Sequence[str] = ("ackley", "rosenbrock")) -> None:
    """The gradient is all that tells them apart, and it does something."""
    for fn in functions:
        plain = run(f"{family}_plain", fn, budget=600)
        still = run(f"{family}_diff", fn, budget=600, settings={"lr": 0.0})
        moving = run(f"{family}_diff", fn, budget=600)
        for one, other in zip(plain, still, strict=True):
            assert_same(one, other)
        assert any(not np.array_equal(one.history, third.history) for one, third in zip(plain, moving, strict=True))


def winners_path_is_full_backpropagation(family: str, overrides: dict[str, Any] | None = None, least: int = 1) -> None:
    """The gradient through the winner alone is the gradient through the population; it reaches `least` parameters."""
    algorithm, problem, params, state, noise = started(family, overrides or {}, fn="ackley")
    with torch.no_grad():
        x, _ = algorithm.propose(params, state, noise)
        fitness = problem(x)
        step = Generation(algorithm, problem, "kept")
        evaluate = Evaluator(problem, nothing_yet(algorithm.space))
        carry = step.first(params, state, evaluate.best)
        short = step._winners_path(carry, noise, fitness.argmin(1, keepdim=True), fitness, evaluate)
    leaves = type(params)(*(value.clone().requires_grad_() for value in params))
    loss = problem(algorithm.propose(leaves, state, noise)[0]).amin(1).sum()
    full = torch.autograd.grad(loss, leaves, materialize_grads=True)
    reached = 0
    for name, gradient in zip(params._fields, full, strict=True):
        if name in short:
            torch.testing.assert_close(
                short[name], gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max() + 1e-300)
            )
            reached += bool(gradient.abs().max() > 0)
    assert reached >= least, f"the gradient reaches {reached} parameters"


def gradient_matches_finite_differences(
    family: str, overrides: dict[str, Any] | None = None, skipped: Sequence[str] = ()
) -> None:
    """Of a smooth function of the candidates; `skipped` names parameters with a straight-through part."""
    algorithm, _, params, state, noise = started(family, overrides or {})
    weights = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(leaves: Any) -> Tensor:
        return (algorithm.propose(leaves, state, noise)[0] * weights).sum()

    leaves = type(params)(*(value.clone().requires_grad_() for value in params))
    grads = torch.autograd.grad(loss(leaves), leaves, materialize_grads=True)
    generator = torch.Generator().manual_seed(2)
    for name, gradient in zip(params._fields, grads, strict=True):
        if name in skipped:
            continue
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        value, eps = getattr(params, name), 1e-6
        if name == "factor":  # of CMA-ES: lower triangular
            direction = direction.tril()
        with torch.no_grad():
            ahead = loss(params._replace(**{name: value + eps * direction}))
            behind = loss(params._replace(**{name: value - eps * direction}))
        numeric, exact = float(ahead - behind) / (2 * eps), float((gradient * direction).sum())
        assert abs(exact - numeric) <= max(2e-4 * abs(numeric), 1e-4), f"{name}: {exact:g}, numerically {numeric:g}"


def noise_does_not_depend_on_the_parameters(family: str) -> None:
    """Or `_plain` and `_diff` would not be paired."""
    draws = [started(family, {"lr": lr})[-1][:-1] for lr in (0.0, 1.0)]
    for one, other in zip(*draws, strict=True):
        assert torch.equal(one, other)


def noise_is_drawn_at_once(family: str) -> None:
    """In one call of the stream a generation: where it is compiled, a second would repeat the first's numbers."""
    algorithm, _, _, _, _ = started(family, {})
    counted = _Counted(range(3), torch.float64, "cpu")
    algorithm.noise(counted)
    assert counted.calls <= 1, f"the noise of a generation is drawn in {counted.calls} calls, not in one"


class _Counted(Streams):
    """Streams that know how often they were asked."""

    calls = 0

    def uniform(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        self.calls += 1
        return super().uniform(*shapes)

    def normal(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        self.calls += 1
        return super().normal(*shapes)


OF_ALGORITHMS: tuple[Callable[[str], None], ...] = (
    minimises_the_sphere,
    record_is_honest,
    every_evaluation_is_counted_and_inside_the_box,
    a_run_depends_on_its_own_seed_alone,
    bad_values_neither_win_nor_spread,
)
"""What to call with the name of every variant."""

OF_FAMILIES: tuple[Callable[[str], None], ...] = (
    plain_equals_diff_with_learning_rate_0,
    winners_path_is_full_backpropagation,
    gradient_matches_finite_differences,
    noise_does_not_depend_on_the_parameters,
    noise_is_drawn_at_once,
)
"""What to call with the name of the family."""
