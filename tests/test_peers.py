"""Other libraries' optimisers and users' own: against the library called directly, and through an installed package."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cma
import numpy as np
import pytest
from conftest import Refused
from scipy.optimize import differential_evolution

import evobench
from evobench import algorithms, stats, testing, verify
from evobench.algorithms import ALGORITHMS, register
from evobench.baselines.asktell import PEERS, Peer, Start, by_asking, run
from evobench.evograd import FAMILIES
from evobench.experiment import make_experiment
from evobench.problems import make_problem
from evobench.runner import run_experiment
from evobench.store import Store, load_results

EXAMPLE = Path(__file__).parents[1] / "examples"
NEEDED = {name: pytest.mark.skipif(find_spec("evosax") is None, reason="evosax") for name in PEERS if "evosax" in name}
NAMES = [pytest.param(name, marks=NEEDED.get(name, ())) for name in PEERS]


def record_of(name, fn="ackley", dim=4, *, seed=3, budget=1000, init="uniform", settings=None, pop=None, **more):
    peer = PEERS[name]
    pop = pop or peer.own_pop(dim)
    chosen = peer.settings(**(settings or {}))
    return run(peer, make_problem(fn, dim), chosen, seed=seed, budget=budget, pop_size=pop, init=init, **more)


def test_pycma_is_cma_called_directly():
    record, problem = record_of("pycma", "rosenbrock", budget=800), make_problem("rosenbrock", 4)
    x0 = Start(problem, 3, 8, "uniform").points(1)[0]
    es = cma.CMAEvolutionStrategy(x0, 20.0, {"bounds": [-100, 100], "seed": 4, "verbose": -9})
    best, evals = np.inf, 0
    while evals < 800:
        x = es.ask()
        values = problem(np.array(x))
        es.tell(x, values.tolist())
        best, evals = min(best, values.min()), evals + len(x)
    assert evals == record.f_evals == 800
    assert record.best_f == best


@pytest.mark.parametrize("step_size", ["csa", "tpa"])
def test_pycma_takes_the_step_size_rule_that_is_asked_for(step_size):
    assert (record_of("pycma", settings={"step_size": step_size}).best_f == record_of("pycma").best_f) == (
        step_size == "csa"
    )


def test_scipy_de_is_scipys_called_directly():
    problem = make_problem("griewank", 2)
    record = record_of("scipy_de", "griewank", dim=2, budget=10**6)
    direct = differential_evolution(lambda x: float(problem(x)), [(-100, 100)] * 2, rng=3)
    assert record.best_f == pytest.approx(direct.fun, rel=1e-12)
    assert record.f_evals == direct.nfev  # the polish included
    assert record.stop_reason == "converged"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("init", ["uniform", "centre"])
def test_counts_cuts_and_repeats(name, init):
    """Every evaluation, in the box, to the budget exactly; the seed alone decides."""
    seen = []
    problem = make_problem("griewank", 3)

    def spy(x):
        seen.append(x.reshape(-1, 3).numpy().copy())
        return problem.evaluate(x)

    spied = type(problem)("spy", 3, spy, problem.lower, problem.upper)
    settings = PEERS[name].settings()
    go = partial(run, PEERS[name], spied, settings, budget=331, pop_size=20, init=init)
    record = go(seed=5)
    points = np.concatenate(seen)
    assert len(points) == record.f_evals <= 331
    assert record.f_evals == 331 or record.stop_reason != "budget"
    assert np.abs(points).max() <= 100
    assert record.best_f == problem(points).min() == problem(record.best_x)
    assert record.evals[-1] == record.f_evals
    assert record.history[-1] == record.best_f
    assert (np.diff(record.history) <= 0).all()
    if init == "centre":
        assert np.abs(points[0]).max() < 5
    np.random.random(3)  # noqa: NPY002 - cma draws from numpy's global stream, and seeds it
    again, other = go(seed=5), go(seed=6)
    assert (again.best_f, again.f_evals) == (record.best_f, record.f_evals)
    assert other.best_f != record.best_f


def test_a_nan_never_wins():
    problem = make_problem("sphere", 3)
    bad = type(problem)("bad", 3, lambda x: x[..., 0] * np.nan, problem.lower, problem.upper)
    for name in ("pycma", "scipy_de"):
        record = run(PEERS[name], bad, PEERS[name].settings(), seed=0, budget=100, pop_size=15, init="uniform")
        assert record.best_f == np.inf


def test_a_listener_can_end_a_run():
    record = record_of("pycma", progress=lambda evals, best: evals >= 80)
    assert (record.f_evals, record.stop_reason) == (80, "callback")


def test_peers_go_through_the_store(tmp_path):
    """Their own populations, their versions in the hash, rows that verify, pairs that are compared."""
    content = {"algo": "cmaes_diff,pycma,scipy_de", "fn": "ackley", "dim": 3, "seeds": 3, "budget": 600}
    experiment = make_experiment(content)
    ours, pycma, scipy = experiment.cells()
    assert (ours.pop_size, pycma.pop_size, scipy.pop_size) == (100, 7, 45)
    assert {cell.pop_size for cell in make_experiment({**content, "pop": 30}).cells()} == {30}
    assert pycma.versions == {"cma": cma.__version__, "numpy": np.__version__}
    assert not ours.versions
    assert pycma.settings_hash != pycma.model_copy(update={"versions": {"cma": "3.0", "numpy": "2"}}).settings_hash
    run_experiment(experiment, tmp_path, jobs=1)
    assert not verify.verify(Store(tmp_path)).findings
    runs = load_results(tmp_path)
    assert set(stats.labels(runs).values()) == {"cmaes_diff", "pycma", "scipy_de"}
    assert stats.compare(runs)[["first", "second"]].to_numpy().tolist() == [["cmaes_diff", "pycma"]]
    assert [stats.lineage(name) for name in ("pycma", "evosax_de", "cmaes_tpa", "ga", "my_es", "es_diff")] == [
        ("cmaes", "pycma"),
        ("de", "evosax"),
        ("cmaes", "tpa"),
        ("ga", "pymoo"),
        ("my_es", "own"),
        ("es", "diff"),
    ]


@pytest.mark.skipif(find_spec("evosax") is not None, reason="evosax is installed")
def test_what_is_not_installed_says_what_it_needs(refused: Refused):
    with refused("evosax_cma", "needs the package evosax"):
        make_experiment({"algo": "evosax_cma", "fn": "ackley", "dim": 3})


# Users' own


class RandomSearch:
    """The shortest ask and tell there is."""

    def __init__(self, start, settings):
        self.start = start

    def ask(self):
        return self.start.points(self.start.pop)

    def tell(self, x, values):
        pass

    def stop(self):
        return ""


@pytest.fixture
def registry(monkeypatch):
    """A registry of which nothing remains."""
    monkeypatch.setattr(algorithms, "ALGORITHMS", ALGORITHMS)
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


def test_registering(registry, refused: Refused):
    register("random_search", Peer("random search", by_asking(RandomSearch)))
    result = evobench.minimize(
        lambda x: x.square().sum(-1), "random_search", bounds=(-1, 1), dim=2, seeds=2, budget=150
    )
    assert result.nfev.tolist() == [150, 150]
    assert len(ALGORITHMS["random_search"].versions["source"]) == 12
    with refused("'random_search' is there already"):
        register("random_search", Peer("again", by_asking(RandomSearch)))
    with refused("'ga_diff' is there already"):
        register("ga", FAMILIES["ga"])
    with refused("bad name 'My Search'"):
        register("My Search", FAMILIES["ga"])
    with refused("is no algorithm"):
        register("other", print)


def test_the_example_keeps_every_promise(registry, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from evolution_strategy import FAMILY

    register("es", FAMILY)
    for promise in testing.OF_FAMILIES:
        promise("es")
    for promise in testing.OF_ALGORITHMS:
        promise("es_guarded")
        promise("es_diff")


def test_a_broken_algorithm_is_caught(registry, monkeypatch):
    """The matrix is worth something: rows of different seeds that meet, noise that depends on parameters."""
    monkeypatch.syspath_prepend(EXAMPLE)
    from evolution_strategy import ES, FAMILY, Params

    class Mixed(ES):
        def commit(self, params, state, noise, x, fitness, log_sigma):
            new, state = super().commit(params, state, noise, x, fitness, log_sigma)
            return Params(new.mean.mean(0, keepdim=True).expand_as(new.mean), new.log_sigma), state

    class Greedy(ES):
        def noise(self, rng):
            return super().noise(rng)._replace(z=super().noise(rng).z * (1 + self.settings.lr))

    def with_maker(maker):
        return type(FAMILY)("broken", maker, FAMILY.settings)

    register("mixed", with_maker(Mixed))
    register("greedy", with_maker(Greedy))
    with pytest.raises(AssertionError):
        testing.a_run_depends_on_its_own_seed_alone("mixed_plain")
    with pytest.raises(AssertionError):
        testing.noise_does_not_depend_on_the_parameters("greedy")
    with pytest.raises(AssertionError, match="2 calls"):
        testing.noise_is_drawn_at_once("greedy")


PLUGIN = """
import torch
from evobench.evograd import FAMILIES
family = FAMILIES["pso"]

def bowl(x):
    return (x - 1).square().sum(-1)

bowl.lower, bowl.upper, bowl.f_opt = -5, 5, 0
"""
ENTRIES = """[evobench.algorithms]
swarm = myplugin:family
gone = myplugin:nothing
[evobench.problems]
bowl = myplugin:bowl
"""


def test_an_installed_package_brings_its_own(tmp_path):
    """Entry points, from `list` over workers to `verify`; one that fails names itself and stops nobody."""
    (tmp_path / "myplugin.py").write_text(PLUGIN)
    about = tmp_path / "myplugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: myplugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    package = Path(evobench.__file__).parents[1]
    script = f"""
import sys
sys.path[:0] = [{str(package)!r}, {str(tmp_path)!r}]
from evobench.cli import app
for line in (
    "list algorithms",
    "list functions",
    "run --algo swarm_diff,pso_plain --fn bowl --dim 2 --pop 5 --budget 50 --seeds 2 --jobs 1 --out out",
    "verify out",
    "run --algo gone --fn bowl --dim 2",
):
    try:
        app(line.split())
    except SystemExit as end:
        print("exit", end.code)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count("exit 0") == 4, done.stdout + done.stderr
    assert "swarm_guarded" in done.stdout
    assert "bowl" in done.stdout
    assert "all in order" in done.stdout
    assert "exit 2" in done.stdout
    assert "error: algorithm 'gone' is not available: the entry point myplugin:nothing failed" in done.stderr
    runs = load_results(tmp_path / "out")
    assert set(runs["fn"]) == {"bowl"}
    assert (runs["gap"] == runs["best_f"]).all()
    assert '"versions": {"source"' in runs.loc[runs["algo"] == "swarm_diff", "settings"].iloc[0]
