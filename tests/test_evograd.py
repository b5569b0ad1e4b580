"""What every differentiable algorithm promises: one matrix over the registry."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from evobench import testing
from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES, VARIANTS, cmaes
from evobench.evograd.cmaes import CMAES, Settings
from evobench.evograd.loop import Best, Evaluator, Generation, nothing_yet
from evobench.evograd.space import Space, Streams
from evobench.problems import make_problem
from evobench.testing import assert_same, run, started

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


SPHERE_GOAL = {"ga": 1.0, "pso": 1e-3, "cmaes": 1e-3, "de": 1.0, "de_released": 2000.0}
"""`de_released` hardly moves where fitness is large: its three soft partners coincide."""


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_minimises_the_sphere(name):
    """A median of 3 runs; 6,000 random points reach about 100."""
    testing.minimises_the_sphere(name, SPHERE_GOAL.get(name, SPHERE_GOAL[ALGORITHMS[name].family]))


@pytest.mark.parametrize("strategy", ["rand/1", "current-to-best/1"])
def test_hard_de_converges(strategy):
    """With hard partners it is classical DE, which solves the sphere."""
    settings = {"selection": "hard", "strategy": strategy}
    records = run("de_plain", "sphere", 3, budget=6000, pop=30, settings=settings, dtype=torch.float64)
    assert max(record.best_f for record in records) < 1e-6


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
@pytest.mark.parametrize("promise", testing.OF_ALGORITHMS[1:])
def test_every_variant_keeps_every_promise(name, promise):
    promise(name)


@pytest.mark.parametrize("name", ["cmaes_diff", "cmaes_plain"])
@pytest.mark.parametrize("promise", testing.OF_ALGORITHMS)
def test_cmaes_keeps_every_promise_with_large_matrices(name, promise, monkeypatch):
    """As at 500D: by blocks, column by column, the lower triangle alone."""
    monkeypatch.setattr(cmaes, "_BLOCK", 2)
    promise(name)


@pytest.mark.parametrize("promise", testing.OF_FAMILIES[1:])
def test_the_family_of_cmaes_keeps_every_promise_with_large_matrices(promise, monkeypatch):
    """All but the first, that a learning rate of 0 changes no bit: a large C is L Lᵀ − ε I after any step on L."""
    monkeypatch.setattr(cmaes, "_BLOCK", 2)
    promise("cmaes")


def test_cmaes_is_the_same_by_blocks(monkeypatch):
    """But for rounding, while that has not grown."""
    whole = run("cmaes_diff", dim=7, budget=100, dtype=torch.float64)
    monkeypatch.setattr(cmaes, "_BLOCK", 3)
    for one, other in zip(whole, run("cmaes_diff", dim=7, budget=100, dtype=torch.float64), strict=True):
        np.testing.assert_allclose(other.best_x, one.best_x, rtol=1e-6)
        assert other.best_f == pytest.approx(one.best_f, rel=1e-6)


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_gradients_of_a_generation(name):
    """As many as the variant says; of the guarded ones, see test_descent.py."""
    if name.endswith("_guarded"):
        return
    record = run(name)[0]
    expected = {"off": 0, "overwritten": 1, "kept": 1}
    generations = (record.f_evals - (0 if "cmaes" in name else 20)) // 20
    assert record.g_evals == generations * expected[VARIANTS[ALGORITHMS[name].variant].gradient]


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_equals_diff_with_learning_rate_0(family):
    testing.plain_equals_diff_with_learning_rate_0(family)


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
    testing.winners_path_is_full_backpropagation(family, overrides, least=3)


@pytest.mark.parametrize(("family", "overrides"), CHOICES)
def test_gradient_matches_finite_differences(family, overrides):
    """Of a smooth function of the candidates, for the parameters that have no straight-through part."""
    hard = overrides.get("selection") == "hard"
    skipped = {"crossover_logit", "mutation_logit", "log_mask_temperature"}  # hard masks
    skipped |= {"selection_logit", "log_temperature"} if hard else set()
    testing.gradient_matches_finite_differences(family, overrides, sorted(skipped))


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
    testing.noise_does_not_depend_on_the_parameters(family)
    testing.noise_is_drawn_at_once(family)


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
import sys
from pathlib import Path
from unittest.mock import patch
import numpy as np
import torch
from evobench.evograd.checkpoint import Checkpoint
from evobench.experiment import make_experiment
from evobench.tasks import Task, execute

class Third(Checkpoint):
    '''Saved after three turns, as if the run had been killed then.'''

    looks = 0

    @property
    def due(self):
        self.looks += 1
        return self.looks == 3

content = {"algo": "pso_diff,cmaes_guarded", "fn": "ackley", "dim": 6, "pop": 10, "budget": 90, "dtype": "float64"}
for eager, compiled in zip(*(make_experiment(content | {"compile": on}).cells() for on in (False, True))):
    assert eager.settings_hash != compiled.settings_hash
    path = Path(sys.argv[1], eager.algo)

    def records(checkpoint=None):
        return execute(Task(compiled, (0, 1, 2)), lambda share, best: None, checkpoint)

    whole = records(Third(path, "it"))
    resumed = records(Checkpoint(path, "it"))
    with patch.object(torch, "compile", lambda program, **options: program):
        each = records()
    for one, again, other in zip(each, resumed, whole, strict=True):
        # Normals are made in float32, and the compiler rounds their logarithms in its own way.
        np.testing.assert_allclose(other.history, one.history, rtol=1e-9 if eager.algo == "pso_diff" else 1e-5)
        np.testing.assert_array_equal(other.history, again.history)
        assert (other.f_evals, other.g_evals) == (one.f_evals, one.g_evals)
        print(eager.algo, one.seed)
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_generations_compute_the_same(tmp_path):
    """Up to rounding, over a few generations: nothing chaotic has time to grow. Resumed, to the bit.

    In a process of its own: the compiler does not take functions whose shapes beartype checks.
    """
    done = subprocess.run([sys.executable, "-c", COMPARE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize("dim", [30, 50])
def test_at_the_papers_size_seeds_are_independent_in_float64(dim):
    """In float32 the BLAS rounds by a matrix's alignment, so a run's place in the batch may show there."""
    for name in ("de_diff", "cmaes_diff"):
        batch = run(name, "rosenbrock", dim, seeds=range(4), budget=600, pop=100, dtype=torch.float64)
        alone = run(name, "rosenbrock", dim, seeds=(3,), budget=600, pop=100, dtype=torch.float64)
        assert_same(batch[3], alone[0])


def test_a_run_has_no_denormals_and_leaves_the_mode_as_it_was():
    """With some among its parents a product takes a hundred times as long."""
    sphere, seen = make_problem("sphere", 5), set()

    def evaluate(x):
        seen.add(float(torch.tensor([1e-38]) * 0.1))
        return sphere.evaluate(x)

    run("de_diff", problem=dataclasses.replace(sphere, evaluate=evaluate))
    assert seen == {0.0}
    assert float(torch.tensor([1e-38]) * 0.1) > 0


def test_gradient_is_charged():
    free = run("pso_diff", budget=2000)[0]
    charged = run("pso_diff", budget=2000, gradient_cost=20.0)[0]
    assert free.f_evals == 2000
    assert charged.f_evals + 20 * charged.g_evals <= 2000 < charged.f_evals + 20 * charged.g_evals + 40


@pytest.mark.parametrize(
    ("dtype", "gradient", "block"),
    [(torch.float32, "kept", 128), (torch.float64, "off", 128), (torch.float32, "kept", 3)],
)
def test_cmaes_keeps_its_invariants_for_5000_generations(dtype, gradient, block, monkeypatch):
    """Long after it has converged: L Lᵀ = C + ε I, σ in its bounds, C bounded, and both precisions solve it."""
    monkeypatch.setattr(cmaes, "_BLOCK", block)
    problem, seeds, pop, dim = make_problem("rosenbrock", 4), 2, 10, 4
    space = Space.of(problem, seeds, pop, "uniform", dtype, "cpu")
    algorithm = CMAES(Settings(), space)
    rng, evaluate = Streams(range(seeds), torch.float32, "cpu"), Evaluator(problem, nothing_yet(space))
    with torch.no_grad():
        generation = Generation(algorithm, problem, gradient)
        carry = generation.first(*algorithm.init(rng, evaluate), evaluate.best)
        for number in range(1, 5001):
            carry = generation(carry, algorithm.noise(rng))
            if number % 500:
                continue
            factor, covariance = carry.state.factor.double(), carry.state.covariance.double()
            covariance = covariance.tril() + covariance.tril(-1).mT  # of a large one the rest is not kept up
            epsilon = (factor @ factor.mT - covariance).diagonal(dim1=-2, dim2=-1)
            scale = (factor @ factor.mT).diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
            rest = (factor @ factor.mT - covariance - torch.diag_embed(epsilon)) / scale
            assert rest.abs().max() < 10 * dim * torch.finfo(dtype).eps
            assert (epsilon - epsilon[:, :1]).abs().max() <= 10 * torch.finfo(dtype).eps * scale.max()
            assert ((epsilon > 0.9e-7) & (epsilon < 0.11)).all()
            assert torch.linalg.eigvalsh(covariance).abs().max() < 1e3
            assert carry.params.log_sigma.min() >= -80
            assert carry.params.log_sigma.max() <= algorithm.max_log_sigma
    assert (carry.best.f < 1e-8).all()
