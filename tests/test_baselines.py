"""pymoo's algorithms: the authors' settings, an honest budget, and the seed alone deciding."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import cma
import numpy as np
import pytest
import torch
from cma.sigma_adaptation import CMAAdaptSigmaCSA, CMAAdaptSigmaTPA
from hypothesis import given
from hypothesis import strategies as st
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.algorithms.soo.nonconvex.de import DE
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.algorithms.soo.nonconvex.pso import PSO
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import FloatRandomSampling
from pymoo.optimize import minimize

from evobench.algorithms import ALGORITHMS
from evobench.baselines import pymoo as baselines
from evobench.problems import Problem, make_problem
from evobench.record import MAX_HISTORY, RunRecord, history_points

NAMES = tuple(baselines.SETTINGS)
CMA = ("cmaes", "cmaes_tpa")


class Log:
    """A problem that remembers every point it is asked for, in order."""

    def __init__(self, problem: Problem) -> None:
        self.calls: list[np.ndarray] = []
        self.problem = replace(problem, evaluate=self._evaluate)
        self.function = problem

    def _evaluate(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(x.numpy().copy())
        return self.function.evaluate(x)

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self.calls)


def run(name: str, problem: Problem | None = None, **changes: Any) -> RunRecord:
    """A short run; `settings` are the ones that differ."""
    options = {"seed": 0, "budget": 137, "pop_size": 10, "init": "uniform", **changes}
    settings = baselines.SETTINGS[name](**options.pop("settings", {}))
    return baselines.run(name, problem or make_problem("ackley", 3), settings, **options)


def same(one: RunRecord, other: RunRecord) -> bool:
    """Equal to the bit in everything but time."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(RunRecord)]
    return all(
        np.array_equal(a, b) for (a, b), field in zip(pairs, fields(RunRecord), strict=True) if field.name != "wall_s"
    )


# The budget


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("budget", "pop_size"), [(137, 10), (100, 10), (10, 10), (25, 25), (26, 25), (21, 6)])
@pytest.mark.parametrize("init", ["uniform", "centre"])
def test_the_best_of_exactly_the_budget(name, budget, pop_size, init):
    """pymoo checks between generations and its start-up points come on top: none of that counts."""
    log = Log(make_problem("griewank", 3).shifted(np.array([50.0, -30.0, 7.0])))
    record = run(name, log.problem, budget=budget, pop_size=pop_size, init=init)
    points = log.points + log.problem.shift.numpy()  # the log sees them after the shift
    assert record.f_evals == budget <= len(points)
    assert record.g_evals == 0
    assert record.stop_reason == "budget"
    values = log.function(points[:budget])
    assert record.best_f == pytest.approx(values.min(), rel=1e-12)
    np.testing.assert_allclose(record.best_x, points[values.argmin()], atol=1e-12)
    assert log.function(record.best_x) == record.best_f
    assert record.history[-1] == record.best_f
    assert (np.abs(points) <= 100 + 1e-9).all(), "never outside the box"


@pytest.mark.parametrize("name", NAMES)
def test_a_better_point_past_the_budget_does_not_count(name):
    """Values fall with every evaluation, so the last counted one is the best."""
    count = 0

    def falling(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        value = -torch.arange(count, count + x.shape[0], dtype=torch.float64)
        count += x.shape[0]
        return value

    record = run(name, replace(make_problem("sphere", 3), evaluate=falling), budget=55)
    assert count > 55
    assert record.best_f == -54
    assert record.f_evals == 55


@pytest.mark.filterwarnings("ignore:overflow encountered")  # pymoo's PSO compares distances of two particles
@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_population_works(name):
    record = run(name, pop_size=ALGORITHMS[name].min_pop, budget=60)
    assert record.f_evals == 60
    assert np.isfinite(record.best_f)


# The seed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("init", ["uniform", "centre"])
def test_the_seed_alone_decides(name, init):
    records = {}
    for seed in (0, 1, 7):
        records[seed] = run(name, seed=seed, init=init)
        np.random.seed(99)  # noqa: NPY002
        np.random.standard_normal(17)  # noqa: NPY002
        random.seed(5)
        torch.manual_seed(5)
        assert same(records[seed], run(name, seed=seed, init=init))
    assert not same(replace(records[0], seed=1), records[1])
    assert records[0].best_f != records[1].best_f != records[7].best_f


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_seed(name):
    assert run(name, seed=10**9 - 1, budget=30).f_evals == 30


# The authors' settings


def by_hand(name: str, pop_size: int, start: np.ndarray | None) -> Any:
    """As in FACTS.md §3, where CMA-ES has the step-size rule of the paper's time."""
    sampling = {} if start is None else {"sampling": start}
    if name == "pso":
        return PSO(pop_size=pop_size, **sampling)
    if name == "ga":
        return GA(
            pop_size=pop_size,
            sampling=FloatRandomSampling() if start is None else start,
            crossover=SBX(prob=0.9, eta=15),
            mutation=PM(eta=20),
            eliminate_duplicates=True,
        )
    if name == "de":
        sampling = FloatRandomSampling() if start is None else start
        return DE(pop_size=pop_size, sampling=sampling, variant="DE/rand/1/bin", CR=0.9, dither="vector", jitter=False)
    own = {} if start is None else {"x0": start[0], "sigma": 0.5 / 200}
    return CMAES(
        popsize=pop_size,
        restarts=0,
        AdaptSigma=CMAAdaptSigmaCSA if name == "cmaes" else CMAAdaptSigmaTPA,
        **own,
    )


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("init", ["uniform", "centre"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_points_as_pymoo_called_directly(name, init, seed):
    log = Log(make_problem("ackley", 4))
    run(name, log.problem, seed=seed, init=init, budget=300, pop_size=20)

    class Direct(PymooProblem):
        calls: list[np.ndarray]

        def _evaluate(self, x, out, *args, **kwargs):
            self.calls.append(x.copy())
            out["F"] = make_problem("ackley", 4)(x)

    direct = Direct(n_var=4, n_obj=1, xl=-100.0, xu=100.0)
    direct.calls = []
    start = log.points[:20] if init == "centre" else None
    pymoo_seed = seed + 1 if name in CMA else seed  # cma takes 0 for the clock
    minimize(direct, by_hand(name, 20, start), ("n_eval", 300), seed=pymoo_seed)
    np.testing.assert_array_equal(log.points, np.concatenate(direct.calls))


CHANGED = {
    "ga": {"eta_c": 3, "crossover_rate": 0.1, "eta_m": 3},
    "de": {"variant": "DE/best/1/bin", "crossover_rate": 0.1},
    "pso": {"adaptive": False},
    "cmaes": {"sigma0": 3, "tolfun": 1e9, "tolx": 10},
    "cmaes_tpa": {"sigma0": 3, "tolfun": 1e9, "tolx": 10},
}


def test_every_setting_is_tried_below():
    assert {name: set(model.model_fields) for name, model in baselines.SETTINGS.items()} == {
        name: set(changed) for name, changed in CHANGED.items()
    }


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, changed in CHANGED.items() for key in changed])
def test_every_setting_reaches_pymoo(name, key):
    plain = run(name, budget=300)
    assert not same(run(name, budget=300, settings={key: CHANGED[name][key]}), plain)


# CMA-ES


@pytest.fixture
def strategies(monkeypatch) -> list[Any]:
    """Every object of cma's that a run makes."""
    made: list[Any] = []
    real = cma.CMAEvolutionStrategy.__init__

    def remember(self, *args, **kwargs):
        made.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(cma.CMAEvolutionStrategy, "__init__", remember)
    return made


@pytest.mark.parametrize("dim", [3, 500])
@pytest.mark.parametrize(("name", "rule"), [("cmaes", CMAAdaptSigmaCSA), ("cmaes_tpa", CMAAdaptSigmaTPA)])
def test_the_step_size_rule_is_the_one_of_its_name(name, rule, dim, strategies):
    """cma would choose by itself, and its choice at 500D depends on its version."""
    run(name, make_problem("sphere", dim), budget=50)
    (strategy,) = strategies
    assert type(strategy.adapt_sigma) is rule


@pytest.mark.parametrize(
    ("init", "settings", "sigma"),
    [("uniform", {}, 20), ("centre", {}, 0.5), ("uniform", {"sigma0": 3}, 3), ("centre", {"sigma0": 3}, 3)],
)
def test_the_first_step_size(init, settings, sigma, strategies):
    run("cmaes", init=init, settings=settings, budget=30)
    (strategy,) = strategies
    assert strategy.sigma0 * 200 == pytest.approx(sigma)
    assert strategy.popsize == 10


@pytest.mark.parametrize("name", CMA)
def test_an_early_stop_says_why(name, strategies):
    record = run(name, make_problem("sphere", 2), budget=50_000)
    (strategy,) = strategies
    assert record.f_evals < 50_000
    assert record.best_f < 1e-8
    assert record.stop_reason == "+".join(sorted(strategy.stop(check=False)))
    assert "tol" in record.stop_reason
    assert record.evals[-1] == record.f_evals
    coarse = run(name, make_problem("sphere", 2), budget=50_000, settings={"tolfun": 1e9})
    assert coarse.f_evals < record.f_evals
    assert coarse.stop_reason == "tolfun"


@pytest.mark.parametrize("name", CMA)
def test_it_never_restarts(name, strategies):
    run(name, make_problem("sphere", 2), budget=5000)
    assert len(strategies) == 1


def raise_in_tell(monkeypatch, error: BaseException) -> None:
    real, count = cma.CMAEvolutionStrategy.tell, 0

    def tell(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == 3:
            raise error
        return real(self, *args, **kwargs)

    monkeypatch.setattr(cma.CMAEvolutionStrategy, "tell", tell)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_ctrl_c_inside_cma_is_no_finished_run(error, monkeypatch):
    """pymoo swallows it and stops: half a run would be stored as a whole one."""
    raise_in_tell(monkeypatch, error)
    with pytest.raises(type(error)):
        run("cmaes")


def test_an_error_inside_cma_is_the_stop_reason(monkeypatch):
    raise_in_tell(monkeypatch, np.linalg.LinAlgError("Eigenvalues did not converge"))
    record = run("cmaes")
    assert record.f_evals < 137
    assert record.stop_reason == "LinAlgError"


# The start


@pytest.mark.parametrize("name", NAMES)
def test_the_centre_start_reaches_pymoo(name):
    """N(box centre, 0.5² I), here of a box whose centre is not 0; for CMA-ES the mean, and σ around it."""
    problem = replace(make_problem("sphere", 40), lower=np.full(40, 20.0), upper=np.full(40, 60.0))
    log = Log(problem)
    run(name, log.problem, init="centre", budget=40, pop_size=40)
    first = log.points[:1] if name in CMA else log.points[:40]
    assert np.abs(first - 40).max() < 3.5
    assert (first - 40).std() == pytest.approx(0.5, rel=0.25)
    assert len(np.unique(first)) == first.size
    if name in CMA:
        cloud = log.points[1:41]
        assert (cloud - first).std() == pytest.approx(0.5, rel=0.25)
    other = Log(problem)
    run(name, other.problem, init="centre", budget=40, pop_size=40, seed=1)
    assert (other.points[: len(first)] != first).all(), "each seed starts elsewhere"


@pytest.mark.parametrize("name", NAMES)
def test_the_uniform_start_fills_the_box(name):
    log = Log(make_problem("sphere", 40))
    run(name, log.problem, init="uniform", budget=40, pop_size=40)
    first = log.calls[0]
    assert len(first) == (20 if name in CMA else 40)
    assert first.min() < -95
    assert first.max() > 95
    assert first.std() == pytest.approx(200 / 12**0.5, rel=0.05)


def test_the_centre_start_stays_in_a_narrow_box():
    problem = replace(make_problem("sphere", 5), lower=np.full(5, -0.1), upper=np.full(5, 0.1))
    for name in NAMES:
        log = Log(problem)
        run(name, log.problem, init="centre", budget=30)
        assert np.abs(log.points).max() <= 0.1 + 1e-15


# History and progress


@given(st.one_of(st.integers(0, 1000), st.integers(0, 10**7)), st.integers(3, 500))
def test_history_points(count, limit):
    kept = history_points(count, limit)
    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    if count <= limit:
        assert kept.tolist() == list(range(count))
    else:
        assert kept[0] == 0
        assert kept[-1] == count - 1
        assert np.issubdtype(kept.dtype, np.integer)


def test_history_points_show_both_the_start_and_the_end():
    kept = history_points(5000)
    assert 150 < len(kept) <= MAX_HISTORY == 200
    assert kept[:5].tolist() == [0, 1, 2, 3, 4], "every generation of the start"
    assert np.diff(kept).max() <= 5000 / 99 + 1, "no gap at the end"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("budget", "pop_size"), [(137, 10), (1020, 5), (4, 4)])
def test_history(name, budget, pop_size):
    seen: list[tuple[int, float]] = []
    log = Log(make_problem("griewank", 3))
    record = run(
        name, log.problem, budget=budget, pop_size=pop_size, progress=lambda evals, best: seen.append((evals, best))
    )
    assert 1 <= len(record.evals) == len(record.history) <= MAX_HISTORY
    assert (np.diff(record.evals) > 0).all()
    assert (np.diff(record.history) <= 0).all()
    assert record.evals[-1] == record.f_evals
    assert record.history[-1] == record.best_f
    best = np.minimum.accumulate(log.function(log.points))
    np.testing.assert_allclose(record.history, best[record.evals - 1], rtol=1e-12)
    assert seen[0] == (record.evals[0], record.history[0])
    assert seen[-1] == (record.f_evals, record.best_f)
    kept = history_points(len(seen))
    assert [seen[index] for index in kept] == list(zip(record.evals, record.history, strict=True))


def test_a_long_run_keeps_200_points():
    record = run("de", budget=1000, pop_size=4)
    assert 100 <= len(record.evals) <= MAX_HISTORY
    assert record.evals[0] == 4


# Objectives that misbehave


def spoiled(where: str, value: float) -> Problem:
    """The sphere, with `value` in a part of the box."""
    sphere = make_problem("sphere", 3)

    def evaluate(x: torch.Tensor) -> torch.Tensor:
        mask = {"everywhere": x[..., 0] > -1e9, "half": x[..., 0] > 0, "nearly": x[..., 0] > -90}[where]
        return sphere.evaluate(x).masked_fill(mask, value)

    return replace(sphere, evaluate=evaluate)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # pymoo and cma subtract infinities
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["half", "nearly", "everywhere"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_never_the_best(name, where, value):
    log = Log(spoiled(where, value))
    record = run(name, log.problem, budget=300)
    values = log.function.evaluate(torch.from_numpy(log.points[: record.f_evals])).numpy()
    finite = values[np.isfinite(values)]
    assert record.best_f == (finite.min() if len(finite) else np.inf)
    assert len(record.history) >= 1
    assert not np.isnan(record.history).any()
    assert np.isfinite(record.best_x).all()
    if where == "half":
        assert record.f_evals == 300
        assert record.best_f < 1000
    assert record.stop_reason == "budget" if record.f_evals == 300 else record.stop_reason.startswith("tol")


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_objective(name):
    record = run(name, replace(make_problem("sphere", 3), evaluate=lambda x: torch.zeros(x.shape[:-1])))
    assert record.best_f == 0
    assert set(record.history) == {0.0}


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_that_raises_ends_the_run(name):
    def broken(x):
        raise ArithmeticError("no such number")

    with pytest.raises(ArithmeticError, match="no such number"):
        run(name, replace(make_problem("sphere", 3), evaluate=broken))


def test_a_run_without_anything_new_to_try():
    """pymoo's GA drops duplicates; in a box of one number it runs out of children."""
    problem = replace(make_problem("sphere", 1), lower=np.array([1.0]), upper=np.array([1.0 + 1e-15]))
    record = run("ga", problem, budget=100_000)
    assert record.f_evals < 100_000
    assert record.stop_reason == "no_offspring"
    assert record.evals[-1] == record.f_evals


def test_nothing_is_written_to_the_working_directory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        run(name, budget=40)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
