"""Guarded descents: against textbook BFGS, SciPy, and their own promises."""

from functools import partial

import numpy as np
import pytest
import scipy.optimize
import torch

from evobench.evograd import FAMILIES, descent
from evobench.evograd.loop import Evaluator, Generation, nothing_yet, run_batch
from evobench.evograd.space import Space, Streams
from evobench.problems import make_problem


def space_of(problem, seeds=3, pop=10):
    return Space.of(problem, seeds, pop, "uniform", torch.float64, "cpu")


def descent_from(problem, seeds=3, pop=40):
    space = space_of(problem, seeds, pop)
    objective = Evaluator(problem, nothing_yet(space)).with_gradient
    x = space.start(Streams(range(seeds), torch.float64, "cpu"), 1)
    return descent.begin(x, *objective(x), space), objective, space


@pytest.mark.parametrize("pairs", [0, 1, 3, descent.MEMORY])
def test_direction_is_that_of_bfgs(pairs):
    """The compact form against the recursion H ← (I − ρsyᵀ) H (I − ρysᵀ) + ρssᵀ (Nocedal and Wright, eq. 6.17)."""
    rng, dim = np.random.default_rng(pairs), 7
    hessian = np.diag(rng.uniform(0.5, 5.0, dim))
    begun, _, _ = descent_from(make_problem("sphere", dim), seeds=2)
    steps, gradient = rng.standard_normal((pairs, dim)), rng.standard_normal(dim)
    changes = steps @ hessian
    inverse = np.eye(dim)
    if pairs:
        inverse *= (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y in zip(steps, changes, strict=True):
        turn = np.eye(dim) - np.outer(s, y) / (s @ y)
        inverse = turn @ inverse @ turn.T + np.outer(s, s) / (s @ y)

    def filled(rows):
        both = torch.zeros(2, descent.MEMORY, dim, dtype=torch.float64)
        both[1, descent.MEMORY - pairs :] = torch.from_numpy(rows)
        return both

    known = begun._replace(
        steps=filled(steps), changes=filled(changes), gradient=torch.from_numpy(np.stack([gradient, gradient]))[:, None]
    )
    towards = descent.direction(known)[:, 0].numpy()
    np.testing.assert_allclose(towards[1], -inverse @ gradient, rtol=1e-9)
    np.testing.assert_array_equal(towards[0], -gradient)  # a run that knows nothing


def test_it_reaches_what_scipy_reaches():
    """Rosenbrock's valley, each run from its own point, in a like number of gradients."""
    problem = make_problem("rosenbrock", 6)
    now, objective, space = descent_from(problem, seeds=4)
    starts = now.x[:, 0].numpy()
    for _ in range(60):
        now = descent.burst(now, objective, space)
    assert not now.going.any()
    for run, start in enumerate(starts):
        scipys = scipy.optimize.minimize(problem, start, method="L-BFGS-B", options={"maxcor": descent.MEMORY})
        assert min(abs(float(now.f[run]) - value) for value in (0.0, 3.98)) < 0.02, (now.f[run], scipys.fun)
        assert now.taken[run] < 4 * scipys.nfev


def test_steps_are_kept_only_where_they_improve_and_stay_in_the_box():
    problem = make_problem("michalewicz", 5)
    seen = []
    now, objective, space = descent_from(problem)

    def spy(x):
        value, gradient = objective(x)
        seen.append((x.clone(), value.clone()))
        return value, gradient

    for _ in range(10):
        before, first = now, len(seen)
        now = descent.burst(now, spy, space)
        assert (now.f <= before.f).all()
        assert torch.equal(problem(now.x), now.f)
        for run in range(3):
            values = [float(value[run]) for _, value in seen[first:]]
            taken = int(now.taken[run] - before.taken[run])
            # Of the steps that it paid for, the best is where it is.
            assert float(now.f[run]) == min([float(before.f[run]), *values[:taken]])
    assert torch.cat([x for x, _ in seen]).abs().max() <= 100


def test_runs_that_do_not_descend_stay_as_they_are():
    now, objective, space = descent_from(make_problem("rosenbrock", 4))
    now = now._replace(going=torch.tensor([True, False, True]))
    after = descent.burst(now, objective, space)
    for name, value in now._asdict().items():
        assert torch.equal(getattr(after, name)[1], value[1]), name
    assert (after.f < now.f)[[0, 2]].all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_either_samples_or_descends(family):
    """What it does not do leaves no trace, and both are counted."""
    problem = make_problem("ackley", 5)
    space = space_of(problem)
    algorithm = FAMILIES[family].build(FAMILIES[family].settings(), space)
    rng, evaluate = Streams(range(3), torch.float64, "cpu"), Evaluator(problem, nothing_yet(space))
    with torch.no_grad():
        params, state = algorithm.init(rng, evaluate)
        generation = Generation(algorithm, problem, "guarded")
        carry, turns = generation.first(params, state, evaluate.best), 120
        sampled = torch.zeros(3, dtype=torch.int32)
        for _ in range(turns):
            descends, before = carry.descent.going, carry
            carry = generation(carry, algorithm.noise(rng))
            sampled += ~descends
            for old, new in zip(before.params, carry.params, strict=True):
                assert torch.equal(old[descends], new[descends])
            assert torch.equal(problem(carry.best.x), carry.best.f)
            assert (carry.best.f <= before.best.f).all()
    f_evals, g_evals = generation.spent(carry, turns)
    steps = f_evals - sampled * space.pop
    assert 0 < int(sampled.min()) <= int(sampled.max()) < turns
    assert (turns - sampled <= steps).all()
    assert (steps <= (turns - sampled) * descent.steps(space.pop)).all()
    descents = g_evals - steps - sampled * bool(generation.learn)
    assert (descents >= 1).all()
    assert (descents <= 1 + sampled).all()


def test_where_sampling_crawls_descents_pay():
    """A valley that no generation of the GA sees to the end; the budget is kept."""
    problem = make_problem("rosenbrock", 8)
    records = {
        gradient: run_batch(
            partial(FAMILIES["ga"].build, FAMILIES["ga"].settings()),
            problem,
            gradient=gradient,
            seeds=range(4),
            pop_size=20,
            budget=8000,
            init="uniform",
            gradient_cost=5.0,
            dtype=torch.float64,
        )
        for gradient in ("guarded", "off")
    }
    best = {gradient: np.median([record.best_f for record in batch]) for gradient, batch in records.items()}
    assert best["guarded"] < 1e-3 * best["off"]
    assert all(record.f_evals + 5 * record.g_evals <= 8000 for record in records["guarded"])
