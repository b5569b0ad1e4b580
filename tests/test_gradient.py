"""Adam, Lion and L-BFGS: their updates against independent ones, their budget, their starts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize

import evobench
from evobench.algorithms import ALGORITHMS
from evobench.baselines import gradient
from evobench.evograd.loop import run_batch
from evobench.evograd.space import Space, Streams
from evobench.experiment import make_experiment
from evobench.problems import BOX, Problem, make_problem
from evobench.tasks import Task, execute

NAMES = ("adam", "lion", "lbfgs")


def bowl(dim: int = 4, scale: float = 1.0) -> Problem:
    """A quadratic whose coordinates differ in curvature, optimum at 3."""
    weights = torch.arange(1, dim + 1, dtype=torch.float64)

    def evaluate(x: torch.Tensor) -> torch.Tensor:
        return scale * (weights * (x - 3).square()).sum(-1)

    return Problem("bowl", dim, evaluate, np.full(dim, -10.0), np.full(dim, 10.0))


def descend(name: str, problem: Problem, *, seeds=(0, 1, 2), budget=200, gradient_cost=0.0, init="uniform", **settings):
    return run_batch(
        partial(gradient.DESCENTS[name], gradient.SETTINGS[name](**settings)),
        problem,
        gradient="kept",
        turn_of=gradient.DescentTurn,
        seeds=seeds,
        pop_size=1,
        budget=budget,
        init=init,
        gradient_cost=gradient_cost,
        dtype=torch.float64,
    )


def start_of(problem: Problem, seed: int) -> torch.Tensor:
    """Where the run of one seed starts: the first draw of its stream."""
    space = Space.of(problem, 1, 1, "uniform", torch.float64, "cpu")
    return space.start(Streams([seed], torch.float32, "cpu"), 1)[0, 0].double()


def best_along(problem: Problem, points: list[torch.Tensor]) -> list[float]:
    """Best value so far."""
    return np.minimum.accumulate([float(problem(point)) for point in points]).tolist()


@pytest.mark.parametrize(("lr", "beta1", "beta2", "eps"), [(0.1, 0.9, 0.999, 1e-8), (0.03, 0.5, 0.9, 1e-3)])
def test_adam_is_torchs(lr, beta1, beta2, eps):
    problem, steps = bowl(), 60
    records = descend("adam", problem, budget=steps, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    for record in records:
        x = start_of(problem, record.seed).requires_grad_()
        optimiser, points = torch.optim.Adam([x], lr=lr, betas=(beta1, beta2), eps=eps), []
        for _ in range(steps):
            points.append(x.detach().clone())
            optimiser.zero_grad()
            problem(x).backward()
            optimiser.step()
        np.testing.assert_allclose(record.history, best_along(problem, points), rtol=1e-9)


def test_lion_is_the_published_update():
    """Program 1 of Chen et al., line by line, in NumPy."""
    problem, steps, lr, beta1, beta2 = bowl(), 60, 0.05, 0.9, 0.99
    for record in descend("lion", problem, budget=steps, lr=lr, beta1=beta1, beta2=beta2):
        x = start_of(problem, record.seed).numpy()
        momentum, points = np.zeros_like(x), []
        for _ in range(steps):
            points.append(torch.from_numpy(x.copy()))
            grad = 2 * np.arange(1, 5) * (x - 3)
            update = np.sign(beta1 * momentum + (1 - beta1) * grad)
            momentum = beta2 * momentum + (1 - beta2) * grad
            x = x - lr * update
        np.testing.assert_allclose(record.history, best_along(problem, points), rtol=1e-9)


def test_lbfgs_is_scipys_from_adams_start():
    problem = make_problem("rosenbrock", 3)
    settings = gradient.LBFGSSettings()
    record = gradient.run_lbfgs(problem, settings, seed=5, budget=400, init="uniform")
    values = []

    def objective(x):
        leaf = torch.tensor(x, requires_grad=True)
        value = problem(leaf)
        value.backward()
        values.append(float(value.detach()))
        return values[-1], leaf.grad.numpy()

    scipy_minimize(objective, start_of(problem, 5).numpy(), jac=True, method="L-BFGS-B", bounds=[BOX] * 3)
    assert len(values) < 400
    known = record.evals <= len(values)
    assert known.sum() > 20
    indices = record.evals[known].astype(int) - 1
    np.testing.assert_array_equal(record.history[known], np.minimum.accumulate(values)[indices])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("gradient_cost", "steps"), [(0, 600), (5, 100), (1.5, 240)])
def test_every_step_is_an_evaluation_and_a_gradient(name, gradient_cost, steps):
    calls = 0

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += x.shape[:-1].numel()
        return bowl(2).evaluate(x)

    problem = Problem("counted", 2, counted, np.full(2, -10.0), np.full(2, 10.0))
    content = {"algo": name, "fn": "sphere", "dim": 2, "seeds": 3, "budget": 600, "gradient_cost": gradient_cost}
    cell = make_experiment(content).cell(name, problem, "cpu")
    assert (cell.pop_size, cell.gradient_cost) == (1, gradient_cost)
    for task in [Task(cell, (0,)), Task(cell, (1,))] if name == "lbfgs" else [Task(cell, (0, 1, 2))]:
        calls = 0
        records = execute(task, lambda share, best: None, problem=problem)
        assert {(record.f_evals, record.g_evals) for record in records} == {(steps, steps)}
        assert all(record.evals[-1] == steps * (1 + gradient_cost) for record in records)
        assert all((np.diff(record.evals) > 0).all() and len(record.evals) <= 200 for record in records)
        assert calls == steps * len(task.seeds)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_depends_on_its_own_seed_alone(name):
    content = {"algo": name, "fn": "griewank", "dim": 5, "budget": 700, "protocol": "fair"}
    cell = make_experiment(content).cells()[0]

    def run(*seeds):
        if name == "lbfgs":
            return [execute(Task(cell, (seed,)), lambda share, best: None)[0] for seed in seeds]
        return execute(Task(cell, seeds), lambda share, best: None)

    together, alone = run(3, 8, 9), run(8)
    assert len({record.best_f for record in together}) == 3
    np.testing.assert_array_equal(together[1].best_x, alone[0].best_x)
    np.testing.assert_array_equal(together[1].history, alone[0].history)


def wells(x: torch.Tensor) -> torch.Tensor:
    """Several minima; a single start ends in the wrong one more often than not."""
    return (x.square() + 30 * (1 - torch.cos(2 * x))).sum(-1)


@pytest.mark.parametrize(("name", "settings"), [("adam", {"lr": 0.3}), ("lion", {"lr": 0.1}), ("lbfgs", {})])
def test_a_start_that_stagnates_is_followed_by_another(name, settings):
    def best(**more):
        options = {"bounds": (-5, 5), "dim": 1, "seeds": 3, "budget": 1000}
        return evobench.minimize(wells, name, settings={**settings, **more}, **options).fun

    assert (best(**({} if name == "lbfgs" else {"patience": 60})) < 0.2).all(), "one of the starts finds the best well"
    if name != "lbfgs":
        assert (best(patience=None) > 1).any(), "and a single one does not"


def test_a_new_start_knows_nothing_of_the_last():
    """From any point of a plane the first step of Adam is lr along the sign: after a restart too."""
    slope = torch.tensor([1.0, -2.0], dtype=torch.float64)
    points = []

    def plane(x: torch.Tensor) -> torch.Tensor:
        points.append(x.detach().clone())
        return (x - x.detach()) @ slope  # always 0, so that nothing is progress; its gradient is the slope

    problem = Problem("plane", 2, plane, np.full(2, -1e3), np.full(2, 1e3))
    descend("adam", problem, budget=40, patience=4, lr=0.25, beta1=0.5, beta2=0.5)
    moves = torch.cat(points, 1).diff(dim=1)  # [seeds, 39, 2]
    jumps = moves.abs().amax(-1) > 0.26
    assert jumps[:, 4::5].float().mean() > 0.8, "after every first value and four steps without progress"
    steps = moves[~jumps]
    torch.testing.assert_close(steps, -0.25 * slope.sign().expand_as(steps), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_points_stay_in_the_box_and_find_its_corner(name):
    low, high = -1.0, 2.0
    seen = []

    def slope(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return x.sum(-1)

    settings = {} if name == "lbfgs" else {"lr": 0.1}
    result = evobench.minimize(slope, name, bounds=(low, high), dim=3, seeds=2, budget=400, settings=settings)
    assert all(((low <= x) & (x <= high)).all() for x in seen)
    np.testing.assert_allclose(result.x, low, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_never_the_best(name):
    def holes(x: torch.Tensor) -> torch.Tensor:
        value = x.square().sum(-1)
        return torch.where(value < 1, torch.nan, value)

    settings = {} if name == "lbfgs" else {"lr": 0.5}
    result = evobench.minimize(holes, name, bounds=(-5, 5), dim=2, seeds=3, budget=300, settings=settings)
    assert (result.fun >= 1).all()
    assert (result.fun < 10).all()


def test_no_gradient_is_refused(refused):
    with refused("not differentiable", "'blind'"):

        def blind(x):
            return x.detach().square().sum(-1)

        evobench.minimize(blind, "adam", bounds=(-5, 5), dim=2, budget=100)


def test_a_budget_for_no_step_is_refused(refused):
    with refused("budget 5 is too small", "adam costs 6"):
        make_experiment({"algo": "adam", "fn": "ackley", "dim": 2, "budget": 5, "protocol": "fair"}).cells()


def test_scipys_version_identifies_lbfgs_alone(monkeypatch):
    def hashes():
        content = {"algo": "adam,lbfgs,ga,ga_diff", "fn": "sphere", "dim": 2}
        return {cell.algo: cell.settings_hash for cell in make_experiment(content).cells()}

    before = hashes()
    monkeypatch.setitem(ALGORITHMS, "lbfgs", replace(ALGORITHMS["lbfgs"], versions={"scipy": "9.9"}))
    after = hashes()
    assert {algo for algo in before if before[algo] != after[algo]} == {"lbfgs"}
