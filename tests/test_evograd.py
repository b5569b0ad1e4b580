"""What every differentiable algorithm promises: one matrix over the registry."""

import dataclasses
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES, VARIANTS
from evobench.evograd.loop import Best, Evaluator, Generation, nothing_yet, run_batch
from evobench.evograd.space import Space, Streams
from evobench.problems import PAPER_FUNCTIONS, draw_shift, make_problem

TENSOR_ALGORITHMS = [name for name, algorithm in ALGORITHMS.items() if algorithm.backend == "evograd"]
CHOICES = [
    ("ga", {}),
    ("ga", {"selection": "hard", "noise": "gumbel"}),
    ("de", {}),
    ("de", {"strategy": "current-to-best/1", "fitness_logits": True}),
    ("de", {"selection": "hard"}),
    ("pso", {}),
    ("cmaes", {}),
    ("cmaes", {"weights": "rank", "constants": "released", "reflected_steps": False}),
]


def run(name, fn="rosenbrock", dim=5, *, seeds=(0, 1, 2), budget=400, pop=20, problem=None, settings=None, **options):
    """Records of one registered algorithm on a small problem."""
    algorithm = ALGORITHMS[name]
    return run_batch(
        partial(FAMILIES[algorithm.family].build, algorithm.configure(settings or {})),
        problem or make_problem(fn, dim),
        gradient=VARIANTS[algorithm.variant].gradient,
        seeds=seeds,
        pop_size=pop,
        budget=budget,
        init=options.pop("init", algorithm.own_start),
        **options,
    )


def assert_same(left, right):
    """Two runs are the same to the bit."""
    assert left.best_f == right.best_f
    np.testing.assert_array_equal(left.best_x, right.best_x)
    np.testing.assert_array_equal(left.history, right.history)
    assert left.learned.keys() == right.learned.keys()
    for name in left.learned:
        np.testing.assert_array_equal(left.learned[name], right.learned[name])


def started(family, overrides, *, seeds=3, pop=8, dim=4, fn="rosenbrock", generations=3, dtype=torch.float64):
    """An algorithm a few generations into its run, and the next generation's noise."""
    problem = make_problem(fn, dim)
    space = Space.of(problem, seeds, pop, "uniform", dtype, "cpu")
    algorithm = FAMILIES[family].build(FAMILIES[family].settings(**overrides), space)
    rng, evaluate = Streams(range(seeds), dtype, "cpu"), Evaluator(problem, nothing_yet(space))
    with torch.no_grad():
        step = Generation(algorithm, problem, "kept")
        carry = step.first(*algorithm.init(rng, evaluate), evaluate.best)
        for _ in range(generations):
            carry = step(carry, algorithm.noise(rng))
        return algorithm, problem, carry.params, carry.state, algorithm.noise(rng)


SPHERE_GOAL = {"ga": 1.0, "pso": 1e-3, "cmaes": 1e-3, "de": 1.0, "de_released": 2000.0}
"""`de_released` hardly moves where fitness is large: its three soft partners coincide."""


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_minimises_the_sphere(name):
    """A median of 3 runs; 6,000 random points reach about 100."""
    records = run(name, "sphere", 3, budget=6000, pop=30, init="uniform", dtype=torch.float64)
    assert np.median([record.best_f for record in records]) < SPHERE_GOAL.get(
        name, SPHERE_GOAL[ALGORITHMS[name].family]
    )


@pytest.mark.parametrize("strategy", ["rand/1", "current-to-best/1"])
def test_hard_de_converges(strategy):
    """With hard partners it is classical DE, which solves the sphere."""
    settings = {"selection": "hard", "strategy": strategy}
    records = run("de_plain", "sphere", 3, budget=6000, pop=30, settings=settings, dtype=torch.float64)
    assert max(record.best_f for record in records) < 1e-6


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
@pytest.mark.parametrize("fn", PAPER_FUNCTIONS)
def test_record_is_honest(name, fn):
    problem = make_problem(fn, 5)
    for record in run(name, fn, 5, gradient_cost=3.0):
        assert problem(record.best_x) == record.best_f
        assert (np.abs(record.best_x) <= 100).all()
        assert record.f_evals + 3 * record.g_evals <= 400
        assert record.evals[-1] == record.f_evals + 3 * record.g_evals
        assert (np.diff(record.evals) > 0).all()
        assert (np.diff(record.history) <= 0).all()
        assert record.history[-1] == record.best_f


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_every_evaluation_is_counted_and_inside_the_box(name):
    """Against a count made where the objective is called."""
    problem = make_problem("rosenbrock", 5)
    seen = []

    def spy(x):
        if not torch.is_grad_enabled():
            seen.append(x.clone())
        return problem.evaluate(x)

    spied = type(problem)("spy", 5, spy, problem.lower, problem.upper)
    records = run(name, problem=spied)
    points = torch.cat(seen, dim=1)
    assert points.abs().max() <= 100
    if "guarded" in name:  # see test_descent.py
        return
    assert points.shape[1] == records[0].f_evals
    best = problem.evaluate(points).amin(1)
    assert best.tolist() == [record.best_f for record in records]
    expected = {"off": 0, "overwritten": 1, "kept": 1}
    generations = (records[0].f_evals - (0 if "cmaes" in name else 20)) // 20
    assert records[0].g_evals == generations * expected[VARIANTS[ALGORITHMS[name].variant].gradient]


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_depends_on_its_own_seed_alone(name, dtype):
    shifts = np.stack([draw_shift(seed, make_problem("ackley", 7), 60.0) for seed in range(6)])[:, None]
    problem = make_problem("ackley", 7)
    batch = run(name, problem=problem.shifted(shifts), seeds=range(6), budget=1200, dtype=dtype)
    alone = run(name, problem=problem.shifted(shifts[4:5]), seeds=(4,), budget=1200, dtype=dtype)
    assert_same(batch[4], alone[0])
    assert len({record.best_f for record in batch}) == 6


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_bad_values_neither_win_nor_spread(name, bad):
    problem = make_problem("sphere", 4)

    def hostile(x):
        value = problem.evaluate(x)
        value = torch.where(x[..., 0] > 60, bad, value)  # a fifth of the space of every run
        if x.shape[0] == 3:
            value = torch.cat([torch.full_like(value[:1], bad), value[1:]])  # and all of the first
        return value

    spoiled = type(problem)("hostile", 4, hostile, problem.lower, problem.upper)
    records = run(name, problem=spoiled, init="uniform")
    assert records[0].best_f == np.inf
    for record in records[1:]:
        assert np.isfinite(record.best_f)
        assert record.best_x[0] <= 20
    untouched = run(name, problem=spoiled, seeds=(1, 2), init="uniform")
    assert_same(records[1], untouched[0])
    assert_same(records[2], untouched[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fn", ["ackley", "rosenbrock"])
def test_plain_equals_diff_with_learning_rate_0(family, fn):
    plain = run(f"{family}_plain", fn, budget=600)
    still = run(f"{family}_diff", fn, budget=600, settings={"lr": 0.0})
    moving = run(f"{family}_diff", fn, budget=600)
    for one, other in zip(plain, still, strict=True):
        assert_same(one, other)
    # The gradient does something.
    assert any(not np.array_equal(one.history, third.history) for one, third in zip(plain, moving, strict=True))


def test_cmaes_released_does_not_depend_on_the_learning_rate():
    """Listing 1 as released overwrites every step that CMA-ES takes (to the bit)."""
    for one, other in zip(
        run("cmaes_released", budget=2000), run("cmaes_released", budget=2000, settings={"lr": 0.0}), strict=True
    ):
        assert_same(one, other)


@pytest.mark.parametrize("family", ["ga", "de", "pso"])
def test_released_learns_its_hyper_parameters_alone(family):
    moving, still = run(f"{family}_released"), run(f"{family}_released", settings={"lr": 0.0})
    assert any(moving[0].learned[name][-1] != still[0].learned[name][-1] for name in moving[0].learned)
    if family in ("ga", "de"):
        assert (moving[0].learned["crossover_rate"] == moving[0].learned["crossover_rate"][0]).all()


@pytest.mark.parametrize(("family", "overrides"), CHOICES)
def test_winners_path_is_full_backpropagation(family, overrides):
    algorithm, problem, params, state, noise = started(family, overrides, fn="ackley")
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
        torch.testing.assert_close(short[name], gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max() + 1e-300))
        reached += bool(gradient.abs().max() > 0)
    assert reached >= 3


@pytest.mark.parametrize(("family", "overrides"), CHOICES)
def test_gradient_matches_finite_differences(family, overrides):
    """Of a smooth function of the candidates, for the parameters that have no straight-through part."""
    algorithm, _, params, state, noise = started(family, overrides)
    hard = overrides.get("selection") == "hard"
    skipped = {"crossover_logit", "mutation_logit", "log_mask_temperature"}  # hard masks
    skipped |= {"selection_logit", "log_temperature"} if hard else set()
    weights = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(leaves):
        return (algorithm.propose(leaves, state, noise)[0] * weights).sum()

    leaves = type(params)(*(value.clone().requires_grad_() for value in params))
    grads = torch.autograd.grad(loss(leaves), leaves, materialize_grads=True)
    generator = torch.Generator().manual_seed(2)
    for name, gradient in zip(params._fields, grads, strict=True):
        if name in skipped:
            continue
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        value, eps = getattr(params, name), 1e-6
        if name == "factor":
            direction = direction.tril()
        with torch.no_grad():
            ahead = loss(params._replace(**{name: value + eps * direction}))
            behind = loss(params._replace(**{name: value - eps * direction}))
        numeric, exact = float(ahead - behind) / (2 * eps), float((gradient * direction).sum())
        assert exact == pytest.approx(numeric, rel=2e-4, abs=1e-4), name


@pytest.mark.parametrize(("family", "overrides"), CHOICES)
def test_stored_fitness_is_that_of_the_stored_position(family, overrides):
    algorithm, problem, params, state, noise = started(family, overrides)
    with torch.no_grad():
        x, carry = algorithm.propose(params, state, noise)
        params, state = algorithm.commit(params, state, noise, x, problem(x), carry)
    if family == "pso":
        pairs = [(state.personal_x, state.personal_f), (state.global_x, state.personal_f.amin(1, keepdim=True))]
    elif family == "cmaes":
        pytest.skip("CMA-ES stores no fitness")
    else:
        pairs = [(params.x, state.fitness), (state.elite_x, state.elite_f)]
    for position, fitness in pairs:
        torch.testing.assert_close(problem(position), fitness, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_does_not_depend_on_the_parameters(family):
    draws = []
    for lr in (0.0, 1.0):
        *_, noise = started(family, {"lr": lr})
        draws.append(noise[:-1])
    for one, other in zip(*draws, strict=True):
        assert torch.equal(one, other)


def test_noise_is_the_same_alone_and_in_a_batch():
    together = Streams((3, 7, 11), torch.float32, "cpu")
    alone = Streams((7,), torch.float32, "cpu")
    for _ in range(3):
        for one, other in zip(together.uniform((5, 4), (3,)), alone.uniform((5, 4), (3,)), strict=True):
            assert torch.equal(one[1], other[0])
            assert ((one > 0) & (one < 1)).all()
        assert torch.equal(together.normal((6, 5))[0][1], alone.normal((6, 5))[0][0])


@pytest.mark.parametrize("family", ["ga", "de"])
def test_the_elite_survives(family):
    algorithm, problem, params, state, _ = started(family, {})
    rng = Streams((9, 8, 7), torch.float64, "cpu")
    with torch.no_grad():
        step = Generation(algorithm, problem, "kept")
        carry = step.first(params, state, nothing_yet(algorithm.space))
        for _ in range(20):
            before = carry.state.elite_f
            carry = step(carry, algorithm.noise(rng))
            state = carry.state
            assert (state.elite_f <= before).all()
            assert (state.fitness.amin(1, keepdim=True) == state.elite_f).all()


def test_released_elitism_comes_before_the_loss():
    """The plateau schedule of the released GA and DE sees the best so far, not the best child."""
    for family, elitist in (("ga", True), ("pso", False)):
        algorithm, problem, params, state, _ = started(family, {"plateau_patience": 0})
        nothing = nothing_yet(algorithm.space)
        best = Best(nothing.x, torch.full_like(nothing.f, -1.0))  # below anything Rosenbrock has
        step = Generation(algorithm, problem, "overwritten")
        with torch.no_grad():
            carry = step.first(params, state, best)
            carry = step(carry, algorithm.noise(Streams(range(3), torch.float64, "cpu")))
        assert (carry.outer.best == -1.0).all() == elitist


def test_a_gradient_that_is_not_finite_counts_as_zero():
    """Everywhere else the gradient is what it was."""
    problem = dataclasses.replace(make_problem("sphere", 3), evaluate=lambda x: (x.abs().sqrt() + x).sum(-1))
    space = Space.of(problem, 2, 4, "uniform", torch.float64, "cpu")
    at = {"x": torch.tensor([[[0.0, 4.0, 1.0]], [[1.0, torch.nan, 0.0]]], dtype=torch.float64)}
    gradient = Evaluator(problem, nothing_yet(space)).gradients(lambda leaves: leaves["x"], at)["x"]
    assert gradient.flatten().tolist() == [0.0, 1.25, 1.5, 1.5, 0.0, 0.0]


COMPARE = """
import numpy as np
from evobench.experiment import make_experiment
from evobench.tasks import Task, execute

content = {"algo": "pso_diff,cmaes_guarded", "fn": "ackley", "dim": 6, "pop": 10, "budget": 90, "dtype": "float64"}
for eager, compiled in zip(*(make_experiment(content | {"compile": on}).cells() for on in (False, True))):
    assert eager.settings_hash != compiled.settings_hash
    pairs = zip(*(execute(Task(cell, (0, 1, 2)), lambda share, best: None) for cell in (eager, compiled)))
    for one, other in pairs:
        np.testing.assert_allclose(other.history, one.history, rtol=1e-9)
        assert (other.f_evals, other.g_evals) == (one.f_evals, one.g_evals)
        print(eager.algo, one.seed)
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_generations_compute_the_same():
    """Up to rounding, over a few generations: nothing chaotic has time to grow.

    In a process of its own: the compiler does not take functions whose shapes beartype checks.
    """
    done = subprocess.run([sys.executable, "-c", COMPARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize("dim", [30, 50])
def test_at_the_papers_size_seeds_are_independent_in_float64(dim):
    """In float32 the BLAS rounds by a matrix's alignment, so a run's place in the batch may show there."""
    for name in ("de_diff", "cmaes_diff"):
        batch = run(name, "rosenbrock", dim, seeds=range(4), budget=600, pop=100, dtype=torch.float64)
        alone = run(name, "rosenbrock", dim, seeds=(3,), budget=600, pop=100, dtype=torch.float64)
        assert_same(batch[3], alone[0])


def test_gradient_is_charged():
    free = run("pso_diff", budget=2000)[0]
    charged = run("pso_diff", budget=2000, gradient_cost=20.0)[0]
    assert free.f_evals == 2000
    assert charged.f_evals + 20 * charged.g_evals <= 2000 < charged.f_evals + 20 * charged.g_evals + 40
