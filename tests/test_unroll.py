"""Gradients through several generations: against finite differences, and what K = 1 must not change."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from test_checkpoint import Fatal, Killed
from test_evograd import assert_same, started

from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES
from evobench.evograd.cmaes import CMAES, Settings
from evobench.evograd.loop import Generation, nothing_yet, run_batch
from evobench.evograd.space import Space, Streams
from evobench.experiment import make_experiment
from evobench.problems import make_problem
from evobench.runner import batches
from evobench.tasks import Task, execute

CONSTANTS = ("logit_c_c", "logit_c_sigma", "log_c_1", "log_c_mu", "log_damps")
HARD = {"crossover_logit", "mutation_logit", "log_mask_temperature"}
"""Straight-through: their gradient is not the slope of what they do."""

STORED = {
    "ga_diff": "22704de71dc3",
    "de_diff": "a324f00bd090",
    "pso_diff": "ae879aa3f6dc",
    "cmaes_diff": "205c1861c3e6",
    "cmaes_released": "5def0df46036",
}


def run(family, unroll, *, problem=None, seeds=(0, 1, 2), budget=1200, lr=0.01, dtype=torch.float64, **options):
    settings = ALGORITHMS[f"{family}_diff"].configure({"unroll": unroll, "lr": lr})
    return run_batch(
        partial(FAMILIES[family].build, settings),
        problem or make_problem("rosenbrock", 4),
        gradient=options.pop("gradient", "kept"),
        seeds=seeds,
        pop_size=20,
        budget=budget,
        init="uniform",
        dtype=dtype,
        **options,
    )


def cells(algo, **content):
    return make_experiment({"algo": algo, "fn": "sphere", "dim": 4, "pop": 10, "budget": 900, **content}).cells()


def unrolled(algo, unroll, **content):
    return cells(algo, settings={algo: {"unroll": unroll}}, **content)[0]


# K = 1


@pytest.mark.parametrize("family", FAMILIES)
def test_one_generation_is_what_there_was(family):
    """To the bit and to the hash."""
    algo = f"{family}_diff"
    plain, one = cells(algo)[0], unrolled(algo, 1)
    assert one.settings_hash == plain.settings_hash
    assert one.settings == plain.settings
    assert "unroll" not in plain.settings
    assert unrolled(algo, 2).settings_hash != plain.settings_hash
    assert unrolled(algo, 2).settings_hash != unrolled(algo, 3).settings_hash
    pairs = (execute(Task(cell, (0, 1)), lambda share, best: None) for cell in (plain, one))
    for left, right in zip(*pairs, strict=True):
        assert_same(left, right)


def test_hashes_of_stored_tensor_programs_never_change():
    """As in results/figure1 from before there was such a setting."""
    content = {"algo": "ga_diff,de_diff,pso_diff,cmaes_diff,cmaes_released", "fn": "ackley", "dim": 30}
    found = {cell.algo: cell.settings_hash for cell in make_experiment({**content, "device": "cpu"}).cells()}
    assert found == STORED


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_makes_the_same_generations(family):
    """With learning rate 0 the windows' runs are those without a gradient, but for the rounding of CMA-ES's rates."""
    windows, plain = run(family, 4, lr=0.0, budget=400), run(family, 1, lr=0.0, gradient="off", budget=400)
    for one, other in zip(windows, plain, strict=True):
        shared = {cost: value for cost, value in zip(other.evals, other.history, strict=True)}
        assert len(one.evals) >= 4
        expected = [shared[cost] for cost in one.evals]
        np.testing.assert_allclose(one.history, expected, rtol=1e-6 if family == "cmaes" else 0)


# The gradient


@pytest.mark.parametrize("unroll", [2, 4])
@pytest.mark.parametrize(
    ("family", "overrides", "fn"),
    [
        ("cmaes", {}, "rosenbrock"),
        ("cmaes", {"weights": "rank", "reflected_steps": False}, "rosenbrock"),
        ("cmaes", {"constants": "released"}, "rosenbrock"),
        ("pso", {}, "rosenbrock"),
        ("ga", {}, "ackley"),  # where fitness does not make an argmax of the selection
        ("de", {}, "rosenbrock"),
        ("de", {"fitness_logits": True, "strategy": "current-to-best/1"}, "ackley"),
    ],
)
def test_gradient_is_the_slope_of_the_unrolled_map(family, overrides, fn, unroll):
    """Finite differences of K generations, from parameters to the best of the last."""
    algorithm, problem, params, state, noise = started(family, {**overrides, "unroll": unroll}, dim=3, fn=fn)
    rng = Streams((5, 6, 7), torch.float64, "cpu")
    noises = [noise, *(algorithm.noise(rng) for _ in range(unroll - 1))]
    seen = {}

    def loss(params):
        state_now = state
        for noise in noises[:-1]:
            x, made = algorithm.propose(params, state_now, noise)
            params, state_now = algorithm.commit(params, state_now, noise, x, problem(x), made)
        return problem(algorithm.propose(params, state_now, noises[-1])[0]).amin(1)

    step = Generation(algorithm, problem, "kept", lambda params, grads: seen.update(grads))
    with torch.no_grad():
        step(step.first(params, state, nothing_yet(algorithm.space)), *noises)
        assert set(seen) == set(params._fields)
        generator, compared = torch.Generator().manual_seed(2), 0
        for name in set(seen) - HARD:
            direction = torch.randn(seen[name].shape, generator=generator, dtype=torch.float64)
            if name == "factor":
                direction = direction.tril()
                assert torch.equal(seen[name], seen[name].tril())
            value = getattr(params, name)
            exact = (seen[name] * direction).flatten(1).sum(1) if direction.ndim > 1 else seen[name] * direction
            numeric = []
            for eps in (1e-5, 1e-6):
                ahead, behind = (loss(params._replace(**{name: value + e * direction})) for e in (eps, -eps))
                numeric.append((ahead - behind) / (2 * eps))
            # Where the two differ a choice (a rank, a wall) changed between the points.
            scale = exact.abs() + 1e-6 * loss(params)
            smooth = (numeric[0] - numeric[1]).abs() < 1e-3 * scale
            assert ((numeric[1] - exact).abs() < 2e-3 * scale)[smooth].all(), name
            compared += int(smooth.sum())
        assert compared > 2 * len(set(seen) - HARD), "most are smooth"


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_learned_constant_is_moved_along_its_slope(name):
    """Adam's first step is lr against the gradient's sign, whatever its size."""
    algorithm, problem, params, state, noise = started("cmaes", {"unroll": 3, "lr": 0.02})
    rng, seen = Streams((5, 6, 7), torch.float64, "cpu"), {}
    step = Generation(algorithm, problem, "kept", lambda params, grads: seen.update(grads))
    with torch.no_grad():
        carry = step.first(params, state, nothing_yet(algorithm.space))
        after = step(carry, noise, algorithm.noise(rng), algorithm.noise(rng))
    moved = getattr(after.params, name) - getattr(params, name)
    torch.testing.assert_close(moved, -0.02 * seen[name].sign(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("dim", "constants"), [(1, "hansen"), (2, "hansen"), (30, "hansen"), (2, "released"), (30, "released")]
)
def test_learned_constants_start_as_they_are_and_stay_rates(dim, constants):
    space = Space.of(make_problem("sphere", dim), 2, 20, "uniform", torch.float64, "cpu")
    algorithm = CMAES(Settings(unroll=2, constants=constants), space)
    params, _ = algorithm.init(Streams((0, 1), torch.float64, "cpu"), None)
    for value, expected in zip(algorithm.constants_of(params), algorithm.constants, strict=True):
        torch.testing.assert_close(value, torch.full_like(value, expected), rtol=1e-5, atol=2e-6)
    generator = torch.Generator().manual_seed(0)
    wild = {name: 30 * torch.randn(2, 1, 1, generator=generator, dtype=torch.float64) for name in CONSTANTS}
    c = algorithm.constants_of(params._replace(**wild))
    for rate in (c.c_c, c.c_sigma, c.c_1, c.c_mu, c.c_1 + c.c_mu):
        assert ((rate >= 0) & (rate <= 1)).all()
    assert (c.damps > 0).all()


# Runs


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_are_counted(family):
    """A gradient a window; where weights follow from fitness, also one of each individual before."""
    generations = (1200 - (0 if family == "cmaes" else 20)) // 20
    records = run(family, 3)
    windows = generations // 3
    each = 1 + 2 * 20 if family in ("ga", "cmaes") else 1
    assert records[0].g_evals == windows * each
    assert records[0].f_evals == (0 if family == "cmaes" else 20) + windows * 60 <= 1200
    charged = run(family, 3, gradient_cost=2.0)[0]
    assert charged.f_evals + 2 * charged.g_evals <= 1200
    assert all(record.history[-1] == record.best_f for record in records)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_depends_on_its_own_seed_alone(family):
    assert_same(run(family, 3, seeds=range(4))[2], run(family, 3, seeds=(2,))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_learning_changes_the_constants(dtype):
    record = run("cmaes", 5, dtype=dtype, budget=1000)[0]
    for name in ("c_c", "c_sigma", "c_1", "c_mu", "damps"):
        values = record.learned[name]
        assert np.isfinite(values).all()
        assert values[0] != values[-1], name
    assert "c_c" not in run("cmaes", 1)[0].learned


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_values_do_not_spread(family):
    """An objective that is NaN or infinite in most of the box, and a huge learning rate."""
    from dataclasses import replace

    sphere = make_problem("sphere", 4)

    def holes(x):
        value = x.square().sum(-1)
        return torch.where(x[..., 0] > 20, torch.nan, torch.where(x[..., 1] > 20, torch.inf, value))

    for record in run(family, 4, problem=replace(sphere, evaluate=holes), lr=10.0):
        assert np.isfinite(record.best_f)
        assert np.isfinite(record.best_x).all()
        assert all(np.isfinite(values).all() for values in record.learned.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_batch_computes_the_same(family, tmp_path):
    path = tmp_path / "batch.pt"
    for turns in (1, 4):
        with pytest.raises(Killed):
            run(family, 3, checkpoint=Fatal(path, at=(turns,)))
    for one, other in zip(run(family, 3, checkpoint=Fatal(path, at=())), run(family, 3), strict=True):
        assert_same(one, other)


def test_a_batch_is_as_much_smaller_as_a_window_is_longer():
    seeds = range(1000)
    cells = (unrolled("pso_diff", k, dim=500, pop=100, budget=10**6) for k in (1, 10))
    one, ten = (batches(cell, seeds, room=2**29) for cell in cells)  # so little that memory sets both
    assert len(ten[0].seeds) == len(one[0].seeds) // 10


@pytest.mark.parametrize(
    ("algo", "unroll", "content", "says"),
    [
        ("cmaes_diff", 0, {}, "cmaes_diff.unroll"),
        ("cmaes_diff", 2.5, {}, "2.5"),
        ("cmaes_plain", 2, {}, "bad value 2 for cmaes_plain.unroll: it must be 1"),
        ("pso_released", 2, {}, "it must be 1"),
        ("ga_guarded", 2, {}, "it must be 1"),
        ("cmaes_diff", 2, {"compile": True}, "compile and cmaes_diff.unroll 2 do not go together"),
        ("cmaes_diff", 10, {"budget": 99}, "budget 99 is too small: 10 generations of cmaes_diff cost 100"),
        ("cmaes_diff", 2, {"budget": 70, "gradient_cost": 5}, "cost 75"),
    ],
)
def test_what_does_not_go_is_refused(algo, unroll, content, says, refused):
    with refused(says):
        unrolled(algo, unroll, **content)
